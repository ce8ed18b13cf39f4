// The hierarchy as a picture: the cloud on top, regions with their gateways, devices as dots.
//
// Few devices are dots of their own, many are a field of a hundred parts. State is told by form as
// well as by colour: full is online, hollow is away, a square is stopped.

import { html } from "/static/vendor/htm-preact-3.1.1.mjs";
import { address, count, percent, TIERS } from "/static/parts.mjs";

const WIDE = 228, HIGH = 172, GAP = 16, TOP = 92;
const MAX_TILES = 60;

function kindOf(state, stopped) {
  if (stopped) return "stopped";
  if (state === "online" || state === "reporting") return "on";
  return state === "draining" ? "draining" : "off";
}

function Dot({ x, y, kind, r = 4.5 }) {
  if (kind === "stopped") {
    return html`<rect x=${x - r} y=${y - r} width=${2 * r} height=${2 * r} class="dot-stopped" />`;
  }
  return html`<circle cx=${x} cy=${y} r=${r} class=${`dot-${kind}`} />`;
}

function dotsOf(region) {
  const { total, online, reporting, draining, stopped } = region.devices;
  if (region.shown.length) return region.shown.map((one) => kindOf(one.state, one.stopped));
  if (!total) return [];
  // Each part is one in a hundred; whatever there is at all has one.
  const part = (number) => (number ? Math.max(1, Math.round((100 * number) / total)) : 0);
  const parts = [
    ...Array(part(stopped)).fill("stopped"),
    ...Array(part(draining)).fill("draining"),
    ...Array(part(total - online - reporting - draining)).fill("off"),
  ];
  return [...Array(Math.max(0, 100 - parts.length)).fill("on"), ...parts].slice(0, 100);
}

export function inWords(region) {
  const { total, online, reporting, stopped } = region.devices;
  const link = { up: "link up", cut: "link cut", none: "no gateway" }[linkOf(region)];
  const away = total - online - reporting;
  return [
    `${count(total)} devices`,
    away ? `${count(away)} away` : total ? "all there" : "",
    stopped ? `${count(stopped)} stopped` : "",
    link,
  ].filter(Boolean).join(", ");
}

export function linkOf(region) {
  return region.link === "up" && region.traffic?.is_cut ? "cut" : region.link;
}

function Tile({ region, x, y }) {
  const dots = dotsOf(region);
  const perRow = dots.length > 48 ? 20 : dots.length > 16 ? 16 : 8;
  const step = 200 / perRow;
  const [size, down] = { 20: [3.6, 12], 16: [4.5, 14], 8: [8, 26] }[perRow];
  const shares = region.traffic?.shares || {};
  let at = 0;
  const isStopped = region.devices.stopped > 0 || region.gateways.some((one) => one.stopped);
  return html`<a href=${address("/fleet", { region: region.name })} class="tile" aria-label=${`${region.name}: ${inWords(region)}`}>
    <rect x=${x} y=${y} width=${WIDE} height=${HIGH} rx="10" class=${`tile-box ${isStopped ? "is-stopped" : ""}`} />
    <text x=${x + 14} y=${y + 24} class="tile-name">${region.name.slice(0, 22)}</text>
    ${isStopped && html`<text x=${x + WIDE - 14} y=${y + 24} class="tile-flag">stopped</text>`}
    <text x=${x + 14} y=${y + 44} class="tile-text">
      ${region.num_gateways} gateway${region.num_gateways === 1 ? "" : "s"} · ${count(region.devices.total)} devices
    </text>
    ${region.gateways.slice(0, 12).map(
      (one, number) => html`<g><title>${one.name}: ${one.stopped || one.state}${one.retired ? ", retired, yet it speaks" : ""}</title>
        <rect x=${x + 14 + 16 * number} y=${y + 53} width="11" height="11" rx="2"
          class=${`dot-${kindOf(one.state, one.stopped)}`} /></g>`,
    )}
    ${dots.map(
      (kind, number) => html`<${Dot} key=${number} kind=${kind} r=${size}
        x=${x + 15 + size + (number % perRow) * step} y=${y + 79 + size + Math.floor(number / perRow) * down} />`,
    )}
    <rect x=${x + 14} y=${y + HIGH - 24} width="200" height="10" class="fill-none-yet" />
    ${TIERS.filter((tier) => shares[tier]).map((tier) => {
      const from = at;
      at += 200 * shares[tier];
      return html`<rect x=${x + 14 + from} y=${y + HIGH - 24} width=${at - from} height="10" class=${`fill-${tier}`} />`;
    })}
  </a>`;
}

export function Picture({ width, regions, cloudRegion, clouds, totals }) {
  const tiles = regions.filter((one) => one.name !== cloudRegion || one.devices.total).slice(0, MAX_TILES);
  const perRow = Math.max(1, Math.min(tiles.length, Math.floor((width + GAP) / (WIDE + GAP))));
  const wide = Math.max(WIDE, perRow * (WIDE + GAP) - GAP);
  const rows = Math.ceil(tiles.length / perRow);
  const middle = wide / 2;
  const height = TOP + rows * (HIGH + 28) + 4;
  const isStopped = clouds.some((one) => one.stopped);
  const places = tiles.map((region, number) => ({
    region,
    x: (number % perRow) * (WIDE + GAP),
    y: TOP + 24 + Math.floor(number / perRow) * (HIGH + 28),
  }));
  return html`<div class="picture"><svg viewBox=${`0 0 ${wide} ${height}`} width=${wide} height=${height} role="group" aria-label="Hierarchy">
    ${places.map(({ region, x, y }) => {
      const link = linkOf(region);
      const share = region.traffic?.shares?.cloud || 0;
      const at = x + WIDE / 2;
      return html`<path d=${`M ${middle} 64 V ${y - 14} H ${at} V ${y}`}
        stroke-width=${link === "cut" ? 2 : 1.5 + 8 * share} class=${`link link-${link}`}>
        <title>${region.name}: ${link === "up" ? `${percent(share)} answered by the cloud` : link}</title></path>
        ${link === "cut" && html`<text x=${at + 8} y=${y - 4} class="tile-flag-left">cut</text>`}`;
    })}
    <rect x=${middle - 90} y="4" width="180" height="62" rx="10" class=${`cloud-box ${isStopped ? "is-stopped" : ""}`} />
    <text x=${middle} y="30" class="cloud-name">${cloudRegion}</text>
    <text x=${middle} y="50" class="cloud-text">${clouds.length ? clouds.map((one) => one.stopped || one.state).slice(0, 3).join(", ") : "not seen"}${
      totals ? ` · ${totals.climbed_per_s.toFixed(1)} /s` : ""}</text>
    ${places.map((place) => html`<${Tile} key=${place.region.name} ...${place} />`)}
  </svg>
  ${regions.length > MAX_TILES && html`<p class="muted">${count(regions.length - MAX_TILES)} more regions are in the table.</p>`}
  </div>`;
}
