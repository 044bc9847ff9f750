"""The duration of a run: from a matrix product before it starts, a trial of a few steps, or its own first steps."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

import numpy as np
import torch

from transformer.cli.formatting import counted, duration
from transformer.cli.options import command_line
from transformer.config import TrainConfig
from transformer.data.contracts import TextData
from transformer.dataset import TokenDocuments
from transformer.planning.cost import Cost, cost, seconds
from transformer.text import load_tokenizer
from transformer.trainer import Trainer
from transformer.training.events import Progress, RunStarted
from transformer.training.precision import chosen_dtype

TIMED_STEPS = 3
"""Steps that are timed, after the first."""
LONG_SECONDS = 60
"""Shorter runs get no forecast."""
TRIAL_SECONDS = 20
"""If the first step of a trial takes longer, it is the only one."""
SLOWEST_CPU = 1e10
"""FLOP/s; a run that is short even at this speed needs no measurement."""
SLOW_SECONDS = 3 * 3600
"""A run on a CPU that takes longer is announced before it starts, with shorter ones."""


class Forecast:
    """Times the first steps of a run, and reports once how long the run will take."""

    def __init__(self, config: TrainConfig, event: RunStarted) -> None:
        processes = event.tokens_per_step // config.tokens_per_step
        device = event.device.partition(":")[0]
        self.plan = cost(config, event.steps_per_epoch * event.tokens_per_step, device, processes)
        self.first_step = event.step
        self.started: float | None = None
        self.timed: list[float] = []

    def at(self, progress: Progress) -> str | None:
        """Records the time of a step; returns the line to print after the last timed one.

        A step ends when the next one begins, or an evaluation or a save, which are not part of its time.
        """
        if len(self.timed) > TIMED_STEPS or (progress.activity == "training" and progress.done):
            return None
        now = time.perf_counter()
        if self.started is not None:
            self.timed.append(now - self.started)
        self.started = now if progress.activity == "training" else None
        if len(self.timed) <= TIMED_STEPS:
            return None
        step = median(self.timed[1:])  # the first step includes the device's warm-up
        left = seconds(self.plan, step) * (1 - self.first_step / self.plan.steps)
        if left < LONG_SECONDS:
            return None
        evaluations = counted(self.plan.evaluations, "evaluation")
        return f"about {duration(left)} at {duration(step)} per step, including {evaluations}"


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


def at_least_seconds(plan: Cost) -> float:
    """Returns the seconds that the run's matrix products alone take on this CPU, from the speed of a large one.

    bfloat16 may be several times as fast as float32, or many times as slow: the faster one counts.
    """
    size, rates = 1024, []
    for dtype in {torch.float32, chosen_dtype(plan.config, torch.device("cpu"))}:
        matrix, begun = torch.ones(size, size, dtype=dtype), time.perf_counter()
        for _ in range(5):
            started = time.perf_counter()
            matrix @ matrix
            rates.append(2 * size**3 / (time.perf_counter() - started))
            if time.perf_counter() - begun > 1:  # without instructions for the format
                break
    return plan.flops_per_token * plan.tokens / max(rates) / plan.world_size


def slow_run(plan: Cost) -> str | None:
    """Returns a warning, before the first step, if the run will take hours on this CPU; None otherwise."""
    is_short = plan.flops_per_token * plan.tokens < SLOW_SECONDS * SLOWEST_CPU * plan.world_size
    if plan.device != "cpu" or is_short or (least := at_least_seconds(plan)) < SLOW_SECONDS:
        return None
    train = f"{command_line()} train"
    return (
        f"this run takes {duration(least)} or more on this CPU; shorter: `{train} --preset demo` (minutes), or "
        f"--max-steps N; Ctrl-C saves the state, and --resume continues"
    )
