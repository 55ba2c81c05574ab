"""What users of instructor do: objects by tools, by JSON, by schema, in pieces, and by Anthropic's API."""

import unittest
from collections.abc import Iterable

import anthropic
import instructor
import openai
import pydantic
import scene


class Person(pydantic.BaseModel):
    name: str
    age: int
    city: str


class BuiltInModel(unittest.TestCase):
    def test_an_object(self):
        class Answer(pydantic.BaseModel):
            city: str = pydantic.Field(max_length=12)

        client = instructor.from_openai(
            openai.OpenAI(base_url=scene.NANO_URL, max_retries=0), mode=instructor.Mode.JSON_SCHEMA
        )
        answer = client.create(
            model=scene.model_of(scene.NANO_URL), response_model=Answer, max_retries=0, max_tokens=1000,
            messages=[{"role": "user", "content": "Which?"}], temperature=0,
        )  # fmt: skip
        self.assertIsInstance(answer, Answer)


class Tools(unittest.TestCase):
    MESSAGES = [{"role": "user", "content": scene.PERSON_QUESTION}]

    def setUp(self):
        self.fields = {
            "model": scene.model_of(scene.TOOLS_URL),
            "max_retries": 0,
            "response_model": Person,
            "messages": self.MESSAGES,
        }

    def client(self, mode):
        return instructor.from_openai(openai.OpenAI(base_url=scene.TOOLS_URL, max_retries=0), mode=mode)

    def test_objects(self):
        for mode in ("TOOLS", "JSON", "JSON_SCHEMA", "MD_JSON"):
            with self.subTest(mode):
                scene.check_person(self, self.client(instructor.Mode[mode]).create(**self.fields))

    def test_several_objects(self):
        class get_weather(pydantic.BaseModel):  # the tool's name
            """The weather of a city"""

            city: str

        question = [{"role": "user", "content": scene.TWO_WEATHERS_QUESTION}]
        fields = self.fields | {"response_model": Iterable[get_weather], "messages": question}
        asked = self.client(instructor.Mode.PARALLEL_TOOLS).create(**fields)
        self.assertEqual([each.city for each in asked], ["Rome", "Oslo"])

    def test_an_object_in_pieces(self):
        for mode in ("TOOLS", "JSON"):
            with self.subTest(mode):
                pieces = list(self.client(instructor.Mode[mode]).create_partial(**self.fields))
                self.assertGreater(len(pieces), 3)
                scene.check_person(self, pieces[-1])

    def test_an_object_by_messages(self):
        client = anthropic.Anthropic(base_url=scene.root(scene.TOOLS_URL), api_key=scene.KEY, max_retries=0)
        person = instructor.from_anthropic(client).create(max_tokens=1000, **self.fields)
        scene.check_person(self, person)


if __name__ == "__main__":
    unittest.main(verbosity=2)
