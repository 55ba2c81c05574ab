"""How a question is worded: templates with alternatives, and which of them the model never sees.

A template such as "Which [one|number] is [larger|bigger]: {a} or {b}?" stands for every choice of its alternatives, which
may hold alternatives themselves. Each kind of question has two lists: `trained` templates, and `held_out` ones that only
questions for scoring use. The two may share parts, but what a held-out template can say is never trained, not even with
other marks, capitals, or a polite word before it."""

import dataclasses
import functools
import itertools
import math
import re
import zlib

ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")

OPENINGS = """[Please tell me|Tell me|Please help me|Can you help me?|Quick question|Question|I have a question.|A question|
Here is a question|Next question|Another one|Now|Okay.|So|Please|Let me ask|I want to know|I would like to know|Say|
Please answer|Answer this|One more|My question|Help me|Do you know this?|I need help.|Look]"""
GREETINGS = "[Hi|Hello|Hey|Hi there|Hello there|Good morning|Good day|Dear model|Hello Cachalot|Hi Cachalot]"
CLOSINGS = """[ Thanks.| Thank you!| Please.| Think step by step.| Thanks!| Be brief.| Explain.| Please think first.|
 Thank you.| Please answer.| Be quick.| Think first.| I need to know.| Tell me.| Please be careful.]"""


def expand_once(rng, template):
    """One choice of all alternatives, the inner ones first."""
    while "[" in template:
        template = ALTERNATIVES.sub(lambda match: rng.choice(match.group(1).split("|")), template)
    return re.sub(r" +(?=[ ,.?!:])", "", template).strip()


def expand_all(template):
    match = ALTERNATIVES.search(template)
    if not match:
        return {template}
    choices = (template[: match.start()] + choice + template[match.end() :] for choice in match.group(1).split("|"))
    return set().union(*map(expand_all, choices))


def plain(text):
    """Words alone: marks, capitals and words of politeness do not make another phrasing."""
    words = re.findall(r"\{\w+\}|[a-z0-9']+|[+*/<>=-]", text.lower())
    return " ".join(word for word in words if word not in ("please", "thanks"))


@dataclasses.dataclass(frozen=True)
class Phrasings:
    trained: list
    held_out: list

    @functools.cached_property
    def weights(self):
        """Templates that stand for much are drawn more often, but not in proportion."""
        return [
            1 + sum(math.log2(1 + choices.count("|")) for choices in re.findall(r"\[([^\[]*)", template))
            for template in self.trained
        ]

    @functools.cached_property
    def reserved(self):
        return set(map(plain, itertools.chain.from_iterable(map(expand_all, self.held_out))))

    def is_reserved(self, phrasing):
        """Whether a phrasing, slots still open, says what a held-out one says, with or without words around it."""
        text = plain(phrasing)
        return text in self.reserved or any(
            len(each) > 12 and (text.endswith(" " + each) or text.startswith(each + " ")) for each in self.reserved
        )

    def ask(self, rng, held_out, slots, noise):
        if held_out:
            return expand_once(rng, rng.choice(self.held_out)).format(**slots)
        while True:
            phrasing = expand_once(rng, rng.choices(self.trained, self.weights)[0])
            phrasing = vary(rng, phrasing) if noise else phrasing
            if not self.is_reserved(phrasing):
                return phrasing.format(**slots)


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


def vary(rng, phrasing):
    """Light noise as people type it: a greeting or polite words before or after, a lower-case start, no mark at the end."""
    if rng.random() < 0.15:
        opening = expand_once(rng, OPENINGS.replace("\n", ""))
        phrasing = opening + (" " if opening[-1] in ".?" else rng.choice([": ", ": ", ", "])) + phrasing
    if rng.random() < 0.08:
        phrasing = expand_once(rng, GREETINGS) + rng.choice(["! ", ", ", ". "]) + phrasing
    if rng.random() < 0.08:
        phrasing += " " + expand_once(rng, CLOSINGS.replace("\n", ""))
    elif rng.random() < 0.12:
        phrasing = phrasing.rstrip("?.!")
    if rng.random() < 0.12:
        phrasing = phrasing[0].lower() + phrasing[1:]
    return phrasing
