// Conversations: kept in the browser, and answered by POST /v1/chat/completions.
import { signal } from "@preact/signals";
import { ask, events } from "./api";
import { runTool, toolsFor } from "./tools";

export interface Call {
  id: string;
  name: string;
  arguments: string;
}

export interface Alternative {
  token: string;
  logprob: number;
}

export interface Token extends Alternative {
  top: Alternative[];
  isThought: boolean;
}

export interface Message {
  id: string;
  role: "user" | "assistant" | "tool";
  content: string;
  thought?: string;
  thoughtSeconds?: number;
  calls?: Call[];
  callId?: string; // of a tool's result
  finish?: string;
  error?: string;
  tokens?: number;
  seconds?: number; // from the first token to the last
  firstToken?: number; // seconds
}

export interface Conversation {
  id: string;
  title: string;
  changed: number; // ms since 1970
  messages: Message[];
}

export interface Settings {
  model: string;
  system: string;
  temperature: string; // "": as the model has it
  topP: string;
  maxTokens: string;
  seed: string;
  probabilities: boolean;
  ownTools: string[];
  tools: string; // JSON
}

const kConversations = "cachalot.conversations";
const kSettings = "cachalot.settings";
const kMostConversations = 100;
const kMostCallsInARow = 8;

export const defaults: Settings = {
  model: "", system: "", temperature: "", topP: "", maxTokens: "", seed: "", probabilities: false, ownTools: [], tools: "",
};

function load<T>(name: string, otherwise: T): T {
  try {
    return JSON.parse(localStorage.getItem(name) ?? "null") ?? otherwise;
  } catch {
    return otherwise;
  }
}

function isConversation(value: unknown): value is Conversation {
  const of = value as Conversation;
  return typeof of?.id === "string" && typeof of.title === "string" && Array.isArray(of.messages) &&
    of.messages.every((message) => typeof message?.content === "string" && ["user", "assistant", "tool"].includes(message.role));
}

const stored = load<unknown>(kConversations, []);
export const conversations = signal<Conversation[]>(Array.isArray(stored) ? stored.filter(isConversation) : []);
export const currentId = signal<string>(conversations.value[0]?.id ?? "");
export const settings = signal<Settings>({ ...defaults, ...load<Partial<Settings>>(kSettings, {}) });
export const models = signal<string[]>([]);
export const running = signal<ReadonlyMap<string, AbortController>>(new Map()); // by conversation
export const storageIsFull = signal(false);
// Probabilities are large, and not kept beyond the page.
export const probabilities = new Map<string, Token[]>();
// Changes with each piece of an answer.
export const pulse = signal(0);
export const progress = signal<ReadonlyMap<string, string>>(new Map()); // by message

function setProgress(message: Message, text: string): void {
  const changed = new Map(progress.value);
  text ? changed.set(message.id, text) : changed.delete(message.id);
  progress.value = changed;
}

function newId(): string {
  return crypto.getRandomValues(new Uint32Array(3)).reduce((text, word) => text + word.toString(36), "");
}

function save(): void {
  conversations.value = conversations.value
    .slice()
    .sort((a, b) => b.changed - a.changed)
    .slice(0, kMostConversations);
  // Of what does not fit, the oldest stays behind.
  for (let kept = conversations.value.length; kept >= 0; kept = kept > 8 ? Math.floor(kept / 2) : kept - 1) {
    try {
      localStorage.setItem(kConversations, JSON.stringify(conversations.value.slice(0, kept)));
      storageIsFull.value = kept < conversations.value.length;
      return;
    } catch {
      // Less, then.
    }
  }
}

export function setSettings(changed: Partial<Settings>): void {
  settings.value = { ...settings.value, ...changed };
  try {
    localStorage.setItem(kSettings, JSON.stringify(settings.value));
  } catch {
    // Then they hold until the page is left.
  }
}

export function current(): Conversation | undefined {
  return conversations.value.find((conversation) => conversation.id === currentId.value);
}

export function startConversation(): void {
  currentId.value = "";
}

export function removeConversation(id: string): void {
  stop(id);
  for (const conversation of conversations.value) if (conversation.id === id) cut(conversation, 0);
  conversations.value = conversations.value.filter((conversation) => conversation.id !== id);
  if (currentId.value === id) currentId.value = "";
  save();
}

export function rename(id: string, title: string): void {
  const conversation = conversations.value.find((conversation) => conversation.id === id);
  if (conversation && title.trim()) conversation.title = title.trim().slice(0, 120);
  save();
}

export async function findModels(): Promise<void> {
  try {
    const list = await (await ask("/v1/models")).json();
    models.value = list.data.map((model: { id: unknown }) => String(model.id)).slice(0, 1000);
  } catch {
    models.value = []; // it is said where an answer is asked for
  }
}

function number(text: string): number | undefined {
  const value = Number(text);
  return text.trim() === "" || !Number.isFinite(value) ? undefined : value;
}

function requestOf(conversation: Conversation): object {
  const chosen = settings.value;
  const messages: object[] = chosen.system.trim() ? [{ role: "system", content: chosen.system }] : [];
  for (const message of conversation.messages) {
    if (message.role === "tool") {
      messages.push({ role: "tool", tool_call_id: message.callId, content: message.content });
    } else if (message.role === "user") {
      messages.push({ role: "user", content: message.content });
    } else if (message.content || message.calls?.length) {
      messages.push({
        role: "assistant",
        content: message.content,
        ...(message.thought ? { reasoning: message.thought } : {}),
        ...(message.calls?.length
          ? { tool_calls: message.calls.map(({ id, name, arguments: args }) => ({ id, type: "function", function: { name, arguments: args } })) }
          : {}),
      });
    }
  }
  const tools = toolsFor(chosen.ownTools, chosen.tools);
  const known = models.value.includes(chosen.model) ? chosen.model : models.value[0];
  return {
    ...(known ? { model: known } : {}),
    messages,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    include_progress: true,
    temperature: number(chosen.temperature),
    top_p: number(chosen.topP),
    max_tokens: number(chosen.maxTokens),
    seed: number(chosen.seed),
    ...(chosen.probabilities ? { logprobs: true, top_logprobs: 8 } : {}),
    ...(tools.length ? { tools } : {}),
  };
}

interface Delta {
  content?: string | null;
  reasoning?: string | null;
  reasoning_content?: string | null;
  tool_calls?: { index: number; id?: string; function?: { name?: string; arguments?: string } }[];
}

interface Chunk {
  error?: { message?: string };
  progress?: { queue_place: number; prompt_tokens_computed: number; prompt_tokens: number };
  usage?: { completion_tokens?: number } | null;
  choices?: {
    delta: Delta;
    finish_reason?: string | null;
    logprobs?: { content?: { token: string; logprob: number; top_logprobs: Alternative[] }[] | null } | null;
  }[];
}

class Answer {
  private readonly began = performance.now();
  private first = 0;

  constructor(private readonly message: Message) {}

  take(chunk: Chunk): void {
    const message = this.message;
    const now = performance.now();
    if (chunk.error) throw new Error(chunk.error.message || "the answer broke off");
    if (chunk.progress) {
      const { queue_place: place, prompt_tokens_computed: done, prompt_tokens: all } = chunk.progress;
      setProgress(message, place > 0 ? `waits, ${place === 1 ? "next" : `${place} in the queue`}` : `reads the prompt, ${done} of ${all} tokens`);
    }
    const choice = chunk.choices?.[0];
    if (choice) {
      const { content, reasoning, reasoning_content: older, tool_calls: calls } = choice.delta;
      const thought = reasoning || older;
      if ((content || thought || calls) && !this.first) {
        this.first = now;
        message.firstToken = (now - this.began) / 1000;
        setProgress(message, "");
      }
      if (thought) message.thought = (message.thought ?? "") + thought;
      if (content) {
        if (message.thought && message.thoughtSeconds === undefined) message.thoughtSeconds = (now - this.first) / 1000;
        message.content += content;
      }
      for (const piece of calls ?? []) {
        const list = (message.calls ??= []);
        const call = (list[piece.index] ??= { id: piece.id ?? `call_${piece.index}`, name: "", arguments: "" });
        call.name += piece.function?.name ?? "";
        call.arguments += piece.function?.arguments ?? "";
      }
      if (choice.logprobs?.content) {
        const list = probabilities.get(message.id) ?? [];
        for (const token of choice.logprobs.content)
          list.push({ token: token.token, logprob: token.logprob, top: token.top_logprobs, isThought: !!thought && !content });
        probabilities.set(message.id, list);
      }
      if (choice.finish_reason) message.finish = choice.finish_reason;
    }
    if (chunk.usage?.completion_tokens && this.first) {
      message.tokens = chunk.usage.completion_tokens;
      message.seconds = (now - this.first) / 1000;
    }
  }
}

function touch(conversation: Conversation): void {
  conversation.changed = Date.now();
  pulse.value++;
}

async function answer(conversation: Conversation, abort: AbortController): Promise<Message> {
  const request = requestOf(conversation);
  const message: Message = { id: newId(), role: "assistant", content: "" };
  conversation.messages.push(message);
  touch(conversation);
  const reader = new Answer(message);
  let shown = 0;
  let isWhole = false;
  try {
    const response = await ask("/v1/chat/completions", { method: "POST", body: JSON.stringify(request), signal: abort.signal });
    for await (const { data } of events(response)) {
      if (data === "[DONE]") {
        isWhole = true;
        break;
      }
      reader.take(JSON.parse(data));
      const now = performance.now();
      if (now - shown > 60) {
        shown = now;
        pulse.value++;
      }
    }
    if (!isWhole) message.error = "the answer broke off: the connection was lost";
  } catch (error) {
    if (abort.signal.aborted) message.finish = "stopped";
    else message.error = error instanceof TypeError ? "the server cannot be reached" : (error as Error).message;
  }
  setProgress(message, "");
  touch(conversation);
  return message;
}

// Asks until there is something for a person to say or to do.
async function run(conversation: Conversation): Promise<void> {
  const abort = new AbortController();
  running.value = new Map(running.value).set(conversation.id, abort);
  try {
    for (let round = 0; round < kMostCallsInARow; round++) {
      const message = await answer(conversation, abort);
      save();
      if (message.error || message.finish === "stopped" || !message.calls?.length) break;
      for (const call of message.calls) {
        const result = runTool(call.name, call.arguments);
        if (result !== null) addResult(conversation, call, result);
      }
      if (!isAnswered(conversation, message)) break;
    }
  } catch (error) {
    conversation.messages.push({ id: newId(), role: "assistant", content: "", error: (error as Error).message });
  } finally {
    const left = new Map(running.value);
    left.delete(conversation.id);
    running.value = left;
    touch(conversation);
    save();
  }
}

function addResult(conversation: Conversation, call: Call, content: string): void {
  conversation.messages.push({ id: newId(), role: "tool", callId: call.id, content });
}

export function resultOf(conversation: Conversation, call: Call): Message | undefined {
  return conversation.messages.find((message) => message.role === "tool" && message.callId === call.id);
}

function isAnswered(conversation: Conversation, message: Message): boolean {
  return (message.calls ?? []).every((call) => resultOf(conversation, call));
}

export function send(text: string): void {
  let conversation = current();
  if (!conversation) {
    conversation = { id: newId(), title: text.trim().split("\n")[0].slice(0, 80), changed: Date.now(), messages: [] };
    conversations.value = [conversation, ...conversations.value];
    currentId.value = conversation.id;
  }
  if (running.value.has(conversation.id)) return;
  conversation.messages.push({ id: newId(), role: "user", content: text });
  save();
  void run(conversation);
}

export function stop(id: string): void {
  running.value.get(id)?.abort();
}

function cut(conversation: Conversation, from: number): void {
  for (const message of conversation.messages.splice(from)) probabilities.delete(message.id);
}

// Asks anew from that message of a person's on, whose text may be another.
export function editMessage(conversation: Conversation, message: Message, text: string): void {
  if (running.value.has(conversation.id)) return;
  const at = conversation.messages.indexOf(message);
  cut(conversation, at);
  if (at === 0) conversation.title = text.trim().split("\n")[0].slice(0, 80);
  conversation.messages.push({ id: newId(), role: "user", content: text });
  void run(conversation);
}

// Another answer in place of this one, and of what its tools said.
export function retry(conversation: Conversation, message: Message): void {
  if (running.value.has(conversation.id)) return;
  let at = conversation.messages.indexOf(message);
  while (at > 0 && conversation.messages[at - 1].role !== "user") at--;
  cut(conversation, at);
  void run(conversation);
}

// What a tool of a person's says; goes on when all have spoken.
export function answerCall(conversation: Conversation, message: Message, call: Call, text: string): void {
  if (resultOf(conversation, call)) return;
  addResult(conversation, call, text);
  touch(conversation);
  save();
  if (isAnswered(conversation, message) && !running.value.has(conversation.id)) void run(conversation);
}
