"""Commands as a user calls them: through main.py, in an empty folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from transformer.reporting.metrics_log import METRICS_FILE

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]


class Outcome(NamedTuple):
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """command("generate", "--prompt", "x") runs `main.py generate --prompt x` in this process, in tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # main.py sets it; set here, it is taken back
    monkeypatch.setattr(sys, "path", list(sys.path))
    from main import main

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        status = main(list(arguments))
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture
def plain_pictures() -> Iterator[pytest.MonkeyPatch]:
    """Loss curves, and stages of sampling, are empty figures: drawing one takes most of the time of a short run.

    For files of tests whose subject is no picture. `plain_pictures.undo()` draws real ones again.
    """
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        for name in ("reporting.run_plots.draw", "cli.sampling.command.draw_stages"):
            patch.setattr(f"transformer.{name}", lambda *_: Figure())
        yield patch


@pytest.fixture
def signalled(tmp_path: Path) -> Callable[[Sequence[str], str, signal.Signals], Outcome]:
    """signalled(line, "run", SIGINT) sends the signal when the run in tmp_path/run has told of a step."""

    def call(line: Sequence[str], folder: str, number: signal.Signals) -> Outcome:
        with subprocess.Popen(
            line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) as running:  # fmt: skip
            metrics = tmp_path / folder / METRICS_FILE
            while not (metrics.exists() and '"event": "step"' in metrics.read_text()):
                assert running.poll() is None, running.communicate()
                time.sleep(0.01)
            running.send_signal(number)
            out, err = running.communicate(timeout=60)
        return Outcome(running.returncode, out, err)

    return call


@pytest.fixture
def interrupted(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[[signal.Signals, str, Sequence[str]], Outcome]:
    """interrupted(SIGTERM, "run", line) runs the command in this process, and sends the signal as signalled() does."""

    def call(number: signal.Signals, folder: str, line: Sequence[str]) -> Outcome:
        metrics, over = tmp_path / folder / METRICS_FILE, threading.Event()

        def send() -> None:
            while not (metrics.exists() and '"event": "step"' in metrics.read_text()):
                if over.wait(0.01):
                    return
            os.kill(os.getpid(), number)

        def late(*_: object) -> None:
            pytest.fail("the run was over before the signal came: give it more steps")

        before, sender = signal.signal(number, late), threading.Thread(target=send)
        sender.start()
        try:
            return command(*line)
        except SystemExit as stop:
            return Outcome(int(stop.code or 0), *capsys.readouterr())
        finally:
            over.set()
            sender.join()
            signal.signal(number, before)

    return call
