"""What users of the official anthropic client do."""

import unittest

import anthropic
import pydantic
import scene

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}


def client_of(url):
    return anthropic.Anthropic(base_url=scene.root(url), api_key=scene.KEY, timeout=60, max_retries=0)


class BuiltInModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = client_of(scene.NANO_URL)
        cls.model = scene.model_of(scene.NANO_URL)

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

    def test_a_picture_that_was_read_once_stands_in_nobodys_way(self):
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
        history = [
            {"role": "user", "content": "Read a.png"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "Read", "input": {"path": "a.png"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [picture]}]},
            {"role": "assistant", "content": "I see no pictures."},
        ]
        message = self.send(messages=[*history, *self.fields()["messages"]])
        self.assertEqual(message.stop_reason, "end_turn")
        self.assertEqual(message.content[0].text, message.content[0].text.lstrip(), "nothing stands in front of it")

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

    def test_models(self):
        self.assertIn(self.model, [model.id for model in self.client.models.list()])


class Tools(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = client_of(scene.TOOLS_URL)
        cls.tools = [
            {
                "name": "get_weather",
                "description": scene.WEATHER_DESCRIPTION,
                "input_schema": scene.WEATHER_SCHEMA,
            }
        ]
        cls.question = [{"role": "user", "content": scene.WEATHER_QUESTION}]
        cls.fields = {"model": scene.model_of(scene.TOOLS_URL), "max_tokens": 1000}

    def setUp(self):
        self.station = scene.WeatherStation()

    def answer_calls(self, messages, message):
        self.assertEqual(message.stop_reason, "tool_use")
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": self.station.get_weather(**block.input)}
            for block in message.content
            if block.type == "tool_use"
        ]
        return [*messages, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]

    def text_of(self, message):
        self.assertEqual(message.stop_reason, "end_turn")
        return "".join(block.text for block in message.content if block.type == "text")

    def test_a_message_calls_a_tool(self):
        for choice in ({"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "get_weather"}):
            with self.subTest(choice):
                self.setUp()
                fields = {"tools": self.tools, **self.fields}
                first = self.client.messages.create(messages=self.question, tool_choice=choice, **fields)
                history = self.answer_calls(self.question, first)
                self.station.check(self, self.text_of(self.client.messages.create(messages=history, **fields)))

    def test_a_streamed_message_calls_a_tool(self):
        fields = {"tools": self.tools, "thinking": {"type": "enabled", "budget_tokens": 1024}, **self.fields}
        fields["max_tokens"] = 4000
        with self.client.messages.stream(messages=self.question, **fields) as stream:
            kinds = [event.type for event in stream]
            first = stream.get_final_message()
        self.assertIn("input_json", kinds)
        self.assertIn("thinking", kinds)
        self.assertEqual(first.content[0].type, "thinking")
        history = self.answer_calls(self.question, first)
        with self.client.messages.stream(messages=history, **fields) as stream:
            text = "".join(stream.text_stream)
            self.assertEqual(text, self.text_of(stream.get_final_message()))
        self.station.check(self, text)

    def test_the_tool_runner(self):
        @anthropic.beta_tool
        def get_weather(city: str) -> str:
            """The weather of a city"""
            return self.station.get_weather(city)

        runner = self.client.beta.messages.tool_runner(tools=[get_weather], messages=self.question, **self.fields)
        self.station.check(self, self.text_of(runner.until_done()))

    def test_tools_are_counted(self):
        without = self.client.messages.count_tokens(model=self.fields["model"], messages=self.question)
        counted = self.client.messages.count_tokens(
            model=self.fields["model"], messages=self.question, tools=self.tools
        )
        self.assertGreater(counted.input_tokens, without.input_tokens)
        message = self.client.messages.create(messages=self.question, tools=self.tools, **self.fields)
        self.assertEqual(counted.input_tokens, message.usage.input_tokens + message.usage.cache_read_input_tokens)

    def test_a_message_is_parsed(self):
        class Person(pydantic.BaseModel):
            name: str
            age: int
            city: str

        message = self.client.messages.parse(
            messages=[{"role": "user", "content": scene.PERSON_QUESTION}], output_format=Person, **self.fields
        )
        scene.check_person(self, message.parsed_output)


if __name__ == "__main__":
    unittest.main(verbosity=2)
