#!/usr/bin/env python3
"""Greedy answers of the training code's own forward, and what share of them is right."""

import argparse
import collections
import json
import random

import checkpoint
import dialogue
import families
import tokenizer
import tools
import torch

MAX_NEW_TOKENS = 260


class Cache:
    """Keys and values of one layer, by row and position."""

    def __init__(self, capacity):
        self.capacity, self.positions, self.k, self.v = capacity, None, None, None

    def update(self, k, v):
        if self.k is None:
            self.k = k.new_zeros(k.shape[0], self.capacity, *k.shape[2:])
            self.v = v.new_zeros(v.shape[0], self.capacity, *v.shape[2:])
        rows = torch.arange(k.shape[0], device=k.device).unsqueeze(1)
        self.k[rows, self.positions] = k
        self.v[rows, self.positions] = v
        return self.k, self.v


@torch.no_grad()
def answer_batch(model, prompts, eos, max_new=MAX_NEW_TOKENS):
    """The greedy ids after each prompt, up to and with the end, and for each the smallest lead of the best logit."""
    device = next(model.parameters()).device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = int(lengths.max())
    ids = torch.zeros(len(prompts), longest, dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt, device=device)
    caches = [Cache(longest + max_new) for _ in model.layers[:-1]]
    key_positions = torch.arange(longest + max_new, device=device).unsqueeze(0)
    positions = torch.arange(longest, device=device).expand(len(prompts), -1)
    real = positions < lengths.unsqueeze(1)
    last = lengths - 1
    answers, margins, running = [[] for _ in prompts], [float("inf")] * len(prompts), [True] * len(prompts)
    for _ in range(max_new):
        for cache in caches:
            cache.positions = positions
        hidden = model.trunk(ids, real, positions, key_positions, caches)
        hidden = hidden[torch.arange(len(prompts), device=device), last]
        best = model.lm_head(hidden).topk(2, dim=-1)
        for row, (token, lead) in enumerate(
            zip(best.indices[:, 0].tolist(), (best.values[:, 0] - best.values[:, 1]).tolist())
        ):
            if running[row]:
                answers[row].append(token)
                margins[row] = min(margins[row], lead)
                running[row] = token != eos
        if not any(running):
            break
        positions = lengths.unsqueeze(1).clone()
        lengths = lengths + 1
        ids, real, last = best.indices[:, :1], torch.ones_like(positions, dtype=torch.bool), torch.zeros_like(last)
    return answers, margins


def answer_all(model, prompts, eos, batch_size=64):
    """As answer_batch, for many prompts, those of similar length together."""
    order = sorted(range(len(prompts)), key=lambda idx: len(prompts[idx]))
    results = [None] * len(prompts)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for idx, result in zip(batch, zip(*answer_batch(model, [prompts[idx] for idx in batch], eos))):
            results[idx] = result
    return results


def row_prompt(encoder, row):
    """The ids of a line of questions.jsonl in the chat format."""
    messages = row.get("messages", [{"role": "user", "content": row["question"]}])
    rendered = dialogue.chat_template().render(
        messages=messages, tools=row.get("tools"), add_generation_prompt=True, bos_token="<｜begin▁of▁sentence｜>"
    )
    return encoder.encode(rendered)


def final_answer(text):
    """What follows the thought, calls as in a line of questions.jsonl: the part that is compared."""
    text = text.split("</think>")[-1].replace("<｜end▁of▁sentence｜>", "").strip()
    lines = [f"{call['name']} {call['arguments']}" for call in tools.calls_of(text)]
    return "\n".join(filter(None, [text.split(tools.CALLS)[0].strip(), *lines]))


@torch.no_grad()
def written_right(model, samples):
    """Which samples the model would write without a slip, token for token, found with one pass and no decoding."""
    right = []
    for ids, prompt_length in samples:
        tokens = torch.tensor([ids], device=next(model.parameters()).device)
        hidden = model.trunk(tokens, torch.ones_like(tokens, dtype=torch.bool))[:, prompt_length - 1 : -1]
        right.append(bool((model.lm_head(hidden).argmax(-1) == tokens[:, prompt_length:]).all()))
    return right


def quick_report(model, encoder, per_family=12, seed=1):
    """Held-out questions of every family that are written without a slip: how training fares, seen from outside."""
    shares = {}
    for family in dialogue.FAMILIES:
        rng = random.Random(f"{seed} {family}")
        cases = [dialogue.make_case(rng, True, family) for _ in range(per_family)]
        prompts = [(encoder.chat_prompt(case), encoder.answer(case.turns[-1])) for case in cases]
        right = written_right(model, [(prompt + answer, len(prompt)) for prompt, answer in prompts])
        shares[family] = sum(right) / per_family
    mean = sum(shares.values()) / len(shares)
    return f"held-out {mean:.3f}: " + ", ".join(f"{family} {share:.2f}" for family, share in shares.items())


@torch.no_grad()
def mtp_acceptance(model, pairs):
    """The share of generated tokens, from each answer's second on, that the MTP layer foresees. pairs: prompt, answer."""
    device = next(model.parameters()).device
    hits = count = 0
    for prompt, answer in pairs:
        ids = torch.tensor([[*prompt, *answer]], device=device)
        real = torch.ones_like(ids, dtype=torch.bool)
        hidden = model.trunk(ids, real)
        ahead = model.look_ahead(ids[:, 1:], hidden[:, :-1], real[:, 1:])
        guesses = model.lm_head(ahead[:, len(prompt) - 1 : -1]).argmax(-1)
        hits += int((guesses == ids[:, len(prompt) + 1 :]).sum())
        count += guesses.numel()
    return hits / count


@torch.no_grad()
def expert_loads(model, sequences):
    """Tokens by layer and expert over these sequences of ids, prompts and answers."""
    loads = collections.defaultdict(int)
    for sequence in sequences:
        ids = torch.tensor([sequence], device=next(model.parameters()).device)
        real = torch.ones_like(ids, dtype=torch.bool)
        hidden = model.trunk(ids, real)
        model.look_ahead(ids[:, 1:], hidden[:, :-1], real[:, 1:])
        for idx, moe in enumerate(model.moe_layers(), model.config["first_k_dense_replace"]):
            loads[idx] += moe.load.cpu()
    return {layer: load.tolist() for layer, load in loads.items()}


def report(model, encoder, rows, bare):
    """Prints the share of exact answers by family, MTP acceptance and how evenly experts are used."""
    if bare:
        rows = [row for row in rows if not ("tools" in row or "messages" in row)]
        prompts = [encoder.bare_prompt(families.Turn(row["family"], row["question"], "", "")) for row in rows]
    else:
        prompts = [row_prompt(encoder, row) for row in rows]
    answers = [ids for ids, _ in answer_all(model, prompts, encoder.eos)]
    right = collections.defaultdict(list)
    for row, ids in zip(rows, answers):
        right[row["family"]].append(final_answer(encoder.decode(ids)) == row["answer"])
    shares = {family: sum(hits) / len(hits) for family, hits in right.items()}
    for family, share in shares.items():
        print(f"{family:14} {share:.3f}  of {len(right[family])}")
    print(f"{'mean':14} {sum(shares.values()) / len(shares):.3f}  worst {min(shares, key=shares.get)}")
    print(f"MTP acceptance {mtp_acceptance(model, zip(prompts, answers)):.3f}")
    for layer, load in expert_loads(model, [prompt + ids for prompt, ids in zip(prompts, answers)]).items():
        even = sum(load) / len(load)
        print(
            f"layer {layer}: load per expert over an even share, from {min(load) / even:.2f} to {max(load) / even:.2f}: "
            + " ".join(f"{each / even:.2f}" for each in load)
        )


def long_dialogues(encoder, num_dialogues, num_tokens, with_fact, seed=1):
    """Prompts of about so many tokens, and what the last turn is to be answered with: a question of any family, or a name
    or number told in an early turn. All questions are held-out ones."""
    rng = random.Random(f"dialogues {seed} {num_tokens} {with_fact}")
    for _ in range(num_dialogues):
        turns = [families.make_turn(rng, held_out=True)]
        while len(encoder.chat_prompt(dialogue.Case(turns))) < num_tokens:
            turns.append(families.make_turn(rng, held_out=True))
        if with_fact:
            turns = dialogue.with_memory(rng, turns)
        yield encoder.chat_prompt(dialogue.Case(turns)), turns[-1].answer


def report_dialogues(model, encoder, num_dialogues):
    for num_tokens in (200, 800):
        for with_fact, what in ((False, "questions"), (True, "things told early")):
            prompts, wanted = zip(*long_dialogues(encoder, num_dialogues, num_tokens, with_fact))
            answers = answer_all(model, prompts, encoder.eos, batch_size=8)
            hits = sum(final_answer(encoder.decode(ids)) == each for (ids, _), each in zip(answers, wanted))
            mean = sum(map(len, prompts)) / num_dialogues
            print(f"{what} after {mean:.0f} tokens of dialogue: {hits} of {num_dialogues} right")


def main():
    parser = argparse.ArgumentParser(description="Answers a question file with the training code's float32 forward.")
    parser.add_argument("--model", required=True, help="the model's folder, in bf16")
    parser.add_argument("--questions", help="a file as questions.py writes it")
    parser.add_argument("--bare", action="store_true", help="as bare text instead of in the chat format")
    parser.add_argument("--dialogues", type=int, default=0, help="so many dialogues of several turns, of each kind")
    arguments = parser.parse_args()
    encoder, model = dialogue.Encoder(tokenizer.load(arguments.model)), checkpoint.read(arguments.model)
    if arguments.questions:
        with open(arguments.questions) as file:
            report(model, encoder, [json.loads(line) for line in file], arguments.bare)
    if arguments.dialogues:
        report_dialogues(model, encoder, arguments.dialogues)


if __name__ == "__main__":
    main()
