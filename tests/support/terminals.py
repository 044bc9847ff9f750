"""Typing: at a pseudo-terminal, to a command in a process of its own, and to a Shell without either.

Windows has no pseudo-terminals of this kind, so callers of the first two functions are skipped there.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformer.cli.generate.repl import Shell

MAIN = Path(__file__).resolve().parents[2] / "main.py"
READY = b"\x1b[?2004h"
"""What prompt_toolkit sends before it reads a line."""
LAUNCH = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a suite that runs in the background hands down that Ctrl-C is ignored
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def environment(columns: int) -> dict[str, str]:
    fixed = {"TERM": "xterm", "COLUMNS": str(columns), "OMP_NUM_THREADS": "1", "PROMPT_TOOLKIT_NO_CPR": "1"}
    return {**os.environ, **fixed}


def shown_at_terminal(
    arguments: Sequence[str],
    folder: Path,
    columns: int = 100,
    seconds: float = 60,
    answer: Callable[[bytes], bytes] = lambda shown: b"",
) -> tuple[str, int]:
    """Returns all that `main.py arguments` shows until it ends, and its status.

    `answer` is called with what is shown so far after each part of it, and returns the keys to press.
    """
    import pty

    ours, theirs = pty.openpty()
    line, shown = [sys.executable, str(MAIN), *arguments], b""
    with subprocess.Popen(
        line, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment(columns)
    ) as running:
        os.close(theirs)
        while True:
            try:
                read = os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
            if not read:
                break
            shown += read
            if keys := answer(shown):
                os.write(ours, keys)
        status = running.wait(timeout=seconds)
    os.close(ours)
    return shown.decode(errors="replace"), status


class Typing:
    """A command that reads lines at a terminal."""

    def __init__(self, running: subprocess.Popen[bytes], leader: int) -> None:
        self.running, self.leader = running, leader

    def type(self, keys: bytes) -> None:
        os.write(self.leader, keys)

    def until(self, what: bytes) -> str:
        """Returns what the terminal shows up to `what`."""
        shown, end = b"", time.monotonic() + 120
        while what not in shown:
            assert select.select([self.leader], [], [], end - time.monotonic())[0], shown
            shown += os.read(self.leader, 1)
        return shown.decode(errors="replace")


@contextmanager
def typing_to(*arguments: str) -> Iterator[Typing]:
    """Starts `main.py arguments` in the current folder, in a session of its own, so that Ctrl-C reaches it alone."""
    import pty

    leader, follower = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(MAIN), *arguments], start_new_session=True,
        stdin=follower, stdout=follower, stderr=follower, env=environment(200),
    )  # fmt: skip
    os.close(follower)
    try:
        yield Typing(running, leader)
    finally:
        running.kill()
        running.wait()
        os.close(leader)


def run_with_lines(shell: Shell, lines: Sequence[str]) -> None:
    """Runs a shell to which these lines are typed and then Ctrl-D."""
    waiting = iter(lines)

    def read() -> str:
        for line in waiting:
            return line
        raise EOFError

    shell.read = read
    shell.run()
