"""Questions, thoughts and answers put together into the token sequences that the model is trained on."""

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
OPEN_SLOTS = {  # a question filled with these is its phrasing again
    name: "{" + name + "}"
    for name in [*"a b n list word letter nth day days large small are do".split(), *unknown.SUBJECTS]
}

SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "You are the built-in model of Cachalot.",
    "Be polite.",
    "Answer in English.",
    "You are an expert in numbers and words.",
    "Think before you answer.",
    "You are a friendly assistant who helps people.",
    "Keep your answers short.",
    "You help with small questions.",
]

NAMES = """Tom Anna Ben Lily Max Emma Sam Mia Leo Nora Jack Ella Paul Ruth Tim Sara Dan Kate Alex Lena Bob Jane Mark Rosa Peter
Ivy Omar Clara Hugo Maria""".split()

# What a user may tell, to be asked about many turns later: how it is told, the reply, how it is asked for, what is answered.
MEMORIES = [
    (
        ["My name is {x}.", "I am called {x}.", "Call me {x}."],
        "Hello {x}! How can I help you?",
        ["What is my name?", "Do you remember my name?", "What am I called?"],
        "Your name is {x}.",
        NAMES,
    ),
    (
        ["My lucky number is {x}.", "Remember the number {x}.", "Please remember {x}."],
        "I will remember {x}.",
        ["What is my number?", "Which number did I tell you?", "What number should you remember?"],
        "Your number is {x}.",
        [str(number) for number in range(10, 1000)],
    ),
    (
        ["My friend is called {x}.", "The name of my friend is {x}.", "I have a friend called {x}."],
        "I will remember {x}.",
        ["What is my friend called?", "What is the name of my friend?", "Who is my friend?"],
        "Your friend is {x}.",
        NAMES,
    ),
]


@dataclasses.dataclass(frozen=True)
class Turn:
    family: str
    question: str
    thought: str
    answer: str


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


class Encoder:
    """Turns dialogues into ids and marks those that the model has to produce."""

    def __init__(self, tokenizer):
        self.encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        self.decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=False)
        special = tokenizer.token_to_id
        self.bos, self.eos = special("<｜begin▁of▁sentence｜>"), special("<｜end▁of▁sentence｜>")
        self.user, self.assistant = special("<｜User｜>"), special("<｜Assistant｜>")
        self.think, self.end_think = special("<think>"), special("</think>")
        self.newline, self.blank_line = self.encode("\n"), self.encode("\n\n")

    def answer(self, turn):
        return [
            *self.encode(turn.thought + "\n"),
            self.end_think,
            *self.blank_line,
            *self.encode(turn.answer),
            self.eos,
        ]

    def chat_prompt(self, turns, system=""):
        """What the chat template makes of these turns, the last of which is to be answered."""
        ids = [self.bos, *self.encode(system)]
        for turn in turns[:-1]:
            ids += [self.user, *self.encode(turn.question), self.assistant, *self.encode(turn.answer), self.eos]
        return ids + [self.user, *self.encode(turns[-1].question), self.assistant, self.think, *self.newline]

    def bare_prompt(self, turn):
        """A question as the text-completion API gets it: no template, and the model opens its thought itself."""
        return [self.bos, *self.encode(turn.question)]

    def bare_answer(self, turn):
        return [*self.newline, self.think, *self.newline, *self.answer(turn)]


def with_memory(rng, turns):
    """The dialogue with a fact told in an early turn and asked for in the last."""
    told, reply, asked, answer, values = rng.choice(MEMORIES)
    x = rng.choice(values)
    early = Turn("memory", rng.choice(told).format(x=x), f"The user tells me {x}.", reply.format(x=x))
    late = Turn("memory", rng.choice(asked), f"The user told me {x}.", answer.format(x=x))
    return [*turns[:1], early, *turns[1:-1], late]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Token ids with their positions. What the model has to write is `learned`. A thought with its answer is a branch of
    its own, numbered from 1: later turns see the answer alone, which follows once more in branch 0."""

    ids: list
    positions: list
    branches: list
    learned: list

    @staticmethod
    def empty():
        return Sample([], [], [], [])

    def append(self, ids, start, branch=0, num_learned=0):
        """Gives the position after these ids, of which the last `num_learned` are to be learned."""
        self.ids.extend(ids)
        self.positions.extend(range(start, start + len(ids)))
        self.branches.extend([branch] * len(ids))
        self.learned.extend([False] * (len(ids) - num_learned) + [True] * num_learned)
        return start + len(ids)


def bare_sample(encoder, turn):
    sample = Sample.empty()
    position = sample.append(encoder.bare_prompt(turn), 0)
    answer = encoder.bare_answer(turn)
    sample.append(answer, position, num_learned=len(answer))
    return sample


def dialogue_sample(rng, encoder, turns, system, thought_share=1.0):
    """A dialogue in which the last turn, and this share of those before, are learned with their thoughts."""
    sample = Sample.empty()
    position = sample.append([encoder.bos, *encoder.encode(system)], 0)
    for number, turn in enumerate(turns, 1):
        position = sample.append([encoder.user, *encoder.encode(turn.question), encoder.assistant], position)
        if number == len(turns) or rng.random() < thought_share:
            answer = encoder.answer(turn)
            branch = number if len(turns) > 1 else 0
            sample.append([encoder.think, *encoder.newline, *answer], position, branch, num_learned=len(answer))
        if number < len(turns):
            position = sample.append([*encoder.encode(turn.answer), encoder.eos], position)
    return sample


def make_dialogue(rng, encoder, max_tokens=1536):
    """A quarter are bare questions, a tenth have several turns, and some of these are long: up to about 1,024 tokens, and
    the thoughts of earlier turns beside them."""
    kind = rng.random()
    if kind < 0.25:
        return bare_sample(encoder, make_turn(rng))
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.06 else ""
    turns = [make_turn(rng)]
    thought_share = 1.0
    if kind > 0.98:
        thought_share = 0.2
        wanted = rng.randint(300, 950)
        while len(encoder.chat_prompt(turns, system)) < wanted:
            turns.append(make_turn(rng))
    elif kind > 0.92:
        turns += [make_turn(rng) for _ in range(rng.randint(1, 4))]
    if len(turns) > 1 and rng.random() < 0.3:
        turns = with_memory(rng, turns)
    elif len(turns) == 1 and rng.random() < 0.01:  # the first turn of such a dialogue
        turns = with_memory(rng, [make_turn(rng), make_turn(rng)])[1:2]
    sample = dialogue_sample(rng, encoder, turns, system, thought_share)
    return sample if len(sample.ids) <= max_tokens else make_dialogue(rng, encoder, max_tokens)
