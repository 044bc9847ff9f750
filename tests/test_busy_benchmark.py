"""benchmarks/busy.py: its tasks run, equal settings are measured once, and its loop ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks")]

import busy  # noqa: E402

SAME: busy.Settings = {
    "PyTorch's": {},
    "ours": {"OMP_WAIT_POLICY": "passive"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}


@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize(("task", "tokens"), [(busy.decoding, 16), (busy.training, 256), (busy.loss, 256)])
def test_each_task_can_be_repeated(task: Any, tokens: int, kernels: Any) -> None:
    repeat, counted = task(kernels, "tiny")
    repeat()
    repeat()
    assert counted == tokens


def test_a_setting_that_equals_another_shows_its_figures() -> None:
    assert [busy.first_with(chosen, SAME) for chosen in SAME.values()] == ["PyTorch's", "ours", "ours"]
    speeds = {"ours, PyTorch's": 1.0, "plain, PyTorch's": 2.0, "ours, ours": 3000.0, "plain, ours": 4.0}
    case = {"situation": "busy", "task": "loss", "tokens_per_s": speeds, "ours_over_plain": 1500.0}
    assert busy.rows(case, SAME).splitlines() == [
        "| busy | loss | PyTorch's: none | 1 | 2 |",
        "| busy | loss | ours: OMP_WAIT_POLICY=passive | 3,000 | 4 |",
        "| busy | loss | passive: OMP_WAIT_POLICY=passive | 3,000 | 4 |",
    ]


def test_a_slower_case_is_named() -> None:
    case = {"situation": "busy", "task": "loss", "ours_over_plain": 1.4}
    assert busy.verdict([case]) == "ours relative to plain PyTorch: busy loss 1.40 x"
    slow = {**case, "ours_over_plain": 0.9}
    assert busy.verdict([case, slow]).endswith("busy loss 0.90 x; slower than plain in places")


def test_a_contender_answers_until_it_is_asked_no_more() -> None:
    with busy.contender("loss", "ours", "tiny", {"OMP_WAIT_POLICY": "passive"}) as process:
        seconds, tokens = busy.ask(process)
        assert (seconds > 0, tokens) == (True, 256)
    assert process.poll() is not None
