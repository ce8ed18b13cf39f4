// Where everything is and how it goes, as it happens.

import { html, useEffect, useReducer, useRef, useState } from "/static/vendor/htm-preact-3.1.1.mjs";
import { Chart, Seconds } from "/static/chart.mjs";
import { ago, address, coded, count, Empty, hasAnybody, labelOf, Loading, percent, Shares, spoken } from "/static/parts.mjs";
import { inWords, linkOf, Picture } from "/static/picture.mjs";

const MAX_ESCALATIONS = 12, MAX_ROWS = 100, MAX_ALERTS = 12, ALERTS_MS = 5000;

// Each request once, by the lowest tier that has told of it.
function newest(rows) {
  const kept = new Map();
  for (const row of rows) {
    const known = kept.get(row.request_id);
    if (!known || row.hop < known.hop) kept.set(row.request_id, row);
  }
  return [...kept.values()].slice(0, MAX_ESCALATIONS);
}

// Everything that was heard, changed in place; one drawing for all that came in one frame.
function useLive(api) {
  const state = useRef(null);
  state.current ||= {
    regions: new Map(), seconds: new Seconds(), escalations: [], rollouts: [], control: null, head: null,
    totals: null, isLive: false,
  };
  const [turn, draw] = useReducer((one) => one + 1, 0);
  useEffect(() => {
    const live = state.current;
    let frame = 0;
    const soon = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        draw();
      });
    };
    const then = (change) => (value) => {
      change(value);
      soon();
    };
    const end = api.events(
      "/api/v1/live",
      {
        history: then((all) => all.forEach((one) => live.seconds.put(one))),
        head: then((head) => {
          live.head = head;
        }),
        regions: then((all) => all.forEach((one) => live.regions.set(one.name, one))),
        totals: then((totals) => {
          live.totals = totals;
          live.seconds.put(totals.second);
        }),
        escalations: then((rows) => {
          live.escalations = newest([...rows.reverse(), ...live.escalations]);
        }),
        control: then((control) => {
          live.control = control;
        }),
        rollouts: then((rollouts) => {
          live.rollouts = rollouts;
        }),
      },
      (isLive) => {
        live.isLive = isLive;
        // Whoever comes back is told everything anew.
        if (isLive) live.escalations = [];
        soon();
      },
    );
    return () => {
      end();
      cancelAnimationFrame(frame);
    };
  }, []);
  return [state.current, turn];
}

// What is wrong and who was told of it, asked for again and again; null before it is known.
function useAlerts(api) {
  const [known, setKnown] = useState(null);
  useEffect(() => {
    let timer = 0, isOver = false;
    const ask = async () => {
      try {
        const { alerts } = await api.get("/api/v1/alerts");
        setKnown({ alerts: alerts.filter((one) => one.phase !== "recovered"), problem: "" });
      } catch (error) {
        setKnown({ alerts: [], problem: error.message });
      }
      if (!isOver) timer = setTimeout(ask, ALERTS_MS);
    };
    ask();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, []);
  return known;
}

function useWidth() {
  const box = useRef(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const watching = new ResizeObserver(() => setWidth(box.current?.clientWidth || 0));
    watching.observe(box.current);
    return () => watching.disconnect();
  }, []);
  return [box, width];
}

const Big = ({ value, text, isBad = false }) => html`<div class=${`card big ${isBad ? "problem" : ""}`}>
  <strong>${value}</strong><span>${text}</span></div>`;

// The fuller one: of the logs that are read here, now, or of what telemetry has told of the last hour.
function overall(regions, totals) {
  const perS = regions.reduce((sum, one) => sum + (one.traffic?.per_s || 0), 0);
  const isTold = regions.some((one) => one.traffic?.source === "telemetry" && one.traffic.per_s > 0);
  if (!isTold || perS <= totals.per_s) return { per_s: totals.per_s, shares: totals.shares, isTold: false };
  const shares = {};
  for (const { traffic } of regions) {
    for (const [tier, share] of Object.entries(traffic?.shares || {})) {
      shares[tier] = (shares[tier] || 0) + (share * traffic.per_s) / perS;
    }
  }
  return { per_s: perS, shares, isTold: true };
}

function Numbers({ regions, totals, control, rollouts, alerts }) {
  const sum = (name) => regions.reduce((total, one) => total + one.devices[name], 0);
  const total = sum("total"), there = sum("online") + sum("reporting");
  const running = rollouts.filter((one) => ["shadow", "canary", "wave"].includes(one.phase)).length;
  const stops = (control?.regions || []).reduce((all, one) => all + one.stops.length, 0);
  const overrides = (control?.regions || []).reduce((all, one) => all + one.overrides.length, 0);
  const { per_s: perS, shares, isTold } = overall(regions, totals);
  return html`<div class="bigs">
    <${Big} value=${perS.toFixed(1)} text=${`requests a second${isTold ? ", last hour" : ""}`} />
    <${Big} value=${percent(shares.edge || 0)} text="answered on the device" />
    <${Big} value=${totals.climbed_per_s.toFixed(1)} text="reach the cloud a second" />
    <${Big} value=${`${count(there)} of ${count(total)}`} text="devices there" />
    <${Big} value=${alerts ? alerts.length : "–"} text=${alerts?.length === 1 ? "alert" : "alerts"} isBad=${alerts?.length > 0} />
    <${Big} value=${stops} text=${stops === 1 ? "stop in force" : "stops in force"} />
    <${Big} value=${overrides} text=${overrides === 1 ? "override" : "overrides"} />
    <${Big} value=${running} text=${running === 1 ? "rollout on its way" : "rollouts on their way"} />
  </div>`;
}

const Table = ({ regions }) => html`<details class="card">
  <summary>The same as a table</summary>
  <div class="scroll"><table>
    <thead><tr><th>Region</th><th>Devices and link</th><th>Gateways</th><th>Models</th><th class="number">Requests/s</th><th>Answered by</th></tr></thead>
    <tbody>${regions.slice(0, MAX_ROWS).map(
      (one) => html`<tr>
        <th scope="row"><a href=${address("/fleet", { region: one.name })}>${one.name}</a></th>
        <td>${inWords(one)}</td>
        <td>${one.gateways.slice(0, 5).map((gateway) => `${gateway.name} (${gateway.stopped || gateway.state})`).join(", ")}</td>
        <td>${Object.entries(one.models).map(([name, number]) => `${name}: ${count(number)}`).join(", ")}</td>
        <td class="number">${(one.traffic?.per_s || 0).toFixed(1)}</td>
        <td><${Shares} shares=${one.traffic?.shares || {}} /></td>
      </tr>`,
    )}</tbody>
  </table></div>
  ${regions.length > MAX_ROWS && html`<p class="muted">The first ${MAX_ROWS} of ${count(regions.length)} regions.</p>`}
</details>`;

const Newest = ({ rows }) => html`<section class="card">
  <h2>Newest escalations</h2>
  ${rows.length
    ? html`<ul class="lines">${rows.map(
        (row) => html`<li key=${row.request_id}>
          <a href=${address("/escalations", { id: row.request_id })}>${labelOf(row)}</a>
          <span> ${row.tier} ${row.site}: ${spoken(row.decided_because)}</span>
          <span class="muted"> → ${row.answered_by || "nobody"}, ${ago(row.wall_s)}</span>
        </li>`,
      )}</ul>`
    : html`<p class="muted">None yet. They appear as tiers pass requests on; the cloud's own log and those of${" "}
        <code>operators.decision_logs</code> are read.</p>`}
</section>`;

const SEVERITIES = { page: "bad", ticket: "warn" };

const Alerts = ({ known }) => known && html`<section class="card">
  <h2>Alerts</h2>
  ${known.problem && html`<p class="problem">${known.problem}</p>`}
  ${known.alerts.length
    ? html`<ul class="lines">${known.alerts.slice(0, MAX_ALERTS).map(
        (one) => html`<li key=${one.key}>
          <span class=${`badge ${SEVERITIES[one.severity] || ""}`}>${one.silenced ? "silenced" : one.phase}</span>
          <strong> ${one.region} ${one.site}</strong> ${one.summary}<span class="muted">, ${ago(one.since_s)}</span>
          ${one.remedy && html`<br /><span class="muted">${coded(one.remedy)}</span>`}
        </li>`,
      )}</ul>
      ${known.alerts.length > MAX_ALERTS && html`<p class="muted">The first ${MAX_ALERTS} of ${count(known.alerts.length)};${" "}
        <code>tierwise alerts list</code> has all.</p>`}`
    : !known.problem && html`<p class="muted">Nothing is wrong.</p>`}
</section>`;

const Stated = ({ control }) => {
  const lines = (control?.regions || []).flatMap((region) =>
    [...region.stops, ...region.overrides].map((one) => ({ region: region.region, told: one.told })),
  );
  return html`<section class="card">
    <h2>In force</h2>
    ${control?.mode && html`<p class="problem">The cloud: ${control.notice}</p>`}
    ${lines.length
      ? html`<ul class="lines">${lines.slice(0, 12).map((one) => html`<li><strong>${one.region}</strong> ${one.told}</li>`)}</ul>`
      : html`<p class="muted">Nothing is stopped or overridden.</p>`}
    <p><a href="#/control">Stop, resume, override</a></p>
  </section>`;
};

function Overview({ api }) {
  const [live, turn] = useLive(api);
  const [box, width] = useWidth();
  const alerts = useAlerts(api);
  const regions = [...live.regions.values()].filter(hasAnybody).sort((one, other) => one.name.localeCompare(other.name));
  const own = live.regions.get(live.head?.cloud_region);
  const isThere = live.head && live.totals;
  return html`<h1>Overview</h1>
    <p class="muted" role="status">${live.isLive ? "Live." : isThere ? "The connection is gone; it is tried again. What you see is the last that was heard." : ""}</p>
    <div ref=${box}>
      ${!isThere
        ? html`<${Loading} />`
        : html`
          <${Numbers} regions=${regions} totals=${live.totals} control=${live.control} rollouts=${live.rollouts}
            alerts=${alerts && !alerts.problem ? alerts.alerts.filter((one) => one.phase !== "pending" && !one.silenced) : null} />
          ${live.totals.problems.map((text) => html`<p class="problem">${text}</p>`)}
          ${regions.some((one) => one.devices.total || one.num_gateways)
            ? html`<section aria-label="Hierarchy" class="card">
                ${width > 0 && html`<${Picture} width=${width - 34} regions=${regions} cloudRegion=${live.head.cloud_region}
                  clouds=${own?.clouds || []} totals=${live.totals} />`}
                <p class="legend muted"><span class="key key-edge"></span>edge <span class="key key-regional"></span>regional
                  <span class="key key-cloud"></span>cloud <span class="key key-nobody"></span>nobody ·
                  small square: gateway, dot: device; full: online, hollow: away; a device as a square: stopped${
                    regions.some((one) => one.devices.total > 48) ? "; of many devices a dot is a hundredth" : ""}</p>
              </section>`
            : html`<${Empty}>No gateway or device has said anything at the cloud's broker yet. Start one with${" "}
                <code>tierwise gateway run</code> or <code>tierwise agent run</code> and this broker in its settings; devices of
                other brokers appear when their telemetry arrives.<//>`}
          <${Table} regions=${regions} />`}
    </div>
    ${isThere && html`<section class="card"><h2>Requests a second</h2>
      <${Shares} shares=${overall(regions, live.totals).shares} />
      <${Chart} seconds=${live.seconds} turn=${turn} /></section>
      <div class="columns"><${Alerts} known=${alerts} /><${Newest} rows=${live.escalations} /><${Stated} control=${live.control} /></div>`}`;
}

export default { path: "/", title: "Overview", Page: Overview };
