"""Steps that another program makes slow are reported once, and steps that are slow for other reasons are not.

All times are made up: no test waits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import pytest

from transformer.cli.console import console
from transformer.cli.train.display import TrainingDisplay
from transformer.cli.train.slow_steps import SLOW_SECONDS, WARM_UP, SlowSteps
from transformer.presets import PRESETS
from transformer.training.events import Progress, RunStarted

USUAL = (1.0, 1.9)
"""Seconds and CPU seconds of a step on two idle cores."""
SPINNING = (5.0, 7.5)
WAITING_FOR_DATA = (5.0, 1.9)


class Run:
    """A run of made-up steps; `asked` counts how often it asks which programs run."""

    def __init__(self, is_shared: bool = True) -> None:
        self.now, self.cpu, self.step, self.asked, self.lines = 0.0, 0.0, 0, 0, list[str]()
        self.is_shared = is_shared
        self.watch = SlowSteps(lambda: self.now, lambda: self.cpu, self.are_cores_shared)
        self.callback: Callable[[Progress], str | None] = self.watch.at

    def are_cores_shared(self) -> bool:
        self.asked += 1
        return self.is_shared

    def emit(self, activity: str, done: int = 0, total: int = 0) -> None:
        if line := self.callback(Progress(self.step, activity, done, total)):
            self.lines.append(line)

    def take(self, *steps: tuple[float, float]) -> list[str]:
        """Takes steps of two micro-batches each; returns all lines so far."""
        for seconds, cpu in steps:
            for micro_batch in range(2):
                self.emit("training", micro_batch, 2)
                self.now, self.cpu = self.now + seconds / 2, self.cpu + cpu / 2
            self.step += 1
        return self.lines

    def pause(self, activity: str, seconds: float) -> None:
        """Evaluates, samples or saves: it keeps the cores busy and is no step."""
        self.emit(activity)
        self.now, self.cpu = self.now + seconds, self.cpu + 2 * seconds


@pytest.fixture
def run() -> Run:
    """A run whose usual speed is known."""
    run = Run()
    run.take(*[USUAL] * (WARM_UP + 5))
    return run


def test_steps_beside_another_program_are_reported_once(run: Run) -> None:
    assert run.take(*[SPINNING] * 3) == []  # the third has not ended
    (line,) = run.take(*[SPINNING] * 30)
    assert line.startswith("steps take 5 s instead of 1 s: another program uses the cores.")
    assert "Ctrl-C, which saves the state, and put OMP_WAIT_POLICY=passive before the command that continues" in line
    assert run.asked == 1


def test_short_steps_are_reported_after_some_seconds() -> None:
    run = Run()
    run.take(*[(0.1, 0.19)] * (WARM_UP + 1))
    slow = (0.5, 0.75)
    needed = round(SLOW_SECONDS / slow[0])
    assert run.take(*[slow] * needed) == []
    assert len(run.take(slow)) == 1


@pytest.mark.parametrize(
    "steps",
    [
        [WAITING_FOR_DATA] * 40,
        [(1.8, 3.4)] * 40,  # less than twice as long
        [SPINNING, SPINNING, USUAL] * 20,  # never three in a row
        [(3_600.0, 1.9), USUAL] * 5,  # a laptop that slept
        [(60.0, 110.0)],  # compiled again
    ],
    ids=["data", "a little", "single steps", "asleep", "compiled"],
)
def test_other_slow_steps_are_not_reported(run: Run, steps: Sequence[tuple[float, float]]) -> None:
    assert run.take(*steps, USUAL) == []
    assert run.asked == 0


@pytest.mark.parametrize("activity", ["evaluating", "sampling", "saving"])
def test_evaluating_sampling_and_saving_are_no_steps(run: Run, activity: str) -> None:
    for _ in range(20):
        run.take(USUAL)
        run.pause(activity, seconds=30.0)
    assert (run.take(USUAL), run.asked) == ([], 0)


def test_compiling_and_slow_first_steps_are_no_measure(run: Run) -> None:
    fresh = Run()
    fresh.pause("compiling", seconds=60.0)
    assert fresh.take((60.0, 110.0), *[USUAL] * WARM_UP, *[(2.1, 4.0)] * 6) != []
    assert Run().take(*[SPINNING] * WARM_UP, *[USUAL] * 20) == []


def test_a_processor_that_became_slower_alone_is_the_new_measure() -> None:
    run = Run(is_shared=False)
    run.take(*[USUAL] * (WARM_UP + 1), *[SPINNING] * 20)
    assert run.asked == 1
    run.is_shared = True
    assert run.take(*[SPINNING] * 20) == []
    assert len(run.take(*[(25.0, 40.0)] * 4)) == 1


def test_the_display_of_a_run_on_several_cores_prints_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    display, run = TrainingDisplay(console(), PRESETS["tiny"]), Run()

    def watches(device: str, threads: str) -> bool:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        display(RunStarted("run", 0, 600, 600, PRESETS["tiny"].tokens_per_step, 1, device))
        return display.slow_steps is not None

    assert not watches("cuda:0", threads="2")
    assert not watches("cpu", threads="1")
    assert watches("cpu", threads="2")
    display.slow_steps, run.callback = run.watch, display
    run.take(*[USUAL] * (WARM_UP + 1), *[SPINNING] * 9)
    assert capsys.readouterr().out.count("another program uses the cores") == 1
