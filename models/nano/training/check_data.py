#!/usr/bin/env python3
"""Holds the generated questions to what they promise, by other means than they were made with: every equation and
comparison in a thought is true, every answer follows from its question, and nothing of the held-out phrasings, words and
numbers is in what is trained on."""

import argparse
import fractions
import random
import re

import dialogue
import letters
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
        return ", ".join(map(str, sorted(numbers_of(slots["list"]), key=lambda each: -each if kind == "down" else each)))
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
    make = dialogue.FAMILIES[family][1]
    for _ in range(num_problems):
        problem = make(rng, False) if make.__module__ == "letters" else make(rng)
        check_steps(problem.thought)
        answer = expected(problem)
        assert answer in (None, problem.answer), f"{problem}: should be {answer!r}"


def check_separation(family, num_questions, seed):
    """Questions of both kinds, drawn as they are used, have neither phrasing nor word nor numbers in common."""
    rng = random.Random(f"separation {seed} {family}")
    held_out = {plain(dialogue.make_turn(rng, True, family).question) for _ in range(num_questions)}
    trained = {plain(dialogue.make_turn(rng, False, family).question) for _ in range(4 * num_questions)}
    assert not held_out & trained, f"{family}: held out and trained: {sorted(held_out & trained)[:5]}"
    for kind, phrasings in dialogue.PHRASINGS.items():
        if kind.split(".")[0] == family:
            drawn = (phrasings.ask(rng, False, dialogue.OPEN_SLOTS, noise=True) for _ in range(num_questions))
            assert not any(map(phrasings.is_reserved, drawn)), kind
    if dialogue.FAMILIES[family][1].__module__ == "letters":
        words = {letters.random_word(rng, False) for _ in range(num_questions)}
        assert not any(map(is_reserved_word, words))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=4000, help="of each family")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="print this many questions of each family")
    arguments = parser.parse_args()
    for family in dialogue.FAMILIES:
        check_family(family, arguments.problems, arguments.seed)
        check_separation(family, arguments.problems // 10, arguments.seed)
        rng = random.Random(f"show {arguments.seed} {family}")
        for _ in range(arguments.show):
            turn = dialogue.make_turn(rng, False, family)
            print(f"{family}: {turn.question}\n    {turn.thought}\n    {turn.answer}")
    print(f"{len(dialogue.FAMILIES)} families: thoughts, answers and held-out questions are as they should be")


if __name__ == "__main__":
    main()
