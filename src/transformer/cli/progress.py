"""The bars under a training run: one for its steps, and a second one while something else takes its time."""

from __future__ import annotations

import threading
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Bars:
    """Live lines on a terminal, nothing elsewhere. May be called from any thread."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[numbers]}"),  # all of it fits a terminal of 80 columns
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("training", total=None, numbers="")
        self.second: dict[str, TaskID] = {}
        self.lock = threading.Lock()

    def steps(self, **changes: Any) -> None:
        """Changes the bar of the steps: `total`, `completed`, or the `numbers` beside it."""
        self.progress.update(self.task, **changes)

    def beside(self, name: str, done: int, total: int, numbers: str) -> None:
        """Shows a second bar for as long as it is not full."""
        shown: dict[str, Any] = {"total": total, "completed": done, "numbers": numbers}
        with self.lock:
            if name not in self.second:
                self.second[name] = self.progress.add_task(name, **shown)
        self.progress.update(self.second[name], **shown, visible=done < total)
