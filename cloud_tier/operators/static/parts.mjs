// What several pages share: asking with loading and error states, numbers, bars, confirmations.

import { html, useEffect, useRef, useState } from "/static/vendor/htm-preact-3.1.1.mjs";

export const TIERS = ["edge", "regional", "cloud", "nobody"];

// The answer to a path: { value, error, isLoading, again }.
export function useLoad(api, path) {
  const [state, setState] = useState({ path: null, value: null, error: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let isOver = false;
    const done = (value, error) => isOver || setState({ path, value, error });
    api.get(path).then(
      (value) => done(value, null),
      (error) => done(null, error),
    );
    return () => {
      isOver = true;
    };
  }, [path, turn]);
  return {
    value: state.path === path ? state.value : null,
    error: state.path === path ? state.error : null,
    isLoading: state.path !== path,
    again: () => setTurn(turn + 1),
  };
}

// A list that is asked for page by page: { rows, more(), error, isLoading, first }.
export function usePages(api, path, name) {
  const [state, setState] = useState({ path: null, rows: [], next: "", first: null, error: null });
  const [turn, setTurn] = useState(0);
  const ask = async (cursor) => {
    const mark = path.includes("?") ? "&" : "?";
    return api.get(cursor ? `${path}${mark}cursor=${encodeURIComponent(cursor)}` : path);
  };
  useEffect(() => {
    let isOver = false;
    ask("").then(
      (said) => isOver || setState({ path, rows: said[name], next: said.next, first: said, error: null }),
      (error) => isOver || setState({ path, rows: [], next: "", first: null, error }),
    );
    return () => {
      isOver = true;
    };
  }, [path, turn]);
  const isLoading = state.path !== path;
  return {
    rows: isLoading ? [] : state.rows,
    first: isLoading ? null : state.first,
    error: isLoading ? null : state.error,
    isLoading,
    again: () => setTurn(turn + 1),
    hasMore: !isLoading && Boolean(state.next),
    more: async () => {
      try {
        const said = await ask(state.next);
        setState({ ...state, rows: [...state.rows, ...said[name]], next: said.next });
      } catch (error) {
        setState({ ...state, error });
      }
    },
  };
}

export const Loading = () => html`<p class="muted" role="status">Loading …</p>`;

export const Empty = ({ children }) => html`<div class="card empty"><p>${children}</p></div>`;

export const Problem = ({ error, again }) => html`<div class="card problem" role="alert">
  <p>${error.message}</p>
  ${again && html`<button class="quiet" onClick=${again}>Try again</button>`}
</div>`;

// One of loading, problem, or what `children` make of the value.
export function Loaded({ from, children }) {
  if (from.error) return html`<${Problem} error=${from.error} again=${from.again} />`;
  if (from.isLoading) return html`<${Loading} />`;
  return children(from.value);
}

export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;

export const count = (number) => Number(number || 0).toLocaleString("en");

export function when(wallS) {
  if (!wallS) return "–";
  return new Date(wallS * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function ago(wallS) {
  if (!wallS) return "–";
  const s = Math.max(0, Date.now() / 1000 - wallS);
  if (s < 90) return `${Math.round(s)} s ago`;
  if (s < 5400) return `${Math.round(s / 60)} min ago`;
  if (s < 129600) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86400)} days ago`;
}

// Words with `code` in them.
export const coded = (text) => text.split("`").map((one, at) => (at % 2 ? html`<code>${one}</code>` : one));

export const spoken = (word) => String(word || "none").replaceAll("_", " ");

// Where all is out of service and nothing is asked any more, there is nothing to see.
export const hasAnybody = ({ devices, num_gateways, clouds, traffic }) =>
  devices.total + num_gateways + clouds.length + (traffic?.per_s || 0) > 0;

export const labelOf = (row) =>
  row.label_name || (row.label === null || row.label === undefined ? "none" : `label ${row.label}`);

// An address inside the dashboard; empty values are left out.
export function address(path, values) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value));
  const text = query.toString();
  return `#${path}${text ? `?${text}` : ""}`;
}

// Shares of tiers as one bar; its meaning is in words beside it, for whoever sees no colours.
export function Shares({ shares, isNamed = true }) {
  const parts = TIERS.filter((tier) => shares[tier]);
  let at = 0;
  const text = parts.map((tier) => `${tier} ${percent(shares[tier])}`).join(", ") || "no requests";
  return html`<div class="shares">
    <svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label=${`Answered by: ${text}`}>
      <rect width="100" height="8" class="fill-none-yet" />
      ${parts.map((tier) => {
        const from = at;
        at += 100 * shares[tier];
        return html`<rect x=${from} width=${at - from} height="8" class=${`fill-${tier}`} />`;
      })}
    </svg>
    ${isNamed && html`<p class="muted">${text}</p>`}
  </div>`;
}

// Bars with a name and a number each; a bar is a link where `href` gives one.
export function Bars({ rows, href, caption }) {
  const top = Math.max(1, ...rows.map((row) => row.count));
  return html`<table class="bars">
    <caption>${caption}</caption>
    <tbody>
      ${rows.map(
        (row) => html`<tr>
          <th scope="row">${href ? html`<a href=${href(row)}>${row.text}</a>` : row.text}</th>
          <td>
            <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
              <rect width=${(100 * row.count) / top} height="10" class="fill-accent" />
            </svg>
          </td>
          <td class="number">${count(row.count)}</td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}

// A dialog of the browser; `children` is a form's inside, `onDone` gets its FormData.
export function Dialog({ title, action, isDanger, word, children, onDone, onClose }) {
  const box = useRef(null);
  const [problem, setProblem] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [typed, setTyped] = useState("");
  useEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    return () => before?.focus?.();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setProblem("");
    try {
      await onDone(new FormData(event.target));
      onClose();
    } catch (error) {
      setProblem(error.message);
      setBusy(false);
    }
  };
  return html`<dialog ref=${box} onClose=${onClose} aria-labelledby="dialog-title">
    <form onSubmit=${submit}>
      <h2 id="dialog-title">${title}</h2>
      ${children}
      ${word &&
      html`<label>Type <strong>${word}</strong> to confirm
        <input name="confirm" autocomplete="off" required value=${typed}
          onInput=${(event) => setTyped(event.target.value)} /></label>`}
      <${Who} />
      <p role="alert" class="problem">${problem}</p>
      <div class="row">
        <button type="submit" class=${isDanger ? "danger" : ""} disabled=${isBusy || Boolean(word && typed !== word)}>
          ${action}
        </button>
        <button type="button" class="quiet" onClick=${onClose}>Cancel</button>
      </div>
    </form>
  </dialog>`;
}

// Who asks and why: every change says it.
export const Who = () => html`<label>Why
    <input name="why" required maxlength="500" autocomplete="off" /></label>
  <label>Your name
    <input name="by" required maxlength="128" autocomplete="name" value=${localStorage.getItem("by") || ""}
      onChange=${(event) => localStorage.setItem("by", event.target.value)} /></label>`;

// A form's entries as an object of trimmed texts.
export const entries = (form) =>
  Object.fromEntries([...form].map(([name, value]) => [name, String(value).trim()]));
