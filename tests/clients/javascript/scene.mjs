// The servers that run.py has started, and what the tests ask them.
import assert from "node:assert/strict";

export const key = process.env.OPENAI_API_KEY;
export const nanoUrl = process.env.NANO_URL; // the built-in model
export const toolsUrl = process.env.TOOLS_URL; // one that calls tools

export async function modelOf(url) {
  const answer = await fetch(url + "/models", { headers: { Authorization: "Bearer " + key } });
  return (await answer.json()).data[0].id;
}

export const weatherQuestion = "What is the weather in Paris?";
export const weatherDescription = "The weather of a city";
// Its answer is the object.
export const personQuestion = "Anna is 31 years old and lives in Rome. Answer in JSON with the keys name, age and city.";
export const person = { name: "Anna", age: 31, city: "Rome" };

// The tool; remembers what it was asked.
export class WeatherStation {
  cities = [];
  getWeather({ city }) {
    this.cities.push(city);
    return "12 degrees of rain";
  }
  check(answer) {
    assert.deepEqual(this.cities, ["Paris"]);
    assert.match(answer, /12/);
    assert.doesNotMatch(answer, /think>|<｜/);
  }
}
