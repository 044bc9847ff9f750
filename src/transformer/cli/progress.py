"""Progress: the bar of an evaluation, and the bars of a training run. Where no bar can be drawn there are lines."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from transformer.cli.formatting import duration

LINE_SECONDS = 10.0
"""Where no bar can be drawn, seconds between two lines of progress."""
MAX_NAME = 40
"""Characters of a bar's description: the last ones of a longer path."""
Show = Callable[[str, int, int], object]
"""A callback for progress: what is being done, parts done, parts in all."""


@contextlib.contextmanager
def progress_bar(out: Console, what: str, quiet: bool = False) -> Iterator[Show]:
    """Shows a bar on a terminal until the context ends, a line every LINE_SECONDS elsewhere, with the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("left"), TimeRemainingColumn(compact=True))
    started = last = time.monotonic()
    with Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def show(what: str, done: int, total: int) -> None:
            nonlocal last
            bar.update(task, description=what[-MAX_NAME:], completed=done, total=total)
            if not (quiet or out.is_terminal) and time.monotonic() - last >= LINE_SECONDS:
                last = time.monotonic()
                left = f", about {duration((last - started) * (total / done - 1))} left" if 0 < done < total else ""
                out.print(f"{what}: {done / max(1, total):.0%} done{left}", style="dim")

        yield show


class Bars:
    """Progress bars on a terminal until the run ends, nothing elsewhere. May be called from any thread."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[numbers]}"),  # everything fits into 80 columns
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("training", total=None, numbers="")
        self.second: dict[str, TaskID] = {}
        self.lock = threading.Lock()

    def steps(self, **changes: Any) -> None:
        """Updates the bar of the steps: `total`, `completed`, or the `numbers` next to it."""
        self.progress.update(self.task, **changes)

    def second_bar(self, name: str, done: int, total: int, numbers: str) -> None:
        """Shows a second bar until it is full."""
        shown: dict[str, Any] = {"total": total, "completed": done, "numbers": numbers}
        with self.lock:
            if name not in self.second:
                self.second[name] = self.progress.add_task(name, **shown)
        self.progress.update(self.second[name], **shown, visible=done < total)
