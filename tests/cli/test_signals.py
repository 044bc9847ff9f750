"""The signals that end a run, on each system; and output that disappears."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from transformer.cli.signals import ENDING, handled
from transformer.cli.streams import LastingStream, lasting_output

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends signals to this process")
EVERY = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]


@pytest.mark.parametrize("number", EVERY)
def test_each_signal_is_handled_and_then_left_as_it_was(number: signal.Signals) -> None:
    before, received = signal.getsignal(number), []
    with handled(received.append):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert received == [number, number]
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """nohup starts a process with SIGHUP ignored."""
    received: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled(received.append):
            os.kill(os.getpid(), signal.SIGHUP)
        assert (received, signal.getsignal(signal.SIGHUP)) == ([], signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_windows_has_other_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGBREAK for a closed console, and no SIGHUP: here SIGALRM takes its place."""
    received: list[int] = []
    for name in ("SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2"):
        monkeypatch.delattr(signal, name)
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGALRM, raising=False)
    with handled(received.append):
        os.kill(os.getpid(), signal.SIGALRM)
    assert received == [signal.SIGALRM]
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_a_closed_terminal_takes_no_output_and_costs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    master, terminal = os.openpty()
    lost: list[OSError] = []
    with os.fdopen(terminal, "w", buffering=1) as file:
        stream = LastingStream(file, lost.append)
        print("seen", file=stream)  # type: ignore[call-overload]
        assert stream.isatty()
        os.close(master)
        for _ in range(3):
            print("unseen", file=stream, flush=True)  # type: ignore[call-overload]
    assert len(lost) == 1


def test_one_line_on_standard_error_says_that_standard_output_is_lost(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with lasting_output("the run continues"):
            for number in range(3):
                print(number, flush=True)
        assert sys.stdout is pipe
        print("written to the null device", flush=True)
    assert capfd.readouterr().err == "standard output can no longer be written (Broken pipe): the run continues\n"
