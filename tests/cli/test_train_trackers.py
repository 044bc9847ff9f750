"""--trackers, as a user gives it: the curves of a run in its folder, and what is said where that cannot be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training.events import EvalMetrics, StepMetrics

pytestmark = pytest.mark.usefixtures("plain_pictures")

Command = Callable[..., Any]
RUN = ("train", "--preset", "tiny", "--max-steps", "20", "--eval-every", "10", "--log-every", "5")


def assert_curves_are_the_metrics(folder: Path) -> None:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    metrics = read_metrics(folder / METRICS_FILE)
    for name, kind in [("loss/train", StepMetrics), ("loss/validation", EvalMetrics)]:
        told = [(event.step, pytest.approx(event.loss)) for event in metrics if isinstance(event, kind)]
        assert [(point.step, point.value) for point in events.Scalars(name)] == told
    assert len(events.Tensors("verdict/text_summary")) == sum(
        type(event).__name__ == "EpochMetrics" for event in metrics
    )


def test_a_run_and_its_resumption_leave_their_curves_for_tensorboard(command: Command, tmp_path: Path) -> None:
    assert command(*RUN).status == 0
    folder = tmp_path / "checkpoints_tiny"
    assert_curves_are_the_metrics(folder)
    assert command("train", "--preset", "tiny", "--resume", "--max-steps", "30").status == 0
    assert_curves_are_the_metrics(folder)
    left = {path: path.read_bytes() for path in (folder / "tensorboard").iterdir()}
    outcome = command("train", "--preset", "tiny", "--resume", "--max-steps", "35", "--trackers")
    assert outcome.status == 0, outcome.err
    assert {path: path.read_bytes() for path in (folder / "tensorboard").iterdir()} == left


def test_a_tracker_that_is_missing_is_told_before_the_text_is_read(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as Python marks what cannot be imported
    outcome = command(*RUN, "--dataset", "no-such-file.txt", "--trackers", "tensorboard", "wandb")
    assert outcome.status == 2
    assert outcome.err.startswith("error: the tracker wandb is not installed: type `uv pip install")
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_event_file_costs_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "checkpoints_tiny").mkdir()
    (tmp_path / "checkpoints_tiny" / "tensorboard").touch()
    outcome = command(*RUN)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.count("the tracker tensorboard failed and is no longer used") == 1
    assert "loss curve:" in outcome.out


def test_a_metrics_file_that_cannot_be_written_ends_the_run(command: Command, tmp_path: Path) -> None:
    (tmp_path / "checkpoints_tiny" / METRICS_FILE).mkdir(parents=True)
    outcome = command(*RUN)
    assert outcome.status == 2
    assert METRICS_FILE in outcome.err
