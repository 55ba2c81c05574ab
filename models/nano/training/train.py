#!/usr/bin/env python3
"""Trains the built-in model from a seed, in four stages of a fixed number of steps: first on what stands by itself, then
with tools and JSON beside it, at last more of these. State is saved as it goes: a run that was stopped goes on when it is started again with the
same folder."""

import argparse
import csv
import dataclasses
import pathlib
import random
import signal
import sys
import time

import checkpoint
import dialogue
import score
import tokenizer
import torch
from model import CONFIG, Model
from muon import Muon
from torch.nn import functional as F

SEED = 20260
TOKENS_A_STEP = 6144  # before padding
TOKENS_A_PASS = 2304  # with padding: what one forward and backward pass takes
WARMUP_STEPS = 60
MTP_WEIGHT = 0.3
MUON_LR, ADAM_LR = 0.02, 3e-3
BIAS_STEP = 0.002  # how far an expert's bias moves a step towards an even load


@dataclasses.dataclass(frozen=True)
class Stage:
    steps: int
    mix: dialogue.Mix | None  # with tools and JSON
    peak: float  # of the learning rate, which rises, holds for this share of the steps, then falls to zero
    hold: float
    mtp_start: float  # from this share of the steps on
    first_batch: int  # the seed of the batches goes on from here

    def learning_rate(self, step):
        falling = (self.steps - step) / (self.steps * (1 - self.hold))
        return self.peak * min((step + 1) / WARMUP_STEPS, 1.0, falling)


STAGES = {
    "plain": Stage(steps=4800, mix=None, peak=1.0, hold=0.28, mtp_start=0.75, first_batch=0),
    "mixed": Stage(steps=3000, mix=dialogue.Mix(), peak=0.75, hold=0.2, mtp_start=0.6, first_batch=4800),
    "longer": Stage(steps=3000, mix=dialogue.Mix(), peak=0.6, hold=0.3, mtp_start=0.6, first_batch=7800),
    "everyday": Stage(
        steps=3000, mix=dialogue.Mix(0.25, 0.12, True), peak=0.4, hold=0.3, mtp_start=0.6, first_batch=10800
    ),
}


def draw_batch(encoder, stage, step):
    """The dialogues of a step, by length, in passes of as many as fit. Depends on the seed and the step alone."""
    rng = random.Random(f"{SEED} {stage.first_batch + step}")
    samples, num_tokens = [], 0
    while num_tokens < TOKENS_A_STEP:
        samples.append(dialogue.make_dialogue(rng, encoder, stage.mix))
        num_tokens += len(samples[-1].ids)
    samples.sort(key=lambda sample: len(sample.ids))
    passes = [[]]
    for sample in samples:
        if passes[-1] and (len(passes[-1]) + 1) * len(sample.ids) > TOKENS_A_PASS:
            passes.append([])
        passes[-1].append(sample)
    return passes, num_tokens


def pad(samples, device):
    """Ids, which of them are no padding, which are learned, positions, and branches where there are any."""
    length = max(len(sample.ids) for sample in samples)

    def rows(name):
        padded = [getattr(sample, name) + [0] * (length - len(sample.ids)) for sample in samples]
        return torch.tensor(padded, device=device)

    real = torch.arange(length) < torch.tensor([len(sample.ids) for sample in samples]).unsqueeze(1)
    branched = any(any(sample.branches) for sample in samples)
    return (
        rows("ids"),
        real.to(device),
        rows("learned").bool(),
        rows("positions") if branched else None,
        rows("branches") if branched else None,
    )


def losses(model, ids, real, learned, positions, branches, with_mtp):
    """Summed cross-entropy of the next token, and of the token after next, over the learned ones."""
    hidden = model.trunk(ids, real, positions, branches=branches)
    chosen = learned[:, 1:]
    loss = F.cross_entropy(model.lm_head(hidden[:, :-1][chosen]), ids[:, 1:][chosen], reduction="sum")
    if not with_mtp:
        return loss, None
    if branches is not None:
        positions = positions[:, :-1]
        branches = torch.maximum(branches[:, :-1], branches[:, 1:])  # where either token is in one, the pair is
    ahead = model.look_ahead(ids[:, 1:], hidden[:, :-1], real[:, 1:], positions, branches)
    chosen = learned[:, 2:] & learned[:, 1:-1]
    return loss, F.cross_entropy(model.lm_head(ahead[:, :-1][chosen]), ids[:, 2:][chosen], reduction="sum")


class Trainer:
    def __init__(self, folder, stage, start, device):
        """`start`: a model's folder; None: from the seed."""
        self.folder, self.stage, self.device = pathlib.Path(folder), stage, device
        self.encoder = dialogue.Encoder(tokenizer.load(folder))
        self.model = Model()
        if start:
            self.model.load_state_dict(checkpoint.read(start).state_dict())
        else:
            self.model.init_weights(SEED)
        self.model.to(device)
        named = dict(self.model.named_parameters())
        for_adam = {
            name
            for name, parameter in named.items()
            if parameter.dim() < 2 or name in ("embed_tokens.weight", "lm_head.weight") or ".gate.weight" in name
        }
        self.optimizers = [
            Muon([parameter for name, parameter in named.items() if name not in for_adam], lr=MUON_LR),
            torch.optim.AdamW(
                [named[name] for name in sorted(for_adam)], lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.05
            ),
        ]
        self.step, self.num_tokens, self.rows = 0, 0, []
        self.stopping = False
        if self.state_file.exists():
            self.load()

    @property
    def state_file(self):
        return self.folder / "state.pt"

    def load(self):
        state = torch.load(self.state_file, map_location=self.device, weights_only=False)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.step, self.num_tokens, self.rows = state["step"], state["num_tokens"], state["rows"]
        print(f"goes on after step {self.step}", flush=True)

    def save(self):
        state = {
            "model": self.model.state_dict(),
            "optimizers": [each.state_dict() for each in self.optimizers],
            "step": self.step,
            "num_tokens": self.num_tokens,
            "rows": self.rows,
        }
        torch.save(state, self.folder / "state.new")
        (self.folder / "state.new").replace(self.state_file)
        with open(self.folder / "loss.csv", "w", newline="") as file:
            csv.writer(file).writerows([("step", "tokens", "loss", "mtp_loss"), *self.rows])

    def run_step(self):
        passes, num_tokens = draw_batch(self.encoder, self.stage, self.step)
        batches = [pad(samples, self.device) for samples in passes]
        num_learned = sum(int(learned.sum()) for _, _, learned, _, _ in batches)
        with_mtp = self.step >= self.stage.mtp_start * self.stage.steps
        factor = self.stage.learning_rate(self.step)
        loads, total, mtp_total = {}, 0.0, 0.0
        for optimizer, lr in zip(self.optimizers, (MUON_LR, ADAM_LR)):
            optimizer.zero_grad(set_to_none=True)
            optimizer.param_groups[0]["lr"] = lr * factor
        for batch in batches:
            loss, mtp_loss = losses(self.model, *batch, with_mtp)
            ((loss + MTP_WEIGHT * mtp_loss if with_mtp else loss) / num_learned).backward()
            total += loss.item() / num_learned
            mtp_total += mtp_loss.item() / num_learned if with_mtp else 0.0
            for moe in self.model.moe_layers()[: None if with_mtp else -1]:
                loads[moe] = loads.get(moe, 0) + moe.load
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        for moe, load in loads.items():
            load = load.float()
            moe.gate.e_score_correction_bias += BIAS_STEP * min(1.0, 2 * factor) * torch.sign(load.mean() - load)
        self.step += 1
        self.num_tokens += num_tokens
        self.rows.append((self.step, self.num_tokens, round(total, 5), round(mtp_total, 5) if with_mtp else ""))
        return max((load.max() / load.float().mean()).item() for load in loads.values())

    def stop(self, *_):
        """Ends the run after the step at hand."""
        self.stopping = True

    def run(self, check_every):
        since, tokens_since, started = self.step, self.num_tokens, time.time()
        while self.step < self.stage.steps and not self.stopping:
            uneven = self.run_step()
            if self.step % 20 == 0 or self.step == self.stage.steps:
                seconds = time.time() - started
                speed = (self.num_tokens - tokens_since) / seconds
                left = seconds / (self.step - since) * (self.stage.steps - self.step)
                recent = self.rows[-20:]
                loss = sum(row[2] for row in recent) / len(recent)
                print(
                    f"step {self.step}/{self.stage.steps}  loss {loss:.4f}  mtp {self.rows[-1][3] or 0:.4f}  "
                    f"{speed:.0f} tokens/s  busiest expert {uneven:.2f}x  {left / 60:.0f} min left",
                    flush=True,
                )
            if self.step % 50 == 0 or self.step == self.stage.steps or self.stopping:
                self.save()
            if self.step % check_every == 0 or self.step == self.stage.steps:
                print("  " + score.quick_report(self.model, self.encoder), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=pathlib.Path, required=True, help="where the tokenizer is read and the state is kept"
    )
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--start", help="the model folder that the stage before has written")
    parser.add_argument("--steps", type=int, help="another number of them than the stage has")
    parser.add_argument("--check-every", type=int, default=400)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not (arguments.folder / "tokenizer.json").exists():
        arguments.folder.mkdir(parents=True, exist_ok=True)
        tokenizer.train(arguments.folder, SEED, CONFIG["max_position_embeddings"])
    stage = STAGES[arguments.stage]
    stage = dataclasses.replace(stage, steps=arguments.steps or stage.steps)
    trainer = Trainer(arguments.folder, stage, arguments.start, device)
    signal.signal(signal.SIGTERM, trainer.stop)
    signal.signal(signal.SIGINT, trainer.stop)
    trainer.run(arguments.check_every)
    if trainer.step < trainer.stage.steps:
        sys.exit(f"stopped after step {trainer.step}; the same command goes on from there")


if __name__ == "__main__":
    main()
