"""What happens in a training run, as events, and the file that keeps them: one JSON object a line.

The trainer tells its observers these events; the metrics file, the terminal's display and the plots all read the same.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class RunStarted:
    """A run begins, or goes on at `step`."""

    run: str
    step: int
    total_steps: int
    steps_per_epoch: int
    tokens_per_step: int
    parameters: int
    device: str
    looks_again: bool = False
    """Whether the run was saved just before it looked at the validation text at `step`, and now looks."""


@dataclass(frozen=True)
class StepMetrics:
    """The optimizer steps since the last of these events. Losses in nats a token, rates per second."""

    step: int
    epoch: int
    loss: float
    perplexity: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    seconds: float
    skipped: int = 0
    """Steps among them whose gradient was not finite, and which changed nothing."""
    memory_bytes: int = 0
    """Most memory that the device has given the run so far, on a CPU that the process has taken; 0: not known."""
    utilisation: float = 0.0
    """Share of the device's peak operations that reach the model (runtime/capacity.py); 0: peak not known."""


@dataclass(frozen=True)
class EvalMetrics:
    """The model on the validation text."""

    step: int
    epoch: int
    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    seconds: float
    loss_error: float | None = None
    """Standard error of the loss as a level: how much another text of this size might differ."""


@dataclass(frozen=True)
class Sample:
    """What the model writes at this step, always with the same draws of chance."""

    step: int
    prompt: str
    text: str
    """What follows the prompt."""


@dataclass(frozen=True)
class EpochMetrics:
    """The end of an epoch: the loss over all its training tokens, beside validation's."""

    epoch: int
    step: int
    train_loss: float
    train_perplexity: float
    validation_loss: float
    validation_perplexity: float
    checkpoint: str
    verdict: str = ""
    """learning, overfitting, underfitting, ..."""
    reason: str = ""
    """The evidence for the verdict, and what to try (verdict.py)."""


@dataclass(frozen=True)
class RunEnded:
    """All steps are done, or the run was asked to stop and has saved its state."""

    step: int
    tokens: int
    seconds: float
    stopped: bool = False
    gave_up: bool = False
    """Whether the validation loss had surely stopped to fall, for as long as `patience` says."""


@dataclass(frozen=True)
class Phase:
    """What the run is busy with, for whoever watches; the metrics file does not keep it."""

    step: int
    """Steps done so far."""
    doing: str
    """training, compiling, validating, writing or saving."""
    done: int = 0
    total: int = 0
    """Parts of it, where it has parts: the micro-batches of a step, or rows of the validation text."""


Event = RunStarted | StepMetrics | EvalMetrics | Sample | EpochMetrics | RunEnded | Phase
Observer = Callable[[Event], None]
KINDS: dict[str, type[Event]] = {
    "start": RunStarted,
    "step": StepMetrics,
    "evaluation": EvalMetrics,
    "sample": Sample,
    "epoch": EpochMetrics,
    "end": RunEnded,
}
_NAMES = {cls: kind for kind, cls in KINDS.items()}


class MetricsLog:
    """An observer that appends every event but phases to `directory`/metrics.jsonl.

    A run that starts at step 0 begins a new file; one that goes on keeps the events up to its step.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / METRICS_FILE

    def __call__(self, event: Event) -> None:
        if isinstance(event, Phase):
            return
        if isinstance(event, RunStarted):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = self.path.with_name(f".{METRICS_FILE}.tmp")
            try:
                kept.write_text("".join(self._lines_until(event)), encoding="utf-8")
                kept.replace(self.path)  # a crash before this leaves the old file whole
            finally:
                kept.unlink(missing_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(to_line(event))

    def _lines_until(self, start: RunStarted) -> list[str]:
        """The file's lines, less what the run will tell again and a last line cut short; none for a new run."""
        if start.step == 0 or not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n") and not _is_after(line, start)]


def _is_after(line: str, start: RunStarted) -> bool:
    with contextlib.suppress(ValueError):
        event = from_line(line)
        if isinstance(event, RunEnded):
            return True  # it did not end there
        looks = isinstance(event, EvalMetrics | Sample | EpochMetrics)
        return event.step > start.step or (looks and event.step == start.step and start.looks_again)
    return False


def to_line(event: Event) -> str:
    """Returns the event as a line of JSON; numbers that JSON lacks (nan, inf) become null."""
    values = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(event).items()
    }
    return json.dumps({"event": _NAMES[type(event)], **values}) + "\n"


def from_line(line: str) -> Event:
    """Returns the event that to_line wrote. Raises ValueError for anything else."""
    try:
        values: dict[str, Any] = json.loads(line)
        cls = KINDS[values.pop("event")]
        for field in fields(cls):
            if field.type == "float" and values.get(field.name, 0.0) is None:
                values[field.name] = math.nan
        return cls(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a line of metrics: {line.strip()[:80]!r}") from error


def read_metrics(path: Path) -> list[Event]:
    """Returns the events of a metrics file in order; a last line cut short by a crash is passed over.

    Raises FileNotFoundError, or ValueError with the number of the line that is not an event.
    """
    events: list[Event] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a metrics file: it is not text") from error
    for number, line in enumerate(lines, start=1):
        try:
            events.append(from_line(line))
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(f"{path}, line {number}: {error}") from error
    return events
