"""A run's curves in other tools: TensorBoard, Weights & Biases, trackio.

`Tracking` is a callback of a run. It turns events into named numbers and texts at their training step, the x-axis in
every tool, and passes them to the trackers. A tracker that fails is reported once and removed; the run continues. The
libraries are imported when a run starts, and only those that it uses.
"""

from __future__ import annotations

import html
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from transformer.training.events import (
    EpochMetrics,
    EvalMetrics,
    Event,
    InsideMetrics,
    RunEnded,
    RunStarted,
    Sample,
    StepMetrics,
)
from transformer.training.files import write_text

PROJECT = "transformer"
"""The project name in Weights & Biases and trackio."""
Settings = Mapping[str, Any]


class Tracker(Protocol):
    """Receives the numbers of a run. Built with the run's folder; changes nothing before start()."""

    def __init__(self, folder: Path) -> None: ...

    def start(self, run: str, step: int, settings: Settings) -> None:
        """Starts a new run at step 0, or continues the earlier run of this folder after `step`."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Records numbers at a step; after the call they survive a kill, as far as the library allows."""

    def text(self, name: str, text: str, step: int) -> None: ...

    def finish(self) -> None: ...


class Tracking:
    """A callback that passes the events of a run to trackers."""

    def __init__(
        self, names: Iterable[str], folder: Path, settings: Settings, warn: Callable[[str], object] = lambda line: None
    ) -> None:
        """`warn` receives one line for a tracker that fails. check_installed() finds a missing library earlier."""
        self.trackers: dict[str, Tracker] = {name: TRACKERS[name](folder) for name in names}
        self.settings, self.warn = settings, warn

    def __call__(self, event: Event) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                self._pass_on(event, tracker)
            except Exception as error:  # a full disk, a lost network, or a bug in the tracker
                del self.trackers[name]
                why = f"{type(error).__name__}: {' '.join(str(error).split())}"
                self.warn(f"the tracker {name} failed and is no longer used; the run continues ({why})")

    def _pass_on(self, event: Event, tracker: Tracker) -> None:
        match event:
            case RunStarted():
                tracker.start(event.run, event.step, self.settings)
            case StepMetrics() | EvalMetrics() | InsideMetrics():
                tracker.log(numbers(event), event.step)
            case EpochMetrics():
                tracker.text("verdict", f"epoch {event.epoch}: {event.verdict}: {event.reason}", event.step)
            case Sample():
                tracker.text("sample", event.prompt + event.text, event.step)
            case RunEnded():
                tracker.finish()


def numbers(event: StepMetrics | EvalMetrics | InsideMetrics) -> dict[str, float]:
    """Returns the numbers of an event by the names shown in the trackers."""
    if isinstance(event, EvalMetrics):
        return {
            "loss/validation": event.loss,
            "perplexity/validation": event.perplexity,
            "bits_per_byte": event.bits_per_byte,
        }
    if isinstance(event, InsideMetrics):
        best = {f"inside/{name}": event.strongest(name)[0] for name in event.scores}
        return {**best, "inside/loss_first_half": event.first_loss, "inside/loss_second_half": event.second_loss}
    on_the_device = {"memory_bytes": event.memory_bytes, "utilisation": event.utilisation}
    return {
        "loss/train": event.loss,
        "perplexity/train": event.perplexity,
        "learning_rate": event.learning_rate,
        "gradient_norm": event.grad_norm,
        "tokens_per_second": event.tokens_per_second,
        "skipped": event.skipped,
        **{name: value for name, value in on_the_device.items() if value},  # 0: unknown
    }


def check_installed(names: Iterable[str]) -> None:
    """Raises ValueError with the command to type if a tracker's library is missing."""
    for name in names:
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder called wandb, which wandb creates, is not a package
            raise ValueError(
                f"the tracker {name} is not installed: type `uv pip install --no-config '{PACKAGES[name]}'`, "
                f"or `pip install '{PACKAGES[name]}'`, or leave it out of --trackers"
            )


class TensorBoard:
    """Event files in `folder`/tensorboard, for `tensorboard --logdir`. Each call is flushed to the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorboard"

    def start(self, run: str, step: int, settings: Settings) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.folder.mkdir(parents=True, exist_ok=True)
        # purge_step: points of later steps in earlier files no longer count.
        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1)
        known = {name: value if isinstance(value, int | float) else str(value) for name, value in flat(settings)}
        metrics = dict.fromkeys(["loss/validation", "bits_per_byte"], 0.0)  # names only: the values are in the curves
        for summary in hparams(known, metrics):  # add_hparams() would put them into a run of their own
            self.writer._get_file_writer().add_summary(summary, step)
        self.writer.flush()

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def text(self, name: str, text: str, step: int) -> None:
        self.writer.add_text(name, as_markdown(text), step)
        self.writer.flush()

    def finish(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, configured by its own environment variables: WANDB_MODE=offline, WANDB_PROJECT, ..."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, run: str, step: int, settings: Settings) -> None:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", run),
            id=remembered_id(self.folder / "wandb_id.txt", is_new=step == 0),
            resume="allow" if step else None,
            dir=self.folder,
            config=dict(settings),
        )
        # The library's own step counter never decreases; it would refuse the steps that a killed run repeats.
        self.run.define_metric("*", step_metric="step")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, "step": step})

    def text(self, name: str, text: str, step: int) -> None:
        import wandb

        self.run.log({name: wandb.Html(f"<pre>{html.escape(text)}</pre>"), "step": step})

    def finish(self) -> None:
        self.run.finish()


class Trackio:
    """A run of trackio, stored on this machine: `trackio show` opens it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, run: str, step: int, settings: Settings) -> None:
        import trackio

        name = f"{run}-{remembered_id(self.folder / 'trackio_id.txt', is_new=step == 0)}"
        self.run = trackio.init(PROJECT, name, config=dict(settings), resume="allow" if step else "never")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def text(self, name: str, text: str, step: int) -> None:
        import trackio

        self.run.log({name: trackio.Markdown(as_markdown(text))}, step=step)

    def finish(self) -> None:
        import trackio

        trackio.finish()  # run.finish() would be called a second time at exit


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
"""Trackers by package name, the names that config.TrainConfig.trackers accepts."""
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb>=0.19", "trackio": "trackio>=0.22"}
"""Requirements. uv needs --no-config, because trackio requires an older pillow than pyproject.toml pins."""


def remembered_id(path: Path, *, is_new: bool) -> str:
    """Returns the id of this run at a service: a new id for a new run, else the one stored at `path`."""
    if is_new or not path.exists():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8")


def flat(settings: Settings, group: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the settings with dotted names.

    >>> dict(flat({"epochs": 2, "model": {"d_model": 64}}))
    {'epochs': 2, 'model.d_model': 64}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{group}{name}.")
        else:
            yield f"{group}{name}", value


def as_markdown(text: str) -> str:
    """Returns the text as a markdown code block, which shows it verbatim."""
    return "".join(f"    {line}\n" for line in text.splitlines())
