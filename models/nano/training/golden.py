#!/usr/bin/env python3
"""Writes greedy.json: questions with the ids that the training code's float32 forward answers, for the end-to-end tests.

min_margin is the smallest lead of the best logit over the next in an answer. A question whose margin is small is left out:
other number formats may rightly tip it."""

import argparse
import json

import checkpoint
import dialogue
import families
import score
import tokenizer
import tools

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


WEATHER = {
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TIMER = {
    "name": "set_timer",
    "description": "Set a timer.",
    "parameters": {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]},
}
TOOLS = tuple({"type": "function", "function": function} for function in (WEATHER, TIMER))


def asked_for(question, answer, outputs=()):
    return families.Turn("", question, "", answer, outputs)


IN_PARIS = asked_for("What is the weather in Paris?", tools.calls_text(("get_weather", {"city": "Paris"})))
CASES = [  # what a question alone does not show
    dialogue.Case([IN_PARIS], tools=TOOLS),
    dialogue.Case([IN_PARIS, asked_for("", "", ('{"temperature": 21, "condition": "sunny"}',))], tools=TOOLS),
    dialogue.Case([asked_for("What is the weather in Oslo and Rome?", "")], tools=TOOLS),
    dialogue.Case([asked_for("Set a timer for 5 minutes.", "")], tools=TOOLS),
    dialogue.Case([asked_for("What is 21 + 34?", "")], tools=TOOLS),
    dialogue.Case([asked_for("What is 21 + 34? Answer in JSON.", "")]),
    dialogue.Case(
        [asked_for("Anna is 31 years old and lives in Rome. Answer in JSON with the keys name, age and city.", "")]
    ),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--min-margin", type=float, default=0.5)
    arguments = parser.parse_args()
    encoder = dialogue.Encoder(tokenizer.load(arguments.model))
    model = checkpoint.read(arguments.model)
    cases = [dialogue.Case([asked_for(question, "")]) for question in QUESTIONS] + CASES
    prompts = [(case, encoder.chat_prompt(case)) for case in cases]
    prompts += [(None, encoder.bare_prompt(asked_for(question, ""))) for question in BARE]
    lines = []
    for case, prompt in prompts:
        question = case.messages()[-1]["content"] if case else encoder.decode(prompt[1:])
        (answer,), (margin,) = score.answer_batch(model, [prompt], encoder.eos)
        text = encoder.decode(answer)
        kept = margin >= arguments.min_margin and answer[-1] == encoder.eos
        print(f"{'' if kept else 'left out: '}{margin:.2f} {'' if case else 'bare '}{question} -> {text!r}")
        if kept:
            row = {
                "question": question,
                "bare": not case,
                "prompt_token_ids": prompt,
                "greedy_token_ids": answer,
                "text": text,
                "min_margin": round(margin, 4),
            }
            if case in CASES:  # what the chat template is given
                row["context"] = {"messages": case.messages(), "tools": list(case.tools)}
            lines.append(json.dumps(row, ensure_ascii=False))
    with open(f"{arguments.model}/greedy.json", "w") as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(lines)} questions")


if __name__ == "__main__":
    main()
