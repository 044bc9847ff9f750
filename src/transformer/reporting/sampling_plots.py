"""Pictures of a distribution over tokens, before and after each filter of sampling.

Each list of stages, from sampling_stages.stages, is a row of panels, read from left to right: blue bars are the
distribution after the filter that the panel is named for, grey bars the distribution before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Patch
from torch import Tensor

from transformer.reporting.sampling_stages import STAGES, entropy_bits

BEFORE, AFTER, REST, INK = "#d3d8e0", "#2f6db3", "#8fb1d9", "#333333"
Stages = Sequence[tuple[str, Tensor]]


def draw_stages(rows: Sequence[Stages], name: Callable[[int], str], title: str, tokens: int = 20) -> Figure:
    """Returns the drawing of rows of stages of one vocabulary: names and probabilities (V,).

    Bars stand for the tokens that are likeliest in the first stage, whose ids `name` spells, and for all others
    together.
    """
    first = rows[0][0][1]  # (V,)
    top = first.topk(min(tokens, len(first))).indices  # (R,)
    labels = [as_label(name(int(token))) for token in top]
    if others := len(first) - len(top):
        labels.append(f"{others:,} others")
    kinds = [kind for kind in STAGES if any(kind_of(stage) == kind for row in rows for stage, _ in row)]
    height = len(rows) * (0.21 * len(labels) + 0.75) + 0.5
    figure = Figure(figsize=(1.2 + 2.1 * len(kinds), height), layout="constrained", facecolor="white")
    grid = figure.subplots(len(rows), len(kinds), squeeze=False, sharey=True)
    for line, row in zip(grid, rows, strict=True):
        axes = dict(zip(kinds, line, strict=True))
        longest = max(share for _, probs in row for share in shares(probs, top))
        before: Sequence[float] = ()
        for stage, probs in row:
            panel = axes.pop(kind_of(stage))
            draw_panel(panel, before, shares(probs, top), longest)
            kept = int((probs > 0).sum())
            name_panel(panel, stage, f"{kept:,} token{'s' * (kept != 1)}, {entropy_bits(probs):.2f} bits")
            before = shares(probs, top)
        for kind, left_out in axes.items():
            left_out.set_axis_off()
            name_panel(left_out, f"{kind} off", "")
        line[0].set_yticks(range(len(labels)), labels)
    grid[0][0].invert_yaxis()  # of all panels: the likeliest token is on top
    figure.suptitle(as_label(title, 100), x=0.01, ha="left", color=INK)
    boxes = [Patch(color=BEFORE, label="before the filter"), Patch(color=AFTER, label="after it")]
    figure.legend(handles=boxes, loc="outside lower left", ncols=2, frameon=False, fontsize="small")
    return figure


def draw_panel(panel: Axes, before: Sequence[float], after: Sequence[float], longest: float) -> None:
    """Draws narrow bars over wide ones, with the share of each at its end; `longest` gives the panels one scale."""
    places = range(len(after))
    if before:
        panel.barh(places, before, height=0.86, color=BEFORE)
    panel.barh(places, after, height=0.5, color=AFTER)
    for place, share in enumerate(after):
        if share:
            end = max(share, before[place] if before else 0.0)
            label = f"{share:.1%}" if share >= 0.0005 else "<0.1%"
            panel.text(end + 0.02 * longest, place, label, va="center", fontsize=7, color=INK)
    panel.set_xlim(0, 1.25 * longest)
    panel.set_xticks([])
    panel.tick_params(axis="y", length=0, labelsize=8, labelcolor=INK)
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    panel.spines["left"].set_color("#999999")


def name_panel(panel: Axes, stage: str, about: str) -> None:
    """Puts a stage's name above its panel, and a smaller line below it."""
    panel.set_title(
        stage.replace("_penalty", " penalty"), loc="left", fontsize=9.5, fontweight="bold", color=INK, pad=17
    )
    panel.annotate(
        about, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=8, color="#666666"
    )


def kind_of(stage: str) -> str:
    """Returns a stage's name without its number."""
    return stage.split()[0]


def shares(probs: Tensor, top: Tensor) -> list[float]:
    """Returns the probabilities of the top tokens and, where there are others, of all others together."""
    shown: list[float] = probs[top].tolist()
    return [*shown, float(probs.scatter(0, top, 0.0).sum())] if len(probs) > len(top) else shown


def as_label(text: str, longest: int = 60) -> str:
    """Returns the text as matplotlib shows it: no mathematics between dollar signs, no character without a glyph."""
    font = get_font(findfont(FontProperties()))
    if any(not font.get_char_index(ord(character)) for character in text):
        text = text.encode("ascii", "backslashreplace").decode()
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")
