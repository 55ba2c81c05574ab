"""What users of the official openai client do."""

import json
import threading
import unittest

import openai
import pydantic
import scene

QUESTION = [{"role": "user", "content": "Which one is larger? 3.8 or 3.11"}]
PROMPT = "The day after Sunday"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}


def client_of(url):
    return openai.OpenAI(base_url=url, timeout=60, max_retries=0)


class BuiltInModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = client_of(scene.NANO_URL)
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
        ids = scene.ask(scene.root(scene.NANO_URL) + "/tokenize", {"prompt": PROMPT})["tokens"]
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
        if scene.KEY == "none":
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

    def test_forms(self):
        city = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
        for fields, check in (
            ({"response_format": {"type": "json_object"}}, lambda text: self.assertIsInstance(json.loads(text), dict)),
            ({"response_format": city}, lambda text: self.assertEqual(list(json.loads(text)), ["city"])),
            ({"extra_body": {"guided_json": SCHEMA}}, lambda text: self.assertEqual(list(json.loads(text)), ["city"])),
            ({"extra_body": {"guided_choice": ["red", "blue"]}}, lambda text: self.assertIn(text, ("red", "blue"))),
            ({"extra_body": {"guided_regex": "[0-9]{3}-[a-f]{2}"}}, lambda text: self.assertRegex(text, "^...-..$")),
            ({"extra_body": {"structured_outputs": {"choice": ["yes"]}}}, lambda text: self.assertEqual(text, "yes")),
        ):
            with self.subTest(fields):
                choice = self.chat(max_tokens=1000, **fields).choices[0]
                if choice.finish_reason == "length":  # of a text that has no bound
                    self.assertIn("json_object", str(fields))
                    continue
                check(choice.message.content)

    def test_parsed_answers(self):
        class City(pydantic.BaseModel):
            city: str = pydantic.Field(max_length=12)

        fields = {"model": self.model, "max_tokens": 1000, "temperature": 0}
        answer = self.client.chat.completions.parse(messages=QUESTION, response_format=City, **fields)
        self.assertIsInstance(answer.choices[0].message.parsed, City)
        response = self.client.responses.parse(
            model=self.model, input="Which city?", text_format=City, max_output_tokens=1000, temperature=0
        )
        self.assertIsInstance(response.output_parsed, City)


class Person(pydantic.BaseModel):
    name: str
    age: int
    city: str


class Tools(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = client_of(scene.TOOLS_URL)
        cls.model = scene.model_of(scene.TOOLS_URL)
        function = {
            "name": "get_weather",
            "description": scene.WEATHER_DESCRIPTION,
            "parameters": scene.WEATHER_SCHEMA,
            "strict": True,
        }
        cls.chat_tools = [{"type": "function", "function": function}]
        cls.response_tools = [{"type": "function", **function}]
        cls.question = [{"role": "user", "content": scene.WEATHER_QUESTION}]

    def setUp(self):
        self.station = scene.WeatherStation()

    def call(self, name, arguments):
        self.assertEqual(name, "get_weather")
        return self.station.get_weather(**json.loads(arguments))

    def results_of(self, message):
        return [
            {"role": "tool", "tool_call_id": call.id, "content": self.call(call.function.name, call.function.arguments)}
            for call in message.tool_calls
        ]

    def test_a_chat_calls_a_tool(self):
        fields = {"model": self.model, "tools": self.chat_tools}
        for choice in ("auto", "required", {"type": "function", "function": {"name": "get_weather"}}):
            with self.subTest(choice):
                self.setUp()
                first = self.client.chat.completions.create(messages=self.question, tool_choice=choice, **fields)
                self.assertEqual(first.choices[0].finish_reason, "stop" if isinstance(choice, dict) else "tool_calls")
                message = first.choices[0].message
                history = [*self.question, message, *self.results_of(message)]
                second = self.client.chat.completions.create(messages=history, **fields)
                self.assertEqual(second.choices[0].finish_reason, "stop")
                self.station.check(self, second.choices[0].message.content)

    def test_the_stream_helper_gathers_calls(self):
        kinds = []
        fields = {"model": self.model, "tools": self.chat_tools, "messages": self.question}
        with self.client.chat.completions.stream(**fields) as stream:
            for event in stream:
                kinds.append(event.type)
            message = stream.get_final_completion().choices[0].message
        self.assertIn("tool_calls.function.arguments.delta", kinds)
        self.assertIn("tool_calls.function.arguments.done", kinds)
        self.assertEqual(message.tool_calls[0].function.parsed_arguments, {"city": "Paris"})
        fields["messages"] = [*self.question, message, *self.results_of(message)]
        with self.client.chat.completions.stream(**fields) as stream:
            kinds = [event.type for event in stream]
            answer = stream.get_final_completion().choices[0].message.content
        self.assertIn("content.delta", kinds)
        self.station.check(self, answer)

    def test_two_calls_at_once(self):
        question = [{"role": "user", "content": scene.TWO_WEATHERS_QUESTION}]
        fields = {"model": self.model, "tools": self.chat_tools, "messages": question}
        whole = self.client.chat.completions.create(**fields).choices[0].message
        with self.client.chat.completions.stream(**fields) as stream:
            stream.until_done()
            streamed = stream.get_final_completion().choices[0].message
        for message in (whole, streamed):
            arguments = [json.loads(call.function.arguments) for call in message.tool_calls]
            self.assertEqual(arguments, [{"city": "Rome"}, {"city": "Oslo"}])
            self.assertNotEqual(message.tool_calls[0].id, message.tool_calls[1].id)
        fields["messages"] = [*question, whole, *self.results_of(whole)]
        self.assertTrue(self.client.chat.completions.create(**fields).choices[0].message.content)

    def test_a_chat_is_parsed(self):
        messages = [{"role": "user", "content": scene.PERSON_QUESTION}]
        fields = {"model": self.model, "messages": messages, "response_format": Person}
        parsed = self.client.chat.completions.parse(**fields).choices[0].message.parsed
        scene.check_person(self, parsed)
        with self.client.chat.completions.stream(**fields) as stream:
            events = list(stream)
            self.assertEqual(stream.get_final_completion().choices[0].message.parsed, parsed)
        self.assertTrue(any(event.type == "content.delta" and event.parsed for event in events))

    def test_a_response_calls_a_tool(self):
        fields = {"model": self.model, "tools": self.response_tools}
        first = self.client.responses.create(input=self.question, **fields)
        call = first.output[-1]
        self.assertEqual(call.type, "function_call")
        result = {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": self.call(call.name, call.arguments),
        }
        self.station.check(self, self.client.responses.create(
            input=[*self.question, *first.output, result], **fields).output_text)  # fmt: skip
        # Or by what the server has stored, whichever replica that is.
        for _ in range(4):
            second = self.client.responses.create(input=[result], previous_response_id=first.id, **fields)
            self.station.check(self, second.output_text)

    def test_a_streamed_response_calls_a_tool(self):
        fields = {"model": self.model, "tools": self.response_tools}
        with self.client.responses.stream(input=self.question, **fields) as stream:
            kinds = [event.type for event in stream]
            call = stream.get_final_response().output[-1]
        self.assertIn("response.function_call_arguments.delta", kinds)
        self.assertIn("response.function_call_arguments.done", kinds)
        self.assertEqual(json.loads(call.arguments), {"city": "Paris"})

    def test_a_response_is_parsed(self):
        fields = {"model": self.model, "input": scene.PERSON_QUESTION, "text_format": Person}
        parsed = self.client.responses.parse(**fields).output_parsed
        scene.check_person(self, parsed)
        with self.client.responses.stream(**fields) as stream:
            stream.until_done()
            self.assertEqual(stream.get_final_response().output_parsed, parsed)

    def test_the_conversation_of_many_rounds(self):
        messages = list(self.question)
        for _ in range(3):
            message = self.client.chat.completions.create(
                model=self.model, tools=self.chat_tools, messages=messages
            ).choices[0].message  # fmt: skip
            messages += [message, *self.results_of(message)]
            answer = self.client.chat.completions.create(model=self.model, tools=self.chat_tools, messages=messages)
            messages += [answer.choices[0].message, *self.question]
        self.assertEqual(self.station.cities, ["Paris"] * 3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
