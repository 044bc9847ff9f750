"""Runs side by side in a table, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from transformer.cli.console import fitting_table
from transformer.reporting.history import History

HEADINGS = ("steps", "tokens", "seconds", "best loss", "last loss", "bits per byte", "tokens/s")
OPTIONAL = ("tokens/s", "seconds", "last loss", "tokens", "steps")
"""Left out where the table does not fit, the first ones first."""


def run_table(runs: Sequence[History], width: int, notes: Mapping[str, str] | None = None) -> Table:
    """Returns a row for each run, ordered by bits per byte; runs with a note, by name, come last.

    On a narrow terminal the names are shortened to what differs, and the OPTIONAL columns are left out.
    """
    notes = notes or {}
    rows = sorted(runs, key=lambda run: (run.name in notes, rank(run)))
    columns = {"run": [run.name for run in rows]}
    columns |= dict(zip(HEADINGS, map(list, zip(*map(numbers, rows), strict=True)), strict=True))
    if notes:
        columns["note"] = [notes.get(run.name, "") for run in rows]
    return fitting_table("runs, best first", columns, width, ["run", "note"], OPTIONAL)


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
