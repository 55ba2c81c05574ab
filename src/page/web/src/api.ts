// What the page asks the server that it came from, with the key where one is wanted.
import { signal } from "@preact/signals";

const kKey = "cachalot.key";

function read(storage: () => Storage): string {
  try {
    return storage().getItem(kKey) ?? "";
  } catch {
    return ""; // storage may be forbidden
  }
}

export const key = signal(read(() => sessionStorage) || read(() => localStorage));
export const keyIsWanted = signal(false); // the server has refused what we brought
export const keyIsRemembered = signal(read(() => localStorage) !== "");

export function setKey(value: string, remember: boolean): void {
  key.value = value;
  keyIsWanted.value = false;
  keyIsRemembered.value = remember && value !== "";
  try {
    localStorage.removeItem(kKey);
    sessionStorage.removeItem(kKey);
    if (value) (remember ? localStorage : sessionStorage).setItem(kKey, value);
  } catch {
    // Then it holds until the page is left.
  }
}

// Of an answer that is none: what the server says of it.
export class ApiError extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

async function describe(response: Response): Promise<string> {
  const text = await response.text().catch(() => "");
  try {
    const error = JSON.parse(text).error;
    if (typeof error?.message === "string") return error.message;
  } catch {
    // No JSON: the text itself.
  }
  return text.slice(0, 500) || `the server answers ${response.status}`;
}

export async function ask(path: string, options: RequestInit = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  const brought = key.value;
  if (brought) headers.set("Authorization", `Bearer ${brought}`);
  if (options.body) headers.set("Content-Type", "application/json");
  const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (response.ok) return response;
  if (response.status === 401 && brought === key.value) keyIsWanted.value = true;
  throw new ApiError(response.status, await describe(response));
}

export interface ServerEvent {
  event: string;
  data: string;
}

// The events of a stream, as they come.
export async function* events(response: Response): AsyncGenerator<ServerEvent> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      for (let end; (end = rest.indexOf("\n\n")) >= 0; ) {
        const lines = rest.slice(0, end).split("\n");
        rest = rest.slice(end + 2);
        let event = "message";
        const data: string[] = [];
        for (const line of lines) {
          if (line.startsWith("event:")) event = line.slice(6).trim();
          else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        }
        if (data.length) yield { event, data: data.join("\n") };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
