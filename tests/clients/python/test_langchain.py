"""What users of LangChain do, with the agent of langgraph's prebuilt loop."""

import unittest

import pydantic
import scene
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


class Person(pydantic.BaseModel):
    """A person"""

    name: str
    age: int
    city: str


def chat_of(url, **fields):
    return ChatOpenAI(
        base_url=url, api_key=scene.KEY, model=scene.model_of(url), max_retries=0, timeout=60, **fields
    )  # fmt: skip


class BuiltInModel(unittest.TestCase):
    def test_a_streamed_chat_equals_the_whole(self):
        chat = chat_of(scene.NANO_URL, temperature=0, max_tokens=300)
        whole = chat.invoke("What is 12 + 30?")
        self.assertIn("42", whole.content)
        self.assertGreater(whole.usage_metadata["output_tokens"], 0)
        pieces = [piece.content for piece in chat.stream("What is 12 + 30?")]
        self.assertGreater(len(pieces), 3)
        self.assertEqual("".join(pieces), whole.content)

    def test_an_object(self):
        class Answer(pydantic.BaseModel):
            city: str = pydantic.Field(max_length=12)

        chat = chat_of(scene.NANO_URL, temperature=0, max_tokens=1000)
        self.assertIsInstance(chat.with_structured_output(Answer, method="json_schema").invoke("Which?"), Answer)


class Tools(unittest.TestCase):
    def agent(self, station, **fields):
        return create_agent(chat_of(scene.TOOLS_URL, **fields), [tool(station.get_weather)])

    def test_an_agent(self):
        for fields in ({}, {"use_responses_api": True}, {"streaming": True}):
            with self.subTest(fields):
                station = scene.WeatherStation()
                state = self.agent(station, **fields).invoke({"messages": [("user", scene.WEATHER_QUESTION)]})
                station.check(self, state["messages"][-1].text)

    def test_a_streamed_agent(self):
        station = scene.WeatherStation()
        text = ""
        question = {"messages": [("user", scene.WEATHER_QUESTION)]}
        for message, _ in self.agent(station).stream(question, stream_mode="messages"):
            text += message.text if message.type == "AIMessageChunk" else ""
        station.check(self, text)

    def test_objects(self):
        chat = chat_of(scene.TOOLS_URL)
        for method in ("json_schema", "function_calling", "json_mode"):
            with self.subTest(method):
                person = chat.with_structured_output(Person, method=method).invoke(scene.PERSON_QUESTION)
                scene.check_person(self, person)

    def test_an_agent_that_answers_with_an_object(self):
        for strategy in (ProviderStrategy(Person), ToolStrategy(Person)):
            with self.subTest(type(strategy).__name__):
                agent = create_agent(chat_of(scene.TOOLS_URL), [], response_format=strategy)
                state = agent.invoke({"messages": [("user", scene.PERSON_QUESTION)]})
                scene.check_person(self, state["structured_response"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
