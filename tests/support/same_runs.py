"""What two runs that must not differ are compared by."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training import checkpoint
from transformer.training.events import EvalMetrics, RunStarted, StepMetrics

MACHINE = {"seconds", "tokens_per_second", "memory_bytes", "utilisation"}
"""What the machine decides, and not the run."""


def undisturbed(arguments: Sequence[str], folder: Path) -> Path:
    """Trains in this process, in `folder`; returns the run's own folder, to compare other runs with."""
    from main import main

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # main.py sets it; set here, it is taken back
        patch.setattr(sys, "path", list(sys.path))
        assert main([*arguments, "--checkpoint-dir", "whole"]) == 0
        return Path("whole").absolute()


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


def assert_same_files(one: Path, other: Path) -> None:
    """All checkpoints and states but the previous one are the same, bit for bit, and the metrics but for MACHINE."""
    names = {path.name for path in one.iterdir()}
    assert names == {path.name for path in other.iterdir()}
    for name in sorted(names):
        if name.endswith(".pt") and "previous" not in name:
            ours, theirs = (checkpoint.load(folder / name) for folder in (one, other))
            for contents in (ours, theirs):
                contents["metric_sums"] = contents.get("metric_sums", [])[:-2]  # less the seconds
                contents["config"]["checkpoint_dir"] = ""
            assert ours.keys() == theirs.keys()
            assert [key for key in ours if not equal(ours[key], theirs[key])] == [], name
    assert story(one) == story(other)


def equal(one: object, other: object) -> bool:
    """Bit for bit, in nested dicts and lists of tensors and values."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(equal, one, other))
    return one == other


def story(run: Path) -> list[dict[str, Any]]:
    """All that the metrics say, but for MACHINE and the starts, of which each process has one."""
    events = [event for event in read_metrics(run / METRICS_FILE) if not isinstance(event, RunStarted)]
    return [
        {
            "kind": type(event).__name__,
            **{
                name: value for name, value in dataclasses.asdict(event).items() if name not in MACHINE | {"checkpoint"}
            },
        }
        for event in events
    ]
