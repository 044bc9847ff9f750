"""A run's curves where other tools show them: TensorBoard, Weights & Biases, trackio.

`Tracking` is one more observer of a run. It turns events into named numbers and texts, each at its training step, which
is the x-axis everywhere, and hands them to the trackers. A tracker that fails is named once and left out: no curve is
worth a run. The libraries are imported when a run starts, and only those that it asks for.
"""

from __future__ import annotations

import html
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from transformer.training.events import EpochMetrics, EvalMetrics, Event, RunEnded, RunStarted, Sample, StepMetrics

PROJECT = "transformer"
"""What Weights & Biases and trackio file the runs under."""
Settings = Mapping[str, Any]


class Tracker(Protocol):
    """What takes a run's numbers; built with the run's folder, and touching nothing before start()."""

    def __init__(self, folder: Path) -> None: ...

    def start(self, run: str, step: int, settings: Settings) -> None:
        """Begins a new run at step 0, or goes on with the earlier one of this folder after `step`."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Takes numbers at a step; when it returns they are safe from a kill, as far as the library allows."""

    def text(self, name: str, text: str, step: int) -> None: ...

    def finish(self) -> None: ...


class Tracking:
    """An observer that passes what happens in a run on to trackers."""

    def __init__(
        self, names: Iterable[str], folder: Path, settings: Settings, tell: Callable[[str], object] = lambda line: None
    ) -> None:
        """`tell` takes the line that names a tracker which failed; check_installed() says so sooner."""
        self.trackers: dict[str, Tracker] = {name: TRACKERS[name](folder) for name in names}
        self.settings, self.tell = settings, tell

    def __call__(self, event: Event) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                self._pass_on(event, tracker)
            except Exception as error:  # a full disk, a lost network, or a bug of the tracker's
                del self.trackers[name]
                why = f"{type(error).__name__}: {' '.join(str(error).split())}"
                self.tell(f"the tracker {name} failed and is left out from here on; the run goes on ({why})")

    def _pass_on(self, event: Event, tracker: Tracker) -> None:
        match event:
            case RunStarted():
                tracker.start(event.run, event.step, self.settings)
            case StepMetrics() | EvalMetrics():
                tracker.log(numbers(event), event.step)
            case EpochMetrics():
                tracker.text("verdict", f"epoch {event.epoch}: {event.verdict}: {event.reason}", event.step)
            case Sample():
                tracker.text("sample", event.prompt + event.text, event.step)
            case RunEnded():
                tracker.finish()


def numbers(event: StepMetrics | EvalMetrics) -> dict[str, float]:
    """Returns an event's numbers by the names that the trackers show."""
    if isinstance(event, EvalMetrics):
        return {
            "loss/validation": event.loss,
            "perplexity/validation": event.perplexity,
            "bits_per_byte": event.bits_per_byte,
        }
    on_the_device = {"memory_bytes": event.memory_bytes, "utilisation": event.utilisation}
    return {
        "loss/train": event.loss,
        "perplexity/train": event.perplexity,
        "learning_rate": event.learning_rate,
        "gradient_norm": event.grad_norm,
        "tokens_per_second": event.tokens_per_second,
        "skipped": event.skipped,
        **{name: value for name, value in on_the_device.items() if value},  # 0: not known
    }


def check_installed(names: Iterable[str]) -> None:
    """Raises ValueError with the command to type where a tracker's library is missing."""
    for name in names:
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder of this name, as wandb leaves one, is no package
            raise ValueError(
                f"the tracker {name} is not installed: type `uv pip install --no-config '{PACKAGES[name]}'`, "
                f"or `pip install '{PACKAGES[name]}'`, or leave it out of --trackers"
            )


class TensorBoard:
    """Event files in `folder`/tensorboard, for `tensorboard --logdir`.

    The records are TensorBoard's and PyTorch's own. They are not written by SummaryWriter, since a thread of its writes
    them, and would tell of a full disk late and with a traceback; here each call opens the file and closes it again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorboard"

    def start(self, run: str, step: int, settings: Settings) -> None:
        from tensorboard.compat.proto import event_pb2
        from torch.utils.tensorboard import summary

        self.protocol, self.summary = event_pb2, summary
        self.folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder by name, so in the order of time.
        self.path = self.folder / f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        begin = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # later steps in earlier files no longer count
        self._write({"file_version": "brain.Event:2"}, {"step": step + 1, "session_log": begin})
        known = {name: value if isinstance(value, int | float) else str(value) for name, value in flat(settings)}
        curves = dict.fromkeys(["loss/validation", "bits_per_byte"], 0.0)  # their names: the values are in the curves
        self._write(*({"step": step, "summary": part} for part in summary.hparams(known, curves)))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._write(*({"step": step, "summary": self.summary.scalar(*pair)} for pair in values.items()))

    def text(self, name: str, text: str, step: int) -> None:
        self._write({"step": step, "summary": self.summary.text(name, as_markdown(text))})

    def finish(self) -> None:
        """All is written already."""

    def _write(self, *events: dict[str, Any]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self.path.open("ab") as file:
            for event in events:
                RecordWriter(file).write(self.protocol.Event(wall_time=time.time(), **event).SerializeToString())


class WeightsAndBiases:
    """A run of Weights & Biases, which the library's own variables steer: WANDB_MODE=offline, WANDB_PROJECT, ..."""

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
        # The library's own counter never goes back, and would refuse the steps that a killed run takes again.
        self.run.define_metric("*", step_metric="step")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, "step": step})

    def text(self, name: str, text: str, step: int) -> None:
        import wandb

        self.run.log({name: wandb.Html(f"<pre>{html.escape(text)}</pre>"), "step": step})

    def finish(self) -> None:
        self.run.finish()


class Trackio:
    """A run of trackio, which keeps it on this machine: `trackio show` opens it."""

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

        trackio.finish()  # the run's own finish() would be followed by another one at exit


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
"""By the names of their packages, which are those of config.TrainConfig.trackers."""
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb>=0.19", "trackio": "trackio>=0.22"}
"""What to install. uv is told --no-config, since trackio's pillow is older than the one that pyproject.toml holds."""


def remembered_id(path: Path, *, is_new: bool) -> str:
    """Returns the name that a service knows this run by: a fresh one for a new run, else the one kept at `path`."""
    if is_new or not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def flat(settings: Settings, group: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the settings with dots for groups.

    >>> dict(flat({"epochs": 2, "model": {"d_model": 64}}))
    {'epochs': 2, 'model.d_model': 64}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{group}{name}.")
        else:
            yield f"{group}{name}", value


def as_markdown(text: str) -> str:
    """Returns the text as markdown that shows its lines and characters as they are."""
    return "".join(f"    {line}\n" for line in text.splitlines())
