#!/usr/bin/env python3
"""Writes questions.jsonl: for every family as many questions as asked for, with a seed of its own. Their phrasings, words
and numbers are held out of training; --trained draws the training's own instead, to compare."""

import argparse
import json
import random

import dialogue
import tools


def as_row(family, case):
    """`messages` are there where the question does not stand alone, `tools` where there are some. A call is written as
    its name and its arguments, one a line."""
    turn, messages = case.turns[-1], case.messages()
    calls = tools.calls_of(turn.answer)
    row = {
        "family": family,
        "question": next(each.question for each in reversed(case.turns) if each.question),
        "answer": "\n".join(f"{call['name']} {call['arguments']}" for call in calls) or turn.answer,
    }
    if len(messages) > 1:
        row["messages"] = messages
    if case.tools:
        row["tools"] = list(case.tools)
    return row


def questions(per_family, seed, held_out):
    for family in dialogue.FAMILIES:
        rng = random.Random(f"questions {seed} {family}")
        seen = set()
        for _ in range(100 * per_family):
            case = dialogue.make_case(rng, held_out, family, noise=not held_out)
            row = as_row(family, case)
            key = row["question"] + json.dumps(row.get("messages", [])[-1:])
            if key not in seen:
                seen.add(key)
                yield row
            if len(seen) == per_family:
                break


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--per-family", type=int, default=90)
    parser.add_argument("--seed", type=int, default=4711)
    parser.add_argument("--trained", action="store_true")
    arguments = parser.parse_args()
    rows = list(questions(arguments.per_family, arguments.seed, not arguments.trained))
    with open(arguments.out, "w") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    print(f"{arguments.out}: {len(rows)} questions")


if __name__ == "__main__":
    main()
