"""A training run from its settings to its loss curve, in one process or in each of several."""

from __future__ import annotations

import contextlib
from collections.abc import Set
from pathlib import Path

from transformer.cli.console import console, reported_once
from transformer.cli.train.display import TrainingDisplay
from transformer.cli.train.plan import show_plan, with_vocabulary
from transformer.cli.train.session import as_opened, fit, open_together
from transformer.cli.train.start import starting_point, take_over
from transformer.config import TrainConfig
from transformer.distributed.processes import Dist
from transformer.reporting.metrics_log import METRICS_FILE, MetricsLog, read_metrics
from transformer.reporting.run_plots import save_loss_curve
from transformer.reporting.trackers import Tracking, check_installed
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.device import pick_device
from transformer.training.events import StepMetrics
from transformer.training.same_text import same_text


def train(
    config: TrainConfig,
    resume: bool = False,
    resume_from: Path | None = None,
    typed: Set[str] = frozenset(),
    changed_text: bool = False,
) -> Trainer:
    """Trains according to the config, with display, metrics file and loss curve; returns the trainer.

    A resumed run keeps its stored settings, except those in `typed`, which come from the config. `changed_text`: its
    text may have changed.
    """
    with Dist.from_environment() as dist:
        trainer, stopped_by = train_as(dist, config, resume, resume_from, typed, changed_text)
    if stopped_by is not None:
        raise SystemExit(128 + stopped_by)  # as shells count it: 130 for Ctrl-C, 143 for SIGTERM
    return trainer


def train_as(
    dist: Dist, config: TrainConfig, resume: bool, resume_from: Path | None, typed: Set[str], changed_text: bool
) -> tuple[Trainer, int | None]:
    """Trains in one of the processes; returns the trainer, and the signal that stopped it. Only rank 0 prints."""
    out = console()
    with reported_once():
        if config.shard:
            dist.check_shard()
        start = starting_point(dist, config, resume, resume_from, typed, out)
        config, directory = start.config, Path(start.config.checkpoint_dir)
        device = pick_device(config.device)  # a missing device is reported before any text is read
        check_installed(config.trackers if dist.is_main else ())
    dist.own(device)
    if config.data.is_on_hub:
        with reported_once():  # before the download
            show_plan(with_vocabulary(config, start.tokenizer), None, device, dist, out)
    display = TrainingDisplay(out, config)
    with display.opening(f"reading {config.data.dataset}"):
        data = open_together(config, start.tokenizer, display.notify, dist)
    with contextlib.closing(data):
        if start.resumes:
            with reported_once():  # before the plan, which depends on the length of an epoch
                data = same_text(data, start.contents, config.data.dataset, changed_text)
        config = display.config = as_opened(config, data)
        if not config.data.is_on_hub:
            with reported_once():
                show_plan(config, data.tokens_per_epoch, device, dist, out)
        dist.wait()  # every process has opened the text: an earlier run may be moved now
        if not start.resumes and dist.is_main and (aside := checkpoint.set_aside(directory)):
            out.print(f"{directory} held an earlier run, now moved to {aside}", style="dim")
        tracking = Tracking(config.trackers, directory, config.to_dict(), out.print)
        trainer = Trainer(config, data, [MetricsLog(directory), display, tracking] if dist.is_main else [], dist)
        if start.path is not None:
            take_over(trainer, start, out, changed_text)
        stopped_by = fit(trainer, display)
    if dist.is_main and any(isinstance(event, StepMetrics) for event in read_metrics(directory / METRICS_FILE)):
        pictures = (directory / "loss_curve.png", directory / "loss_curve.svg")
        out.print(f"loss curve: {save_loss_curve([directory / METRICS_FILE], *pictures)}")
    if stopped_by is not None:
        out.print(f"stopped at step {trainer.step}; --resume continues from exactly there")
    return trainer, stopped_by
