// The page: which of its two views is shown, the key, and the colours.
import { effect, signal } from "@preact/signals";
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { key, keyIsRemembered, keyIsWanted, setKey } from "./api";
import { findModels, models } from "./chat_data";
import { ChatView } from "./chat_view";
import { cluster, connection, hello, watchCluster } from "./cluster_data";
import { ClusterView } from "./cluster_view";
import { AutoIcon, KeyIcon, MoonIcon, SunIcon, Whale } from "./icons";
import { theme, type Theme } from "./theme";

const view = signal(location.hash === "#chat" ? "chat" : "cluster");
addEventListener("hashchange", () => (view.value = location.hash === "#chat" ? "chat" : "cluster"));
effect(() => {
  document.title = `${view.value === "chat" ? "Chat" : "Cluster"} – Cachalot`;
});

function KeyDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState(key.value);
  const [remember, setRemember] = useState(keyIsRemembered.value);
  useEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog ref={dialog} class="key-dialog" aria-labelledby="key-title" onClose={() => (keyIsWanted.value = false)}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setKey(text.trim(), remember);
        }}
      >
        <h2 id="key-title">API key</h2>
        <p class="muted">{key.value ? "The server does not take this key." : "The server asks for a key."} It is sent to this server alone.</p>
        <label class="field">
          <span>Key</span>
          <input type="password" autocomplete="off" spellcheck={false} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <label class="check">
          <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.currentTarget.checked)} />
          <span>Keep it in this browser, until it is taken out here</span>
        </label>
        <div class="actions">
          <button type="submit" class="main">Use it</button>
          <button type="button" onClick={() => dialog.current!.close()}>Cancel</button>
        </div>
      </form>
    </dialog>
  );
}

const themes: { name: Theme; label: string; Icon: () => preact.JSX.Element }[] = [
  { name: "auto", label: "Colours: as the system has them", Icon: AutoIcon },
  { name: "light", label: "Colours: light", Icon: SunIcon },
  { name: "dark", label: "Colours: dark", Icon: MoonIcon },
];

function ThemeButton() {
  const at = themes.findIndex(({ name }) => name === theme.value);
  const { label, Icon } = themes[at];
  return (
    <button type="button" class="quiet icon-button" aria-label={label} title={label} onClick={() => (theme.value = themes[(at + 1) % themes.length].name)}>
      <Icon />
    </button>
  );
}

function Health() {
  const state = cluster.value;
  const up = state?.replicas.filter((replica) => replica.state === "up").length ?? 0;
  const all = state?.replicas.length ?? 0;
  const [tone, words] =
    connection.value === "no key" ? ["busy", "key wanted"]
    : connection.value === "connecting" ? ["busy", "connecting"]
    : connection.value === "lost" ? ["bad", "not reached"]
    : !state ? ["busy", "connecting"]
    : hello.value?.kind === "router" && state.phase !== "draining" ? [up === all ? "good" : up ? "busy" : "bad", `${up} of ${all} replicas up`]
    : [state.phase === "ready" ? "good" : state.phase === "failed" ? "bad" : "busy", state.phase];
  return <span class={`state ${tone} health`} role="status">{words}</span>;
}

function App() {
  const told = hello.value;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>To the content</a>
      <header class="top">
        <div class="brand">
          <Whale />
          <span class="brand-name">Cachalot</span>
          <span class="brand-model" title={told?.model || models.value[0]}>{told?.model || models.value[0]}</span>
        </div>
        <nav aria-label="Views">
          <a href="#cluster" aria-current={view.value === "cluster" ? "page" : undefined}>Cluster</a>
          <a href="#chat" aria-current={view.value === "chat" ? "page" : undefined}>Chat</a>
        </nav>
        <div class="top-end">
          <Health />
          <button type="button" class="quiet icon-button" aria-label="API key" title="API key" onClick={() => (keyIsWanted.value = true)}>
            <KeyIcon />
          </button>
          <ThemeButton />
        </div>
      </header>
      {view.value === "chat" ? <ChatView /> : <ClusterView />}
      {keyIsWanted.value && <KeyDialog />}
    </>
  );
}

watchCluster();
// A server that loads has no models yet.
effect(() => {
  key.value;
  if (cluster.value?.replicas.some((replica) => replica.state === "up") && !models.peek().length) void findModels();
});
render(<App />, document.getElementById("app")!);
