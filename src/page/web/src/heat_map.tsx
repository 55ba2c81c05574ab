// How much the experts of each rank had to do in each layer, beside the mean of the layer.
import { useEffect, useRef, useState } from "preact/hooks";
import { experts, type Experts } from "./cluster_data";
import { count, plural } from "./format";
import { colour, isDark } from "./theme";

// 0: nothing; 1: the mean of the layer.
interface Load {
  layers: number[];
  parts: number[][]; // [rank][place in layers]
  worst: { rank: number; layer: number; part: number } | null;
}

function weigh(told: Experts): Load {
  const most = Math.max(0, ...told.rows.map((row) => row.length));
  const sums = Array.from({ length: most }, (_, layer) => told.rows.reduce((sum, row) => sum + (row[layer] ?? 0), 0));
  // Dense layers have no experts.
  const layers = sums.map((_, layer) => layer).filter((layer) => sums[layer] > 0);
  let worst: Load["worst"] = null;
  const parts = told.rows.map((row, idx) =>
    layers.map((layer) => {
      const part = ((row[layer] ?? 0) * told.rows.length) / sums[layer];
      if (!worst || part > worst.part) worst = { rank: told.ranks[idx].rank, layer, part };
      return part;
    }),
  );
  return { layers, parts, worst };
}

function mix(from: string, to: string, part: number): string {
  const number = (text: string) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  const [a, b] = [number(from), number(to)];
  return `rgb(${a.map((value, idx) => Math.round(value + (b[idx] - value) * part)).join(" ")})`;
}

function shade(part: number): string {
  const [cold, mean, hot] = [colour("--heat-cold"), colour("--heat-mean"), colour("--heat-hot")];
  return part <= 1 ? mix(cold, mean, part) : mix(mean, hot, Math.min(part - 1, 1));
}

// "32 experts a layer, each held once", from how many each rank holds.
function copies(told: Experts): string {
  if (!told.experts) return "";
  const held = Math.round(told.ranks.reduce((sum, rank) => sum + rank.held, 0));
  return `${told.experts} experts a layer, ${held === told.experts ? "each held once" : `in ${held} copies`}`;
}

const kRow = 20;

export function HeatMap() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const place = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const [pointed, setPointed] = useState<{ rank: number; layer: number } | null>(null);
  const told = experts.value;
  const dark = isDark.value;
  const load = told && told.ranks.length ? weigh(told) : null;
  const layers = load?.layers.length ?? 0;
  const cell = layers ? Math.max(9, Math.floor(width / layers)) : 0;

  useEffect(() => {
    if (!place.current) return;
    const resized = new ResizeObserver(([entry]) => setWidth(entry.contentRect.width));
    resized.observe(place.current);
    return () => resized.disconnect();
  }, [load === null]);
  useEffect(() => {
    const picture = canvas.current?.getContext("2d");
    if (!picture || !load) return;
    const scale = devicePixelRatio || 1;
    picture.canvas.width = cell * layers * scale;
    picture.canvas.height = kRow * load.parts.length * scale;
    picture.scale(scale, scale);
    load.parts.forEach((row, rank) =>
      row.forEach((part, at) => {
        picture.fillStyle = shade(part);
        picture.fillRect(at * cell, rank * kRow, cell - 1, kRow - 1);
      }),
    );
  }, [told, dark, cell]);

  if (!told || !told.ranks.length) return null;
  const worst = load?.worst;
  const summary = !layers
    ? "No tokens came to experts in the last seconds."
    : worst && worst.part > 1.005
      ? `Most: rank ${worst.rank} in layer ${worst.layer}, ${worst.part.toFixed(2)} times the layer's mean.`
      : "All ranks had the same to do.";
  const seen = pointed && load && load.layers[pointed.layer] !== undefined && told.ranks[pointed.rank]
    ? `Rank ${told.ranks[pointed.rank].rank}, layer ${load.layers[pointed.layer]}: ` +
      `${count(told.rows[pointed.rank][load.layers[pointed.layer]])} rows, ` +
      `${load.parts[pointed.rank][pointed.layer].toFixed(2)} times the mean`
    : summary;
  return (
    <section class="panel" aria-labelledby="experts">
      <header class="panel-head">
        <h2 id="experts">Experts</h2>
        <p class="muted">{copies(told)}</p>
        <div class="scale" aria-hidden="true">
          <span>none</span><i class="cold" /><i class="cool" /><i class="mean" /><i class="warm" /><i class="hot" /><span>twice the mean</span>
        </div>
      </header>
      {layers > 0 && (
        <div class="heat" role="img" aria-label={`Load of experts by rank and layer. ${summary}`}>
          <ol aria-hidden="true">
            {told.ranks.map((rank) => (
              <li key={`${rank.replica}.${rank.rank}`}>
                rank {rank.rank} <span class="muted">{plural(Math.round(rank.held * 10) / 10, "expert")}</span>
              </li>
            ))}
          </ol>
          <div class="heat-cells" ref={place}>
            <canvas
              ref={canvas}
              style={{ width: `${cell * layers}px`, height: `${kRow * told.ranks.length}px` }}
              onPointerMove={(event) => {
                const box = event.currentTarget.getBoundingClientRect();
                setPointed({
                  rank: Math.floor((event.clientY - box.top) / kRow),
                  layer: Math.floor((event.clientX - box.left) / cell),
                });
              }}
              onPointerLeave={() => setPointed(null)}
            />
            <div class="heat-axis" aria-hidden="true">
              <span>layer {load!.layers[0]}</span>
              <span>{load!.layers.at(-1)}</span>
            </div>
          </div>
        </div>
      )}
      <p class="note">{seen}</p>
    </section>
  );
}
