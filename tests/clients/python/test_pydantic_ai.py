"""What users of Pydantic AI do, by each of the three APIs."""

import unittest

import anthropic
import pydantic
import scene
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Person(pydantic.BaseModel):
    name: str
    age: int
    city: str


def models_of(url):
    provider = OpenAIProvider(base_url=url, api_key=scene.KEY)
    yield OpenAIChatModel(scene.model_of(url), provider=provider)
    yield OpenAIResponsesModel(scene.model_of(url), provider=provider)
    client = anthropic.AsyncAnthropic(base_url=scene.root(url), api_key=scene.KEY, max_retries=0)
    yield AnthropicModel(scene.model_of(url), provider=AnthropicProvider(anthropic_client=client))


class BuiltInModel(unittest.IsolatedAsyncioTestCase):
    async def test_answers(self):
        for model in models_of(scene.NANO_URL):
            with self.subTest(type(model).__name__):
                agent = Agent(model, model_settings={"temperature": 0, "max_tokens": 300})
                answer = await agent.run("What is 12 + 30?")
                self.assertIn("42", answer.output)


class Tools(unittest.IsolatedAsyncioTestCase):
    async def test_a_loop(self):
        for model in models_of(scene.TOOLS_URL):
            with self.subTest(type(model).__name__):
                station = scene.WeatherStation()
                agent = Agent(model, tools=[station.get_weather])
                station.check(self, (await agent.run(scene.WEATHER_QUESTION)).output)

    async def test_a_streamed_loop(self):
        for model in models_of(scene.TOOLS_URL):
            with self.subTest(type(model).__name__):
                station = scene.WeatherStation()
                agent = Agent(model, tools=[station.get_weather])
                async with agent.run_stream(scene.WEATHER_QUESTION) as run:
                    text = "".join([piece async for piece in run.stream_text(delta=True)])
                station.check(self, text)

    async def test_objects(self):
        for model in models_of(scene.TOOLS_URL):
            kinds = [ToolOutput, PromptedOutput]
            if not isinstance(model, AnthropicModel):  # by a list of Anthropic's models' names
                kinds.append(NativeOutput)
            for kind in kinds:
                with self.subTest(type(model).__name__, kind=kind.__name__):
                    agent = Agent(model, output_type=kind(Person))
                    scene.check_person(self, (await agent.run(scene.PERSON_QUESTION)).output)


if __name__ == "__main__":
    unittest.main(verbosity=2)
