// What the server tells of the cluster (GET /cluster/events), as it comes.
import { effect, signal } from "@preact/signals";
import { ApiError, ask, events, key } from "./api";

export interface Rank {
  rank: number;
  phase: string;
  failure: string | null;
  percent: number;
  host: string;
  pid: number;
  resident_bytes: number;
  weight_bytes: number;
  steps_per_second: number;
  without_rows: number;
  computing: number;
  exchanging: number;
  waiting: number;
  busy: number;
  waits_for: number | null;
}

export interface Replica {
  replica: number;
  url: string;
  state: string;
  phase: string | null;
  reason: string | null;
  in_flight: number;
  running: number;
  waiting: number;
  kv: number;
  epoch: number | null;
  tokens_per_second: number | null;
  ranks: Rank[];
}

export interface ClusterState {
  t: number;
  phase: string;
  replicas: Replica[];
}

export interface Happening {
  t: number;
  kind: string;
  text: string;
}

export interface Experts {
  experts: number; // of a layer
  ranks: { rank: number; replica: number; held: number }[]; // of a layer, on average
  rows: number[][];
}

export interface Hello {
  kind: string;
  version: string;
  model: string;
  step: number;
}

export const seriesNames = [
  "generation", "prompt", "running", "waiting", "kv", "hits",
  "first_token_p50", "first_token_p95", "next_token_p50", "next_token_p95",
] as const;
export type SeriesName = (typeof seriesNames)[number];
export type Series = Record<SeriesName | "t", (number | null)[]>;

export type Connection = "connecting" | "open" | "lost" | "no key";

export const connection = signal<Connection>("connecting");
export const hello = signal<Hello | null>(null);
export const cluster = signal<ClusterState | null>(null);
export const experts = signal<Experts | null>(null);
export const happenings = signal<Happening[]>([]);
export const series = signal<Series | null>(null);

const kMostHappenings = 200;

function take(event: string, data: string): void {
  const told = JSON.parse(data);
  if (event === "hello") {
    hello.value = told;
    series.value = told.series;
    happenings.value = told.events.slice().reverse();
  } else if (event === "state") {
    cluster.value = told;
  } else if (event === "experts") {
    experts.value = told;
  } else if (event === "event") {
    happenings.value = [told, ...happenings.value].slice(0, kMostHappenings);
  } else if (event === "point" && series.value) {
    const most = 3_600_000 / (hello.value?.step ?? 5000);
    const next = { ...series.value };
    for (const name of ["t", ...seriesNames] as const) next[name] = [...next[name], told[name]].slice(-most);
    series.value = next;
  }
}

let listening: AbortController | null = null;

async function listen(abort: AbortController): Promise<void> {
  for (let pause = 500; !abort.signal.aborted; pause = Math.min(pause * 2, 8000)) {
    try {
      const response = await ask("/cluster/events", { signal: abort.signal });
      for await (const { event, data } of events(response)) {
        if (abort.signal.aborted) return;
        connection.value = "open";
        pause = 500;
        take(event, data);
      }
    } catch (error) {
      if (abort.signal.aborted) return;
      if (error instanceof ApiError && error.status === 401) {
        connection.value = "no key";
        return; // another key starts anew
      }
    }
    if (abort.signal.aborted) return;
    connection.value = "lost";
    await new Promise((wake) => setTimeout(wake, pause));
  }
}

// From now on, with whatever key there is.
export function watchCluster(): void {
  effect(() => {
    key.value;
    listening?.abort();
    listening = new AbortController();
    if (connection.peek() !== "open") connection.value = "connecting";
    void listen(listening);
  });
}
