"""How the time of a text grows with its length: exponents fitted for `main.py benchmark`, and their picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from transformer.cli.benchmark.speed import Comparison


@dataclass(frozen=True)
class Growth:
    """seconds = scale * length ** exponent, fitted on log-log axes to the texts of at least `shortest` tokens."""

    exponent: float
    standard_error: float
    scale: float
    shortest: int
    longest: int

    def seconds(self, length: float) -> float:
        """What the fit says of a text of `length` tokens."""
        return float(self.scale * length**self.exponent)


KINDS = (("with the cache", "cached", "o", "C0"), ("without the cache", "uncached", "s", "C1"))
"""What each kind of run is called, its field in a Comparison, its mark and its colour in the picture."""


def growth(lengths: Sequence[int], seconds: Sequence[float]) -> Growth | None:
    """Fits the longer half of ascending lengths, three at least; None where there are fewer."""
    points = max(3, math.ceil(len(lengths) / 2))
    if len(lengths) < points:
        return None
    x, y = ([math.log(value) for value in values[-points:]] for values in (lengths, seconds))
    exponent, intercept = linear_regression(x, y)
    misses = sum((b - intercept - exponent * a) ** 2 for a, b in zip(x, y, strict=True))
    error = math.sqrt(misses / (points - 2) / sum((a - sum(x) / points) ** 2 for a in x))
    return Growth(exponent, error, math.exp(intercept), lengths[-points], lengths[-1])


def growths(results: Sequence[Comparison]) -> dict[str, Growth | None]:
    """Returns the fits by kind, "cached" and "uncached"."""
    lengths = [result.length for result in results]
    return {kind: growth(lengths, [getattr(result, kind).seconds for result in results]) for _, kind, _, _ in KINDS}


def plot(results: Sequence[Comparison], title: str) -> Figure:
    """Returns a picture of both kinds: seconds against length on log-log axes with the fits, and tokens per second."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    growing, speeds = figure.subplots(1, 2)
    lengths = [result.length for result in results]
    for name, kind, mark, color in KINDS:
        measured = [getattr(result, kind) for result in results]
        fit = growth(lengths, [speed.seconds for speed in measured])
        fitted = f"{name}: exponent {fit.exponent:.2f} ± {fit.standard_error:.2f}" if fit else name
        style = {"marker": mark, "color": color, "markersize": 6, "markerfacecolor": "none"}
        growing.plot(lengths, [speed.seconds for speed in measured], linestyle="", label=fitted, **style)
        if fit:
            ends = [fit.shortest, fit.longest]
            growing.plot(ends, [fit.seconds(length) for length in ends], color=color, linewidth=1.5)
            ends = [lengths[0], fit.shortest]
            growing.plot(ends, [fit.seconds(length) for length in ends], color=color, linewidth=1, linestyle=":")
        speeds.plot(lengths, [speed.tokens_per_second for speed in measured], label=name, **style)
    growing.set(yscale="log", ylabel="seconds for the whole text")
    growing.legend(frameon=False, title="marks measured, lines fitted to the longer half", title_fontsize="small")
    growing.yaxis.set_major_formatter("{x:g}")
    speeds.set(ylim=(0, None), ylabel="tokens per second")
    speeds.legend(frameon=False)
    for axes in (growing, speeds):
        finish(axes, lengths)
    figure.suptitle(title, fontsize=9)
    return figure


def finish(axes: Axes, lengths: Sequence[int]) -> None:
    """Gives the axes of lengths their scale and labels: the measured lengths themselves."""
    axes.set(xscale="log", xlabel="length of the text (tokens)")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
