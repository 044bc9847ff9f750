"""The options of the export-page command, and the place of the lesson page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformer.cli.options import parse


@dataclass(frozen=True)
class ExportOptions:
    """Write the lesson page with a model of your own."""

    checkpoint: Path | None = None
    """The checkpoint to export. None: the latest; FOLDER: the latest in it. "best": the lowest validation loss
    of all runs here; FOLDER/best: of those in FOLDER. hf:OWNER/NAME, a folder with config.json
    or a .gguf file: a model of another program, imported at its first use."""
    out: Path = Path("page.html")
    """The file to write: the whole page, or only the model if the name ends in .js."""
    measure: bool = False
    """Evaluate the model before and after rounding, and show the result on the page."""


def read_options(arguments: Sequence[str]) -> ExportOptions:
    return parse(ExportOptions(), arguments, "export-page", check)


def check(options: ExportOptions) -> None:
    """Raises ValueError for a file that is the lesson page itself."""
    if options.out.resolve() == lesson_path():
        raise ValueError(f"--out {options.out} is the lesson page itself: give another name, for example page.html")


def lesson_path() -> Path:
    """Returns the lesson page: transformer/lesson/ in an installed package, the repository's folder in a checkout."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "lesson" / "index.html"
    return installed if installed.is_file() else package.parents[1] / "index.html"
