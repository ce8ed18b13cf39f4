// Who has changed what over this port, when and why.

import { html } from "/static/vendor/htm-preact-3.1.1.mjs";
import { Empty, Loaded, usePages, when } from "/static/parts.mjs";

function Audit({ api }) {
  const found = usePages(api, "/api/v1/audit?limit=100", "lines");
  return html`<h1>Audit</h1>
    <p class="muted">Changes that were made over this port: stops, overrides, rollouts, experiments, and what is out of service. What${" "}
      <code>tierwise control</code> does at a broker is in the state of the region, and in the logs of every tier.</p>
    <${Loaded} from=${found}>${() => found.rows.length === 0
      ? html`<${Empty}>Nobody has changed anything yet.<//>`
      : html`<div class="scroll card"><table>
          <thead><tr><th class="number">#</th><th>When</th><th>Who</th><th>What</th><th>Of what</th><th>Why</th></tr></thead>
          <tbody>${found.rows.map((one) => html`<tr key=${one.seq}><td class="number">${one.seq}</td><td>${when(one.at_s)}</td>
            <td>${one.who} <span class="muted">(${one.via})</span></td><td>${one.what}</td><td>${one.target}</td><td>${one.why}</td></tr>`)}</tbody>
        </table></div>
        ${found.hasMore && html`<p><button class="quiet" onClick=${found.more}>Show more</button></p>`}`}<//>`;
}

export default { path: "/audit", title: "Audit", Page: Audit };
