// What climbs and why: bars by reason, label, model and region, the requests behind them, one story.

import { html } from "/static/vendor/htm-preact-3.1.1.mjs";
import {
  address, Bars, count, Empty, labelOf, Loaded, percent, spoken, useLoad, usePages, when,
} from "/static/parts.mjs";

const FILTERS = ["action", "reason", "label", "model", "version", "region", "tier", "site", "outcome", "answered_by"];
const TIMES = { 3600: "last hour", 86400: "last day", 604800: "last week" };
const TITLES = {
  reason: "Why the tier decided so", label: "Label", model: "Model", region: "Region", tier: "Tier",
  outcome: "Outcome", answered_by: "Answered by",
};

const chosen = (params) =>
  Object.fromEntries(FILTERS.map((name) => [name, params.get(name)]).filter(([, value]) => value));

function Filters({ params, wanted }) {
  const go = (values) => {
    location.hash = address("/escalations", values).slice(1);
  };
  const all = { last_s: params.get("last_s") || "", ...wanted };
  return html`<div class="filters" role="group" aria-label="Filters">
    <label>Time <select value=${params.get("last_s") || "86400"} onChange=${(event) => go({ ...all, last_s: event.target.value })}>
      ${Object.entries(TIMES).map(([value, text]) => html`<option value=${value}>${text}</option>`)}
    </select></label>
    <label>Decisions <select value=${wanted.action || ""} onChange=${(event) => go({ ...all, action: event.target.value })}>
      <option value="">all</option><option value="escalate">passed on</option><option value="answer">answered there</option>
    </select></label>
    ${Object.entries(wanted).filter(([name]) => name !== "action").map(
      ([name, value]) => html`<button class="quiet" onClick=${() => go({ ...all, [name]: "" })}
        aria-label=${`Remove the filter ${name} ${value}`}>${spoken(name)}: ${spoken(value)} ✕</button>`,
    )}
  </div>`;
}

function Counts({ api, params, wanted }) {
  const query = new URLSearchParams({ ...wanted, last_s: params.get("last_s") || "86400" });
  const found = useLoad(api, `/api/v1/requests/facets?${query}`);
  const narrow = (name, value) =>
    address("/escalations", { last_s: params.get("last_s") || "", ...wanted, [name]: value });
  return html`<${Loaded} from=${found}>${(said) =>
    !said.decisions
      ? html`<${Empty}>No decision is like that. Take a filter away, or a longer time. Devices tell what they have counted
          once a minute; until then only the decision logs on the cloud's own machine are read.<//>`
      : html`<p><strong>${count(said.decisions)}</strong> decisions of tiers, <strong>${count(said.escalated)}</strong>${" "}
          (${percent(said.escalated / said.decisions)}) passed the request on. <span class="muted">${
            said.from === "telemetry"
              ? "All that tiers have told of: every decision counts here."
              : "From the decision logs on the cloud's own machine alone."
          }</span></p>
        <div class="facets">${said.names.filter((name) => said.facets[name].length).map(
          (name) => html`<div class="card"><${Bars} caption=${TITLES[name]}
            rows=${said.facets[name].slice(0, 10).map((one) => ({
              value: one.value, count: one.count,
              text: name === "label" ? (one.value === "" ? "none" : one.name || `label ${one.value}`) : spoken(one.value),
            }))}
            href=${(row) => (row.value ? narrow(name, row.value) : undefined)} /></div>`,
        )}</div>`
  }<//>`;
}

function Requests({ api, params, wanted }) {
  const query = new URLSearchParams({ ...wanted, limit: "25" });
  const found = usePages(api, `/api/v1/requests?${query}`, "requests");
  const story = (row) =>
    address("/escalations", { last_s: params.get("last_s") || "", ...wanted, id: row.request_id, of: row.site });
  const sampled = found.first?.sampled;
  return html`<h2>Requests</h2>${
    sampled === null || sampled === undefined
      ? ""
      : html`<p class="muted">A sample of ${count(sampled)} decisions of all tiers, and the decision logs on the cloud's own
          machine: not every request that is counted above is here.</p>`
  }<${Loaded} from=${found}>${() =>
    found.rows.length === 0
      ? html`<${Empty}>No request is like that.<//>${
          found.hasMore && html`<p><button class="quiet" onClick=${found.more}>Look further back</button></p>`}`
      : html`<div class="scroll card"><table>
          <thead><tr><th>When</th><th>Answer</th><th>Answered by</th><th>Why</th><th>Tier asked first</th><th class="number">Confidence</th><th class="number">ms</th></tr></thead>
          <tbody>${found.rows.map((row) => html`<tr key=${`${row.request_id} ${row.site}`}>
            <td>${when(row.wall_s)}</td>
            <td><a href=${story(row)}>${labelOf(row)}</a><br /><span class="muted">${row.outcome}</span></td>
            <td>${row.answered_by || "nobody"}</td><td>${spoken(row.decided_because)}</td>
            <td>${row.tier} ${row.site}<br /><span class="muted">${row.region}, ${row.model} ${row.model_version}</span></td>
            <td class="number">${row.confidence === null ? "–" : row.confidence.toFixed(3)}</td>
            <td class="number">${row.latency_ms === null ? "–" : row.latency_ms.toFixed(1)}</td></tr>`)}</tbody>
        </table></div>
        ${found.first?.problems?.map((text) => html`<p class="problem">${text}</p>`)}
        ${found.hasMore && html`<p><button class="quiet" onClick=${found.more}>Show more</button></p>`}`
  }<//>`;
}

function Hop({ hop, tier }) {
  return html`<li class=${`hop hop-${hop.tier}`}>
    <h3>${hop.tier} <span class="muted">${hop.site}, ${hop.region}</span></h3>
    <p class="muted">${hop.model} ${hop.model_version} · ${hop.action === "escalate" ? "passed it on" : "answered"}: ${spoken(hop.because)} · ${(hop.service_us / 1000).toFixed(1)} ms of model${
        hop.latency_ms === null ? "" : `, ${hop.latency_ms.toFixed(1)} ms in all`}${
        hop.sent_bytes ? `, ${count(hop.sent_bytes)} bytes sent up` : ""}</p>
    ${(tier?.words || []).map((sentence) => html`<p>${sentence}</p>`)}
    ${tier?.otherwise?.length ? html`<p class="otherwise">${tier.otherwise.join(" ")}</p>` : ""}
  </li>`;
}

function Story({ api, params }) {
  const id = params.get("id");
  const site = new URLSearchParams(params.get("of") ? { site: params.get("of") } : {});
  const found = useLoad(api, `/api/v1/requests/${encodeURIComponent(id)}?${site}`);
  const back = address("/escalations", { ...chosen(params), last_s: params.get("last_s") || "" });
  return html`<p><a href=${back}>All requests</a></p><h1>Why was it answered so?</h1>
    <p class="muted wrap">Request ${id}</p>
    <${Loaded} from=${found}>${(story) => html`
      <div class="card ending">${story.ending.map((sentence) => html`<p>${sentence}</p>`)}</div>
      <ol class="hops">${story.hops.map((hop) => html`<${Hop} hop=${hop}
        tier=${story.tiers.find((one) => one.tier === hop.tier && (one.site || "") === hop.site)} />`)}</ol>
      ${(story.notes || []).map((note) => html`<p class="muted">${note}</p>`)}`}<//>`;
}

function Escalations({ api, params }) {
  if (params.get("id")) return html`<${Story} api=${api} params=${params} />`;
  const wanted = chosen(params);
  return html`<h1>Escalations</h1>
    <${Filters} params=${params} wanted=${wanted} />
    <${Counts} api=${api} params=${params} wanted=${wanted} />
    <${Requests} api=${api} params=${params} wanted=${wanted} />`;
}

export default { path: "/escalations", title: "Escalations", Page: Escalations };
