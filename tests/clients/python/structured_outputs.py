#!/usr/bin/env python3
"""Asks a server for answers to random JSON schemas, and has an independent validator look at each.

  structured_outputs.py URL [--count 1000] [--seed 1] [--max-tokens 800] [--concurrency 8] [--api-key KEY]

Half of the answers are greedy, half at temperature 1. Each that ended by itself must be valid under its schema, formats too;
each that max_tokens cut must say `length` and be the beginning of a JSON text. One in ten is asked for again with room for
half of it: the same seed must give the beginning of the same answer. Printed are the counts, what the schemas of answers
that did not end had in common, and what a constraint costs. Exit status 1: an answer was not as it must be.
Wants jsonschema with its formats, and pydantic_core (schemas.txt).
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import jsonschema
import pydantic_core

NAMES = "name age city colour price day tags unit note count level id kind size state owner".split()
WORDS = ["red", "green", "Monday", "Rome", "kg", "it's", 'a "b"', "é", "x/y", "", "two words"]
PATTERNS = ["^[a-z]{1,6}$", "^[A-Z][a-z]{2,5}$", "^\\d{3}-\\d{2}$", "^(yes|no|maybe)$", "^#[0-9a-f]{6}$", "^v\\d+\\.\\d+$", "^[^\\s]{1,4}$"]
LONG_FORMATS = ["date-time", "email", "hostname", "uri"]
FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]


class Schemas:
    """Random schemas; small ones, as a small model is to come to their end."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.features = set()

    def make(self):
        """(schema, what is in it)"""
        self.features, self.shared = set(), {}
        if self.random.random() < 0.25:
            self.shared = {name: self.any(1) for name in self.random.sample(["point", "item"], self.random.randint(1, 2))}
        schema = self.object(2) if self.random.random() < 0.85 else self.any(2)
        if self.random.random() < 0.05:
            self.use("recursion")
            schema = {"$ref": "#/$defs/node"}
            self.shared["node"] = {"type": "object", "properties": {"value": self.leaf(), "next": {
                "anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"],
                "additionalProperties": False}  # fmt: skip
        if self.shared:
            schema = {**schema, "$defs": self.shared}
        return schema, frozenset(self.features)

    def use(self, feature):
        self.features.add(feature)

    def any(self, depth):
        kinds = [self.leaf] * 6
        if depth > 0:
            kinds += [lambda: self.object(depth - 1), lambda: self.array(depth - 1), lambda: self.any_of(depth - 1)] * 2
        if self.shared:
            kinds += [self.reference] * 2
        return self.random.choice(kinds)()

    def leaf(self):
        return self.random.choice([self.text, self.text, self.whole, self.number, self.enum, self.constant, self.plain])()

    def object(self, depth):
        names = self.random.sample(NAMES, self.random.randint(1, 4))
        schema = {"type": "object", "properties": {name: self.any(depth) for name in names}}
        chance = self.random.random()
        if chance < 0.5:
            schema["required"] = names
        elif chance < 0.8:
            self.use("optional properties")
            schema["required"] = self.random.sample(names, self.random.randint(0, len(names)))
        else:
            self.use("optional properties")
        chance = self.random.random()
        if chance < 0.92:
            schema["additionalProperties"] = False
            return schema
        if chance < 0.97:
            self.use("additionalProperties of a schema")
            schema["additionalProperties"] = self.leaf()
        else:
            self.use("any additionalProperties")
        if self.random.random() < 0.8:  # where all that have names must be there, more can be bounded
            self.use("maxProperties")
            schema |= {"required": names, "maxProperties": len(names) + 2}
        return schema

    def array(self, depth):
        schema = {"type": "array", "items": self.any(depth)}
        if self.random.random() < 0.15:
            self.use("prefixItems")
            schema = {"type": "array", "prefixItems": [self.any(depth), self.leaf()], "items": False, "minItems": 2}
        elif self.random.random() < 0.92:
            self.use("bounded array")
            schema["minItems"] = self.random.randint(0, 2)
            schema["maxItems"] = schema["minItems"] + self.random.randint(0, 3)
        else:
            self.use("array without bounds")
        return schema

    def any_of(self, depth):
        self.use("anyOf")
        return {"anyOf": [self.any(depth) for _ in range(self.random.randint(2, 3))]}

    def reference(self):
        self.use("$ref")
        return {"$ref": "#/$defs/" + self.random.choice(sorted(self.shared))}

    def text(self):
        chance = self.random.random()
        if chance < 0.5:
            self.use("maxLength")
            shortest = self.random.randint(0, 4)
            return {"type": "string", "minLength": shortest, "maxLength": shortest + self.random.randint(0, 8)}
        if chance < 0.75:
            self.use("pattern")
            return {"type": "string", "pattern": self.random.choice(PATTERNS)}
        if chance < 0.95:
            kind = self.random.choice(FORMATS)
            self.use("format " + kind)
            schema = {"type": "string", "format": kind}
            return {**schema, "maxLength": 24} if kind in LONG_FORMATS and self.random.random() < 0.8 else schema
        self.use("string without bounds")
        return {"type": "string"}

    def whole(self):
        chance = self.random.random()
        if chance < 0.7:
            self.use("bounded integer")
            low = self.random.randint(-200, 1000)
            return {"type": "integer", "minimum": low, "maximum": low + self.random.choice([0, 5, 100, 12345])}
        if chance < 0.8:
            self.use("exclusive bounds")
            return {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": self.random.randint(2, 50)}
        if chance < 0.94:
            self.use("multipleOf")
            return {"type": "integer", "multipleOf": self.random.choice([2, 5, 10]), "minimum": 0, "maximum": 100}
        self.use("integer without bounds")
        return {"type": "integer"}

    def number(self):
        if self.random.random() < 0.85:
            self.use("bounded number")
            low = round(self.random.uniform(-20, 20), 1)
            return {"type": "number", "minimum": low, "maximum": round(low + self.random.choice([0.5, 3, 100]), 2)}
        self.use("number without bounds")
        return {"type": "number"}

    def enum(self):
        self.use("enum")
        values = self.random.sample([*WORDS, 1, 2.5, True, None], self.random.randint(1, 5))
        return {"enum": values}

    def constant(self):
        self.use("const")
        return {"const": self.random.choice([*WORDS, 7, False, None, [1, "a"], {"a": 1}])}

    def plain(self):
        kind = self.random.choice(["boolean", "null", ["integer", "null"], ["string", "boolean"]])
        self.use("a list of types" if isinstance(kind, list) else kind)
        if isinstance(kind, list) and "string" in kind:
            return {"type": kind, "maxLength": 5}
        return {"type": kind}


@dataclass
class Outcome:
    schema: dict
    features: frozenset
    seconds: float = 0
    tokens: int = 0
    finish: str = ""
    text: str = ""
    faults: list = field(default_factory=list)


class Server:
    def __init__(self, url, key=None):
        self.url, self.key = url.rstrip("/").removesuffix("/v1"), key

    def cpu_seconds(self):
        with urllib.request.urlopen(self.url + "/metrics", timeout=60) as response:
            lines = response.read().decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith("process_cpu_seconds_total"))

    def ask(self, body):
        headers = {"Content-Type": "application/json"} | ({"Authorization": "Bearer " + self.key} if self.key else {})
        request = urllib.request.Request(self.url + "/v1/chat/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            return {"error": error.read().decode()}


def body_of(schema, number, options):
    return {
        "messages": [{"role": "user", "content": "Answer in JSON of this schema: " + json.dumps(schema, ensure_ascii=False)}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        "temperature": number % 2, "seed": number, "max_tokens": options.max_tokens,
        "thinking_token_budget": options.thought,
    }  # fmt: skip


def faults_of(outcome):
    if outcome.finish == "length":
        try:
            if outcome.text:
                pydantic_core.from_json(outcome.text.encode(), allow_partial="trailing-strings")
        except ValueError as error:
            yield f"cut, and no beginning of JSON: {error}"
        return
    if outcome.finish != "stop":
        yield f"finish_reason is {outcome.finish}"
        return
    try:
        value = json.loads(outcome.text)
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        jsonschema.Draft202012Validator(outcome.schema, format_checker=checker).validate(value)
    except (ValueError, jsonschema.ValidationError) as error:
        yield str(getattr(error, "message", error))


def run_one(server, number, schema, features, options):
    outcome = Outcome(schema, features)
    body = body_of(schema, number, options)
    start = time.monotonic()
    answer = server.ask(body)
    outcome.seconds = time.monotonic() - start
    if "error" in answer:
        outcome.finish = "refused"
        outcome.faults = [answer["error"]]
        return outcome
    choice = answer["choices"][0]
    outcome.tokens = answer["usage"]["completion_tokens"]
    outcome.finish, outcome.text = choice["finish_reason"], choice["message"]["content"] or ""
    outcome.faults = list(faults_of(outcome))
    if number % 10 == 0 and outcome.tokens > 1:
        half = server.ask(body | {"max_tokens": outcome.tokens // 2})["choices"][0]
        if half["finish_reason"] != "length" or not outcome.text.startswith(half["message"]["content"] or ""):
            outcome.faults.append(f"cut at {outcome.tokens // 2} tokens: {half}")
    return outcome


def run(server, options):
    schemas = Schemas(options.seed)
    jobs = [(number, *schemas.make()) for number in range(options.count)]
    with ThreadPoolExecutor(options.concurrency) as pool:
        return list(pool.map(lambda job: run_one(server, *job, options), jobs))


def time_of(server, body, tries=5):
    """The shortest time of some, and the server's CPU time of each."""
    times, start_cpu = [], server.cpu_seconds()
    for _ in range(tries):
        start = time.monotonic()
        answer = server.ask(body)
        times.append(time.monotonic() - start)
        assert "error" not in answer, answer
    return min(times), (server.cpu_seconds() - start_cpu) / tries


def report_costs(server):
    """A constraint's cost seen by a client: of answers of one length with it and without; and of compiling."""
    long = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 400, "ignore_eos": True,
            "thinking_token_budget": 0}  # fmt: skip
    endless = {"type": "object", "properties": {"items": {"type": "array", "minItems": 1000, "items": {
        "type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0,
        "maximum": 120}}, "required": ["name", "age"]}}}, "required": ["items"]}  # fmt: skip
    form = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": endless}}}
    time_of(server, long | form, 1)
    (bare, bare_cpu), (held, held_cpu) = time_of(server, long), time_of(server, long | form)
    print(f"400 tokens alone: {bare * 1e3:.0f} ms free, {held * 1e3:.0f} ms held to a schema, {(held - bare) / 0.4:+.3f} ms a token; "
          f"{(held_cpu - bare_cpu) / 0.4:+.3f} ms of CPU a token")  # fmt: skip
    one = long | {"max_tokens": 1, "ignore_eos": False}
    base, _ = time_of(server, one)
    for count in (10, 100, 1000):
        fields = {f"field_{i}": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "kind": {
            "enum": [f"a{i}", f"b{i}"]}}, "required": ["name"]} for i in range(count)}  # fmt: skip
        schema = {"type": "object", "properties": fields, "additionalProperties": False}
        form = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
        spent = time_of(server, one | form)[0] - base
        print(f"a schema of {len(json.dumps(schema)):,} bytes: {spent * 1e3:.1f} ms until its first token, beside an answer without")


def report(outcomes):
    """True if all is as it must be."""
    bad = [outcome for outcome in outcomes if outcome.faults]
    finishes = Counter(outcome.finish for outcome in outcomes)
    for name, part in (("greedy", outcomes[0::2]), ("at temperature 1", outcomes[1::2])):
        ended = sum(outcome.finish == "stop" for outcome in part)
        print(f"{name}: {ended} of {len(part)} ended by themselves")
    valid = sum(outcome.finish == "stop" and not outcome.faults for outcome in outcomes)
    print(f"{len(outcomes)} answers: {finishes['stop']} ended by themselves, {valid} of them valid; {finishes['length']} cut, "
          f"{finishes['refused']} schemas refused; {statistics.mean(o.tokens for o in outcomes):.0f} tokens each")  # fmt: skip
    cut = [outcome for outcome in outcomes if outcome.finish == "length"]
    if cut:
        everywhere = Counter(feature for outcome in outcomes for feature in outcome.features)
        among = Counter(feature for outcome in cut for feature in outcome.features)
        rates = sorted(((among[name] / everywhere[name], name) for name in among), reverse=True)[:8]
        print("cut, of the schemas with:", ", ".join(f"{name} {rate:.0%}" for rate, name in rates))
    for outcome in bad[:20]:
        print(f"FAULT {outcome.finish}: {outcome.faults}\n  {json.dumps(outcome.schema)}\n  {outcome.text!r}")
    return not bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--api-key", default=os.environ.get("OPENAI_API_KEY"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=800)
    parser.add_argument("--thought", type=int, default=64, help="tokens of the thought in front; -1: as many as it likes")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--cut", action="store_true", help="shows the answers that were cut")
    options = parser.parse_args()
    server = Server(options.url, options.api_key)
    outcomes = run(server, options)
    is_right = report(outcomes)
    if options.cut:
        for outcome in outcomes:
            if outcome.finish == "length":
                print(json.dumps(outcome.schema), "\n   ", repr(outcome.text[:300]))
    report_costs(server)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
