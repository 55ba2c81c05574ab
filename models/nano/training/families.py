"""The families of questions that stand by themselves, and how one of them is drawn."""

import dataclasses
import random

import arithmetic
import arithmetic_phrasings
import everyday
import letters
import ordering_phrasings
import talk
import unknown
from phrasing import is_reserved

# Family, how often it is drawn, and how a problem of it is made. Weights follow difficulty.
FAMILIES = {
    "compare": (1.6, arithmetic.compare),
    "extreme": (1.1, arithmetic.extreme),
    "sort": (1.2, arithmetic.sort),
    "add": (1.3, arithmetic.add),
    "subtract": (1.4, arithmetic.subtract),
    "multiply": (1.3, arithmetic.multiply),
    "divide": (1.6, arithmetic.divide),
    "parity": (0.7, arithmetic.parity),
    "sequence": (1.3, arithmetic.sequence),
    "count": (1.3, letters.count),
    "vowels": (1.0, letters.vowels),
    "reverse": (1.0, letters.reverse),
    "length": (0.6, letters.length),
    "letter": (1.0, letters.letter),
    "day": (1.0, everyday.day),
    "unit": (0.8, everyday.unit),
    "chat": (1.2, talk.chat),
    "fallback": (1.0, unknown.fallback),
}
PHRASINGS = {
    kind: phrasings
    for module in (ordering_phrasings, arithmetic_phrasings, letters, everyday, talk, unknown)
    for kind, phrasings in module.PHRASINGS.items()
}
SLOTS = """a b c n list word letter nth day days large small are do place other topic text person unit single tool arguments
other_tool other_arguments value verb verb_small noun question key keys schema"""
OPEN_SLOTS = {  # a question filled with these is its phrasing again
    name: "{" + name + "}" for name in [*SLOTS.split(), *unknown.SUBJECTS]
}


@dataclasses.dataclass(frozen=True)
class Turn:
    family: str
    question: str
    thought: str
    answer: str
    outputs: tuple = ()  # of the tools that the turn before called: they stand where else a question does


def make_turn(rng, held_out=False, family=None, noise=True):
    """One question with its thought and answer. Held-out ones have phrasings, words and numbers that are never trained."""
    if family is None:
        family = rng.choices(list(FAMILIES), weights=[weight for weight, _ in FAMILIES.values()])[0]
    make = FAMILIES[family][1]
    if make.__module__ == "letters":
        problem = make(rng, held_out)
    else:
        problem = make(rng)
        while family != "chat" and is_reserved(problem) != held_out:
            problem = make(rng)
    question = PHRASINGS[problem.kind].ask(rng, held_out, problem.slots, noise and family != "chat")
    return Turn(family, question, problem.thought, problem.answer)
