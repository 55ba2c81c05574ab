"""The servers that run.py has started, and what the tests ask them."""

import json
import os
import urllib.request

KEY = os.environ["OPENAI_API_KEY"]
NANO_URL = os.environ["NANO_URL"]  # the built-in model
TOOLS_URL = os.environ["TOOLS_URL"]  # one that calls tools


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + KEY}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as response:
        return json.load(response)


def root(url):
    return url.removesuffix("/v1")


def model_of(url):
    return ask(url + "/models")["data"][0]["id"]


# A question that a tool answers, and its answer.
WEATHER_QUESTION = "What is the weather in Paris?"
TWO_WEATHERS_QUESTION = "What is the weather in Rome and in Oslo?"
WEATHER_DESCRIPTION = "The weather of a city"
WEATHER_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


class WeatherStation:
    """The tool; remembers what it was asked."""

    def __init__(self):
        self.cities = []

    def get_weather(self, city: str) -> str:
        """The weather of a city"""
        self.cities.append(city)
        return "12 degrees of rain"

    def check(self, test, answer):
        test.assertEqual(self.cities, ["Paris"])
        test.assertIn("12", answer)
        test.assertNotIn("think>", answer)
        test.assertNotIn("<｜", answer)


# A text, of which an object is to be made, and a question whose answer is that object.
PERSON_TEXT = "Anna is 31 years old and lives in Rome."
PERSON_QUESTION = PERSON_TEXT + " Answer in JSON with the keys name, age and city."


def check_person(test, person):
    test.assertEqual((person.name, person.age, person.city), ("Anna", 31, "Rome"))
