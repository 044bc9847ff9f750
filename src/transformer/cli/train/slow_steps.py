"""The line about steps that became slow because another program uses the cores, while a run was going on.

When a command starts, cli/waiting.py looks for other programs. One that starts later takes a core from a thread for
which the others then wait, spinning: on two cores steps took up to ten times as long. This shows in two numbers: steps
take longer, and the process spends more CPU time on each, because spinning is work. Other reasons change at most one of
them. Steps that wait for data cost no more CPU time than before. A slower processor, of a laptop on battery, changes
both; so the last question is whether other programs run at this moment.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median

from transformer.cli.formatting import duration
from transformer.cli.waiting import others_use_the_cores
from transformer.training.events import Progress

WARM_UP = 10
"""Steps before the first comparison."""
REMEMBERED = 200
"""Steps of which the median is taken."""
SLOW, COSTLY = 2.0, 1.5
"""Multiples of the median time, and of the median CPU time, above which a step is slow for this reason."""
SLOW_STEPS, SLOW_SECONDS = 3, 10.0
"""Fewest consecutive slow steps, and their fewest seconds, that are worth a line."""


class SlowSteps:
    """Times the steps of a run on the CPU; reports once if another program makes them slow."""

    def __init__(
        self,
        seconds: Callable[[], float] = time.perf_counter,
        cpu_seconds: Callable[[], float] = time.process_time,
        are_cores_shared: Callable[[], bool] = others_use_the_cores,
    ) -> None:
        self.clocks, self.are_cores_shared = (seconds, cpu_seconds), are_cores_shared
        self.usual: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)  # seconds, CPU seconds
        self.slow: list[float] = []  # seconds
        self.started: tuple[float, float] | None = None
        self.reported = False

    def at(self, progress: Progress) -> str | None:
        """Records the time of a step; returns the line to print, once in a run.

        A step ends when the next one begins, or an evaluation or a save, which are not part of its time.
        """
        if self.reported or (progress.activity == "training" and progress.done):
            return None
        now, started = (self.clocks[0](), self.clocks[1]()), self.started
        self.started = now if progress.activity == "training" else None
        return None if started is None else self._after(now[0] - started[0], now[1] - started[1])

    def _after(self, seconds: float, cpu_seconds: float) -> str | None:
        if len(self.usual) < WARM_UP:
            self.usual.append((seconds, cpu_seconds))
            return None
        usual, usual_cpu = (median(values) for values in zip(*self.usual, strict=True))
        if seconds <= SLOW * usual or cpu_seconds <= COSTLY * usual_cpu:
            self.slow.clear()
            self.usual.append((seconds, cpu_seconds))
            return None
        self.slow.append(seconds)
        if len(self.slow) < SLOW_STEPS or sum(self.slow) < SLOW_SECONDS:
            return None
        if not self.are_cores_shared():  # steps cost more for another reason: compare with the new ones
            self.usual.clear()
            self.slow.clear()
            return None
        self.reported = True
        return (
            f"steps take {duration(median(self.slow))} instead of {duration(usual)}: another program uses the cores. "
            "To be faster beside it, press Ctrl-C, which saves the state, and put OMP_WAIT_POLICY=passive before the "
            "command that continues"
        )
