"""What the steps since the last report add up to, kept on the device, so that no step waits for a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepTotals:
    """Steps since the last report. Those that were skipped have no part in `nats` and `counted`."""

    nats: float
    counted: int
    """Targets that the nats are of."""
    grad_norm: float
    """Of the last step."""
    skipped: int
    skipped_in_a_row: int
    """The longest run of skipped steps, one that began before these steps included."""
    tokens: int
    seconds: float


class StepSums:
    """Adds steps up; take() fetches the sums and begins anew."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # nats, counted, grad_norm, skipped, skipped in a row, the most of those
        self._tokens = 0
        self._seconds = 0.0
        self._seconds_before = 0.0

    def add(
        self, nats: Tensor, counted: Tensor, grad_norm: Tensor, skipped: Tensor, tokens: int, seconds: float
    ) -> None:
        """Adds a step: scalars on the device, `skipped` a bool; its own tokens and seconds."""
        before = self._as_tensor(nats.device)
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
        self._seconds += seconds

    def take(self) -> StepTotals:
        """Returns the totals and begins anew; a run of skipped steps is counted on."""
        nats, counted, grad_norm, skipped, in_a_row, most = self._numbers()
        totals = StepTotals(nats, int(counted), grad_norm, int(skipped), int(most), self._tokens, self._seconds)
        device = "cpu" if self._sums is None else self._sums.device
        self._sums = torch.tensor([0.0, 0.0, 0.0, 0.0, in_a_row, 0.0], dtype=_precision(device), device=device)
        self._seconds, self._seconds_before, self._tokens = 0.0, self.total_seconds(), 0
        return totals

    def total_seconds(self) -> float:
        """Seconds of all steps so far."""
        return self._seconds_before + self._seconds

    def state(self) -> list[float]:
        """The sums as plain numbers; from_state is the way back."""
        return [*self._numbers(), float(self._tokens), self._seconds, self._seconds_before]

    @classmethod
    def from_state(cls, values: Sequence[float]) -> StepSums:
        sums = cls()
        *numbers, tokens, sums._seconds, sums._seconds_before = values
        sums._sums, sums._tokens = torch.tensor(numbers, dtype=torch.float64), int(tokens)
        return sums

    def _numbers(self) -> list[float]:
        return [0.0] * 6 if self._sums is None else self._sums.tolist()

    def _as_tensor(self, device: torch.device) -> Tensor:
        if self._sums is None:
            return torch.zeros(6, dtype=_precision(device), device=device)
        return self._sums.to(device, _precision(device))


def _precision(device: torch.device | str) -> torch.dtype:
    return torch.float32 if torch.device(device).type == "mps" else torch.float64  # MPS has no float64
