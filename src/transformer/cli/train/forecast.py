"""How long a run will take, from a few timed steps: of the run itself, or of a trial before it."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from transformer.cli.formatting import duration
from transformer.config import TrainConfig
from transformer.data.contracts import TextData
from transformer.dataset import TokenDocuments
from transformer.planning.cost import cost, seconds
from transformer.text import load_tokenizer
from transformer.trainer import Trainer
from transformer.training.events import Progress, RunStarted

TIMED_STEPS = 3
"""So many steps, after the first, are timed."""
LONG_SECONDS = 60
"""A run that takes less needs no forecast."""
TRIAL_SECONDS = 20
"""A trial whose first step takes longer takes no other."""


class Forecast:
    """Follows the steps of a run that has begun, and says once how long it will take."""

    def __init__(self, config: TrainConfig, event: RunStarted) -> None:
        processes = event.tokens_per_step // config.tokens_per_step
        device = event.device.partition(":")[0]
        self.plan = cost(config, event.steps_per_epoch * event.tokens_per_step, device, processes)
        self.first_step = event.step
        self.started: list[float] = []

    def at(self, phase: Progress) -> str | None:
        """Takes note of a phase of training; returns the line to show, when there is one."""
        if phase.done or phase.step != self.first_step + len(self.started):
            return None
        self.started.append(time.perf_counter())
        if len(self.started) != TIMED_STEPS + 2:
            return None
        step = (self.started[-1] - self.started[1]) / TIMED_STEPS  # the first step has the device to get ready
        left = seconds(self.plan, step) * (1 - self.first_step / self.plan.steps)
        if left < LONG_SECONDS:
            return None
        return (
            f"about {duration(left)} at {duration(step)} a step, {self.plan.evaluations} looks at validation included"
        )


def step_seconds(config: TrainConfig) -> float:
    """Returns about how long a step takes on this machine, from a few on random tokens with a model of its own.

    A step of one micro-batch and one of two tell what a micro-batch takes and what the optimizer; `config.model` must
    have the encoding's vocabulary. Raises what Trainer raises.
    """
    trial = replace(config, accumulation_steps=1, max_steps=None)
    chance = np.random.default_rng(0)
    tokens = chance.integers(config.model.vocab_size, size=10 * trial.tokens_per_step + 1, dtype=np.uint32)
    nothing = torch.zeros(0, config.data.seq_length, dtype=torch.int64)
    source = TokenDocuments([tokens], end_of_text=0)
    trainer = Trainer(trial, TextData(load_tokenizer("byte"), source, len(tokens), (nothing, nothing), 0))
    first = _timed_step(trainer)  # the device gets ready
    if first > TRIAL_SECONDS:
        return first * config.accumulation_steps
    one = _timed_step(trainer)
    trainer.config = replace(trial, accumulation_steps=2)
    micro_batch = max(0.0, _timed_step(trainer) - one)
    return one + (config.accumulation_steps - 1) * micro_batch


def _timed_step(trainer: Trainer) -> float:
    started = time.perf_counter()
    trainer.train_step()
    trainer.report()  # waits for the device
    return time.perf_counter() - started
