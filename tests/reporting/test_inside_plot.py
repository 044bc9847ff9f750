"""The picture of a run's inside: strongest heads, even heads, and the loss on repeated random tokens."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from transformer.reporting.inside_plot import save_inside
from transformer.reporting.metrics_log import MetricsLog
from transformer.training.events import InsideMetrics, RunStarted, StepMetrics


def run(folder: Path, *inside: InsideMetrics) -> Path:
    log = MetricsLog(folder)
    log(RunStarted("run", 0, 9, 9, 32, 1000, "cpu"))
    for event in inside:
        log(event)
        log(StepMetrics(event.step + 1, 1, 5.5, 244.7, 1e-4, 1.25, 32, 1000.0, 0.1))
    return log.path


def measured(step: int, score: float) -> InsideMetrics:
    return InsideMetrics(step, {"induction": [[0.1, 0.2], [score, 0.0]]}, {"induction": 0.05}, 6.0, 6.0 - score)


def test_the_legend_names_the_head_in_which_a_habit_is_strongest_at_the_end(tmp_path: Path) -> None:
    metrics = run(tmp_path / "run", measured(0, 0.05), measured(4, 0.5), measured(8, 0.9))
    text = save_inside([metrics], tmp_path / "a.svg").read_text(encoding="utf-8")
    texts = set(re.findall(r"<!-- (.*?) -->", text))
    assert "induction: 0.90 in head 1.0 at the end (even 0.05)" in texts
    assert {"train", "random tokens, first half", "random tokens, second half", "steps"} <= texts


def test_a_diverged_run_is_drawn(tmp_path: Path) -> None:
    metrics = run(tmp_path / "run", measured(0, 0.1), measured(4, math.nan))
    assert save_inside([metrics], tmp_path / "a.png").stat().st_size > 20_000


def test_a_run_without_measurements_is_an_error_that_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run was trained without --watch-inside: train it again with this flag"):
        save_inside([run(tmp_path / "run")], tmp_path / "a.png")
