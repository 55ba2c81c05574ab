// The curves of the last hour.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { series, type SeriesName } from "./cluster_data";
import { count, minute, nothing, percent, seconds } from "./format";
import { colour, isDark } from "./theme";

interface Curve {
  name: SeriesName;
  label: string;
  colour: string; // of style.css
  fill?: boolean;
}

interface Chart {
  title: string;
  curves: Curve[];
  show: (value: number | null | undefined) => string;
  most?: number; // of the scale; else as the values are
}

const charts: Chart[] = [
  {
    title: "Tokens a second", show: count,
    curves: [
      { name: "generation", label: "output", colour: "--curve-1", fill: true },
      { name: "prompt", label: "prompt", colour: "--curve-2" },
    ],
  },
  {
    title: "Requests", show: count,
    curves: [
      { name: "running", label: "running", colour: "--curve-1", fill: true },
      { name: "waiting", label: "waiting", colour: "--curve-3" },
    ],
  },
  {
    title: "Cache", show: percent, most: 1,
    curves: [
      { name: "kv", label: "KV in use", colour: "--curve-1", fill: true },
      { name: "hits", label: "prefix hits", colour: "--curve-2" },
    ],
  },
  {
    title: "First token", show: seconds,
    curves: [
      { name: "first_token_p50", label: "median", colour: "--curve-1" },
      { name: "first_token_p95", label: "95th", colour: "--curve-3" },
    ],
  },
  {
    title: "Next token", show: seconds,
    curves: [
      { name: "next_token_p50", label: "median", colour: "--curve-1" },
      { name: "next_token_p95", label: "95th", colour: "--curve-3" },
    ],
  },
];

const kHeight = 112;

function options(chart: Chart, width: number): uPlot.Options {
  const grid = { stroke: colour("--line"), width: 1, dash: [] };
  const axis = { stroke: colour("--muted"), font: "11px system-ui, sans-serif", ticks: { show: false } };
  return {
    width,
    height: kHeight,
    padding: [6, 16, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    scales: {
      y: { range: (_plot, _least, most) => [0, chart.most ?? Math.max(most * 1.12 || 0, 1e-3)] },
    },
    axes: [
      {
        ...axis, grid: { show: false }, size: 20, gap: 2, space: 64,
        values: (_plot, times) =>
          times.map((time) => minute(time * 1000)),
      },
      {
        ...axis, grid, size: 52, gap: 4, space: 30,
        values: (_plot, values) => values.map((value) => chart.show(value)),
      },
    ],
    series: [
      {},
      ...chart.curves.map((curve) => ({
        label: curve.label,
        stroke: colour(curve.colour),
        width: 1.5,
        fill: curve.fill ? colour(curve.colour) + "1c" : undefined,
        points: { show: false },
        spanGaps: false,
      })),
    ],
  };
}

function Plot({ chart }: { chart: Chart }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const told = series.value;
  const dark = isDark.value;

  useEffect(() => {
    const element = place.current!;
    const built = new uPlot(options(chart, element.clientWidth || 300), [[], ...chart.curves.map(() => [])], element);
    plot.current = built;
    const resized = new ResizeObserver(() => built.setSize({ width: element.clientWidth, height: kHeight }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      built.destroy();
      plot.current = null;
    };
  }, [dark]);
  useEffect(() => {
    if (!told || !plot.current) return;
    const times = told.t.map((time) => time! / 1000);
    plot.current.setData([times, ...chart.curves.map((curve) => told[curve.name])] as uPlot.AlignedData);
  }, [told, dark]);

  const last = (curve: Curve) => told?.[curve.name].at(-1);
  const words = chart.curves.map((curve) => `${curve.label} ${told ? chart.show(last(curve)) : nothing}`).join(", ");
  return (
    <figure class="panel chart">
      <figcaption>
        <h3>{chart.title}</h3>
        <dl>
          {chart.curves.map((curve) => (
            <div key={curve.name}>
              <dt class={`key ${curve.colour.slice(2)}`}>{curve.label}</dt>
              <dd data-curve={curve.name}>{told ? chart.show(last(curve)) : nothing}</dd>
            </div>
          ))}
        </dl>
      </figcaption>
      <div ref={place} class="plot" role="img" aria-label={`${chart.title} over the last hour; now ${words}`} />
    </figure>
  );
}

export function Charts() {
  return (
    <section class="charts" aria-labelledby="curves" tabIndex={0}>
      <h2 id="curves" class="unseen">The last hour</h2>
      {charts.map((chart) => (
        <Plot key={chart.title} chart={chart} />
      ))}
    </section>
  );
}
