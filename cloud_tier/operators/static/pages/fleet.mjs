// Every device and gateway that is known, to be searched; which versions there are, and who is silent.

import { html, useState } from "/static/vendor/htm-preact-3.1.1.mjs";
import { address, ago, Bars, count, Empty, hasAnybody, Loaded, useLoad, usePages } from "/static/parts.mjs";

const STATES = ["", "online", "offline", "draining", "stopped", "reporting", "silent"];
const TIERS = ["", "edge", "regional", "cloud"];

function Search({ params }) {
  const [text, setText] = useState(params.get("q") || "");
  const now = Object.fromEntries(params);
  const go = (values) => {
    location.hash = address("/fleet", { ...now, ...values }).slice(1);
  };
  return html`<form class="filters" role="search" onSubmit=${(event) => {
    event.preventDefault();
    go({ q: text.trim() });
  }}>
    <label>Name or version <input type="search" value=${text} maxlength="128" onInput=${(event) => setText(event.target.value)} /></label>
    <label>State <select value=${params.get("state") || ""} onChange=${(event) => go({ state: event.target.value })}>
      ${STATES.map((one) => html`<option value=${one}>${one || "all"}</option>`)}</select></label>
    <label>Tier <select value=${params.get("tier") || ""} onChange=${(event) => go({ tier: event.target.value })}>
      ${TIERS.map((one) => html`<option value=${one}>${one || "all"}</option>`)}</select></label>
    <button type="submit">Search</button>
    ${params.get("region") && html`<button type="button" class="quiet" onClick=${() => go({ region: "" })}>region: ${params.get("region")} ✕</button>`}
  </form>`;
}

function Versions({ api, region }) {
  const found = useLoad(api, "/api/v1/hierarchy");
  return html`<${Loaded} from=${found}>${(said) => {
    const regions = said.regions.filter((one) => hasAnybody(one) && (!region || one.name === region));
    const added = (name) => {
      const total = {};
      regions.forEach((one) => Object.entries(one[name]).forEach(([key, number]) => {
        total[key] = (total[key] || 0) + number;
      }));
      return Object.entries(total).sort((one, other) => other[1] - one[1]).slice(0, 8)
        .map(([text, number]) => ({ text, count: number }));
    };
    const away = regions.reduce((sum, one) => sum + one.devices.offline + one.devices.silent, 0);
    const oldest = Math.min(...regions.map((one) => one.away_since_s || Infinity));
    return html`<p>${count(regions.reduce((sum, one) => sum + one.devices.total, 0))} devices in ${count(regions.length)} regions,${" "}
        <a href=${address("/fleet", { region: region || "", state: "offline" })}>${count(away)} away</a>${
          away && Number.isFinite(oldest) ? `, the longest since ${ago(oldest)}` : ""}.${" "}${said.num_left_out ? html`<span class="problem">${count(said.num_left_out)} more than can be kept were left out.</span>` : ""}</p>
      <div class="facets">
        <div class="card"><${Bars} caption="Models on devices" rows=${added("models")}
          href=${(row) => address("/fleet", { region: region || "", q: row.text })} /></div>
        <div class="card"><${Bars} caption="Software" rows=${added("software")}
          href=${(row) => address("/fleet", { region: region || "", q: row.text })} /></div>
      </div>`;
  }}<//>`;
}

function Fleet({ api, params }) {
  const query = new URLSearchParams(params);
  query.set("limit", "100");
  const found = usePages(api, `/api/v1/devices?${query}`, "devices");
  return html`<h1>Fleet</h1>
    <${Search} key=${params.get("q")} params=${params} />
    <${Versions} api=${api} region=${params.get("region")} />
    <${Loaded} from=${found}>${() => found.rows.length === 0
      ? html`<${Empty}>${found.first.num_sites ? "Nobody is like that: search for less." :
          "Nobody has said anything at the cloud's broker yet. Devices appear here as they connect."}<//>`
      : html`<div class="scroll card"><table>
          <thead><tr><th>Name</th><th>Region</th><th>Tier</th><th>State</th><th>Models</th><th>Software</th><th>Since</th></tr></thead>
          <tbody>${found.rows.map((row) => html`<tr key=${`${row.region}/${row.tier}/${row.name}`}>
            <th scope="row">${row.name}</th><td>${row.region}</td><td>${row.tier}</td>
            <td><span class=${`state state-${row.stopped ? "stopped" : row.state}`}>${row.state}${row.stopped ? `, ${row.stopped}` : ""}${row.retired ? ", retired, yet it speaks" : ""}</span></td>
            <td>${row.models.join(", ")}</td><td>${row.software}</td><td>${ago(row.since_s)}</td></tr>`)}</tbody>
        </table></div>
        ${found.hasMore && html`<p><button class="quiet" onClick=${found.more}>Show more</button></p>`}`}<//>`;
}

export default { path: "/fleet", title: "Fleet", Page: Fleet };
