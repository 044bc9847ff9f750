"""The time that a run spends training, from report to report.

A GPU works behind the program: train_step() returns as soon as its work is queued. A clock around train_step() would
time the queueing. This clock starts with the first step after a report and stops after the report's numbers have
arrived from the device, which is when the work behind them is done. Evaluation, sampling and saving stop it first.
"""

from __future__ import annotations

import time


class StepClock:
    """Seconds of training since the last report, and in the whole run."""

    def __init__(self, seconds: float = 0.0, seconds_before: float = 0.0) -> None:
        self.seconds = seconds
        """Since the last report, as of the last stop()."""
        self.seconds_before = seconds_before
        """Up to the last report."""
        self._started: float | None = None

    @property
    def total_seconds(self) -> float:
        """Seconds of training in the whole run, as of the last stop()."""
        return self.seconds_before + self.seconds

    def start(self) -> None:
        """Starts the clock unless it is running."""
        if self._started is None:
            self._started = time.perf_counter()

    def stop(self) -> None:
        """Stops the clock. The caller has waited for the device."""
        if self._started is not None:
            self.seconds += time.perf_counter() - self._started
            self._started = None

    def reset(self) -> float:
        """Returns the seconds since the last report, and begins the next one's."""
        seconds, self.seconds_before, self.seconds = self.seconds, self.total_seconds, 0.0
        return seconds
