"""--dry-run: what a run will cost, before anything is downloaded, trained or written."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import transformer.planning.cost
from transformer.presets import PRESETS
from transformer.processor import choices, processor, row

pytestmark = pytest.mark.usefixtures("plain_pictures")

Command = Callable[..., Any]


def lines_of(out: str) -> dict[str, str]:
    """The table's rows by their first word."""
    return {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line.strip()}


@pytest.fixture
def quick_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """For models that are too large to be tried out in a test."""
    from transformer.cli.train import plan

    monkeypatch.setattr(plan, "step_seconds", lambda config: 2.0)


@pytest.mark.usefixtures("quick_trial")
def test_a_dry_run_says_what_the_default_run_costs_and_touches_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # FineWeb-Edu is not asked for
    outcome = command("train", "--dry-run", "--device", "cpu")
    assert (outcome.status, outcome.err) == (0, "")
    rows = lines_of(outcome.out)
    assert rows["parameters"] == "30.44M 4.74M in the blocks, 25.70M in the vocabulary"
    assert rows["length"].startswith("61,030 steps 999.9M tokens, 16,384 per step")
    assert rows["compute"].startswith("184.7M FLOPs per token 83% output layer")
    assert "243.5 MB optimizer" in rows["memory"]
    assert rows["precision"].startswith(f"{choices().training} kernels {row()}; on {processor().name}")
    assert rows["disk"].startswith("up to ")
    assert re.match(
        r"about 34 h 12 min, 2 s per step on this machine now$", rows["time"]
    )  # 61,030 steps of 2 s, and evaluations
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_processes_that_share_a_model_says_what_one_of_them_keeps(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("train", "--preset", "demo", "--dry-run", "--device", "cpu", "--shard")
    outcome = command(*line)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("error: --shard shards one model across several processes, and there is one: start")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(os, "_exit", lambda status: None)  # how one of several processes ends
    outcome = command(*line)
    assert outcome.err == ""
    assert "918.1 kB weights (1/4 of the model; 3.7 MB gathered from the others)" in lines_of(outcome.out)["memory"]


def test_a_dry_run_counts_a_local_text_and_a_vocabulary_still_to_be_trained(command: Command) -> None:
    outcome = command("train", "--preset", "demo", "--dry-run", "--device", "cpu")
    assert (outcome.status, outcome.err) == (0, "")
    rows = lines_of(outcome.out)
    shape = PRESETS["demo"].model
    blocks = shape.num_layers * (4 * shape.d_model**2 + 2 * shape.d_model * shape.d_ff)
    assert f"{blocks / 1e6:.2f}M in the blocks" in rows["parameters"]
    assert f"{4096 * 128 / 1e6:.2f}M in the vocabulary" in rows["parameters"]
    assert rows["length"].startswith("600 steps 1.2M tokens, 2,048 per step")
    assert re.match(r"about \d+ (s|min), \d\S* s per step on this machine now$", rows["time"])


@pytest.mark.usefixtures("quick_trial")
def test_a_dry_run_counts_all_processes_and_the_first_one_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformer.cli.train import plan

    def told(rank: str, peak: tuple[float, str] | None = None) -> str:
        monkeypatch.setenv("RANK", rank)
        out = Console(file=io.StringIO(), width=200)
        monkeypatch.setattr(plan, "device_peak", lambda device, dtype: peak)
        plan.dry_run(PRESETS["quick"], out)
        return out.file.getvalue()  # type: ignore[attr-defined,no-any-return]

    monkeypatch.setenv("WORLD_SIZE", "4")
    rows = lines_of(told("0", peak=(1e12, "data sheet")))
    assert rows["length"].startswith("1,520 steps 99.6M tokens, 65,536 per step")
    hours = 1_520 * 65_536 * 103e6 / 4e12 / 3600  # 103M operations a token, on 4 devices
    assert rows["peak"].startswith("1 TFLOP/s according to the data sheet; at that rate ")
    assert float(rows["peak"].split("rate ")[1].split()[0]) == pytest.approx(hours, rel=0.2)
    assert rows["time"].endswith("without communication between processes")
    assert "for each of 4 processes" in rows["memory"]
    assert told("1") == ""


def test_a_run_that_cannot_fit_is_refused_in_one_line_by_a_dry_run(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer.cli.train import plan

    monkeypatch.setattr(plan, "device_memory", lambda device: 3 * 10**9)
    outcome = command("train", "--preset", "gpt2", "--dry-run", "--device", "cpu")
    assert outcome.status == 2
    assert outcome.err.startswith("error: the run needs about ")
    assert "the device has 3.0 GB" in outcome.err
    assert outcome.err.count("\n") == 1
    assert transformer.planning.cost.readable(3 * 10**9) == "3.0 GB"


def test_a_run_that_will_hardly_fit_is_warned_about_and_begun(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer.cli.train import plan

    monkeypatch.setattr(plan, "free_disk", lambda path: 1000)
    outcome = command("train", "--preset", "tiny", "--max-steps", "2")
    assert outcome.status == 0, outcome.err
    assert "warning: the run writes about " in outcome.out
