// The cluster: curves, replicas, nodes with their ranks, experts, and what happened.
import { Charts } from "./charts";
import { cluster, connection, happenings, hello, type ClusterState, type Rank, type Replica } from "./cluster_data";
import { bytes, clock, count, nothing, percent, plural } from "./format";
import { HeatMap } from "./heat_map";
import { keyIsWanted } from "./api";

// What a state is called, and how it is shown.
function tone(state: string): "good" | "busy" | "bad" {
  if (state === "ready" || state === "up") return "good";
  return state === "lost" || state === "failed" || state === "down" ? "bad" : "busy";
}

function stateOf(replica: Replica): string {
  if (replica.state === "down") return "down";
  return replica.phase ?? (replica.state === "up" ? "ready" : replica.state);
}

function State({ state }: { state: string }) {
  return <span class={`state ${tone(state)}`}>{state}</span>;
}

// A part of one, as a bar of parts in their colours.
function Bar({ parts, label }: { parts: [string, number][]; label: string }) {
  let from = 0;
  return (
    <svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label={label}>
      <rect class="track" width="100" height="6" />
      {parts.map(([name, part]) => {
        const x = from;
        from += 100 * part;
        return <rect key={name} class={name} x={x} width={Math.max(0, Math.min(100 * part, 100 - x))} height="6" />;
      })}
    </svg>
  );
}

function Replicas({ state }: { state: ClusterState }) {
  const behindRouter = hello.value?.kind === "router";
  return (
    <section class="panel" aria-labelledby="replicas">
      <header class="panel-head">
        <h2 id="replicas">{behindRouter ? "Replicas" : "Server"}</h2>
      </header>
      <div class="scroll" tabIndex={0} role="region" aria-labelledby="replicas">
        <table>
          <thead>
            <tr>
              <th scope="col">{behindRouter ? "Replica" : "Server"}</th>
              <th scope="col">State</th>
              <th scope="col" class="number">Epoch</th>
              {behindRouter && <th scope="col" class="number">In flight</th>}
              <th scope="col" class="number">Running</th>
              <th scope="col" class="number">Waiting</th>
              <th scope="col" class="number">Tokens/s</th>
              <th scope="col" class="wide">KV cache</th>
              {behindRouter && <th scope="col">Address</th>}
            </tr>
          </thead>
          <tbody>
            {state.replicas.map((replica) => (
              <tr key={replica.replica}>
                <th scope="row">{behindRouter ? replica.replica : hello.value?.model || "this one"}</th>
                <td>
                  <State state={stateOf(replica)} />
                  {replica.reason && <span class="reason">{replica.reason}</span>}
                </td>
                <td class="number">{replica.epoch ?? nothing}</td>
                {behindRouter && <td class="number">{replica.in_flight}</td>}
                <td class="number">{replica.running}</td>
                <td class="number">{replica.waiting}</td>
                <td class="number">{count(replica.tokens_per_second)}</td>
                <td class="wide">
                  <span class="with-bar">
                    <Bar parts={[["fill", replica.kv]]} label={`${percent(replica.kv)} of the KV cache is in use`} />
                    <span aria-hidden="true">{percent(replica.kv)}</span>
                  </span>
                </td>
                {behindRouter && <td class="muted">{replica.url.replace(/^http:\/\//, "")}</td>}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

interface Placed extends Rank {
  replica: number;
}

function RankTile({ rank }: { rank: Placed }) {
  const isUp = rank.phase === "ready" || rank.phase === "draining";
  const parts: [string, number][] = [
    ["computing", rank.computing * rank.busy],
    ["exchanging", rank.exchanging * rank.busy],
    ["waiting", rank.waiting * rank.busy],
  ];
  const words = `computing ${percent(parts[0][1])}, exchanging ${percent(parts[1][1])}, waiting ${percent(parts[2][1])} of its time`;
  return (
    <li class={`rank ${tone(rank.phase)}`} data-rank={rank.rank} data-phase={rank.phase}>
      <div class="rank-head">
        <strong>rank {rank.rank}</strong>
        <span class="muted">replica {rank.replica}</span>
      </div>
      {isUp ? (
        <Bar parts={parts} label={words} />
      ) : (
        <Bar parts={rank.phase === "loading" ? [["fill", rank.percent / 100]] : []} label={`${rank.phase}, ${rank.percent}% loaded`} />
      )}
      <div class="rank-foot">
        {isUp ? (
          <>
            <span>{bytes(rank.resident_bytes)}</span>
            <span>{count(rank.steps_per_second)} steps/s</span>
          </>
        ) : (
          <>
            <State state={rank.phase} />
            {rank.phase === "loading" && <span>{rank.percent}%</span>}
            {rank.failure && <span>{rank.failure}</span>}
          </>
        )}
      </div>
      {isUp && (
        <div class="rank-foot">
          {rank.waits_for !== null ? (
            <span class="waits">waits for rank {rank.waits_for}, {percent(rank.waiting)}</span>
          ) : (
            <span class="muted">
              {rank.busy < 0.005 ? "idle" : rank.without_rows > 0.05 ? `${percent(rank.without_rows)} without rows` : `works ${percent((rank.computing + rank.exchanging) * rank.busy)}, waits ${percent(rank.waiting * rank.busy)}`}
            </span>
          )}
        </div>
      )}
    </li>
  );
}

function Nodes({ state }: { state: ClusterState }) {
  const nodes = new Map<string, Placed[]>();
  for (const replica of state.replicas)
    for (const rank of replica.ranks) {
      const node = rank.host || "a node that has not said its name";
      nodes.set(node, [...(nodes.get(node) ?? []), { ...rank, replica: replica.replica }]);
    }
  const ranks = [...nodes.values()].flat();
  const lost = ranks.filter((rank) => tone(rank.phase) === "bad").length;
  return (
    <section class="panel" aria-labelledby="map">
      <header class="panel-head">
        <h2 id="map">Map</h2>
        <p class="muted" role="status">
          {plural(nodes.size, "node")}, {plural(ranks.length, "rank")}
          {lost > 0 && <span class="bad-text">, {lost} lost</span>}
        </p>
        <ul class="keys" aria-label="Colours of a rank's bar">
          <li class="key computing">computing</li>
          <li class="key exchanging">exchanging</li>
          <li class="key waiting">waiting</li>
        </ul>
      </header>
      {ranks.length === 0 && <p class="note">The servers have not told of their ranks yet.</p>}
      {[...nodes].map(([node, placed]) => (
        <section key={node} class="node" aria-label={`Node ${node}`}>
          <h3>
            {node} <span class="muted">{plural(placed.length, "rank")}, {bytes(placed.reduce((sum, rank) => sum + Math.max(rank.resident_bytes, 0), 0))}</span>
          </h3>
          <ul class="ranks">
            {placed.map((rank) => (
              <RankTile key={`${rank.replica}.${rank.rank}`} rank={rank} />
            ))}
          </ul>
        </section>
      ))}
    </section>
  );
}

function Happenings() {
  return (
    <section class="panel" aria-labelledby="events">
      <header class="panel-head">
        <h2 id="events">Events</h2>
      </header>
      {happenings.value.length === 0 ? (
        <p class="note">Nothing has happened since this {hello.value?.kind ?? "server"} started.</p>
      ) : (
        <ol class="events" tabIndex={0} aria-labelledby="events">
          {happenings.value.map((event) => (
            <li key={`${event.t} ${event.text}`} class={event.kind}>
              <time dateTime={new Date(event.t).toISOString()}>{clock(event.t)}</time>
              <span>{event.text}</span>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

export function ClusterView() {
  const state = cluster.value;
  return (
    <main id="main" class="cluster" tabIndex={-1}>
      <h1 class="unseen">Cluster</h1>
      {connection.value === "lost" && (
        <p class="banner" role="alert">The connection is lost. What you see is what was; it is tried again.</p>
      )}
      {!state && connection.value === "no key" && (
        <p class="note">
          Numbers of the cluster are for those who have the API key.{" "}
          <button type="button" class="link" onClick={() => (keyIsWanted.value = true)}>Enter it</button>
        </p>
      )}
      {!state && connection.value === "connecting" && <p class="note" role="status">Asking the server…</p>}
      {state && (
        <>
          <Charts />
          <div class="columns">
            <div>
              <Nodes state={state} />
              <Replicas state={state} />
            </div>
            <div>
              <Happenings />
              <HeatMap />
            </div>
          </div>
        </>
      )}
      <footer class="foot muted">
        <span>Cachalot {hello.value?.version}</span>
        <a href="/docs">API</a>
        <a href="/metrics">Metrics</a>
        <a href="/page/licenses.txt">Licenses</a>
      </footer>
    </main>
  );
}
