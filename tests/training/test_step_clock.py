"""Training time runs from report to report and includes the wait for the device; it leaves out everything else."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from transformer.training.metric_sums import MetricSums

WAIT = 0.05
"""Seconds."""


class SlowTensor(Tensor):
    """Numbers on a device that is still computing: reading them waits."""

    def tolist(self) -> Any:
        time.sleep(WAIT)
        return super().tolist()


def add_step(sums: MetricSums, nats: float = 2.0) -> None:
    sums.clock.start()
    slow = torch.tensor(nats).as_subclass(SlowTensor)
    sums.add(slow, torch.tensor(1), torch.tensor(0.5), torch.tensor(False), tokens=10)


def test_the_seconds_of_a_report_include_the_wait_for_the_device() -> None:
    """The clock once stopped when a step's work was queued: on a GPU tokens per second and MFU came out too high."""
    sums = MetricSums()
    add_step(sums)
    add_step(sums)
    totals = sums.take()
    assert (totals.nats, totals.tokens) == (4.0, 20)
    assert WAIT <= totals.seconds < 10 * WAIT
    assert sums.clock.total_seconds == totals.seconds


def test_a_pause_waits_for_the_device_and_then_stops_the_clock() -> None:
    sums = MetricSums()
    add_step(sums)
    sums.pause()
    paused = sums.clock.seconds
    assert paused >= WAIT
    time.sleep(2 * WAIT)  # saving, or evaluating
    assert sums.clock.seconds == paused
    assert sums.take().seconds == paused  # the numbers are taken while the clock is stopped


def test_the_seconds_continue_after_resuming() -> None:
    sums = MetricSums()
    add_step(sums)
    first = sums.take().seconds
    add_step(sums)
    sums.pause()
    resumed = MetricSums.from_state(sums.state())
    assert resumed.clock.total_seconds == sums.clock.total_seconds > first
    assert resumed.take().tokens == 10
    assert resumed.clock.seconds == 0.0
    assert resumed.clock.total_seconds == pytest.approx(sums.clock.total_seconds)
