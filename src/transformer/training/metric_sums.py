"""Sums over the steps since the last report. They stay on the device, so that no step waits for a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformer.training.step_clock import StepClock


@dataclass(frozen=True)
class StepTotals:
    """The steps since the last report. `nats` and `counted` leave out skipped steps."""

    nats: float
    counted: int
    """Number of targets behind `nats`."""
    grad_norm: float
    """Of the last step."""
    skipped: int
    skipped_in_a_row: int
    """Longest run of consecutive skipped steps, including one that began before the last report."""
    tokens: int
    seconds: float


class MetricSums:
    """Adds steps up; take() fetches the totals and starts again. Its clock runs from the first step to take()."""

    def __init__(self) -> None:
        self.clock = StepClock()
        self._sums: Tensor | None = None  # nats, counted, grad_norm, skipped, skipped in a row, the maximum of that
        self._tokens = 0

    def add(self, nats: Tensor, counted: Tensor, grad_norm: Tensor, skipped: Tensor, tokens: int) -> None:
        """Adds a step: scalars on the device, `skipped` a bool, and the number of tokens it read."""
        before = self._on(nats.device)
        zero = torch.zeros_like(before[0])
        skip = skipped.to(before.dtype)
        in_a_row = (before[4] + 1) * skip
        self._sums = torch.stack([
            before[0] + torch.where(skipped, zero, nats.to(before.dtype)),
            before[1] + torch.where(skipped, zero, counted.to(before.dtype)),
            grad_norm.to(before.dtype),
            before[3] + skip,
            in_a_row,
            torch.maximum(before[5], in_a_row),
        ])  # fmt: skip
        self._tokens += tokens

    def take(self) -> StepTotals:
        """Returns the totals and starts again. Consecutive skipped steps keep counting across calls."""
        nats, counted, grad_norm, skipped, in_a_row, longest = self._numbers()  # waits for the device
        self.clock.stop()
        seconds, tokens, self._tokens = self.clock.reset(), self._tokens, 0
        device = "cpu" if self._sums is None else self._sums.device
        self._sums = torch.tensor([0.0, 0.0, 0.0, 0.0, in_a_row, 0.0], dtype=_dtype(device), device=device)
        return StepTotals(nats, int(counted), grad_norm, int(skipped), int(longest), tokens, seconds)

    def pause(self) -> None:
        """Stops the clock once the device has done the work queued so far; the next step starts it again."""
        self._numbers()
        self.clock.stop()

    def state(self) -> list[float]:
        """Returns the sums as plain numbers, for from_state()."""
        return [*self._numbers(), float(self._tokens), self.clock.seconds, self.clock.seconds_before]

    @classmethod
    def from_state(cls, values: Sequence[float]) -> MetricSums:
        """Returns the sums that state() returned."""
        sums = cls()
        *numbers, tokens, seconds, seconds_before = values
        sums.clock = StepClock(seconds, seconds_before)
        sums._sums, sums._tokens = torch.tensor(numbers, dtype=torch.float64), int(tokens)
        return sums

    def _numbers(self) -> list[float]:
        return [0.0] * 6 if self._sums is None else self._sums.tolist()

    def _on(self, device: torch.device) -> Tensor:
        if self._sums is None:
            return torch.zeros(6, dtype=_dtype(device), device=device)
        return self._sums.to(device, _dtype(device))


def _dtype(device: torch.device | str) -> torch.dtype:
    return torch.float32 if torch.device(device).type == "mps" else torch.float64  # MPS has no float64
