"""The metrics file of a training run, metrics.jsonl: one event (training/events.py) per line, as a JSON object.

If a run resumes at step n, the events after step n are removed from the file first, because the run emits them again.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from transformer.training.events import (
    AttentionFrame,
    EpochMetrics,
    EvalMetrics,
    Event,
    InsideMetrics,
    Progress,
    RunEnded,
    RunStarted,
    Sample,
    StepMetrics,
)
from transformer.training.files import write_text

METRICS_FILE = "metrics.jsonl"
KINDS: dict[str, type[Event]] = {
    "start": RunStarted,
    "step": StepMetrics,
    "evaluation": EvalMetrics,
    "inside": InsideMetrics,
    "sample": Sample,
    "epoch": EpochMetrics,
    "end": RunEnded,
}
_NAMES = {cls: kind for kind, cls in KINDS.items()}
_OLD_FIELDS = {"looks_again": "evaluation_pending", "gave_up": "early_stopped"}
"""Field names in files written by earlier versions, and their names today."""


class MetricsLog:
    """A callback that appends every event except Progress and AttentionFrame to `directory`/metrics.jsonl.

    A run that starts at step 0 begins a new file; a resumed run keeps the events up to its step.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / METRICS_FILE

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress | AttentionFrame):
            return
        if isinstance(event, RunStarted):
            write_text(self.path, "".join(self._lines_until(event)))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(to_line(event))

    def _lines_until(self, start: RunStarted) -> list[str]:
        """Returns the lines to keep: those up to the step of `start` that no crash or power cut damaged."""
        if start.step == 0 or not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n") and _is_json(line) and not _is_after(line, start)]


def _is_json(line: str) -> bool:
    with contextlib.suppress(ValueError):
        json.loads(line)
        return True
    return False


def _is_after(line: str, start: RunStarted) -> bool:
    with contextlib.suppress(ValueError):
        event = from_line(line)
        if isinstance(event, RunEnded):
            return True  # the run continues
        if event.step == start.step and isinstance(event, EvalMetrics | InsideMetrics | Sample | EpochMetrics):
            return start.evaluation_pending
        return event.step > start.step
    return False


def to_line(event: Event) -> str:
    """Returns the event as a line of JSON; nan and inf, which JSON does not have, become null."""
    return json.dumps({"event": _NAMES[type(event)], **without_nan(asdict(event))}) + "\n"


def without_nan(value: Any) -> Any:
    """Returns a value for JSON, with None for nan and inf at any depth."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_nan(value: Any) -> Any:
    """Returns what without_nan() was given, with nan for None."""
    if isinstance(value, dict):
        return {name: with_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [with_nan(part) for part in value]
    return math.nan if value is None else value


def from_line(line: str) -> Event:
    """Returns the event of a line written by to_line; null becomes nan. Raises ValueError for any other line."""
    try:
        values: dict[str, Any] = json.loads(line)
        cls = KINDS[values.pop("event")]
        values = {_OLD_FIELDS.get(name, name): value for name, value in values.items()}
        for field in fields(cls):
            if field.type == "float" and values.get(field.name, 0.0) is None:
                values[field.name] = math.nan
            if field.type.startswith("dict"):
                values[field.name] = with_nan(values[field.name])
        return cls(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a line of metrics: {line.strip()[:80]!r}") from error


def read_metrics(path: Path) -> list[Event]:
    """Returns the events of a metrics file in order. An incomplete last line, left by a crash, is ignored.

    Raises FileNotFoundError, or ValueError with the number of the first line that is not an event.
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
