"""The film of a run: a page that plays the attention weights that --watch-inside recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformer.cli.console import console
from transformer.cli.formatting import counted
from transformer.cli.inlining import page_with, write_page
from transformer.reporting.film_log import FILM_FILE, read_film
from transformer.reporting.history import History, read_history
from transformer.reporting.metrics_log import METRICS_FILE, without_nan

DOCUMENT, RECORDED = "page/film/film.html", "page/film/recorded.js"
MAX_TRAIN_POINTS = 500
"""More points of the training curve are thinned out."""


def write_film(run: Path, path: Path) -> None:
    """Writes the page of a run's folder and prints a line about it. Raises ValueError if the run recorded no film."""
    console().print(write_page(path, film_page(run)), soft_wrap=True)


def film_page(run: Path) -> str:
    """Returns the page, which needs no network. Raises ValueError if the run recorded no film."""
    return page_with(DOCUMENT, RECORDED, "recorded", without_nan(recorded(run)))


def recorded(run: Path) -> dict[str, Any]:
    """Returns what the page shows, as page/film/film.js expects it. Raises ValueError if there is nothing to show."""
    if not run.is_dir():
        raise ValueError(f"there is no folder {run}: name the folder of a run that was trained with --watch-inside")
    frames = read_film(run / FILM_FILE) if (run / FILM_FILE).is_file() else []
    if not frames:
        raise ValueError(f"{run} has no film: train it again with --watch-inside")
    metrics = run / METRICS_FILE
    history = read_history(metrics, run.name) if metrics.is_file() else History(run.name, [], [])
    last = frames[-1]  # a run that was begun again with another shape has frames of the last one only
    frames = [
        frame for frame in frames if (frame.tokens, frame.layers, frame.heads) == (last.tokens, last.layers, last.heads)
    ]
    points = [(step.step, loss) for step, loss in zip(history.steps, history.losses(), strict=True)]
    return {
        "run": run.resolve().name,
        "about": [f"{counted(last.layers, 'layer')} of {counted(last.heads, 'head')}", f"step {last.step:,}",
                  counted(len(frames), "frame")],
        "layers": last.layers,
        "heads": last.heads,
        "tokens": last.tokens,
        "frames": [{"step": frame.step, "weights": frame.weights} for frame in frames],
        "inside": [
            {"step": found.step, "scores": found.scores, "even": found.even, "first": found.first_loss,
             "second": found.second_loss}
            for found in history.inside
        ],
        "train": points[:: -(-len(points) // MAX_TRAIN_POINTS) or 1],
    }  # fmt: skip
