// Stops and overrides: what is in force, and changing it. Every change says who and why.

import { html, useEffect, useState } from "/static/vendor/htm-preact-3.1.1.mjs";
import { count, Dialog, Empty, entries, Loaded, spoken, useLoad, when } from "/static/parts.mjs";

const SCOPES = ["all", "region", "model", "device"];
const KINDS = ["ban", "pin", "tier", "boost", "withhold", "replace"];
const UNITS = { m: 60, h: 3600, d: 86400 };

const Region = ({ control }) => html`<label>Region that retains it
  <select name="region">${control.known_regions.slice(0, 500).map((one) => html`<option value=${one}>${one}${
    one === control.cloud_region ? " (reaches all below)" : ""}</option>`)}</select></label>`;

function Scope({ first }) {
  const [scope, setScope] = useState(first);
  return html`<label>Scope <select name="scope" value=${scope} onChange=${(event) => setScope(event.target.value)}>
      ${SCOPES.map((one) => html`<option value=${one}>${one}</option>`)}</select></label>
    ${scope !== "all" && html`<label>Name of the ${scope}${scope === "model" ? " (or model@version)" : ""}
      <input name="target" required maxlength="128" autocomplete="off" /></label>`}`;
}

function told(say, standing) {
  const known = `known to ${count(standing.online - standing.num_missing)} of ${count(standing.online)} that are online`;
  if (standing.problem) say(`${standing.region}: ${standing.problem}`, "error");
  else if (standing.num_missing) say(`${standing.region}: ${known}; not yet to ${standing.missing.slice(0, 5).join(", ")}`, "error");
  else say(`Done. ${standing.region}: ${known}.${standing.is_audited ? "" : " It could not be written into the audit."}`);
}

function Kill({ api, control, say, onClose, again }) {
  const kill = async (form) => {
    const said = entries(form);
    const { region, scope, mode, why, by, target = "" } = said;
    told(say, await api.post("/api/v1/control/kill", { region, scope, mode, why, by, target }));
    again();
  };
  return html`<${Dialog} title="Stop" action="Stop it" isDanger word="stop" onDone=${kill} onClose=${onClose}>
    <${Region} control=${control} />
    <${Scope} first="all" />
    <label>What happens to requests <select name="mode">
      <option value="stop">stop: nobody answers</option>
      <option value="fallback">fallback: local models answer alone, nothing climbs</option></select></label>
  <//>`;
}

function lasts(text) {
  const found = /^([0-9]+(?:\.[0-9]+)?)\s*([mhd])$/.exec(text);
  if (!found) throw new Error("How long is a number with m, h or d, such as 8h");
  return Number(found[1]) * UNITS[found[2]];
}

function Override({ api, control, say, onClose, again }) {
  const [kind, setKind] = useState("ban");
  const add = async (form) => {
    const said = entries(form);
    const asked = {
      region: said.region, kind, scope: said.scope, target: said.target || "", why: said.why, by: said.by,
      lasts_s: lasts(said.lasts),
    };
    if (said.labels) asked.labels = said.labels.split(",").map((one) => one.trim()).filter(Boolean);
    if (said.answer) asked.answer = said.answer;
    if (said.tier) asked.tier = said.tier;
    if (said.amount) asked.amount = Number(said.amount);
    if (said.below) asked.below = Number(said.below);
    told(say, await api.post("/api/v1/overrides", asked));
    again();
  };
  const takes = (...kinds) => kinds.includes(kind);
  return html`<${Dialog} title="Override answers" action="Override" onDone=${add} onClose=${onClose}>
    <label>Kind <select value=${kind} onChange=${(event) => setKind(event.target.value)}>
      ${KINDS.map((one) => html`<option value=${one}>${one}</option>`)}</select></label>
    <${Region} control=${control} />
    <${Scope} first="model" />
    ${takes("ban", "boost", "withhold", "replace") && html`<label>Labels, with commas <input name="labels" required autocomplete="off" /></label>`}
    ${takes("pin", "replace") && html`<label>Answer <input name="answer" required maxlength="128" /></label>`}
    ${takes("tier") && html`<label>Tier <select name="tier"><option>edge</option><option>regional</option><option>cloud</option></select></label>`}
    ${takes("boost") && html`<label>Added to the log-odds <input name="amount" type="number" step="any" min="-20" max="20" required /></label>`}
    ${takes("withhold", "replace") && html`<label>Only below this confidence (1: always) <input name="below" type="number" step="any" min="0.001" max="1" value="1" /></label>`}
    <label>For how long (30m, 8h, 7d) <input name="lasts" required value="8h" /></label>
  <//>`;
}

function Lines({ control, onResume, onRemove }) {
  const stops = control.regions.flatMap((region) => region.stops.map((stop) => ({ region: region.region, stop })));
  const overrides = control.regions.flatMap((region) => region.overrides.map((one) => ({ region: region.region, one })));
  return html`<h2>Stops</h2>
    ${stops.length === 0 ? html`<${Empty}>Nothing is stopped.<//>` : html`<div class="scroll card"><table>
      <thead><tr><th>Region</th><th>What</th><th>Since</th><th>Who and why</th><th></th></tr></thead>
      <tbody>${stops.map(({ region, stop }) => html`<tr><th scope="row">${region}</th>
        <td>${stop.mode} of ${stop.scope} ${stop.target || ""}</td><td>${when(stop.wall_s)}</td><td>${stop.by}: ${stop.why}</td>
        <td><button onClick=${() => onResume(region, stop)}>Resume</button></td></tr>`)}</tbody></table></div>`}
    <h2>Overrides</h2>
    ${overrides.length === 0 ? html`<${Empty}>No answer is overridden.<//>` : html`<div class="scroll card"><table>
      <thead><tr><th>Region</th><th>Id</th><th>What it does</th><th>Ends</th><th></th></tr></thead>
      <tbody>${overrides.map(({ region, one }) => html`<tr><th scope="row">${region}</th><td>${one.id}</td><td>${one.told}</td>
        <td>${when(one.ends_s)}</td><td><button class="quiet" onClick=${() => onRemove(region, one)}>Remove</button></td></tr>`)}</tbody></table></div>`}`;
}

function Control({ api, say }) {
  const found = useLoad(api, "/api/v1/control");
  const [live, setLive] = useState(null);
  const [open, setOpen] = useState(null);
  useEffect(() => api.events("/api/v1/live", { control: setLive }), []);
  const close = () => setOpen(null);
  const resume = (region, stop) => async (form) => {
    const said = entries(form);
    const asked = { region, scope: stop.scope, target: stop.target || "", why: said.why, by: said.by };
    told(say, await api.post("/api/v1/control/resume", asked));
    found.again();
  };
  const remove = (region, one) => async (form) => {
    const query = new URLSearchParams({ region, ...entries(form) });
    told(say, await api.delete(`/api/v1/overrides/${encodeURIComponent(one.id)}?${query}`));
    found.again();
  };
  return html`<h1>Control</h1>
    <${Loaded} from=${live ? { value: live } : found}>${(control) => html`
      ${!control.is_connected && html`<p class="problem" role="alert">The cloud has no connection to its broker. What you change in${" "}
        ${control.cloud_region} counts for the cloud at once, and for all below when the connection is back.</p>`}
      ${!control.is_known && html`<p class="problem" role="alert">What was stopped is not known here: ${control.notice}</p>`}
      ${control.mode && control.is_known && html`<p class="problem">The cloud itself is in ${spoken(control.mode)}: ${control.notice}</p>`}
      ${control.unreadable.length > 0 && html`<p class="problem">Not understood by this version: ${control.unreadable.join(", ")}</p>`}
      <div class="row"><button class="danger" onClick=${() => setOpen({ kill: true })}>Stop …</button>
        <button onClick=${() => setOpen({ override: true })}>Override …</button></div>
      <${Lines} control=${control} onResume=${(region, stop) => setOpen({ region, stop })}
        onRemove=${(region, one) => setOpen({ region, one })} />
      ${open?.kill && html`<${Kill} api=${api} control=${control} say=${say} onClose=${close} again=${found.again} />`}
      ${open?.override && html`<${Override} api=${api} control=${control} say=${say} onClose=${close} again=${found.again} />`}
      ${open?.stop && html`<${Dialog} title="Resume" action="Resume" word="resume" onDone=${resume(open.region, open.stop)} onClose=${close}>
        <p>${open.stop.told}</p><//>`}
      ${open?.one && html`<${Dialog} title="Remove the override" action="Remove" onDone=${remove(open.region, open.one)} onClose=${close}>
        <p>${open.one.told}</p><//>`}`}<//>`;
}

export default { path: "/control", title: "Control", Page: Control };
