"""A training run from its settings to its loss curve, in one process or in each of several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence, Set
from pathlib import Path

import torch
from rich.console import Console

from transformer.cli.console import console, one_line, reported_once
from transformer.cli.train.display import TrainingDisplay
from transformer.cli.train.plan import show_plan, with_vocabulary
from transformer.cli.train.session import as_opened, fit, open_together, resume_line
from transformer.cli.train.start import starting_point, take_over
from transformer.config import TrainConfig
from transformer.distributed.processes import Dist
from transformer.reporting.film_log import FilmLog
from transformer.reporting.inside_plot import save_inside
from transformer.reporting.metrics_log import METRICS_FILE, MetricsLog, read_metrics
from transformer.reporting.run_plots import save_loss_curve
from transformer.reporting.trackers import Tracking, check_installed
from transformer.trainer import Trainer
from transformer.training.device import pick_device
from transformer.training.events import Callback, StepMetrics
from transformer.training.run_folder import RunLock, set_aside
from transformer.training.same_text import same_text


def train(
    config: TrainConfig,
    resume: bool = False,
    resume_from: Path | None = None,
    typed: Set[str] = frozenset(),
    changed_text: bool = False,
    again: str | None = None,
    prepare: Callable[[Trainer], object] = lambda trainer: None,
) -> Trainer:
    """Trains according to the config, with display, metrics file and loss curve; returns the trainer.

    A resumed run keeps its stored settings, except those in `typed`, which come from the config. `changed_text`: its
    text may have changed. `again`: the command that continues a stopped run, if it is not `train`. `prepare` is called
    with the trainer before the first step.
    """
    with Dist.from_environment() as dist:
        trainer, stopped_by = train_as(dist, config, resume, resume_from, typed, changed_text, prepare)
    if stopped_by is not None:
        again = again or resume_line(trainer.directory)
        console().print(f"stopped at step {trainer.step}; --resume continues from exactly there: {again}")
        raise SystemExit(128 + stopped_by)  # as shells count it: 130 for Ctrl-C, 143 for SIGTERM
    return trainer


def train_as(
    dist: Dist,
    config: TrainConfig,
    resume: bool,
    resume_from: Path | None,
    typed: Set[str],
    changed_text: bool,
    prepare: Callable[[Trainer], object],
) -> tuple[Trainer, int | None]:
    """Trains in one of the processes; returns the trainer, and the signal that stopped it. Only rank 0 prints."""
    out = console()
    with RunLock(dist, out.print) as lock:
        with reported_once():
            if resume_from is None:  # else the state knows its folder
                lock.take(Path(config.checkpoint_dir), create=False)  # at once: reading the text may take long
            start = starting_point(dist, config, resume, resume_from, typed, out)
            config, directory = start.config, Path(start.config.checkpoint_dir)
            device = check_machine(dist, config)
        dist.own(device)
        if config.data.is_on_hub:
            with reported_once():  # before the download
                show_plan(with_vocabulary(config, start.tokenizer), None, device, dist, out)
        display = TrainingDisplay(out, config)
        with display.opening(f"reading {config.data.dataset}"):
            data = open_together(config, start.tokenizer, display.notify, dist)
        with contextlib.closing(data):
            with reported_once():
                if start.resumes:  # before the plan, which depends on the length of an epoch
                    data = same_text(data, start.contents, config.data.dataset, changed_text)
                config = display.config = as_opened(config, data)
                if not config.data.is_on_hub:
                    show_plan(config, data.tokens_per_epoch, device, dist, out)
                lock.take(directory)
                if not start.resumes:
                    make_room(directory, dist, out)
            tracking = Tracking(config.trackers, directory, config.to_dict(), out.print)
            callbacks: list[Callback] = [MetricsLog(directory), FilmLog(directory), display, tracking]
            trainer = Trainer(config, data, callbacks if dist.is_main else [], dist)
            if start.path is not None:
                take_over(trainer, start, out, changed_text)
            prepare(trainer)
            stopped_by = fit(trainer, display)
        if dist.is_main:
            draw("loss curve", [directory / METRICS_FILE], directory / "loss_curve", out)
            if config.watch_inside:
                draw("inside", [directory / METRICS_FILE], directory / "inside", out, save_inside)
    return trainer, stopped_by


def check_machine(dist: Dist, config: TrainConfig) -> torch.device:
    """Returns the device. Raises ValueError if a device, a tracker or the other processes of --shard are missing."""
    if config.shard:
        dist.check_shard()
    device = pick_device(config.device)
    check_installed(config.trackers if dist.is_main else ())
    return device


def make_room(directory: Path, dist: Dist, out: Console) -> None:
    """Moves the files of an earlier run away, once every process has opened the text."""
    dist.wait()
    if dist.is_main and (aside := set_aside(directory)):
        out.print(f"{directory} held an earlier run, now moved to {aside}", style="dim")


def draw(
    what: str,
    metrics: Sequence[Path],
    picture: Path,
    out: Console,
    save: Callable[..., Path] = save_loss_curve,
) -> None:
    """Draws the runs that have steps, as .png and .svg. A picture that fails costs one line, never a run."""
    files = [picture.with_suffix(suffix) for suffix in (".png", ".svg")]
    try:
        if any(isinstance(event, StepMetrics) for file in metrics for event in read_metrics(file)):
            out.print(f"{what}: {save(metrics, *files)}")
    except Exception as error:  # a full disk, a name that matplotlib cannot write, or a bug in it
        out.print(f"{files[0]} was not drawn ({type(error).__name__}: {one_line(str(error))})", style="yellow")
