// Rollouts: which there are, how their waves and gates stand, and what operators may ask of them.

import { html, useEffect, useState } from "/static/vendor/htm-preact-3.1.1.mjs";
import { ago, address, count, Dialog, Empty, entries, Loaded, Loading, percent, spoken, useLoad, when } from "/static/parts.mjs";

const ASKS = {
  approve: ["Approve", ["draft"], false],
  pause: ["Pause", ["shadow", "canary", "wave"], false],
  resume: ["Resume", ["paused"], false],
  promote: ["Go on without the gate", ["shadow", "canary", "wave"], false],
  abort: ["Abort", ["draft", "shadow", "canary", "wave", "paused"], true],
  rollback: ["Roll back", ["shadow", "canary", "wave", "paused", "done", "aborted"], true],
};
const Off = () => html`<${Empty}>Rollouts are off: the cloud tier has no key for them. Set${" "}
  <code>updates.repository</code> and <code>rollouts.key_file</code> in its settings and start it again
  (docs/rollouts.md says how).<//>`;

function Start({ api, say, onClose }) {
  const start = async (form) => {
    const said = entries(form);
    const settings = said.shares ? { shares: said.shares.split(/[ ,;]+/).map((one) => Number(one) / 100) } : {};
    if (form.get("no_shadow")) settings.shadow = null;
    const asked = { model: said.model, version: Number(said.version || 0), why: said.why, by: said.by, settings };
    if (said.region) asked.region = said.region;
    if (form.get("is_draft")) asked.is_draft = true;
    const made = await api.post("/rollouts", asked);
    say(`The rollout ${made.id} is ${made.phase}.`);
    location.hash = address("/rollouts", { id: made.id }).slice(1);
  };
  return html`<${Dialog} title="Start a rollout" action="Start" onDone=${start} onClose=${onClose}>
    <label>Model <input name="model" required maxlength="64" autocomplete="off" /></label>
    <label>Version (empty: the newest) <input name="version" inputmode="numeric" pattern="[0-9]*" /></label>
    <label>Region (empty: as published) <input name="region" maxlength="64" /></label>
    <label>Waves in percent (empty: as usual) <input name="shares" placeholder="5, 25, 100" pattern="[0-9., ;]*" /></label>
    <label class="check"><input type="checkbox" name="no_shadow" /> without a shadow phase</label>
    <label class="check"><input type="checkbox" name="is_draft" /> only draft it; somebody else approves</label>
  <//>`;
}

function List({ api, say }) {
  const found = useLoad(api, "/rollouts");
  const [isStarting, setStarting] = useState(false);
  return html`<p><button onClick=${() => setStarting(true)}>Start a rollout</button></p>
    ${isStarting && html`<${Start} api=${api} say=${say} onClose=${() => setStarting(false)} />`}
    <${Loaded} from=${found}>${({ rollouts }) => rollouts.length === 0
      ? html`<${Empty}>There is no rollout yet. Publish a version with <code>tierwise publish</code>, then start one here.<//>`
      : html`<div class="scroll card"><table>
        <thead><tr><th>Rollout</th><th>Model</th><th>Phase</th><th class="number">Devices</th><th class="number">Confirmed</th><th class="number">Failed</th><th>By</th><th>Begun</th></tr></thead>
        <tbody>${rollouts.slice(0, 200).map((one) => html`<tr key=${one.id}>
          <th scope="row"><a href=${address("/rollouts", { id: one.id })}>${one.id}</a></th>
          <td>${one.model} ${one.version}</td><td>${spoken(one.phase)} <span class="muted">${one.stage}</span></td>
          <td class="number">${count(one.devices)}</td><td class="number">${count(one.confirmed)}</td>
          <td class="number">${count(one.failed)}</td><td>${one.by}</td><td>${ago(one.created_s)}</td></tr>`)}</tbody>
      </table></div>`}<//>`;
}

function Wave({ wave }) {
  const confirmed = wave.states.confirmed || 0;
  return html`<tr><th scope="row">${wave.stage}</th>
    <td><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" class="progress">
      <rect width="100" height="10" class="fill-none-yet" />
      <rect width=${wave.devices ? (100 * confirmed) / wave.devices : 0} height="10" class="fill-good" /></svg></td>
    <td class="number">${count(confirmed)} of ${count(wave.devices)}</td>
    <td>${Object.entries(wave.states).map(([name, number]) => `${spoken(name)} ${count(number)}`).join(", ")}</td></tr>`;
}

function Judgement({ judgement }) {
  if (!judgement) return html`<p class="muted">Nothing was judged yet.</p>`;
  return html`<dl class="facts">${Object.entries(judgement).map(([name, value]) => html`<div><dt>${spoken(name)}</dt>
    <dd class="wrap">${typeof value === "object" ? JSON.stringify(value) : String(value)}</dd></div>`)}</dl>`;
}

function History({ api, id, revision }) {
  const found = useLoad(api, `/rollouts/${encodeURIComponent(id)}/history?limit=1000&at=${revision}`);
  return html`<${Loaded} from=${found}>${({ history }) => html`<div class="scroll"><table>
    <thead><tr><th>When</th><th>Device</th><th>From</th><th>To</th><th>Who</th><th>Why</th></tr></thead>
    <tbody>${history.slice(-60).reverse().map((one) => html`<tr key=${one.seq}><td>${when(one.at_s)}</td><td>${one.device}</td>
      <td>${one.was}</td><td>${one.now}</td><td>${one.who}</td><td>${one.why}</td></tr>`)}</tbody></table></div>`}<//>`;
}

function Show({ api, id, say }) {
  const path = `/rollouts/${encodeURIComponent(id)}`;
  const found = useLoad(api, path);
  const [live, setLive] = useState(null);
  const [asking, setAsking] = useState("");
  useEffect(() => {
    setLive(null);
    return api.events(`${path}/events?after=999999999`, { status: setLive });
  }, [id]);
  const ask = (name) => async (form) => {
    const said = entries(form);
    const status = await api.post(`${path}/${name}`, { by: said.by, why: said.why });
    setLive(status);
    say(`${id} is ${spoken(status.phase)}.`);
  };
  return html`<p><a href="#/rollouts">All rollouts</a></p><h1 class="wrap">${id}</h1>
    <${Loaded} from=${live ? { value: live } : found}>${(one) => html`
      <p><strong>${one.model} ${one.version}</strong> · ${spoken(one.phase)} ${one.stage} · begun ${ago(one.created_s)} by ${one.by}: ${one.why}</p>
      ${one.asked && html`<p class="problem">It asks: ${one.asked}</p>`}
      <p>${one.next}</p>
      <div class="row">${Object.entries(ASKS).filter(([, [, phases]]) => phases.includes(one.phase)).map(
        ([name, [text, , isDanger]]) => html`<button class=${isDanger ? "danger" : ""} onClick=${() => setAsking(name)}>${text}</button>`)}</div>
      ${asking && html`<${Dialog} title=${`${ASKS[asking][0]}: ${id}`} action=${ASKS[asking][0]} isDanger=${ASKS[asking][2]}
        word=${ASKS[asking][2] ? one.model : ""} onDone=${ask(asking)} onClose=${() => setAsking("")}>
        <p>${count(one.blast_radius.num)} of ${count(one.blast_radius.of)} devices have run this version.</p><//>`}
      <section class="card"><h2>Waves</h2><div class="scroll"><table>
        <thead><tr><th>Wave</th><th>Progress</th><th class="number">Confirmed</th><th>States</th></tr></thead>
        <tbody>${one.waves.map((wave) => html`<${Wave} wave=${wave} />`)}</tbody></table></div></section>
      <section class="card"><h2>Gate</h2>
        <p class="muted">${one.looks} looks; ${one.next_look_s ? "the next one follows" : "no look is to come"}.</p>
        <${Judgement} judgement=${one.judgement} /></section>
      ${Object.keys(one.left_out).length > 0 && html`<details class="card"><summary>${Object.keys(one.left_out).length} devices are left out</summary>
        <ul>${Object.entries(one.left_out).slice(0, 200).map(([name, why]) => html`<li>${name}: ${why}</li>`)}</ul></details>`}
      <details class="card"><summary>History</summary><${History} api=${api} id=${id} revision=${one.revision} /></details>`}<//>`;
}

function Experiments({ api }) {
  const found = useLoad(api, "/experiments");
  if (found.error) return "";
  return html`<h2>Experiments</h2><${Loaded} from=${found}>${({ experiments }) => experiments.length === 0
    ? html`<p class="muted">None. <code>tierwise experiment start</code> begins one.</p>`
    : experiments.slice(0, 50).map((one) => html`<section class="card"><h3>${one.id} <span class="muted">${one.model}, ${one.is_running ? "running" : one.ended}</span></h3>
        <p>${one.outcome}: ${one.says}</p>
        <div class="scroll"><table><thead><tr><th>Arm</th><th>Version</th><th class="number">Share</th><th class="number">Devices</th><th class="number">Observed</th></tr></thead>
        <tbody>${one.arms.map((arm) => html`<tr><th scope="row">${arm.name}</th><td>${arm.version}</td>
          <td class="number">${percent(arm.weight / one.arms.reduce((sum, other) => sum + other.weight, 0))}</td>
          <td class="number">${count(arm.devices)}</td><td class="number">${count(arm.observed)}</td></tr>`)}</tbody></table></div></section>`)}<//>`;
}

function Rollouts({ api, params, say }) {
  const features = useLoad(api, "/api/v1/features");
  if (features.isLoading) return html`<h1>Rollouts</h1><${Loading} />`;
  if (features.value && !features.value.rollouts) return html`<h1>Rollouts</h1><${Off} />`;
  if (params.get("id")) return html`<${Show} api=${api} id=${params.get("id")} say=${say} />`;
  return html`<h1>Rollouts</h1><${List} api=${api} say=${say} /><${Experiments} api=${api} />`;
}

export default { path: "/rollouts", title: "Rollouts", Page: Rollouts };
