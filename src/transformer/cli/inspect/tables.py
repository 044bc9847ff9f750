"""A checkpoint's parts and settings as tables."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from transformer.config import TrainConfig
from transformer.config_base import leaves
from transformer.planning.cost import readable
from transformer.reporting.config_flags import DERIVED, changed
from transformer.training.checkpoint_report import Report


def parts_table(report: Report) -> Table:
    table = Table(title=f"{report.parameters:,} parameters", title_justify="left")
    table.add_column("part")
    for heading in ("parameters", "share", "size", "rms"):
        table.add_column(heading, justify="right")
    for part in report.parts:
        if part.is_tied:
            table.add_row(part.name, "tied", "", "", "")
            continue
        share = f"{part.parameters / report.parameters:.1%}"
        rms = f"{part.rms:.3f}" if math.isfinite(part.rms) else "not finite"
        table.add_row(part.name, f"{part.parameters:,}", share, f"{readable(part.bytes)} {part.dtype}", rms)
    if report.optimizer_bytes:
        table.add_row("optimizer state", "", "", readable(report.optimizer_bytes), "")
    return table


def settings_table(config: TrainConfig, only: str | None = None) -> Table:
    """Returns all settings by group, or only one group: first those that differ from the defaults, with the default."""
    differing = changed(config, TrainConfig())
    groups: dict[str, list[tuple[str, Any]]] = {}
    for group, name, value in leaves(config):
        if only in (None, group):
            groups.setdefault(group or "run", []).append((name, value))
    table = Table(title="settings", title_justify="left", show_lines=True)
    for heading in ("", "changed (default)", "at their defaults"):
        table.add_column(heading, overflow="fold")
    for group, settings in groups.items():
        own = [f"{name} {value} ({differing[name][1]})" for name, value in settings if name in differing]
        usual = [f"{name} {value}" for name, value in settings if name not in differing and name not in DERIVED]
        table.add_row(group, "\n".join(own), ", ".join(usual))
    return table
