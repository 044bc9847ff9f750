"""Ctrl-C between two steps of a piece of work, instead of anywhere inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Step = TypeVar("Step")


def interruptible(steps: Iterable[Step]) -> Iterator[Step]:
    """Yields the steps; after Ctrl-C raises KeyboardInterrupt once the step is done, at a second Ctrl-C at once.

    Python raises wherever it happens to be, now and then inside a library that lets no exception out: then nothing
    would stop. Where Ctrl-C is ignored, as under nohup, it still is.
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.getsignal(signal.SIGINT)
    if before in (None, signal.SIG_IGN) or threading.current_thread() is not threading.main_thread():
        yield from steps
        return
    signal.signal(signal.SIGINT, ask)
    try:
        for step in steps:
            yield step
            if asked:
                raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)
