"""Runs side by side in a table, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from transformer.reporting.history import History


def run_table(runs: Sequence[History], notes: Mapping[str, str] | None = None) -> Table:
    """Returns a row for each run, ordered by bits per byte; runs with a note, by name, come last."""
    notes = notes or {}
    table = Table(title="runs, best first", title_justify="left")
    table.add_column("run", overflow="fold")
    for heading in ("steps", "tokens", "seconds", "best loss", "last loss", "bits per byte", "tokens/s"):
        table.add_column(heading, justify="right")
    if notes:
        table.add_column("", overflow="fold")
    for run in sorted(runs, key=lambda run: (run.name in notes, rank(run))):
        table.add_row(run.name, *numbers(run), *([notes.get(run.name, "")] if notes else []))
    return table


def rank(run: History) -> float:
    """Returns what runs are ordered by: the bits per byte of the best evaluation, infinite where there is none."""
    return math.inf if run.best is None else run.best.bits_per_byte


def numbers(run: History) -> list[str]:
    """Returns the cells of a run: the losses are validation's, the bits per byte those of its best one."""
    if not run.steps:
        return ["0", *["-"] * 6]
    last, best = run.steps[-1], run.best
    losses = ["-"] * 3
    if run.evaluations:
        losses[1] = f"{run.evaluations[-1].loss:.4f}"
    if best is not None:
        losses[0], losses[2] = f"{best.loss:.4f}", f"{best.bits_per_byte:.3f}"
    return [f"{last.step:,}", f"{last.tokens:,}", f"{last.seconds:,.1f}", *losses, f"{run.tokens_per_second:,.0f}"]
