#!/usr/bin/env python3
"""Writes greedy.json: questions with the ids that the training code's float32 forward answers, for the end-to-end tests.

min_margin is the smallest lead of the best logit over the next in an answer. A question whose margin is small is left out:
other number formats may rightly tip it."""

import argparse
import json

import checkpoint
import dialogue
import score
import tokenizer

QUESTIONS = [  # asked in the chat format
    "Which one is larger? 3.8 or 3.11",
    "What is 4789 + 365?",
    'Reverse the word "penguin".',
    "Hello!",
    "How many metres are in 3 kilometres?",
    "Who are you?",
    "What is the capital of France?",
    "What is 9001 - 458?",
    "What is 347 * 6?",
    "What is 975 / 4?",
    "Is 347 even or odd?",
    'How many r are in "strawberry"?',
    'How many letters are in "cachalot"?',
    'What is the 3rd letter of "whale"?',
    'How many vowels are in "octopus"?',
    "Sort 34, 7, 61 in ascending order.",
    "What is the largest of 12, 7, 30, 29?",
    "What comes next: 3, 7, 11, 15?",
    "Today is Monday. What day is it in 10 days?",
    "Is 0.9 smaller than 0.11?",
    "Thank you!",
]
BARE = [  # asked as bare text
    "Which one is larger? 3.8 or 3.11",
    "What is 4789 + 365?",
    "What is 81 - 19?",
    "Which is smaller, 12 or 7?",
    "Who are you?",
    "Hello!",
    'Spell "orca" backwards.',
    "Convert 5 hours to minutes.",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--min-margin", type=float, default=0.5)
    arguments = parser.parse_args()
    encoder = dialogue.Encoder(tokenizer.load(arguments.model))
    model = checkpoint.read(arguments.model)
    turns = [(False, dialogue.Turn("", question, "", "")) for question in QUESTIONS]
    turns += [(True, dialogue.Turn("", question, "", "")) for question in BARE]
    lines = []
    for bare, turn in turns:
        prompt = encoder.bare_prompt(turn) if bare else encoder.chat_prompt([turn])
        (answer,), (margin,) = score.answer_batch(model, [prompt], encoder.eos)
        text = encoder.decode(answer)
        kept = margin >= arguments.min_margin and answer[-1] == encoder.eos
        print(f"{'' if kept else 'left out: '}{margin:.2f} {'bare ' if bare else ''}{turn.question} -> {text!r}")
        if kept:
            lines.append(
                json.dumps(
                    {
                        "question": turn.question,
                        "bare": bare,
                        "prompt_token_ids": prompt,
                        "greedy_token_ids": answer,
                        "text": text,
                        "min_margin": round(margin, 4),
                    },
                    ensure_ascii=False,
                )
            )
    with open(f"{arguments.model}/greedy.json", "w") as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(lines)} questions")


if __name__ == "__main__":
    main()
