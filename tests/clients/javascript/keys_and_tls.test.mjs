// What users of the official openai client for JavaScript see of a server that speaks TLS, by an authority that node was
// told of (NODE_EXTRA_CA_CERTS), and has a key for each of them.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

const clientOf = (apiKey, maxRetries = 0) => new OpenAI({ baseURL: process.env.GUARDED_URL, apiKey, maxRetries });
const messages = [{ role: "user", content: "What is 12 + 30?" }];

test("an answer, whole and streamed", async () => {
  const completions = clientOf("sk-patient").chat.completions;
  const whole = await completions.create({ messages });
  assert.match(whole.choices[0].message.content, /42/);
  let content = "";
  for await (const chunk of await completions.create({ messages, stream: true }))
    content += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(content, whole.choices[0].message.content);
});

test("a wrong key is refused", async () => {
  const refused = clientOf("wrong").chat.completions.create({ messages });
  await assert.rejects(refused, (error) => error instanceof OpenAI.AuthenticationError && error.code === "invalid_api_key");
});

test("a limit is told and waited for", async () => {
  const key = "sk-hurried_javascript";
  const ask = (client) => client.chat.completions.create({ messages, max_tokens: 1 });
  const hurry = async () => {
    for (let i = 0; i < 100; i++) await ask(clientOf(key));
  };
  await assert.rejects(hurry, (error) => error instanceof OpenAI.RateLimitError && error.headers.get("retry-after") >= 2);
  const begin = performance.now();
  assert.ok(await ask(clientOf(key, 1)));
  assert.ok(performance.now() - begin > 1500); // its own patience begins with 500
});
