"""What users of LiteLLM do, by way of its three providers for servers of one's own."""

import gc
import json
import unittest

import litellm
import pydantic
import scene


class Person(pydantic.BaseModel):
    name: str
    age: int
    city: str


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": scene.WEATHER_DESCRIPTION,
            "parameters": scene.WEATHER_SCHEMA,
        },
    }
]


def complete(url, provider, messages, **fields):
    base = scene.root(url) if provider == "anthropic" else url
    return litellm.completion(
        model=f"{provider}/{scene.model_of(url)}", api_base=base, api_key=scene.KEY, messages=messages, **fields
    )  # fmt: skip


class BuiltInModel(unittest.TestCase):
    QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]

    def test_a_streamed_chat_equals_the_whole(self):
        for provider in ("hosted_vllm", "openai", "anthropic"):
            with self.subTest(provider):
                fields = {"max_tokens": 300, "temperature": 0}
                whole = complete(scene.NANO_URL, provider, self.QUESTION, **fields)
                self.assertIn("42", whole.choices[0].message.content)
                if provider == "hosted_vllm":
                    self.assertTrue(whole.choices[0].message.reasoning_content)
                pieces = complete(scene.NANO_URL, provider, self.QUESTION, stream=True, **fields)
                text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
                self.assertEqual(text, whole.choices[0].message.content)


class Tools(unittest.TestCase):
    def test_a_loop(self):
        for provider in ("hosted_vllm", "openai", "anthropic"):
            for stream in (False, True):
                with self.subTest(provider, stream=stream):
                    station = scene.WeatherStation()
                    messages = [{"role": "user", "content": scene.WEATHER_QUESTION}]
                    for _ in range(2):
                        fields = {"tools": TOOLS, "stream": stream, "max_tokens": 1000}
                        answer = complete(scene.TOOLS_URL, provider, messages, **fields)
                        if stream:
                            answer = litellm.stream_chunk_builder(list(answer), messages=messages)
                            # A stream that LiteLLM leaves before its end is closed by the garbage collector; if that
                            # comes while httpcore holds its lock, it waits for itself for ever.
                            gc.collect()
                        message = answer.choices[0].message
                        messages.append(message.model_dump())
                        for call in message.tool_calls or []:
                            result = station.get_weather(**json.loads(call.function.arguments))
                            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
                    station.check(self, message.content)

    def test_an_object(self):
        for provider in ("hosted_vllm", "openai"):
            with self.subTest(provider):
                question = [{"role": "user", "content": scene.PERSON_QUESTION}]
                answer = complete(scene.TOOLS_URL, provider, question, response_format=Person)
                scene.check_person(self, Person.model_validate_json(answer.choices[0].message.content))

    def test_responses(self):
        answer = litellm.responses(
            model=f"openai/{scene.model_of(scene.TOOLS_URL)}", api_base=scene.TOOLS_URL, api_key=scene.KEY,
            input=scene.WEATHER_QUESTION, tools=[{"type": "function", **TOOLS[0]["function"]}],
        )  # fmt: skip
        self.assertEqual(json.loads(answer.output[-1].arguments), {"city": "Paris"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
