#!/usr/bin/env python3
"""Writes questions.jsonl: for every family as many questions as asked for, with a seed of its own. Their phrasings, words
and numbers are held out of training; --trained draws the training's own instead, to compare."""

import argparse
import json
import random

import dialogue


def questions(per_family, seed, held_out):
    for family in dialogue.FAMILIES:
        rng = random.Random(f"questions {seed} {family}")
        seen = set()
        for _ in range(100 * per_family):
            turn = dialogue.make_turn(rng, held_out, family, noise=not held_out)
            if turn.question not in seen:
                seen.add(turn.question)
                yield {"family": family, "question": turn.question, "answer": turn.answer}
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
