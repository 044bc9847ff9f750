"""A picture of ranked checkpoints: bits per byte against training tokens, one line per run, one panel per text.

A dotted line marks the first checkpoint. The error bars show the paired difference to it, at the length that the
ranking requires: if a bar reaches the dotted line, the difference is not significant.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from transformer.evaluation.ranking import Ranking, Row
from transformer.reporting.figures import Color, as_label, colors, legend_label, save_figure

FACTORS_FROM = 30
"""Use a logarithmic token axis from this ratio of the most to the fewest training tokens."""
LEGEND_INSIDE = 8
"""Up to this number of lines, the legend is drawn inside the panel."""


def save_ranking(rankings: Sequence[Ranking], *files: Path) -> None:
    """Draws the rankings in one figure and writes it to each file; the file's suffix selects the format."""
    save_figure(draw(rankings), *files)


def draw(rankings: Sequence[Ranking]) -> Figure:
    figure = Figure(figsize=(9, 0.6 + 4.6 * len(rankings)), layout="constrained")
    panels = figure.subplots(len(rankings), 1, squeeze=False)[:, 0]
    beside = max(draw_ranking(axes, ranking) for axes, ranking in zip(panels, rankings, strict=True))
    figure.set_figwidth(9 + beside)
    return figure


def draw_ranking(axes: Axes, ranking: Ranking) -> float:
    """Draws the checkpoints of one text; returns the width in inches of the legend beside the panel."""
    lines: dict[tuple[Path, str], list[Row]] = {}
    for row in sorted(ranking.rows, key=lambda row: row.measured.tokens):
        lines.setdefault((row.measured.path.parent, row.measured.encoding), []).append(row)
    names = line_names(list(lines))
    palette = dict(zip(lines, colors(len(lines)), strict=True))
    for key, rows in lines.items():
        draw_line(axes, rows, ranking.threshold, palette[key], names[key])
    first = ranking.rows[0].measured
    level = first.scores.evaluation.bits_per_byte
    if len(ranking.rows) > 1:
        axes.axhline(level, linestyle=":", color="dimgray", linewidth=1)
    if ranking.best:
        own = palette[first.path.parent, first.encoding]
        axes.plot(
            [first.tokens], [level], "*", markersize=15, color=own, markeredgecolor="black", label="best", zorder=3
        )
    seen = [row.measured.tokens for row in ranking.rows]
    if min(seen) > 0 and max(seen) > FACTORS_FROM * min(seen):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("training tokens")
    axes.set_ylabel("bits per byte")
    axes.set_title(caption(ranking), loc="left", fontsize="small", color="dimgray")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) <= LEGEND_INSIDE:
        axes.legend(frameon=False)
        return 0.0
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    return 0.9 + 0.07 * max(map(len, names.values()))


def draw_line(axes: Axes, rows: Sequence[Row], needed: float, color: Color, name: str) -> None:
    """Draws the checkpoints of one run in training order."""
    levels = [row.measured.scores.evaluation.bits_per_byte for row in rows]
    bars = [needed * row.behind.error if row.behind.error else 0.0 for row in rows]
    axes.errorbar(
        [row.measured.tokens for row in rows], levels, bars, color=color, label=legend_label(name), marker="o",
        markersize=4, linewidth=1.4, elinewidth=1, capsize=3,
    )  # fmt: skip


def line_names(lines: Sequence[tuple[Path, str]]) -> dict[tuple[Path, str], str]:
    """Returns the folder of each line, with the encoding if the lines differ in it."""
    several = len({encoding for _, encoding in lines}) > 1
    return {(folder, encoding): f"{folder}, {encoding}" if several else str(folder) for folder, encoding in lines}


def caption(ranking: Ranking) -> str:
    """Returns the panel's title: the evaluated text, and how to read the error bars."""
    texts = "1 document" if ranking.documents == 1 else f"{ranking.documents:,} documents"
    evaluated = f"{as_label(ranking.text)}: {texts}, {ranking.text_bytes / 1e3:,.0f} kB"
    if len(ranking.rows) < 2 or ranking.rows[-1].behind.error is None:
        return evaluated
    bars = f"bars: {ranking.threshold:.1f} standard errors of the difference to the first, paired by document"
    return f"{evaluated}\n{bars}; a bar that reaches the dotted line means no significant difference"
