"""Plots of a distribution over tokens, before and after each sampling filter.

Each list of stages, from sampling_stages.stages, is a row of panels, read from left to right: blue bars are the
distribution after the filter that the panel is named for, grey bars the distribution before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from transformer.reporting.figures import as_label
from transformer.reporting.sampling_stages import STAGES, entropy_bits

BEFORE, AFTER, INK = "#d3d8e0", "#2f6db3", "#333333"
LABEL_LENGTH, TITLE_LENGTH = 60, 100
Stages = Sequence[tuple[str, Tensor]]


def draw_stages(rows: Sequence[Stages], name: Callable[[int], str], title: str, tokens: int = 20) -> Figure:
    """Returns the figure for several rows of stages over the same vocabulary: names and probabilities (V,).

    There is one bar for each of the `tokens` most likely tokens of the first stage, labelled name(id), and one for the
    sum of all others.
    """
    first = rows[0][0][1]  # (V,)
    top = first.topk(min(tokens, len(first))).indices  # (R,)
    labels = [as_label(name(int(token)), LABEL_LENGTH) for token in top]
    if others := len(first) - len(top):
        labels.append(f"{others:,} others")
    kinds = [kind for kind in STAGES if any(kind_of(stage) == kind for row in rows for stage, _ in row)]
    height = len(rows) * (0.21 * len(labels) + 0.75) + 0.5
    figure = Figure(figsize=(1.2 + 2.1 * len(kinds), height), layout="constrained", facecolor="white")
    grid = figure.subplots(len(rows), len(kinds), squeeze=False, sharey=True)
    for row, panels in zip(rows, grid, strict=True):
        draw_row(row, dict(zip(kinds, panels, strict=True)), top)
        panels[0].set_yticks(range(len(labels)), labels)
    grid[0][0].invert_yaxis()  # of all panels, since they share it: the most likely token is at the top
    figure.suptitle(as_label(title, TITLE_LENGTH), x=0.01, ha="left", color=INK)
    boxes = [Patch(color=BEFORE, label="before the filter"), Patch(color=AFTER, label="after the filter")]
    figure.legend(handles=boxes, loc="outside lower left", ncols=2, frameon=False, fontsize="small")
    return figure


def draw_row(row: Stages, panels: dict[str, Axes], top: Tensor) -> None:
    """Draws the stages of one row into the panels of their kinds; the remaining panels show only "KIND off"."""
    heights = [bar_lengths(probs, top) for _, probs in row]
    longest = max(max(lengths) for lengths in heights)
    unused = dict(panels)
    before: Sequence[float] = ()
    for (stage, probs), after in zip(row, heights, strict=True):
        panel = unused.pop(kind_of(stage))
        draw_panel(panel, before, after, longest)
        kept = int((probs > 0).sum())
        unchanged = ", unchanged" * (after == before)
        add_heading(panel, stage, f"{kept:,} token{'s' * (kept != 1)}, {entropy_bits(probs):.2f} bits{unchanged}")
        before = after
    for kind, panel in unused.items():
        panel.set_axis_off()
        add_heading(panel, f"{kind} off", "")


def draw_panel(panel: Axes, before: Sequence[float], after: Sequence[float], longest: float) -> None:
    """Draws narrow bars (after) over wide bars (before), each labelled with its probability after the filter.

    `longest` is the longest bar of the row, so that all panels of the row have the same scale.
    """
    rows = range(len(after))
    if before:
        panel.barh(rows, before, height=0.86, color=BEFORE)
    panel.barh(rows, after, height=0.5, color=AFTER)
    for row, probability in enumerate(after):
        if probability:
            end = max(probability, before[row] if before else 0.0)
            label = f"{probability:.1%}" if probability >= 0.0005 else "<0.1%"
            panel.text(end + 0.02 * longest, row, label, va="center", fontsize=7, color=INK)
    panel.set_xlim(0, 1.25 * longest)
    panel.set_xticks([])
    panel.tick_params(axis="y", length=0, labelsize=8, labelcolor=INK)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    panel.spines["left"].set_color("#999999")


def add_heading(panel: Axes, stage: str, details: str) -> None:
    """Writes the name of a stage above its panel, and the details in a smaller line below the name."""
    panel.set_title(
        stage.replace("_penalty", " penalty"), loc="left", fontsize=9.5, fontweight="bold", color=INK, pad=17
    )
    panel.annotate(
        details, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=8, color="#666666"
    )


def kind_of(stage: str) -> str:
    """Returns the name of a stage without its value: top_k 40 -> top_k."""
    return stage.split()[0]


def bar_lengths(probs: Tensor, top: Tensor) -> list[float]:
    """Returns the probabilities of the top tokens, followed by the sum of all others if there are any."""
    lengths: list[float] = probs[top].tolist()
    return [*lengths, float(probs.scatter(0, top, 0.0).sum())] if len(probs) > len(top) else lengths
