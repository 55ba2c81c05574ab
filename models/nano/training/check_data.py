#!/usr/bin/env python3
"""Holds the generated questions to what they promise, by other means than they were made with: every equation and
comparison in a thought is true, every answer follows from its question, calls and JSON are valid under their schemas, and
nothing of the held-out phrasings, words and numbers is in what is trained on. The ids of dialogues are those that the chat
template gives."""

import argparse
import dataclasses
import fractions
import json
import random
import re
import tempfile

import dialogue
import families
import letters
import structured
import tokenizer
import tool_phrasings
import tools
from phrasing import is_reserved_word, plain

SIGNS = {"<": lambda a, b: a < b, ">": lambda a, b: a > b, "=": lambda a, b: a == b}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def evaluate(expression):
    """Sums, differences and products of whole numbers."""
    total = 0
    for sign, term in re.findall(r"([+-]?)(\d+(?:\*\d+)*)", expression):
        product = 1
        for factor in term.split("*"):
            product *= int(factor)
        total += -product if sign == "-" else product
    return total


def check_steps(thought):
    """Equations such as 8-6-1=1 and 4*7=28+2=30, comparisons such as 3.80>3.11, and choices such as 012 or 190: 190."""
    for chain in re.findall(r"\d+(?:[-+*]\d+)+(?:=\d+(?:\+\d+)*)+", thought):
        sides = chain.split("=")
        for before, after in zip(sides, sides[1:]):  # in 4*7=28+2=30 a carry joins on the way
            assert evaluate(before) == int(after.split("+")[0]), f"{chain} in {thought!r}"
    for left, sign, right in re.findall(r"(?<![\d.*+-])(\d+(?:\.\d+)?) ?([<>]) ?(\d+(?:\.\d+)?)", thought):
        assert SIGNS[sign](fractions.Fraction(left), fractions.Fraction(right)), f"{left}{sign}{right} in {thought!r}"
    for left, right, chosen in re.findall(r"(\d+) or (\d+): (\d+)", thought):
        best = max if thought.startswith("Largest") else min
        assert chosen == best(left, right, key=int), f"{left} or {right}: {chosen} in {thought!r}"


def numbers_of(text):
    return [int(number) for number in re.findall(r"\d+", text)]


def expected(problem):
    """What the answer has to say, computed anew from the slots; None where it is a fixed sentence."""
    slots, (family, _, kind) = problem.slots, problem.kind.partition(".")
    word, letter = (slots.get(name, "").strip('"') for name in ("word", "letter"))
    if family in ("add", "subtract", "multiply"):
        sign = {"add": "+", "subtract": "-", "multiply": "*"}[family]
        expression = f"{slots['a']}{sign}{slots['b']}"
        return f"{slots['a']} {sign} {slots['b']} = {evaluate(expression)}"
    if family == "divide":
        quotient = fractions.Fraction(slots["a"], slots["b"]).__floor__()
        rest = slots["a"] - quotient * slots["b"]
        return f"{slots['a']} / {slots['b']} = {quotient}" + (f" remainder {rest}" if rest else "")
    if family == "extreme":
        return f"The {kind} is {(max if kind == 'largest' else min)(numbers_of(slots['list']))}."
    if family == "sort":
        return ", ".join(
            map(str, sorted(numbers_of(slots["list"]), key=lambda each: -each if kind == "down" else each))
        )
    if family == "sequence":
        *_, before, last = numbers_of(slots["list"])
        return f"The next number is {last + last - before}."
    if family == "parity":
        name = ["even", "odd"][int(slots["a"]) & 1]
        return {"which": "", "is_" + name: "Yes, "}.get(kind, "No, ") + f"{slots['a']} is {name}."
    if family == "count":
        times = len(word) - len(word.replace(letter, ""))
        return f'"{letter}" appears {times} time{"" if times == 1 else "s"} in "{word}".'
    if family == "vowels":
        vowels = len(re.findall("[aeiou]", word))
        return f'"{word}" has {vowels} vowel{"" if vowels == 1 else "s"}.'
    if family == "reverse":
        return f'"{word}" backwards is "{"".join(reversed(word))}".'
    if family == "length":
        return f'"{word}" has {len(word)} letters.'
    if family == "letter" and kind:
        return f'The last letter of "{word}" is "{word[-1]}".'
    if family == "letter":
        names = letters.ORDINALS if slots["nth"] in letters.ORDINALS else letters.ORDINAL_WORDS
        position = names.index(slots["nth"])
        return f'Letter {position + 1} of "{word}" is "{word[position]}".'
    if family == "day":
        distance = int(slots["days"].split()[0]) * (-1 if kind in ("before", "yesterday") else 1)
        return f"It is {DAYS[(DAYS.index(slots['day']) + distance) % 7]}."
    if family == "compare":
        return compared(kind, slots["a"], slots["b"])
    return None


def compared(kind, a, b):
    first, second = fractions.Fraction(a), fractions.Fraction(b)
    yes = (first > second) if kind == "is_larger" else (first < second)
    verdict = ("Yes, " if yes else "No, ") if kind.startswith("is_") else ""
    if first == second:
        return f"{verdict}{a} and {b} are equal."
    if verdict:
        return f"{verdict}{a} is {'larger' if first > second else 'smaller'} than {b}."
    larger, smaller = (a, b) if first > second else (b, a)
    return f"{larger} is larger than {smaller}." if kind == "larger" else f"{smaller} is smaller than {larger}."


def check_family(family, num_problems, seed):
    rng = random.Random(f"check {seed} {family}")
    make = families.FAMILIES[family][1]
    for _ in range(num_problems):
        problem = make(rng, False) if make.__module__ == "letters" else make(rng)
        check_steps(problem.thought)
        answer = expected(problem)
        assert answer in (None, problem.answer), f"{problem}: should be {answer!r}"


def is_valid(value, schema):
    """Of JSON schema, what is used here."""
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if "anyOf" in schema:
        return any(is_valid(value, each) for each in schema["anyOf"])
    kind = schema["type"]
    if kind == "object":
        named = schema["properties"]
        return (
            isinstance(value, dict)
            and set(schema.get("required", [])) <= set(value) <= set(named)
            and all(is_valid(part, named[name]) for name, part in value.items())
        )
    if kind == "array":
        return (
            isinstance(value, list)
            and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
            and all(is_valid(part, schema["items"]) for part in value)
        )
    types = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "null": type(None)}
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return False
    return kind not in ("integer", "number") or schema.get("minimum", value) <= value <= schema.get("maximum", value)


def words_of(text):
    return set(re.findall(r"\w+", text.lower()))


# What answers say besides what tools gave and users told.
SAID_ANYWAY = words_of(
    "The weather of in time result is I found this message to sent timer set for says Sorry failed Done"
)
YES_AND_NO = words_of("true false yes no on off")


def check_tools(case):
    """Calls are of declared tools, valid, and of things told; and what is said after them was given."""
    functions = {tool["function"]["name"]: tool["function"] for tool in case.tools}
    heard = set()
    for turn in case.turns:
        heard |= words_of(turn.question + " ".join(turn.outputs))
        calls = tools.calls_of(turn.answer)
        for call in calls:
            given = json.loads(call["arguments"])
            parameters = functions[call["name"]].get("parameters", {"type": "object", "properties": {}})
            assert is_valid(given, parameters), (turn, parameters)
            assert list(given) == [name for name in parameters["properties"] if name in given], turn
            values = words_of(json.dumps(list(given.values()), ensure_ascii=False)) - YES_AND_NO
            assert values - words_of(json.dumps(parameters)) <= heard, turn
            assert call["name"] in turn.thought, turn
        written = [(call["name"], json.loads(call["arguments"])) for call in calls]
        assert turn.answer == tools.calls_text(*written) or not calls, turn
        if turn.outputs and not calls:
            called = set().union(*map(words_of, functions), *(words_of(before.answer) for before in case.turns[:-1]))
            assert words_of(turn.answer) <= heard | called | SAID_ANYWAY, turn


def check_structured(family, case):
    """Answers are JSON of the keys or of the schema that were asked for, and of values that were told or worked out."""
    turn, asked = case.turns[-1], case.system + case.turns[-1].question
    value = json.loads(turn.answer)
    assert turn.answer == json.dumps(value, ensure_ascii=False), turn
    start = re.search(r'\{\s*"', asked) if "{" in asked else None
    schema = json.JSONDecoder().raw_decode(asked, start.start())[0] if start else None
    if schema:
        assert is_valid(value, schema), turn
    if family == "json_answer":
        ((key, answer),) = value.items()
        assert key in asked or key == "answer", turn
        assert str(answer) in turn.thought + re.sub(r"\d", "", turn.thought), turn  # letters stand behind numbers
    elif family == "json_extract":
        assert all(key in asked for key in value), turn
        values = words_of(json.dumps(list(value.values()), ensure_ascii=False)) - YES_AND_NO
        assert values <= words_of(asked), turn


def check_case(family, rng, encoder):
    case = dialogue.make_case(rng, rng.random() < 0.3, family)
    if family in tools.FAMILIES:
        check_tools(case)
    elif family in structured.FAMILIES:
        check_structured(family, case)
    template = dialogue.chat_template()
    text = template.render(
        messages=case.messages(),
        tools=list(case.tools),
        add_generation_prompt=True,
        bos_token="<｜begin▁of▁sentence｜>",
    )
    ids = encoder.chat_prompt(dataclasses.replace(case, thinking=True))
    assert ids == encoder.encode(text), (encoder.decode(ids), text)


def check_separation(family, num_questions, seed):
    """Questions of both kinds, drawn as they are used, have neither phrasing nor word nor numbers in common."""
    rng = random.Random(f"separation {seed} {family}")

    def drawn_questions(held_out, count):
        return {plain(dialogue.make_case(rng, held_out, family).turns[0].question) for _ in range(count)}

    held_out, trained = drawn_questions(True, num_questions), drawn_questions(False, 4 * num_questions)
    assert not held_out & trained, f"{family}: held out and trained: {sorted(held_out & trained)[:5]}"
    if family not in families.FAMILIES:
        return
    for kind, phrasings in families.PHRASINGS.items():
        if kind.split(".")[0] == family:
            check_phrasings(rng, kind, phrasings, num_questions)
    if families.FAMILIES[family][1].__module__ == "letters":
        words = {letters.random_word(rng, False) for _ in range(num_questions)}
        assert not any(map(is_reserved_word, words))


def check_phrasings(rng, kind, phrasings, num_questions):
    drawn = (phrasings.ask(rng, False, families.OPEN_SLOTS, noise=True) for _ in range(num_questions))
    assert not any(map(phrasings.is_reserved, drawn)), kind


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=4000, help="of each family")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="print this many questions of each family")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.train(folder, arguments.seed, max_length=4096, num_dialogues=2000)
        encoder = dialogue.Encoder(tokenizer.load(folder))
    for family in dialogue.FAMILIES:
        if family in families.FAMILIES:
            check_family(family, arguments.problems, arguments.seed)
        check_separation(family, arguments.problems // 10, arguments.seed)
        rng = random.Random(f"cases {arguments.seed} {family}")
        for _ in range(arguments.problems // 10):
            check_case(family, rng, encoder)
        rng = random.Random(f"show {arguments.seed} {family}")
        for _ in range(arguments.show):
            case = dialogue.make_case(rng, False, family)
            print(f"{family}: {encoder.decode(encoder.chat_prompt(case) + encoder.answer(case.turns[-1]))}")
    for module in (tool_phrasings, structured):
        for kind, phrasings in module.PHRASINGS.items():
            check_phrasings(random.Random(kind), kind, phrasings, arguments.problems // 10)
    print(f"{len(dialogue.FAMILIES)} families: thoughts, answers and held-out questions are as they should be")


if __name__ == "__main__":
    main()
