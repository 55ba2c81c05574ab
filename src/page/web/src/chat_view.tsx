// The chat: conversations, their messages, what is typed, and settings.
import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { keyIsWanted } from "./api";
import {
  answerCall, conversations, current, currentId, defaults, editMessage, models, probabilities, progress, pulse,
  removeConversation, resultOf, retry, running, send, setSettings, settings, startConversation, stop, storageIsFull,
  type Call, type Conversation, type Message,
} from "./chat_data";
import { count, day, plural, seconds } from "./format";
import { ChartIcon, CloseIcon, CopyIcon, EditIcon, MenuIcon, PlusIcon, RetryIcon, SendIcon, SettingsIcon, StopIcon, ToolIcon, TrashIcon } from "./icons";
import { render } from "./markdown";
import { Probabilities } from "./probabilities";
import { ownTools } from "./tools";

// While text streams in, it is drawn again no more often than drawing takes a quarter of the time.
function Markdown({ text, isGrowing }: { text: string; isGrowing: boolean }) {
  const place = useRef<HTMLDivElement>(null);
  const drawn = useRef({ text: "", until: 0, timer: 0 });
  useLayoutEffect(() => {
    const state = drawn.current;
    const draw = () => {
      state.timer = 0;
      if (state.text === text || !place.current) return;
      const began = performance.now();
      place.current.replaceChildren(render(text));
      state.text = text;
      state.until = performance.now() + 3 * (performance.now() - began);
    };
    clearTimeout(state.timer);
    const wait = isGrowing ? state.until - performance.now() : 0;
    if (wait > 0) state.timer = window.setTimeout(draw, wait);
    else draw();
  }, [text, isGrowing]);
  useEffect(() => () => clearTimeout(drawn.current.timer), []);
  return <div ref={place} class="markdown" dir="auto" />;
}

function Thought({ message, isOpen }: { message: Message; isOpen: boolean }) {
  pulse.value;
  const [chosen, setChosen] = useState<boolean | null>(null);
  const open = chosen ?? false;
  const label = isOpen ? "Thinking…" : message.thoughtSeconds === undefined ? "Thought" : `Thought for ${seconds(message.thoughtSeconds)}`;
  return (
    <details class="thought" open={open}>
      <summary
        onClick={(event) => {
          event.preventDefault();
          setChosen(!open);
        }}
      >
        <span class={isOpen ? "thinking" : ""}>{label}</span>
      </summary>
      {open && <Markdown text={message.thought ?? ""} isGrowing={isOpen} />}
    </details>
  );
}

function CallCard({ conversation, message, call, isOver }: { conversation: Conversation; message: Message; call: Call; isOver: boolean }) {
  const [text, setText] = useState("");
  pulse.value;
  const result = resultOf(conversation, call);
  return (
    <div class="call">
      <div class="call-head">
        <ToolIcon />
        <strong>{call.name || "a tool"}</strong>
      </div>
      <pre tabIndex={0}><code>{call.arguments || "{}"}</code></pre>
      {result ? (
        <div class="call-result">
          <span class="muted">Result</span>
          <pre tabIndex={0}><code>{result.content}</code></pre>
        </div>
      ) : (
        isOver && (
          <form
            onSubmit={(event) => {
              event.preventDefault();
              answerCall(conversation, message, call, text);
            }}
          >
            <label>
              <span>What does this tool say?</span>
              <textarea rows={2} value={text} onInput={(event) => setText(event.currentTarget.value)} />
            </label>
            <button type="submit">Give the result</button>
          </form>
        )
      )}
    </div>
  );
}

function Copy({ text }: { text: string }) {
  const [copied, setCopied] = useState(false);
  return (
    <button
      type="button"
      class="quiet"
      onClick={() => {
        void navigator.clipboard?.writeText(text).then(() => {
          setCopied(true);
          setTimeout(() => setCopied(false), 1500);
        });
      }}
    >
      <CopyIcon /> {copied ? "Copied" : "Copy"}
    </button>
  );
}

function UserMessage({ conversation, message }: { conversation: Conversation; message: Message }) {
  const [draft, setDraft] = useState<string | null>(null);
  const isBusy = running.value.has(conversation.id);
  if (draft !== null)
    return (
      <form
        class="edit"
        onSubmit={(event) => {
          event.preventDefault();
          if (draft.trim()) editMessage(conversation, message, draft);
          setDraft(null);
        }}
      >
        <label>
          <span class="unseen">Your message</span>
          <textarea
            rows={Math.min(12, draft.split("\n").length + 1)}
            value={draft}
            autoFocus
            onInput={(event) => setDraft(event.currentTarget.value)}
            onKeyDown={(event) => event.key === "Escape" && setDraft(null)}
          />
        </label>
        <div class="actions">
          <button type="submit" class="main">Ask again</button>
          <button type="button" onClick={() => setDraft(null)}>Cancel</button>
        </div>
      </form>
    );
  return (
    <article class="message user" aria-label="You">
      <div class="bubble" dir="auto">{message.content}</div>
      <div class="actions">
        <button type="button" class="quiet" disabled={isBusy} onClick={() => setDraft(message.content)}>
          <EditIcon /> Edit
        </button>
        <Copy text={message.content} />
      </div>
    </article>
  );
}

const finishes: Record<string, string> = {
  length: "It ends here: it has as many tokens as it may have.",
  stopped: "Stopped.",
  content_filter: "It was held back.",
};

function AssistantMessage({ conversation, message, isLast }: { conversation: Conversation; message: Message; isLast: boolean }) {
  const [showsTokens, setShowsTokens] = useState(false);
  pulse.value; // messages change in place
  const isGrowing = isLast && running.value.has(conversation.id) && !message.finish && !message.error;
  const tokens = probabilities.get(message.id);
  const rate = message.tokens && message.tokens > 1 && message.seconds ? (message.tokens - 1) / message.seconds : null;
  const facts = [
    message.tokens ? plural(message.tokens, "token") : "",
    rate ? `${count(rate)} tokens/s` : "",
    message.firstToken !== undefined ? `first after ${seconds(message.firstToken)}` : "",
  ].filter(Boolean);
  return (
    <article class="message assistant" aria-label="Answer" aria-busy={isGrowing}>
      {message.thought && <Thought message={message} isOpen={isGrowing && !message.content && !message.calls} />}
      {showsTokens && tokens ? <Probabilities tokens={tokens} /> : message.content.trim() && <Markdown text={message.content} isGrowing={isGrowing} />}
      {message.calls?.map((call) => (
        <CallCard key={call.id} conversation={conversation} message={message} call={call} isOver={!isGrowing} />
      ))}
      {isGrowing && !message.content && !message.thought && <p class="note waiting-note">{progress.value.get(message.id) || "Waiting for the first token"}<span class="dots" aria-hidden="true" /></p>}
      {message.error && <p class="error" role="alert">{message.error}</p>}
      {message.finish && finishes[message.finish] && <p class="note">{finishes[message.finish]}</p>}
      <div class="actions">
        {!isGrowing && (
          <>
            <button type="button" class="quiet" disabled={running.value.has(conversation.id)} onClick={() => retry(conversation, message)}>
              <RetryIcon /> Retry
            </button>
            <Copy text={message.content} />
          </>
        )}
        {tokens && !isGrowing && (
          <button type="button" class="quiet" aria-pressed={showsTokens} onClick={() => setShowsTokens(!showsTokens)}>
            <ChartIcon /> Probabilities
          </button>
        )}
        {facts.length > 0 && <span class="facts">{facts.join(" · ")}</span>}
      </div>
    </article>
  );
}

function Messages({ conversation }: { conversation: Conversation }) {
  const list = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  pulse.value;
  useLayoutEffect(() => {
    follows.current = true;
  }, [conversation.id, conversation.messages.length]);
  // Text is also drawn when its time has come, and pictures of probabilities when they are asked for.
  useEffect(() => {
    const resized = new ResizeObserver(() => {
      if (follows.current && list.current) list.current.scrollTop = list.current.scrollHeight;
    });
    resized.observe(list.current!.firstElementChild!);
    return () => resized.disconnect();
  }, []);
  const last = conversation.messages.at(-1);
  return (
    <div
      ref={list}
      class="messages"
      role="log"
      aria-label="Conversation"
      aria-live="off"
      tabIndex={0}
      onScroll={(event) => {
        const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
        follows.current = scrollHeight - scrollTop - clientHeight < 80;
      }}
    >
      <div class="messages-inner">
        {conversation.messages.map((message) =>
          message.role === "user" ? (
            <UserMessage key={message.id} conversation={conversation} message={message} />
          ) : message.role === "assistant" ? (
            <AssistantMessage key={message.id} conversation={conversation} message={message} isLast={message === last} />
          ) : null,
        )}
      </div>
    </div>
  );
}

const examples = ["Which one is larger? 3.8 or 3.11", "What is 4789 + 365?", "Write the quadratic formula and say what each letter means."];

function Composer({ conversation, input }: { conversation: Conversation | undefined; input: RefObject<HTMLTextAreaElement | null> }) {
  const [text, setText] = useState("");
  const isBusy = conversation !== undefined && running.value.has(conversation.id);
  useLayoutEffect(() => {
    const area = input.current!;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight + 2, 220)}px`;
  }, [text]);
  const submit = () => {
    if (!text.trim() || isBusy) return;
    send(text);
    setText("");
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <label class="unseen" for="prompt">Message</label>
      <textarea
        id="prompt"
        ref={input}
        rows={1}
        placeholder="Ask something"
        value={text}
        dir="auto"
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            submit();
          } else if (event.key === "Escape" && isBusy) {
            stop(conversation.id);
          }
        }}
      />
      {isBusy ? (
        <button type="button" class="round stop" aria-label="Stop" title="Stop (Escape)" onClick={() => stop(conversation.id)}>
          <StopIcon />
        </button>
      ) : (
        <button type="submit" class="round main" aria-label="Send" title="Send (Enter)" disabled={!text.trim()}>
          <SendIcon />
        </button>
      )}
    </form>
  );
}

function Field({ label, hint, name, ...rest }: { label: string; hint: string; name: "temperature" | "topP" | "maxTokens" | "seed"; min?: string; max?: string; step?: string }) {
  return (
    <label class="field">
      <span>{label}</span>
      <input type="number" placeholder={hint} value={settings.value[name]} onInput={(event) => setSettings({ [name]: event.currentTarget.value })} {...rest} />
    </label>
  );
}

function SettingsPanel({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  const chosen = settings.value;
  return (
    <dialog ref={dialog} class="drawer" aria-labelledby="settings-title" onClose={onClose} onClick={(event) => event.target === dialog.current && dialog.current?.close()}>
      <form method="dialog">
        <header class="panel-head">
          <h2 id="settings-title">Settings</h2>
          <button type="submit" class="quiet icon-button" aria-label="Close"><CloseIcon /></button>
        </header>
        <label class="field">
          <span>Model</span>
          <select value={models.value.includes(chosen.model) ? chosen.model : models.value[0]} onChange={(event) => setSettings({ model: event.currentTarget.value })}>
            {models.value.map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </label>
        <label class="field">
          <span>What the model is told first</span>
          <textarea rows={4} placeholder="Nothing" value={chosen.system} onInput={(event) => setSettings({ system: event.currentTarget.value })} />
        </label>
        <div class="field-row">
          <Field label="Temperature" hint="model's" name="temperature" min="0" max="2" step="any" />
          <Field label="Top p" hint="model's" name="topP" min="0" max="1" step="any" />
          <Field label="Most tokens" hint="all that fit" name="maxTokens" min="1" step="1" />
          <Field label="Seed" hint="random" name="seed" step="1" />
        </div>
        <label class="check">
          <input type="checkbox" checked={chosen.probabilities} onChange={(event) => setSettings({ probabilities: event.currentTarget.checked })} />
          <span>Probabilities of each token, and of what else might have stood there</span>
        </label>
        <fieldset>
          <legend>Tools that run in this page</legend>
          {ownTools.map((tool) => (
            <label class="check" key={tool.name}>
              <input
                type="checkbox"
                checked={chosen.ownTools.includes(tool.name)}
                onChange={(event) =>
                  setSettings({ ownTools: event.currentTarget.checked ? [...chosen.ownTools, tool.name] : chosen.ownTools.filter((name) => name !== tool.name) })
                }
              />
              <span><code>{tool.name}</code> {tool.description}</span>
            </label>
          ))}
        </fieldset>
        <label class="field">
          <span>Your own tools, as JSON; you are asked for what they say</span>
          <textarea class="code-input" rows={5} spellcheck={false} placeholder={'[{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]'} value={chosen.tools} onInput={(event) => setSettings({ tools: event.currentTarget.value })} />
        </label>
        <div class="actions">
          <button type="submit" class="main">Done</button>
          <button type="button" onClick={() => setSettings({ ...defaults, model: chosen.model })}>Defaults</button>
        </div>
      </form>
    </dialog>
  );
}

function Conversations({ onChoose }: { onChoose: () => void }) {
  pulse.value;
  const choose = (id: string) => {
    currentId.value = id;
    onChoose();
  };
  return (
    <nav class="conversations" aria-label="Conversations">
      <button type="button" class="wide-button" onClick={() => { startConversation(); onChoose(); }}>
        <PlusIcon /> New conversation
      </button>
      <ul>
        {conversations.value.map((conversation) => (
          <li key={conversation.id} class={conversation.id === currentId.value ? "current" : ""}>
            <button type="button" class="title" aria-current={conversation.id === currentId.value ? "true" : undefined} onClick={() => choose(conversation.id)}>
              <span dir="auto">{conversation.title || "Without a title"}</span>
              <time class="muted" dateTime={new Date(conversation.changed).toISOString()}>{running.value.has(conversation.id) ? "answers…" : day(conversation.changed)}</time>
            </button>
            <button type="button" class="quiet icon-button" aria-label={`Delete ${conversation.title || "the conversation"}`} onClick={() => removeConversation(conversation.id)}>
              <TrashIcon />
            </button>
          </li>
        ))}
      </ul>
      <p class="note">
        {storageIsFull.value ? "This browser keeps no more: the oldest go when the page is left." : "Kept in this browser alone."}
      </p>
    </nav>
  );
}

export function ChatView() {
  const [settingsAreOpen, setSettingsAreOpen] = useState(false);
  const [listIsOpen, setListIsOpen] = useState(false);
  const input = useRef<HTMLTextAreaElement>(null);
  pulse.value;
  const conversation = current();
  const model = models.value.includes(settings.value.model) ? settings.value.model : models.value[0];
  useEffect(() => {
    if (matchMedia("(pointer: fine)").matches) input.current?.focus();
  }, [currentId.value]);
  const last = conversation?.messages.findLast((message) => message.role === "assistant");
  const isBusy = conversation !== undefined && running.value.has(conversation.id);
  return (
    <main id="main" class={`chat${listIsOpen ? " list-open" : ""}`} tabIndex={-1}>
      <h1 class="unseen">Chat</h1>
      <Conversations onChoose={() => setListIsOpen(false)} />
      <div class="chat-main">
        <div class="chat-bar">
          <button type="button" class="quiet icon-button only-narrow" aria-label="Conversations" aria-expanded={listIsOpen} onClick={() => setListIsOpen(!listIsOpen)}>
            <MenuIcon />
          </button>
          <span class="model" title={model}>{model ?? "no model yet"}</span>
          <button type="button" class="quiet" onClick={() => setSettingsAreOpen(true)}>
            <SettingsIcon /> Settings
          </button>
        </div>
        {conversation ? (
          <Messages key={conversation.id} conversation={conversation} />
        ) : (
          <div class="welcome">
            <p>{model ? <>Ask <strong>{model}</strong> something.</> : keyIsWanted.value ? "The server wants an API key." : "The server takes no requests yet."}</p>
            {model && (
              <ul>
                {examples.map((example) => (
                  <li key={example}><button type="button" onClick={() => send(example)}>{example}</button></li>
                ))}
              </ul>
            )}
          </div>
        )}
        <Composer conversation={conversation} input={input} />
        <p class="unseen" role="status">{isBusy ? "The model answers" : last?.error ? "" : last ? "The answer is there" : ""}</p>
      </div>
      {settingsAreOpen && <SettingsPanel onClose={() => setSettingsAreOpen(false)} />}
    </main>
  );
}
