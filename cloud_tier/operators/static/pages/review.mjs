// Labelling by keyboard: one item at a time, with what tiers have answered only afterwards.
//
// Whatever is said to the reader, the port knows first: a reload finds the same item, and the same
// label sent twice counts once.

import { html, useCallback, useEffect, useRef, useState } from "/static/vendor/htm-preact-3.1.1.mjs";
import { Empty, Loading, useLoad } from "/static/parts.mjs";

const PREFIX = "/api/v1/reviews";
const UNDO_MS = 10_000;
// No letter of a command: s skips, u takes back, ? helps.
const KEYS = [..."1234567890", ..."abcdefghijklmnopqrtvwxyz"];
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}$/;

const path = (item, what = "") => `${PREFIX}/${encodeURIComponent(item)}${what}`;

function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const [name, length] = units.find(([, length]) => Math.abs(seconds) >= length) || units[3];
  return `${Math.floor(Math.abs(seconds) / length)} ${name}`;
}

function remembered() {
  try {
    return localStorage.getItem("tierwise-labeller") || "";
  } catch {
    return "";
  }
}

function Who({ onDone }) {
  const [problem, setProblem] = useState("");
  const field = useRef(null);
  useEffect(() => field.current?.focus(), []);
  const enter = (event) => {
    event.preventDefault();
    const name = new FormData(event.target).get("who").trim();
    if (!NAME.test(name)) return setProblem("A name is 1 to 64 letters, digits, spaces, '.', '_', '@' or '-'.");
    try {
      localStorage.setItem("tierwise-labeller", name);
    } catch {
      // It is asked for again next time.
    }
    onDone(name);
  };
  return html`<form class="card review-who" onSubmit=${enter}>
    <label for="who">Your name</label>
    <input id="who" name="who" ref=${field} autocomplete="username" maxlength="64" required />
    <p class="hint">It is kept with your labels, so that agreement can be told.</p>
    <button type="submit">Begin</button>
    <p role="alert" class="problem">${problem}</p>
  </form>`;
}

const WIDTH = 640, HEIGHT = 200;

function points(line, least, most) {
  const high = most > least ? most - least : 1;
  return line
    .map((value, at) => value === null ? "" : `${((at / Math.max(1, line.length - 1)) * WIDTH).toFixed(1)},${(HEIGHT - ((value - least) / high) * HEIGHT).toFixed(1)}`)
    .filter(Boolean).join(" ");
}

function Series({ api, item, name }) {
  const [lines, setLines] = useState([]);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    api.get(`${path(item, "/series")}?name=${encodeURIComponent(name)}`)
      .then((said) => setLines(said.lines), (error) => setProblem(error.message));
  }, [item, name]);
  if (problem) return html`<p class="problem">${problem}</p>`;
  const values = lines.flat().filter((value) => value !== null);
  const least = Math.min(...values), most = Math.max(...values);
  return html`<svg class="review-series" viewBox=${`-4 -4 ${WIDTH + 8} ${HEIGHT + 8}`} role="img"
      aria-label=${`${name}: ${lines.length} lines of ${lines[0] ? lines[0].length : 0} points`}>
    ${lines.map((line, number) => html`<polyline class=${`line-${number % 6}`} fill="none" stroke-width="1.6"
      vector-effect="non-scaling-stroke" points=${points(line, least, most)} />`)}
  </svg>
  <p class="hint">${lines.length ? `${least.toPrecision(3)} to ${most.toPrecision(3)}` : "Loading …"}</p>`;
}

function Inputs({ api, item }) {
  if (!item.inputs.length) {
    return html`<p class="muted">The inputs of this item have stayed where they are: label it on the device.</p>`;
  }
  const best = item.inputs[0];
  return html`${best.kind === "picture" && html`<img class="review-picture" alt=${`Input ${best.name}`}
      src=${`${path(item.item, "/picture")}?name=${encodeURIComponent(best.name)}`} />`}
    ${best.kind === "series" && html`<${Series} api=${api} item=${item.item} name=${best.name} />`}
    ${best.kind === "other" && html`<p class="muted">No picture and no series: fetch it with
      <code>tierwise review show ${item.item} --save inputs.npz</code></p>`}
    <p class="hint">${item.inputs.map((one) => `${one.name} ${one.datatype} ${one.shape.join("×")}`).join(", ")}</p>`;
}

function Told({ last }) {
  const { item, label } = last;
  const name = (number) => item.labels[number] ?? String(number);
  return html`<section class="card" aria-label="What tiers had answered">
    <h2>${label === null ? "Skipped" : `You said ${name(label)}`}</h2>
    <dl class="review-told">
      ${(item.answers || []).map((one) => html`<div>
        <dt>${one.tier}</dt>
        <dd class=${label === null || one.label === label ? "" : "differs"}>
          ${name(one.label)}${label !== null && (one.label === label ? " ✓" : " ≠")}</dd></div>`)}
    </dl>
    <p class="hint">${item.source.replace("_", " ")} · ${item.region}/${item.site} · ${item.model} ${item.version}</p>
  </section>`;
}

function Agreement({ api, tick }) {
  const [pairs, setPairs] = useState([]);
  useEffect(() => {
    api.get(`${PREFIX}/agreement`).then((said) => setPairs(said.pairs), () => setPairs([]));
  }, [tick]);
  return html`<section class="card" aria-label="Agreement">
    <h2>Agreement</h2>
    ${pairs.length ? html`<div class="scroll"><table>
      <thead><tr><th>People</th><th class="number">Items</th><th class="number">Same</th>
        <th class="number"><abbr title="Cohen's kappa: 1 is full agreement, 0 what chance would give">κ</abbr></th></tr></thead>
      <tbody>${pairs.map((one) => html`<tr><td>${one.first}, ${one.second}</td>
        <td class="number">${one.num_items}</td>
        <td class="number">${Math.round((100 * one.num_agreed) / one.num_items)} %</td>
        <td class="number">${one.kappa === null ? "–" : one.kappa.toFixed(2)}</td></tr>`)}</tbody>
    </table></div>` : html`<p class="muted">No two people have labelled the same item yet.</p>`}
  </section>`;
}

const Help = () => html`<section class="card" id="review-help" aria-label="Keys">
  <h2>Keys</h2>
  <p><kbd>1</kbd> to <kbd>0</kbd> and letters label, as on the buttons. <kbd>s</kbd> skips,
    <kbd>u</kbd> takes the last one back within ten seconds, <kbd>?</kbd> shows or hides this.</p>
</section>`;

function Standing({ counts, item }) {
  const states = counts.states || {};
  const open = (states.waiting || 0) + (states.assigned || 0) + (states.disputed || 0);
  const done = (states.labelled || 0) + (states.agreed || 0);
  const late = item && item.due_in_s < 0;
  return html`<div class="review-standing">
    <label>${done} of ${done + open} labelled
      <progress max=${Math.max(1, done + open)} value=${done}></progress></label>
    ${counts.overdue > 0 && html`<span class="badge bad">${counts.overdue} overdue</span>`}
    ${counts.half > 0 && html`<span class="badge warn">${counts.half} past half their time</span>`}
    ${item && html`<span class=${`badge ${late ? "bad" : item.age === "half" ? "warn" : ""}`}>
      waits ${span(item.age_s)}, ${late ? `${span(item.due_in_s)} late` : `due in ${span(item.due_in_s)}`}</span>`}
  </div>`;
}

function Review({ api, say }) {
  const [who, setWho] = useState(remembered());
  const [item, setItem] = useState(undefined);
  const [counts, setCounts] = useState({});
  const [last, setLast] = useState(null);
  const [tick, setTick] = useState(0);
  const [hasHelp, setHelp] = useState(false);
  const [spoken, setSpoken] = useState("");
  const busy = useRef(false);
  const begun = useRef(0);

  const next = useCallback(async () => {
    const said = await api.post(`${PREFIX}/next`, { who });
    setItem(said.item);
    setCounts(said);
    setTick((before) => before + 1);
    begun.current = performance.now();
    return said.item;
  }, [who]);

  // One thing at a time: a key that is held down labels nothing twice.
  const alone = async (work) => {
    if (busy.current) return;
    busy.current = true;
    try {
      await work();
    } catch (error) {
      say(error.message, "error");
      setSpoken(error.message);
    } finally {
      busy.current = false;
    }
  };

  const choose = (label) => alone(async () => {
    const spent = (performance.now() - begun.current) / 1000;
    const said = label === null
      ? await api.post(path(item.item, "/skip"), { who })
      : await api.post(path(item.item, "/label"), { who, label, spent_s: spent });
    say("");
    if (said.outcome === "counted" || said.outcome === "known") setLast({ item: said.item, label, at: performance.now() });
    const what = label === null ? "Skipped" : `Labelled ${item.labels[label] ?? label}`;
    const words = said.outcome === "counted" ? what : `Not counted: ${said.outcome}`;
    const found = await next();
    setSpoken(`${words}. ${found ? "Next item." : "Nothing more waits."}`);
  });

  const undo = () => alone(async () => {
    if (!last || performance.now() - last.at > UNDO_MS) return setSpoken("Nothing to take back.");
    const said = await api.post(path(last.item.item, "/undo"), { who });
    if (said.outcome !== "undone") return setSpoken(`Not taken back: ${said.outcome}.`);
    setLast(null);
    setItem(said.item);
    begun.current = performance.now();
    setSpoken("Taken back. Label it again.");
  });

  useEffect(() => {
    if (who) alone(next);
  }, [who]);

  useEffect(() => {
    const pressed = (event) => {
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
      if (!who || typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      const at = KEYS.indexOf(event.key);
      if (event.key === "?") setHelp((before) => !before);
      else if (event.key === "u") undo();
      else if (event.key === "s" && item) choose(null);
      else if (item && at >= 0 && at < item.labels.length && item.has_inputs) choose(at);
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [who, item, last]);

  if (!who) return html`<h1>Review</h1><${Who} onDone=${setWho} />`;
  return html`<div class="review-head"><h1>Review</h1>
      <button class="quiet" aria-expanded=${hasHelp} onClick=${() => setHelp(!hasHelp)}>Keys <kbd>?</kbd></button></div>
    <p class="visually-hidden" role="status" aria-live="polite" id="review-live">${spoken}</p>
    <${Standing} counts=${counts} item=${item} />
    ${hasHelp && html`<${Help} />`}
    <div class="review">
      <section class="card review-item" aria-label="Item" data-item=${item ? item.item : ""}>
        ${item === undefined && html`<p class="muted">Looking for an item …</p>`}
        ${item === null && html`<p id="review-done">Nothing waits for you. New items show up when you
          <button class="quiet" onClick=${() => alone(next)}>look again</button>.</p>`}
        ${item && html`<${Inputs} api=${api} item=${item} />
          <div class="review-labels" role="group" aria-label="Labels">
            ${item.labels.map((label, at) => html`<button key=${at} disabled=${!item.has_inputs}
              aria-keyshortcuts=${KEYS[at]} onClick=${() => choose(at)}><kbd>${KEYS[at] || ""}</kbd> ${label}</button>`)}
            <button class="quiet" aria-keyshortcuts="s" onClick=${() => choose(null)}><kbd>s</kbd> Skip</button>
            <button class="quiet" aria-keyshortcuts="u" disabled=${!last} onClick=${undo}><kbd>u</kbd> Undo</button>
          </div>`}
      </section>
      <div class="review-side">
        ${last && html`<${Told} last=${last} />`}
        <${Agreement} api=${api} tick=${tick} />
        <p class="hint">You label as ${who}. <button class="quiet" onClick=${() => {
          try { localStorage.removeItem("tierwise-labeller"); } catch { /* nothing is kept */ }
          setItem(undefined); setLast(null); setWho("");
        }}>Somebody else</button></p>
      </div>
    </div>`;
}

const Off = () => html`<${Empty}>Nobody can label here: the cloud tier keeps no answers that wait for people. Install${" "}
  <code>tierwise[cloud]</code> where it runs, set <code>telemetry.enabled</code>, and start it again
  (docs/review.md says what it is for).<//>`;

function Page({ api, say }) {
  const features = useLoad(api, "/api/v1/features");
  if (features.isLoading) return html`<h1>Review</h1><${Loading} />`;
  if (features.value && !features.value.telemetry) return html`<h1>Review</h1><${Off} />`;
  return html`<${Review} api=${api} say=${say} />`;
}

export default { path: "/review", title: "Review", Page };
