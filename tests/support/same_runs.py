"""What two runs that must not differ are compared by."""

from __future__ import annotations

from pathlib import Path

import torch

from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training import checkpoint
from transformer.training.events import EvalMetrics, StepMetrics


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights, bit for bit, and the same metrics but for the clock."""
    ours, theirs = (checkpoint.load(checkpoint.epochs(folder)[-1])["model"] for folder in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    curves = []
    for folder in (one, other):
        events = read_metrics(folder / METRICS_FILE)
        curves.append([(type(e), e.step, e.loss) for e in events if isinstance(e, StepMetrics | EvalMetrics)])
    assert curves[0] == curves[1]
