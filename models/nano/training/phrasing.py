"""How a question is worded: templates with alternatives, and which of them the model never sees.

A template such as "Which [one|number] is [larger|bigger]: {a} or {b}?" stands for every choice of its alternatives.
Each kind of question has two lists: `trained` templates, and `held_out` ones that only questions for scoring use."""

import dataclasses
import re
import zlib

ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")


@dataclasses.dataclass(frozen=True)
class Phrasings:
    trained: list
    held_out: list

    def ask(self, rng, held_out, slots):
        template = rng.choice(self.held_out if held_out else self.trained)
        chosen = ALTERNATIVES.sub(lambda match: rng.choice(match.group(1).split("|")), template)
        return chosen.format(**slots)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A solved problem before it is put into words: `kind` names its phrasings, `slots` fill them."""

    kind: str
    slots: dict
    thought: str
    answer: str


def is_reserved(problem, share=10):
    """One problem in ten, by its numbers and words, is never trained on, whatever its phrasing."""
    key = problem.kind.split(".")[0] + repr(sorted(problem.slots.items()))
    return zlib.crc32(key.encode()) % share == 0


def is_reserved_word(word, share=10):
    return zlib.crc32(word.encode()) % share == 0


def vary(rng, question):
    """Light noise as people type it: a polite word before or after, a lower-case start, a missing mark at the end."""
    if rng.random() < 0.10:
        opening = rng.choice(
            [
                "Please tell me: ",
                "Hi! ",
                "Hello, ",
                "Hey, ",
                "Quick question: ",
                "Can you help me? ",
                "Please help me: ",
                "Tell me: ",
                "I have a question. ",
                "Question: ",
                "Okay. ",
                "Now: ",
            ]
        )
        question = opening + question
    if rng.random() < 0.07:
        question += rng.choice(
            [
                " Thanks.",
                " Thank you!",
                " Please.",
                " Think step by step.",
                " Thanks!",
                " Be brief.",
                " Explain.",
                " Please think first.",
            ]
        )
    elif rng.random() < 0.10:
        question = question.rstrip("?.!")
    if rng.random() < 0.08:
        question = question[0].lower() + question[1:]
    return question
