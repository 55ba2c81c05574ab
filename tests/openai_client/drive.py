"""What users of the official openai and anthropic clients do, against the server at $OPENAI_BASE_URL; run.sh sets the
scene."""

import json
import os
import threading
import unittest
import urllib.request

import anthropic
import openai

QUESTION = [{"role": "user", "content": "Which one is larger? 3.8 or 3.11"}]
PROMPT = "The day after Sunday"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}


class OpenAiClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = openai.OpenAI(timeout=60, max_retries=0)
        cls.model = cls.client.models.list().data[0].id

    def complete(self, **fields):
        fields = {"model": self.model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0} | fields
        return self.client.completions.create(**fields)

    def chat(self, **fields):
        fields = {"model": self.model, "messages": QUESTION, "max_tokens": 200, "temperature": 0} | fields
        return self.client.chat.completions.create(**fields)

    def test_models(self):
        self.assertEqual(self.client.models.retrieve(self.model).id, self.model)

    def test_completion(self):
        answer = self.complete()
        self.assertTrue(answer.id.startswith("cmpl-"))
        self.assertEqual(answer.object, "text_completion")
        self.assertEqual(answer.model, self.model)
        self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))
        self.assertLessEqual(answer.usage.completion_tokens, 12)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_streamed_completion_equals_the_whole(self):
        whole = self.complete()
        chunks = list(self.complete(stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.choices[0].text for c in chunks if c.choices), whole.choices[0].text)
        self.assertEqual(chunks[-2].choices[0].finish_reason, whole.choices[0].finish_reason)
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)

    def test_prompts_in_lists_and_as_ids(self):
        body = json.dumps({"prompt": PROMPT}).encode()
        root = os.environ["OPENAI_BASE_URL"].rstrip("/").removesuffix("/v1")
        headers = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
        with urllib.request.urlopen(urllib.request.Request(root + "/tokenize", body, headers), timeout=60) as response:
            ids = json.load(response)["tokens"]
        texts = [choice.text for choice in self.complete(prompt=[PROMPT, PROMPT], n=2).choices]
        self.assertEqual(len(texts), 4)
        by_ids = self.complete(prompt=ids).choices[0].text
        self.assertEqual(set(texts), {by_ids})
        self.assertEqual([c.text for c in self.complete(prompt=[ids, ids]).choices], [by_ids, by_ids])

    def test_sampling_is_repeatable_by_seed(self):
        def sample(seed):  # of a text that the model has not learned: it is sure of all others
            answer = self.complete(prompt="Once upon a time", temperature=2, seed=seed, n=3, max_tokens=40)
            return [c.text for c in answer.choices]

        self.assertEqual(sample(7), sample(7))
        self.assertNotEqual(sample(7), sample(8))
        self.assertGreater(len(set(sample(7))), 1)

    def test_chat(self):
        answer = self.chat()
        self.assertTrue(answer.id.startswith("chatcmpl-"))
        message = answer.choices[0].message
        self.assertEqual(message.role, "assistant")
        self.assertTrue(message.content)
        self.assertNotIn("<think>", message.content)
        self.assertNotIn("</think>", message.content)

    def test_streamed_chat_equals_the_whole(self):
        whole = self.chat().choices[0].message
        content, reasoning, roles = "", "", []
        for chunk in self.chat(stream=True):
            delta = chunk.choices[0].delta
            content += delta.content or ""
            reasoning += getattr(delta, "reasoning_content", None) or ""
            roles.append(delta.role)
        self.assertEqual(content, whole.content)
        self.assertEqual(reasoning, getattr(whole, "reasoning_content", None) or "")
        self.assertEqual(roles[0], "assistant")
        self.assertEqual(set(roles[1:]), {None})

    def test_stop_strings(self):
        text = self.complete(max_tokens=12).choices[0].text
        stop = text[len(text) // 2]
        choice = self.complete(stop=[stop]).choices[0]
        self.assertEqual(choice.text, text[: text.index(stop)])
        self.assertEqual(choice.finish_reason, "stop")

    def test_logprobs_of_a_completion(self):
        logprobs = self.complete(logprobs=3, echo=True).choices[0].logprobs
        self.assertEqual(len(logprobs.tokens), len(logprobs.token_logprobs))
        self.assertIsNone(logprobs.token_logprobs[0])
        self.assertTrue(all(value <= 0 for value in logprobs.token_logprobs[1:]))
        self.assertTrue(all(3 <= len(top) <= 4 for top in logprobs.top_logprobs[1:]))

    def test_logprobs_of_a_chat(self):
        answer = self.chat(logprobs=True, top_logprobs=2, max_tokens=10)
        content = answer.choices[0].logprobs.content
        self.assertEqual(len(content), answer.usage.completion_tokens)
        for token in content:
            self.assertEqual(len(token.top_logprobs), 2)
            # Greedy: the token is the likeliest one.
            self.assertAlmostEqual(token.logprob, token.top_logprobs[0].logprob, places=4)

    def respond(self, **fields):
        fields = {"model": self.model, "input": "What is 12 + 30?", "max_output_tokens": 300, "temperature": 0} | fields
        return self.client.responses.create(**fields)

    def test_responses(self):
        response = self.respond()
        self.assertTrue(response.id.startswith("resp_"))
        self.assertEqual(response.status, "completed")
        self.assertEqual(response.output[-1].type, "message")
        self.assertTrue(response.output_text)
        self.assertNotIn("</think>", response.output_text)
        self.assertEqual(response.usage.total_tokens, response.usage.input_tokens + response.usage.output_tokens)

    def test_a_streamed_response_equals_the_whole(self):
        whole = self.respond()
        fields = {"model": self.model, "input": "What is 12 + 30?", "max_output_tokens": 300, "temperature": 0}
        with self.client.responses.stream(**fields) as stream:
            events = list(stream)
            response = stream.get_final_response()
        self.assertEqual(response.output_text, whole.output_text)
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        self.assertEqual(events[0].type, "response.created")
        self.assertEqual(events[-1].type, "response.completed")
        self.assertEqual([item.type for item in response.output], [item.type for item in whole.output])

    def test_responses_go_on_from_each_other(self):
        first = self.respond()
        second = self.respond(input="And 1 + 2?", previous_response_id=first.id)
        self.assertGreater(second.usage.input_tokens, first.usage.input_tokens + 5)
        self.assertEqual(self.client.responses.retrieve(first.id), first)
        self.assertEqual([item.type for item in self.client.responses.input_items.list(second.id)], ["message"])
        self.client.responses.delete(first.id)
        with self.assertRaises(openai.NotFoundError):
            self.client.responses.retrieve(first.id)
        with self.assertRaises(openai.NotFoundError) as caught:
            self.respond(previous_response_id=second.id)
        self.assertEqual(caught.exception.code, "previous_response_not_found")

    def test_responses_that_must_call_a_tool(self):
        tool = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
        try:
            response = self.respond(tools=[tool], tool_choice="required", max_output_tokens=1000)
        except openai.BadRequestError as error:
            self.skipTest(error.message)  # the model calls no tools
        call = response.output[-1]
        self.assertEqual((call.type, call.name), ("function_call", "weather"))
        self.assertEqual(list(json.loads(call.arguments)), ["city"])
        history = [{"role": "user", "content": "What is 12 + 30?"}, *response.output]
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
        self.assertTrue(self.respond(input=[*history, output], tools=[tool]).output)

    def test_errors_name_the_parameter(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.complete(temperature=9)
        self.assertEqual(caught.exception.param, "temperature")
        self.assertEqual(caught.exception.type, "invalid_request_error")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.complete(suffix="x")
        self.assertEqual(caught.exception.param, "suffix")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(max_tokens=10_000_000)
        self.assertEqual(caught.exception.code, "context_length_exceeded")

    def test_an_unknown_model_is_not_found(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.complete(model="no-such-model")
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_a_wrong_key_is_refused(self):
        if os.environ["OPENAI_API_KEY"] == "none":
            self.skipTest("the server asks for no key")
        with self.assertRaises(openai.AuthenticationError):
            self.client.with_options(api_key="wrong").models.list()

    def test_a_stream_can_be_left(self):
        stream = self.complete(stream=True, max_tokens=500, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        self.complete(max_tokens=1)

    def test_many_clients_at_once_get_what_each_gets_alone(self):
        prompts = [f"{PROMPT} {number}" for number in range(8)]
        alone = [self.complete(prompt=prompt).choices[0].text for prompt in prompts]
        together = [None] * len(prompts)

        def ask(index):
            chunks = self.complete(prompt=prompts[index], stream=True)
            together[index] = "".join(chunk.choices[0].text for chunk in chunks)

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(together, alone)


class AnthropicClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        url, key = os.environ["OPENAI_BASE_URL"].rstrip("/").removesuffix("/v1"), os.environ["OPENAI_API_KEY"]
        cls.client = anthropic.Anthropic(base_url=url, api_key=key, timeout=60, max_retries=0)
        cls.model = openai.OpenAI(timeout=60).models.list().data[0].id

    def fields(self, **fields):
        return {
            "model": self.model,
            "max_tokens": 300,
            "messages": [{"role": "user", "content": "What is 12 + 30?"}],
            "extra_body": {"temperature": 0},
        } | fields

    def send(self, **fields):
        return self.client.messages.create(**self.fields(**fields))

    def test_a_message(self):
        message = self.send()
        self.assertEqual([block.type for block in message.content], ["text"])
        self.assertEqual(message.stop_reason, "end_turn")
        counted = self.client.messages.count_tokens(model=self.model, messages=self.fields()["messages"])
        self.assertEqual(counted.input_tokens, message.usage.input_tokens + message.usage.cache_read_input_tokens)

    def test_a_streamed_message_equals_the_whole(self):
        thinking = {"type": "enabled", "budget_tokens": 1024}
        whole = self.send(thinking=thinking)
        with self.client.messages.stream(**self.fields(thinking=thinking)) as stream:
            for _ in stream:
                pass
            message = stream.get_final_message()
        self.assertEqual([block.type for block in message.content], [block.type for block in whole.content])
        self.assertEqual(message.content[-1].text, whole.content[-1].text)
        self.assertEqual(message.stop_reason, whole.stop_reason)
        self.assertEqual(message.usage.output_tokens, whole.usage.output_tokens)
        history = [*self.fields()["messages"], {"role": "assistant", "content": message.content}]
        self.assertTrue(self.send(messages=[*history, {"role": "user", "content": "And 1 + 2?"}]).content)

    def test_messages_that_must_call_a_tool(self):
        tool = {"name": "weather", "input_schema": SCHEMA, "strict": True}
        try:
            message = self.send(tools=[tool], tool_choice={"type": "any"}, max_tokens=1000)
        except anthropic.BadRequestError as error:
            self.skipTest(error.message)  # the model calls no tools
        call = message.content[-1]
        self.assertEqual((call.type, call.name, message.stop_reason), ("tool_use", "weather", "tool_use"))
        self.assertEqual(list(call.input), ["city"])
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
        history = [*self.fields()["messages"], {"role": "assistant", "content": message.content}]
        self.assertTrue(self.send(messages=[*history, {"role": "user", "content": [result]}], tools=[tool]).content)

    def test_stop_sequences(self):
        message = self.send(stop_sequences=["42"])
        self.assertEqual((message.stop_reason, message.stop_sequence), ("stop_sequence", "42"))

    def test_errors_are_anthropics(self):
        with self.assertRaises(anthropic.BadRequestError) as caught:
            self.send(extra_body={"temperature": 9})
        self.assertEqual(caught.exception.body["error"]["type"], "invalid_request_error")
        self.assertIn("temperature", caught.exception.body["error"]["message"])
        self.assertTrue(caught.exception.request_id)
        with self.assertRaises(anthropic.NotFoundError):
            self.send(model="no-such-model")


if __name__ == "__main__":
    unittest.main()
