"""What users of OpenAI's Agents SDK do, by responses and by chats."""

import unittest

import agents
import openai
import pydantic
import scene


class Person(pydantic.BaseModel):
    name: str
    age: int
    city: str


def models_of(url):
    client = openai.AsyncOpenAI(base_url=url, max_retries=0)
    yield agents.OpenAIResponsesModel(scene.model_of(url), client)
    yield agents.OpenAIChatCompletionsModel(scene.model_of(url), client)


class Tools(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        agents.set_tracing_disabled(True)

    async def test_a_loop(self):
        for model in models_of(scene.TOOLS_URL):
            with self.subTest(type(model).__name__):
                station = scene.WeatherStation()
                agent = agents.Agent(name="a", model=model, tools=[agents.function_tool(station.get_weather)])
                station.check(self, (await agents.Runner.run(agent, scene.WEATHER_QUESTION)).final_output)

    async def test_a_streamed_loop(self):
        for model in models_of(scene.TOOLS_URL):
            with self.subTest(type(model).__name__):
                station = scene.WeatherStation()
                agent = agents.Agent(name="a", model=model, tools=[agents.function_tool(station.get_weather)])
                run = agents.Runner.run_streamed(agent, scene.WEATHER_QUESTION)
                text = ""
                async for event in run.stream_events():
                    if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                        text += event.data.delta
                station.check(self, run.final_output)
                self.assertEqual(text, run.final_output)

    async def test_an_object(self):
        for model in models_of(scene.TOOLS_URL):
            with self.subTest(type(model).__name__):
                agent = agents.Agent(name="a", model=model, output_type=Person)
                scene.check_person(self, (await agents.Runner.run(agent, scene.PERSON_QUESTION)).final_output)

    async def test_a_handoff(self):
        for model in models_of(scene.TOOLS_URL):
            with self.subTest(type(model).__name__):
                station = scene.WeatherStation()
                expert = agents.Agent(
                    name="expert", model=model, tools=[agents.function_tool(station.get_weather)],
                    instructions="You are the expert.",
                )  # fmt: skip
                first = agents.Agent(name="first", model=model, handoffs=[expert])
                run = await agents.Runner.run(first, "First use transfer_to_expert, then get_weather with city Paris.")
                self.assertIs(run.last_agent, expert)
                station.check(self, run.final_output)


if __name__ == "__main__":
    unittest.main(verbosity=2)
