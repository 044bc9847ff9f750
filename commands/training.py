"""A training run from its settings to its picture, as one of the processes that train together, or as the only one."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from cli import console
from display import TrainingDisplay
from planning import warn
from resuming import batch_change, load_state, merged
from running import as_opened, fit, open_together, told_once
from transformer import checkpoint
from transformer.config import TrainConfig
from transformer.plots import save_loss_curve
from transformer.runtime.device import pick_device
from transformer.runtime.distributed import Dist
from transformer.runtime.metrics import METRICS_FILE, MetricsLog, StepMetrics, read_metrics
from transformer.text import tokenizer_from_state
from transformer.trainer import Trainer


def train(
    config: TrainConfig, resume: bool = False, resume_from: Path | None = None, defaults: TrainConfig | None = None
) -> Trainer:
    """Trains as the config says, with the display, the metrics file and the loss curve; returns the trainer.

    A run that is resumed has its stored settings, and of the config those that differ from `defaults`.
    """
    with Dist.from_environment() as dist:
        trainer, stopped_by = train_as(dist, config, resume, resume_from, defaults or config)
    if stopped_by is not None:
        raise SystemExit(128 + stopped_by)  # as shells count it: 130 for Ctrl-C, 143 for SIGTERM
    return trainer


def train_as(
    dist: Dist, config: TrainConfig, resume: bool, resume_from: Path | None, defaults: TrainConfig
) -> tuple[Trainer, int | None]:
    """Trains as one of the processes, of which rank 0 speaks; returns the trainer, and the signal that stopped it."""
    with told_once():
        device = pick_device(config.device)  # a device that is missing is told before any text is read
        if config.shard:
            dist.check_shard()
    dist.own(device)
    directory = Path(config.checkpoint_dir)
    out = console()
    tokenizer = state = None
    if resume or resume_from is not None:
        with told_once():
            state, contents = load_state(resume_from, directory, out)
            config = replace(merged(contents, config, defaults, dist.world_size), checkpoint_dir=str(directory))
        tokenizer = tokenizer_from_state(contents["tokenizer"])
    display = TrainingDisplay(out, config)
    with display.opening(f"reading {config.data.dataset}"):
        data = open_together(config, tokenizer, display.tell, dist)
    with contextlib.closing(data):
        config = display.config = as_opened(config, data)
        dist.wait()  # all have opened the text: now an earlier run may be moved
        if state is None and dist.is_main and (aside := checkpoint.set_aside(directory)):
            out.print(f"{directory} held an earlier run, which is now in {aside}", style="dim")
        trainer = Trainer(config, data, [MetricsLog(directory), display] if dist.is_main else [], dist)
        if state is not None:
            trainer.restore(contents, state)
            out.print(f"resuming from {state}, step {trainer.step}, with the settings stored there")
            if change := batch_change(contents, trainer):
                out.print(change)
        warn(trainer, out)
        stopped_by = fit(trainer, display)
    if dist.is_main and any(isinstance(event, StepMetrics) for event in read_metrics(directory / METRICS_FILE)):
        out.print(f"loss curve: {save_loss_curve([directory / METRICS_FILE], directory / 'loss_curve.png')}")
    if stopped_by is not None:
        out.print(f"stopped at step {trainer.step}; --resume goes on exactly there")
    return trainer, stopped_by
