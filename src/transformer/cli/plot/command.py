"""The plot command; commands/plot.py documents it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformer.cli.console import console, writing_files
from transformer.cli.plot.options import PlotOptions
from transformer.cli.run_table import run_table
from transformer.reporting.history import read_histories
from transformer.reporting.inside_plot import save_inside
from transformer.reporting.metrics_log import METRICS_FILE
from transformer.reporting.run_plots import save_loss_curve


def main(options: PlotOptions) -> None:
    files = [file for path in options.runs for file in metrics_files(path)] or [newest_run()]
    if options.inside:
        plot_inside(files, options.out)
        return
    runs = read_histories(files)
    pictures = [options.out] if options.out else default_pictures(files)
    out = console()
    if len(runs) > 1:
        out.print(run_table(runs, out.width))
        out.print("Losses are validation losses in nats per token, comparable only within one encoding and dataset.")
    with writing_files():
        save_loss_curve(files, *pictures, against=options.against)
    for picture in pictures:
        out.print(str(picture))


def plot_inside(files: Sequence[Path], picture: Path | None) -> None:
    """Draws the habits of the heads of one run. Raises ValueError for several runs, and if they were not measured."""
    if len(files) > 1:
        raise ValueError(f"--inside draws one run, and there are {len(files)}: name one, such as {files[0].parent}")
    pictures = [picture] if picture else [files[0].with_name(f"inside{suffix}") for suffix in (".png", ".svg")]
    with writing_files():
        save_inside(files, *pictures)
    for path in pictures:
        console().print(str(path))


def metrics_files(path: Path) -> list[Path]:
    """Returns the metrics files at a path: the file itself, the folder's, or those of the folders in it.

    Raises ValueError if there are none.
    """
    if path.is_file():
        return [path]
    own = path / METRICS_FILE
    files = [own] if own.is_file() else sorted(path.glob(f"*/{METRICS_FILE}"))
    if not files:
        what = "there is no metrics file in" if path.is_dir() else "there is no file or folder"
        here = sorted({str(file.parent) for file in found_here()})
        known = f"; runs here: {', '.join(here[:5])}" if here else ", such as checkpoints_demo"
        raise ValueError(f"{what} {path}: name the folder of a run{known}")
    return files


def default_pictures(files: Sequence[Path]) -> list[Path]:
    """Returns a .png and a .svg: in the folder of a single run, or in the common parent of several, or here."""
    folders = {file.resolve().parent for file in files}
    if len({file.resolve() for file in files}) == 1:
        where = files[0].parent / "loss_curve"
    else:
        shared = {folder.parent for folder in folders} if len(folders) > 1 else folders
        beside, here = min(shared), Path.cwd()
        if len(shared) > 1 or beside == here:
            where = Path("runs/comparison")
        else:
            where = (beside.relative_to(here) if beside.is_relative_to(here) else beside) / "comparison"
    return [where.with_suffix(".png"), where.with_suffix(".svg")]


def found_here() -> list[Path]:
    """Returns the metrics files in folders checkpoints*, and in their subfolders, which a sweep creates."""
    return [*Path().glob(f"checkpoints*/{METRICS_FILE}"), *Path().glob(f"checkpoints*/*/{METRICS_FILE}")]


def newest_run() -> Path:
    """Returns the latest metrics file here. Raises ValueError if there is none."""
    files = found_here()
    if not files:
        raise ValueError("no run found here: train a model first, with `make demo`")
    return max(files, key=lambda path: path.stat().st_mtime)
