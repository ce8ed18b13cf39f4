// How sure models are as time goes on, by tier and version, and where guarantees were suspended.

import { html } from "/static/vendor/htm-preact-3.1.1.mjs";
import { address, count, Empty, Loaded, percent, useLoad, when } from "/static/parts.mjs";

const TIMES = { 3600: "last hour", 86400: "last day", 604800: "last week" };
const FAR = 0.25;

const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);

function Heat({ series }) {
  const wide = 100 / series.pieces.length;
  return html`<svg class="heat" viewBox="0 0 100 42" preserveAspectRatio="none" role="img"
    aria-label=${`Confidences of ${series.model} ${series.version} over time; the table below has the figures`}>
    <rect width="100" height="40" class="fill-none-yet" opacity="0.35" />
    ${series.pieces.map((piece, at) => {
      const total = sum(piece.bins);
      return piece.bins.map((number, part) => number > 0 && html`<rect x=${at * wide} y=${2 * (piece.bins.length - 1 - part)}
        width=${wide} height="2" class="fill-accent" opacity=${Math.max(0.08, Math.sqrt(number / total))} />`);
    })}
    ${series.pieces.map((piece, at) => piece.suspended > 0 && html`<rect x=${at * wide} y="40.4" width=${wide} height="1.6" class="fill-nobody" />`)}
  </svg>`;
}

function Series({ series, said }) {
  const far = series.pieces.filter((piece) => piece.distance !== null && piece.distance > FAR).length;
  const start = (at) => said.since_s + at * said.piece_s;
  const mean = (piece) => sum(piece.bins.map((number, part) => (number * (part + 0.5)) / piece.bins.length)) / sum(piece.bins);
  return html`<section class="card"><h2>${series.model} ${series.version} <span class="muted">${series.tier}, ${count(series.count)} decisions</span></h2>
    ${series.suspended > 0 && html`<p class="problem">The tier had suspended its guarantee for ${count(series.suspended)} decisions:
      its own test of drift, or audits, say that traffic is other than what the policy was fitted on.</p>`}
    ${far > 0 ? html`<p class="problem">${far} of ${series.pieces.length} stretches of this time differ from the whole by more than ${percent(FAR)}.</p>`
      : html`<p class="muted">Steady: no stretch of this time differs much from the whole.</p>`}
    <p class="muted">Upward: how sure the model was, from 0 to 1, darker where there are more decisions. To the right: ${when(said.since_s)} to ${when(said.until_s)}. Red below: the guarantee was suspended.</p>
    <${Heat} series=${series} />
    <details><summary>The same as a table</summary><div class="scroll"><table>
      <thead><tr><th>From</th><th class="number">Decisions</th><th class="number">Mean confidence</th><th class="number">Distance</th><th class="number">Suspended</th></tr></thead>
      <tbody>${series.pieces.map((piece, at) => sum(piece.bins) > 0 && html`<tr><td>${when(start(at))}</td><td class="number">${count(sum(piece.bins))}</td>
        <td class="number">${mean(piece).toFixed(3)}</td><td class="number">${piece.distance === null ? "too few" : piece.distance.toFixed(3)}</td>
        <td class="number">${count(piece.suspended)}</td></tr>`)}</tbody></table></div></details></section>`;
}

function Drift({ api, params }) {
  const last = params.get("last_s") || "86400";
  const found = useLoad(api, `/api/v1/drift?last_s=${encodeURIComponent(last)}`);
  return html`<h1>Drift</h1>
    <div class="filters"><label>Time <select value=${last} onChange=${(event) => {
      location.hash = address("/drift", { last_s: event.target.value }).slice(1);
    }}>${Object.entries(TIMES).map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select></label></div>
    <${Loaded} from=${found}>${(said) => html`
      ${said.problems.map((text) => html`<p class="problem">${text}</p>`)}
      ${said.series.length === 0
        ? html`<${Empty}>No decision with a confidence in this time. Take a longer one; tiers whose logs are not on this machine
            tell of drift in their own metrics (<code>drift_alarms_total</code>).<//>`
        : said.series.map((series) => html`<${Series} series=${series} said=${said} />`)}`}<//>`;
}

export default { path: "/drift", title: "Drift", Page: Drift };
