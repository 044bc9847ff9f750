"""Progress bars of a training run: one for its steps, and a second one during fetching or evaluation."""

from __future__ import annotations

import threading
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Bars:
    """Progress bars on a terminal, nothing elsewhere. May be called from any thread."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[numbers]}"),  # everything fits into 80 columns
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
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
