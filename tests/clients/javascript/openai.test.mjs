// What users of the official openai client for JavaScript do.
import assert from "node:assert/strict";
import { before, suite, test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import * as scene from "./scene.mjs";

const clientOf = (baseURL) => new OpenAI({ baseURL, apiKey: scene.key, timeout: 60_000, maxRetries: 0 });
const Person = z.object({ name: z.string(), age: z.number().int(), city: z.string() });

suite("the built-in model", () => {
  const client = clientOf(scene.nanoUrl);
  let fields;
  before(async () => {
    const messages = [{ role: "user", content: "What is 12 + 30?" }];
    fields = { model: await scene.modelOf(scene.nanoUrl), messages, max_tokens: 300, temperature: 0 };
  });

  test("a streamed chat equals the whole", async () => {
    const whole = await client.chat.completions.create(fields);
    assert.equal(whole.choices[0].finish_reason, "stop");
    assert.match(whole.choices[0].message.content, /42/);
    let content = "";
    for await (const chunk of await client.chat.completions.create({ ...fields, stream: true }))
      content += chunk.choices[0]?.delta?.content ?? "";
    assert.equal(content, whole.choices[0].message.content);
    const deltas = [];
    const stream = client.chat.completions.stream(fields).on("content", (delta) => deltas.push(delta));
    const gathered = await stream.finalChatCompletion();
    assert.equal(deltas.join(""), whole.choices[0].message.content);
    assert.equal(gathered.choices[0].message.content, whole.choices[0].message.content);
  });

  test("a completion", async () => {
    const { model } = fields;
    const answer = await client.completions.create({ model, prompt: "The day after Sunday", max_tokens: 5 });
    assert.ok(answer.usage.completion_tokens <= 5);
  });

  test("a parsed answer", async () => {
    const Small = z.object({ city: z.enum(["Paris", "Rome"]) });
    const format = zodResponseFormat(Small, "city");
    const answer = await client.chat.completions.parse({ ...fields, max_tokens: 1000, response_format: format });
    Small.parse(answer.choices[0].message.parsed);
  });

  test("errors have their classes", async () => {
    await assert.rejects(client.chat.completions.create({ ...fields, temperature: 9 }), OpenAI.BadRequestError);
    await assert.rejects(client.chat.completions.create({ ...fields, model: "none" }), OpenAI.NotFoundError);
  });

  test("a stream can be left", async () => {
    const stream = await client.chat.completions.create({ ...fields, stream: true, max_tokens: 2000 });
    for await (const _ of stream) break;
    assert.ok((await client.chat.completions.create({ ...fields, max_tokens: 1 })).usage);
  });
});

suite("tools", () => {
  const client = clientOf(scene.toolsUrl);
  const messages = [{ role: "user", content: scene.weatherQuestion }];
  const parameters = {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  };
  let model;
  before(async () => (model = await scene.modelOf(scene.toolsUrl)));

  for (const stream of [false, true])
    test("runTools" + (stream ? ", streamed" : ""), async () => {
      const station = new scene.WeatherStation();
      const tool = {
        name: "get_weather",
        description: scene.weatherDescription,
        parameters,
        parse: JSON.parse,
        function: (city) => station.getWeather(city),
      };
      const tools = [{ type: "function", function: tool }];
      station.check(await client.chat.completions.runTools({ model, messages, tools, stream }).finalContent());
    });

  test("a parsed answer", async () => {
    const fields = { model, messages: [{ role: "user", content: scene.personQuestion }] };
    fields.response_format = zodResponseFormat(Person, "person");
    const answer = await client.chat.completions.parse(fields);
    assert.deepEqual(answer.choices[0].message.parsed, scene.person);
    const streamed = await client.chat.completions.stream(fields).finalChatCompletion();
    assert.deepEqual(streamed.choices[0].message.parsed, scene.person);
  });

  test("responses call a tool", async () => {
    const station = new scene.WeatherStation();
    const tools = [{ type: "function", name: "get_weather", strict: true, parameters }];
    const first = await client.responses.create({ model, input: messages, tools });
    const call = first.output.at(-1);
    assert.equal(call.type, "function_call");
    const output = station.getWeather(JSON.parse(call.arguments));
    const input = [{ type: "function_call_output", call_id: call.call_id, output }];
    const kinds = [];
    const stream = client.responses.stream({ model, input, tools, previous_response_id: first.id });
    for await (const event of stream) kinds.push(event.type);
    assert.equal(kinds.at(-1), "response.completed");
    station.check((await stream.finalResponse()).output_text);
  });

  test("a parsed response", async () => {
    const fields = { model, input: scene.personQuestion, text: { format: zodTextFormat(Person, "person") } };
    assert.deepEqual((await client.responses.parse(fields)).output_parsed, scene.person);
  });
});
