"""Functions shared by the plots: file output, colours, and text that matplotlib shows unchanged."""

from __future__ import annotations

from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from transformer.training.files import replacing

Color = str | tuple[float, float, float, float]


def save_figure(figure: Figure, *files: Path) -> None:
    """Writes a figure to each file; the file's suffix selects the format."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)  # compute the layout once, so that all files agree
        figure.set_layout_engine(None)
    for file in files:
        with replacing(file) as written:
            figure.savefig(written, dpi=150, format=file.suffix[1:] or None)


def colors(count: int) -> list[Color]:
    """Returns `count` distinct colours: matplotlib's ten, or for more equally spaced ones of the turbo colormap."""
    if count <= 10:
        return [f"C{number}" for number in range(count)]
    return [colormaps["turbo"](0.05 + 0.9 * number / (count - 1)) for number in range(count)]


def as_label(text: str, max_length: int | None = None) -> str:
    r"""Returns the text as a matplotlib label: $ is escaped, and characters without a glyph are written as \uXXXX.

    A text of more than `max_length` characters is shortened.
    """
    font = get_font(findfont(FontProperties()))
    if any(not font.get_char_index(ord(character)) for character in text):
        text = text.encode("ascii", "backslashreplace").decode()
    if max_length is not None and len(text) > max_length:
        text = text[: max_length - 1] + "…"
    return text.replace("$", r"\$")  # matplotlib typesets text between two $ as mathematics


def legend_label(name: str) -> str:
    """Returns the name of a run as a legend entry. matplotlib omits entries that begin with "_"; they get "./"."""
    return as_label(f"./{name}" if name.startswith("_") else name)
