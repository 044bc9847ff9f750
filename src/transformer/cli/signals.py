"""The signals that ask a process to end, on Linux, macOS and Windows."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2", "SIGBREAK")
"""Ctrl-C; `kill` and batch systems; a closed terminal or a lost connection; a used-up time limit; Slurm's warning
before one (--signal=USR1@60); Windows: a closed console and Ctrl-Break. A system has some of them."""


@contextlib.contextmanager
def handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Calls `handle` with the number of each such signal until the end of the block.

    A signal that the process was started to ignore, as nohup does with SIGHUP, stays ignored. Only the main thread of a
    process can handle signals: in another thread this context does nothing.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: set by another library
                before[number] = signal.signal(number, lambda number, frame: handle(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
