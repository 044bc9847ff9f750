"""train --watch-inside, and the picture that it and plot --inside draw."""

from __future__ import annotations

import random
from pathlib import Path

from conftest import Command
from transformer.reporting.film_log import read_film

TRAIN = (
    "train", "--preset", "tiny", "--dataset", "story.txt", "--max-steps", "3", "--eval-every", "2", "--log-every", "1",
    "--sample-tokens", "0", "--validation-tokens", "100", "--trackers",
)  # fmt: skip


def test_a_watched_run_is_drawn_and_filmed_and_plot_draws_it_again(command: Command, tmp_path: Path) -> None:
    words = random.Random(0).choices(["the", "cat", "sat", "on", "a", "mat"], k=2000)
    (tmp_path / "story.txt").write_text(" ".join(words), encoding="utf-8")
    outcome = command(*TRAIN, "--watch-inside", "--checkpoint-dir", "run")
    assert outcome.status == 0, outcome.err
    assert f"inside: {Path('run/inside.png')}" in outcome.out
    said = [line for line in outcome.out.splitlines() if ", inside: previous token " in line]
    assert [line.split(",")[0] for line in said] == ["step 2", "step 3"]  # the evaluations
    assert [frame.step for frame in read_film(tmp_path / "run" / "film.frames")] == [0, 1, 2, 3]
    (tmp_path / "run" / "inside.png").unlink()

    outcome = command("plot", "--inside", "run")
    assert outcome.status == 0, outcome.err
    assert outcome.out.split() == [str(Path("run/inside.png")), str(Path("run/inside.svg"))]
    assert (tmp_path / "run" / "inside.png").stat().st_size > 20_000
    assert command("plot", "--inside", "run", "--out", "a.svg").out.split() == ["a.svg"]

    outcome = command("interpret", "--film", "run")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("film.html: written, ")
    assert '"step": 3, "weights": ' in (tmp_path / "film.html").read_text(encoding="utf-8")

    outcome = command("train", "--resume", "--max-steps", "5", "--no-watch-inside", "--checkpoint-dir", "run")
    assert outcome.status == 0, outcome.err
    assert "inside" not in outcome.out

    assert command(*TRAIN, "--checkpoint-dir", "plain").status == 0
    for line, message in (
        ("plot --inside plain", "plain was trained without --watch-inside"),
        ("plot --inside run plain", "--inside draws one run, and there are 2"),
        ("plot --inside run --against seconds", "--inside is drawn against steps: leave out --against seconds"),
        ("interpret --film plain", "plain has no film: train it again with --watch-inside"),
        ("interpret --film nowhere", "there is no folder nowhere"),
        ("interpret run --film run", "--film plays the text that the run recorded: leave out a checkpoint"),
        ("interpret --film run --json", "--film plays the text that the run recorded: leave out --json"),
    ):
        outcome = command(*line.split())
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert message in outcome.err
