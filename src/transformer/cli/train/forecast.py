"""The duration of a run, extrapolated from a few timed steps: of the run itself, or of a trial before it."""

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
"""Steps that are timed, after the first."""
LONG_SECONDS = 60
"""Shorter runs get no forecast."""
TRIAL_SECONDS = 20
"""If the first step of a trial takes longer, it is the only one."""


class Forecast:
    """Follows the steps of a run and reports once how long the run will take."""

    def __init__(self, config: TrainConfig, event: RunStarted) -> None:
        processes = event.tokens_per_step // config.tokens_per_step
        device = event.device.partition(":")[0]
        self.plan = cost(config, event.steps_per_epoch * event.tokens_per_step, device, processes)
        self.first_step = event.step
        self.started: list[float] = []

    def at(self, progress: Progress) -> str | None:
        """Records the start of a step; returns the line to print after the last timed one."""
        if progress.done or progress.step != self.first_step + len(self.started):
            return None
        self.started.append(time.perf_counter())
        if len(self.started) != TIMED_STEPS + 2:
            return None
        step = (self.started[-1] - self.started[1]) / TIMED_STEPS  # the first step includes the device's warm-up
        left = seconds(self.plan, step) * (1 - self.first_step / self.plan.steps)
        if left < LONG_SECONDS:
            return None
        return f"about {duration(left)} at {duration(step)} per step, including {self.plan.evaluations} evaluations"


def step_seconds(config: TrainConfig) -> float:
    """Returns the approximate seconds of a step on this machine, from a few steps of a new model on random tokens.

    The difference between a step of one micro-batch and a step of two is the time of a micro-batch; the rest of a step
    is the optimizer. `config.model` must have the encoding's vocab_size. Raises the errors of Trainer.
    """
    trial = replace(config, accumulation_steps=1, max_steps=None)
    rng = np.random.default_rng(0)
    tokens = rng.integers(config.model.vocab_size, size=10 * trial.tokens_per_step + 1, dtype=np.uint32)
    empty = torch.zeros(0, config.data.seq_length, dtype=torch.int64)
    source = TokenDocuments([tokens], end_of_text=0)
    trainer = Trainer(trial, TextData(load_tokenizer("byte"), source, len(tokens), (empty, empty), 0))
    first = _timed_step(trainer)  # includes the device's warm-up
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
