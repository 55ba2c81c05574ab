"""Questions, thoughts and answers put together into the token sequences that the model is trained on."""

import dataclasses
import functools
import random
import re

import families
import jinja2
import structured
import tokenizer
import tools
from families import Turn, make_turn

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


# What the prompts of agents say, one sentence after another.
AGENT_PROMPTS = [
    "You are a helpful assistant with access to tools.",
    "You are an agent.",
    "You are a helpful assistant. Use the tools when they help.",
    "Use the tools to answer.",
    "You can call functions.",
    "Only call a tool if it is needed.",
    "If no tool fits, answer yourself.",
    "Do not make up values.",
    "You are an expert assistant who can solve any task using tools.",
    "Today is {day}, 2026-0{n}-1{n}.",
    "The user's name is {name}.",
    "Answer as soon as you have what you need.",
    "Be concise and polite.",
    "Never ask back.",
    "You work for {name}.",
    "Give the final answer in one sentence.",
    "Call tools with valid JSON.",
    "You are {name}, a customer service agent.",
    "Keep going until the task is solved.",
    "Follow the user's instructions step by step.",
]


def agent_prompt(rng):
    sentences = rng.sample(AGENT_PROMPTS, rng.choice([1, 1, 1, 2, 2, 3, 4, rng.randint(5, 10)]))
    names = {"name": rng.choice(NAMES), "day": rng.choice(["Monday", "Friday", "Sunday"]), "n": rng.randint(1, 9)}
    return rng.choice([" ", " ", "\n"]).join(sentences).format(**names)


@dataclasses.dataclass(frozen=True)
class Case:
    """Turns, the last of which is to be answered, and what stands around them."""

    turns: list
    system: str = ""
    tools: tuple = ()  # declarations, as clients send them
    thinking: bool = True

    def messages(self):
        """As a client of the API sends them."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        ids = []
        for number, turn in enumerate(self.turns):
            messages += [
                {"role": "tool", "tool_call_id": each, "content": output} for each, output in zip(ids, turn.outputs)
            ]
            if not turn.outputs:
                messages.append({"role": "user", "content": turn.question})
            if turn is self.turns[-1]:
                return messages
            calls = tools.calls_of(turn.answer)
            ids = [f"call_{number}_{idx}" for idx in range(len(calls))]
            message = {"role": "assistant", "content": "" if calls else turn.answer}
            if calls:
                pairs = zip(ids, calls)
                message["tool_calls"] = [{"id": each, "type": "function", "function": call} for each, call in pairs]
            messages.append(message)


@functools.cache
def chat_template():
    return jinja2.Environment().from_string(tokenizer.CHAT_TEMPLATE.read_text().rstrip("\n"))


class Encoder:
    """Turns dialogues into ids and marks those that the model has to produce."""

    def __init__(self, tokenizer):
        self.encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        self.offsets = lambda text: tokenizer.encode(text, add_special_tokens=False).offsets
        self.decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=False)
        special = tokenizer.token_to_id
        self.bos, self.eos = special("<｜begin▁of▁sentence｜>"), special("<｜end▁of▁sentence｜>")
        self.user, self.assistant = special("<｜User｜>"), special("<｜Assistant｜>")
        self.think, self.end_think = special("<think>"), special("</think>")
        self.newline, self.blank_line = self.encode("\n"), self.encode("\n\n")

    def answer(self, turn, thinking=True):
        thought = [*self.encode(turn.thought + "\n"), self.end_think, *self.blank_line] if thinking else []
        return [*thought, *self.encode(turn.answer), self.eos]

    def opening(self, thinking=True):
        """Of an answer: a thought, or an empty one."""
        return [self.think, *self.newline, *([] if thinking else [self.end_think, *self.blank_line])]

    def head(self, system="", declared=()):
        """What stands before the first turn."""
        messages = [{"role": "system", "content": system}] if system else []
        return [self.bos, *self.encode(chat_template().render(messages=messages, tools=list(declared), bos_token=""))]

    def chosen(self, turn):
        """Which tokens of an answer that is held to a grammar are the model's own: no keys, nothing before the first."""
        keys = [match.span(1) for match in re.finditer(r'"((?:[^"\\\\]|\\\\.)*)": ', turn.answer)]
        start = keys[0][1] if keys else turn.answer.find("{") + 1
        own = [
            begin >= start and not any(first < end and begin < last for first, last in keys)
            for begin, end in self.offsets(turn.answer)
        ]
        return [*own, True]

    def asked(self, turn):
        if turn.outputs:
            return self.encode("".join(tools.OUTPUT + output + tools.OUTPUT_END for output in turn.outputs))
        return [self.user, *self.encode(turn.question), self.assistant]

    def chat_prompt(self, case):
        """What the chat template makes of a case."""
        ids = self.head(case.system, case.tools)
        for turn in case.turns[:-1]:
            ids += [*self.asked(turn), *self.encode(turn.answer), self.eos]
        return [*ids, *self.asked(case.turns[-1]), *self.opening(case.thinking)]

    def bare_prompt(self, turn):
        """A question as the text-completion API gets it: no template, and the model opens its thought itself."""
        return [self.bos, *self.encode(turn.question)]

    def bare_answer(self, turn):
        return [*self.newline, *self.opening(), *self.answer(turn)]


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


def dialogue_sample(rng, encoder, case, thought_share=1.0):
    """A dialogue in which the last turn, and this share of those before, are learned with their thoughts."""
    sample = Sample.empty()
    position = sample.append(encoder.head(case.system, case.tools), 0)
    for number, turn in enumerate(case.turns, 1):
        position = sample.append(encoder.asked(turn), position)
        if number == len(case.turns) or rng.random() < thought_share:
            answer = encoder.answer(turn, case.thinking)
            branch = number if len(case.turns) > 1 else 0
            sample.append([*encoder.opening(case.thinking), *answer], position, branch, num_learned=len(answer))
            if turn.family == "forced":
                own = encoder.chosen(turn)
                sample.learned[-len(own) :] = own
        if number < len(case.turns):
            position = sample.append([*encoder.encode(turn.answer), encoder.eos], position)
    return sample


# Families that need no thought; of these some are asked for an answer without.
WITHOUT_THOUGHT = {
    "tool_call",
    "tool_any",
    "tool_two",
    "tool_answer",
    "tool_loop",
    "json_extract",
    "json_schema",
    "forced",
}
FAMILIES = {**families.FAMILIES, **tools.FAMILIES, **structured.FAMILIES}


def make_case(rng, held_out, family, noise=True):
    """A question of this family with what it needs around it."""
    if family in families.FAMILIES:
        return Case([make_turn(rng, held_out, family, noise)])
    if family in structured.FAMILIES:
        system, turn = structured.FAMILIES[family][1](rng, held_out)
        return Case([turn], system)
    box, turns = tools.make_exchange(rng, held_out, family)
    return Case(turns, tools=tuple(box.declarations()))


def tool_dialogue(rng, everyday):
    """One to three questions to the same tools. The last may end with a call."""
    count = rng.choice([1, 1, 1, 2, 2, 3])
    box, turns = tools.make_exchange(rng, False, tools.draw_family(rng, everyday), count > 1, everyday)
    for number in range(2, count + 1):
        family = tools.draw_family(rng, everyday)
        more = box.exchange(family) if family != "tool_answer" else []
        turns += more if number < count else more[: rng.randint(1, len(more))] if more else []
    if rng.random() < 0.06:
        turns = box.forced()
    system = agent_prompt(rng) if rng.random() < 0.4 else ""
    can_be_without = all(turn.family in WITHOUT_THOUGHT for turn in turns)
    return Case(turns, system, tuple(box.declarations()), not (can_be_without and rng.random() < 0.12))


def structured_dialogue(rng):
    """One question, or one behind others of the families that stand by themselves."""
    case = make_case(rng, False, structured.draw_family(rng))
    if rng.random() < 0.10:
        case = Case([structured.forced(rng)])
    before = [make_turn(rng) for _ in range(rng.randint(1, 2))] if not case.system and rng.random() < 0.1 else []
    system = case.system
    if not system and rng.random() < 0.15:
        system = rng.choice([rng.choice(SYSTEM_PROMPTS), agent_prompt(rng)])
    can_be_without = case.turns[-1].family in WITHOUT_THOUGHT and not before
    return Case([*before, *case.turns], system, (), not (can_be_without and rng.random() < 0.12))


def plain_dialogue(rng, encoder, kind):
    """A tenth have several turns, and some of these are long: up to about 1,024 tokens, and the thoughts of earlier turns
    beside them."""
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.06 else ""
    turns = [make_turn(rng)]
    thought_share = 1.0
    if kind > 0.98:
        thought_share = 0.2
        wanted = rng.randint(300, 950)
        while len(encoder.chat_prompt(Case(turns, system))) < wanted:
            turns.append(make_turn(rng))
    elif kind > 0.92:
        turns += [make_turn(rng) for _ in range(rng.randint(1, 4))]
    if len(turns) > 1 and rng.random() < 0.3:
        turns = with_memory(rng, turns)
    elif len(turns) == 1 and rng.random() < 0.01:  # the first turn of such a dialogue
        turns = with_memory(rng, [make_turn(rng), make_turn(rng)])[1:2]
    return Case(turns, system), thought_share


@dataclasses.dataclass(frozen=True)
class Mix:
    """Which share of the samples have tools, and which are answered in JSON. `everyday`: tools mostly as people try them
    first."""

    tools: float = 0.13
    structured: float = 0.14
    everyday: bool = False


def make_dialogue(rng, encoder, mix=None, max_tokens=1536):
    """A quarter are bare questions. Without a mix all stand by themselves."""
    drawn = rng.random() if mix else 1.0
    kind, thought_share = rng.random(), 1.0
    if mix and drawn < mix.tools:
        case = tool_dialogue(rng, mix.everyday)
    elif mix and drawn < mix.tools + mix.structured:
        case = structured_dialogue(rng)
        if kind < 0.15 and case.thinking:
            return bare_sample(encoder, case.turns[-1])
    elif kind < 0.25:
        return bare_sample(encoder, make_turn(rng))
    else:
        case, thought_share = plain_dialogue(rng, encoder, kind)
        if mix and case.turns[-1].family in ("chat", "fallback") and len(case.turns) == 1 and rng.random() < 0.2:
            case = dataclasses.replace(case, thinking=False)
    sample = dialogue_sample(rng, encoder, case, thought_share)
    return sample if len(sample.ids) <= max_tokens else make_dialogue(rng, encoder, mix, max_tokens)
