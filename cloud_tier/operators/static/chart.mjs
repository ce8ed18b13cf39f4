// Requests a second by who answered, over the last five minutes.

import { html, useEffect, useRef } from "/static/vendor/htm-preact-3.1.1.mjs";
import uPlot from "/static/vendor/uplot-1.6.32.mjs";

const SPAN_S = 300;
const SERIES = ["edge", "regional", "cloud", "nobody"];

export class Seconds {
  constructor() {
    this.bySecond = new Map();
  }

  put(second) {
    this.bySecond.set(second.at_s, second);
    const oldest = second.at_s - SPAN_S;
    for (const at of this.bySecond.keys()) if (at < oldest) this.bySecond.delete(at);
  }

  columns() {
    const times = [...this.bySecond.keys()].sort((one, other) => one - other);
    const of = (name) => times.map((at) => this.bySecond.get(at).by[name] || 0);
    const climbed = times.map((at) => this.bySecond.get(at).climbed || 0);
    return [times, ...SERIES.map(of), climbed];
  }
}

const clock = (at) => new Date(at * 1000).toLocaleTimeString(undefined, { timeStyle: "medium", hour12: false });
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function build(box, columns) {
  const line = (label, name, dash) => ({ label, stroke: colour(name), width: 2, dash, points: { show: false } });
  const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  return new uPlot(
    {
      width: Math.max(260, box.clientWidth),
      height: 210,
      legend: { live: false },
      cursor: { show: false },
      scales: { y: { range: (_, __, top) => [0, Math.max(1, top * 1.1)] } },
      axes: [{ ...axis, space: 90, values: (_, splits) => splits.map(clock) }, { ...axis, size: 44 }],
      series: [
        {},
        line("edge", "edge"),
        line("regional", "regional", [8, 4]),
        line("cloud", "cloud", [2, 3]),
        line("nobody", "bad", [12, 3, 2, 3]),
        line("climbed to the cloud", "quiet", [4, 6]),
      ],
    },
    columns,
    box,
  );
}

export function Chart({ seconds, turn }) {
  const box = useRef(null);
  const plot = useRef(null);
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const again = () => {
      plot.current?.destroy();
      plot.current = build(box.current, seconds.columns());
    };
    again();
    const watching = new ResizeObserver(() =>
      plot.current.setSize({ width: Math.max(260, box.current.clientWidth), height: 210 }),
    );
    watching.observe(box.current);
    dark.addEventListener("change", again);
    return () => {
      watching.disconnect();
      dark.removeEventListener("change", again);
      plot.current.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(seconds.columns()), [turn]);
  return html`<div class="chart" ref=${box} role="img" aria-label="Requests per second by tier, last five minutes; the figures are in the text above."></div>`;
}
