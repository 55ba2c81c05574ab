// What users of Vercel's AI SDK do.
import assert from "node:assert/strict";
import { before, suite, test } from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import * as scene from "./scene.mjs";

async function modelAt(baseURL) {
  const provider = createOpenAICompatible({
    name: "cachalot",
    baseURL,
    apiKey: scene.key,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
  return provider(await scene.modelOf(baseURL));
}

suite("the built-in model", () => {
  let fields;
  before(async () => {
    const model = await modelAt(scene.nanoUrl);
    fields = { model, prompt: "What is 12 + 30?", maxOutputTokens: 300, temperature: 0, maxRetries: 0 };
  });

  test("a streamed text equals the whole, as does its thought", async () => {
    const whole = await generateText(fields);
    assert.match(whole.text, /42/);
    assert.ok(whole.reasoningText);
    const streamed = streamText(fields);
    let text = "";
    for await (const piece of streamed.textStream) text += piece;
    assert.equal(text, whole.text);
    assert.equal(await streamed.reasoningText, whole.reasoningText);
    assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
  });
});

suite("tools", () => {
  let model;
  before(async () => (model = await modelAt(scene.toolsUrl)));
  const loop = (station) => ({
    model,
    prompt: scene.weatherQuestion,
    maxRetries: 0,
    stopWhen: stepCountIs(5),
    tools: {
      get_weather: tool({
        description: scene.weatherDescription,
        inputSchema: z.object({ city: z.string() }),
        execute: async (city) => station.getWeather(city),
      }),
    },
  });

  test("a loop", async () => {
    const station = new scene.WeatherStation();
    station.check((await generateText(loop(station))).text);
  });

  test("a streamed loop", async () => {
    const station = new scene.WeatherStation();
    const streamed = streamText(loop(station));
    const kinds = [];
    for await (const part of streamed.fullStream) kinds.push(part.type);
    assert.ok(kinds.includes("tool-call") && !kinds.includes("error"), kinds.join(" "));
    station.check(await streamed.text);
  });

  test("an object", async () => {
    const schema = z.object({ name: z.string(), age: z.number().int(), city: z.string() });
    const fields = { model, prompt: scene.personQuestion, maxRetries: 0, output: Output.object({ schema }) };
    assert.deepEqual((await generateText(fields)).output, scene.person);
    const streamed = streamText(fields);
    assert.deepEqual(await streamed.output, scene.person);
  });
});
