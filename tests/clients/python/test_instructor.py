"""What users of instructor do: objects by tools, by JSON, by schema, in pieces, and by Anthropic's API."""

import unittest
from collections.abc import Iterable

import anthropic
import instructor
import openai
import pydantic
import scene


class City(pydantic.BaseModel):
    name: str
    country: str
    population: int


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
    MESSAGES = [{"role": "user", "content": scene.CITY_QUESTION}]

    def setUp(self):
        self.fields = {
            "model": scene.model_of(scene.TOOLS_URL),
            "max_retries": 0,
            "response_model": City,
            "messages": self.MESSAGES,
        }

    def client(self, mode):
        return instructor.from_openai(openai.OpenAI(base_url=scene.TOOLS_URL, max_retries=0), mode=mode)

    def test_objects(self):
        for mode in ("TOOLS", "JSON", "JSON_SCHEMA", "MD_JSON", "PARALLEL_TOOLS"):
            with self.subTest(mode):
                fields = self.fields
                if mode == "PARALLEL_TOOLS":
                    fields = fields | {"response_model": Iterable[City]}
                city = self.client(instructor.Mode[mode]).create(**fields)
                city = list(city)[0] if mode == "PARALLEL_TOOLS" else city
                scene.check_city(self, city)

    def test_an_object_in_pieces(self):
        for mode in ("TOOLS", "JSON"):
            with self.subTest(mode):
                pieces = list(self.client(instructor.Mode[mode]).create_partial(**self.fields))
                self.assertGreater(len(pieces), 3)
                scene.check_city(self, pieces[-1])

    def test_an_object_by_messages(self):
        client = anthropic.Anthropic(base_url=scene.root(scene.TOOLS_URL), api_key=scene.KEY, max_retries=0)
        city = instructor.from_anthropic(client).create(max_tokens=1000, **self.fields)
        scene.check_city(self, city)


if __name__ == "__main__":
    unittest.main(verbosity=2)
