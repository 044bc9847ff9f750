"""The seams between commands: what train writes, generate, evaluate, compare, plot and --resume read.

And every kind of slip: exit status 2, one line that begins with "error:", and nothing written.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from transformer.config import SAMPLING_PRESETS
from transformer.data.open import open_dataset
from transformer.perplexity import evaluate_perplexity
from transformer.presets import PRESETS
from transformer.reporting.metrics_log import read_metrics
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.events import EpochMetrics, EvalMetrics, RunEnded, RunStarted, StepMetrics

pytestmark = pytest.mark.usefixtures("plain_pictures")

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., Any]
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "red", "hens", "run", "up", "the", "hill"]
TRAIN = ("train", "--preset", "tiny", "--dataset", "story.txt", "--seq-length", "16", "--batch-size", "4")
"""Trains for a second, in checkpoints_tiny."""


def story(lines: int = 150, seed: int = 0) -> str:
    chance = random.Random(seed)
    return "".join(" ".join(chance.choices(WORDS, k=9)).capitalize() + ".\n" for _ in range(lines))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_main(*arguments: str) -> tuple[int, str]:
    """Returns exit status and standard output, also where the command ends with SystemExit, as --help does."""
    from main import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            status = main(list(arguments))
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, out.getvalue()


def error_line(outcome: Any) -> str:
    """Returns what follows "error: " on the only line of standard error."""
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.out
    return str(outcome.err.removeprefix("error: ").strip())


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with story.txt and a run of 20 steps on it, and what train printed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "story.txt").write_text(story(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("THP_MEM_ALLOC_ENABLE", "1")
        patch.setattr(sys, "path", list(sys.path))
        status, out = run_main(*TRAIN, "--max-steps", "20", "--eval-every", "10", "--log-every", "5")
    assert status == 0
    return folder, out


@pytest.fixture
def trained(finished_run: tuple[Path, str], tmp_path: Path) -> Path:
    """tmp_path with a copy of the finished run in it, to read or to spoil."""
    shutil.copytree(finished_run[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


# Train


def test_train_says_what_it_does_and_leaves_what_it_says(finished_run: tuple[Path, str]) -> None:
    folder, out = finished_run
    assert "2 layers, width 32, 2 heads, vocabulary 257; on cpu" in out
    assert "story.txt: 20 steps of 64 tokens" in out
    assert len(re.findall(r"^step \d+: loss \d\.\d+ ", out, re.MULTILINE)) == 4
    assert re.search(r"^step 10: validation loss .*perplexity .*bits per byte$", out, re.MULTILINE)
    assert re.search(r"^epoch 1: train loss .*saved checkpoints_tiny.model_epoch_1_byte.pt$", out, re.MULTILINE)
    assert "trained on 1,280 tokens" in out
    left = sorted(path.name for path in (folder / "checkpoints_tiny").iterdir())
    assert left == [
        ".run.lock",
        "loss_curve.png",
        "loss_curve.svg",
        "metrics.jsonl",
        "model_epoch_1_byte.pt",
        "tensorboard",
        "training_state_byte.pt",
        "training_state_byte_previous.pt",
    ]
    assert (folder / "checkpoints_tiny" / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_metrics_file_holds_the_run(finished_run: tuple[Path, str]) -> None:
    events = read_metrics(finished_run[0] / "checkpoints_tiny" / "metrics.jsonl")
    told = [(type(event), event.step) for event in events]
    assert told[0] == (RunStarted, 0)
    assert [step for kind, step in told if kind is StepMetrics] == [5, 10, 15, 20]
    assert [step for kind, step in told if kind is EvalMetrics] == [10, 20]
    assert told[-2:] == [(EpochMetrics, 20), (RunEnded, 20)]


def test_piped_output_has_no_control_codes_and_no_lines_broken_in_two(finished_run: tuple[Path, str]) -> None:
    _, out = finished_run
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", out) == []
    for line in out.splitlines():
        assert line == line.rstrip()
        table = r"(parameters|length|compute|precision|memory|disk) "
        lines = r"\d\.\d\dM parameters|story\.txt:|step \d|epoch \d|\w+: validation .* train |trained on|loss curve:"
        assert re.match(f"({table}|{lines})", line), line


@pytest.mark.parametrize("kind", ["txt", "md", "jsonl", "parquet", "folder"])
def test_train_reads_ones_own_text_with_one_flag(command: Command, tmp_path: Path, kind: str) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    pieces = [story(12, seed) for seed in range(12)]
    if kind in ("txt", "md", "folder"):
        (notes / ("a.md" if kind == "md" else "a.txt")).write_text("\n".join(pieces[:6]), encoding="utf-8")
    if kind in ("jsonl", "folder"):
        rows = [json.dumps({"id": n, "text": piece}) for n, piece in enumerate(pieces)]
        (notes / "b.jsonl").write_text("\n".join(rows), encoding="utf-8")
    if kind in ("parquet", "folder"):
        pq.write_table(pa.table({"text": pieces, "n": range(12)}), notes / "c.parquet")
    dataset = "notes" if kind == "folder" else f"notes/{next(notes.iterdir()).name}"
    outcome = command("train", "--preset", "tiny", "--dataset", dataset, "--max-steps", "2")
    assert outcome.status == 0, outcome.err
    assert f"{dataset}: 2 steps" in outcome.out
    assert command("evaluate").status == 0


def test_a_vocabulary_of_ones_own_is_trained_and_goes_with_the_model(command: Command, tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(story(), encoding="utf-8")
    outcome = command(*TRAIN, "--max-steps", "3", "--encoding", "bpe280", "--checkpoint-dir", "checkpoints")
    assert outcome.status == 0, outcome.err
    assert "vocabulary 280" in outcome.out
    (tmp_path / "story.txt").unlink()  # the text is not needed for writing
    written = command("generate", "--prompt", "The cat", "--max-new-tokens", "5", "--seed", "1")
    assert written.status == 0, written.err
    assert "model_epoch_1_bpe280.pt (bpe280," in written.err


def test_a_name_with_brackets_is_printed_as_it_is(command: Command, tmp_path: Path) -> None:
    """Rich read [old] as a style and left it out, so that the path which train printed did not exist."""
    (tmp_path / "story[old].txt").write_text(story(), encoding="utf-8")
    arguments = [{"story.txt": "story[old].txt"}.get(argument, argument) for argument in TRAIN]
    outcome = command(*arguments, "--max-steps", "2", "--checkpoint-dir", "checkpoints[b]")
    assert "story[old].txt: 2 steps" in outcome.out
    assert str(Path("checkpoints[b]/model_epoch_1_byte.pt")) in outcome.out
    written = command("generate", "--prompt", "x", "--max-new-tokens", "1")
    assert str(Path("checkpoints[b]/model_epoch_1_byte.pt")) in written.err


def test_a_name_like_a_closing_tag_is_no_traceback(command: Command, tmp_path: Path) -> None:
    assert "does not exist" in error_line(command("train", "--preset", "tiny", "--dataset", "story[/b].txt"))


def test_settings_of_a_preset_can_be_turned_back(command: Command, tmp_path: Path) -> None:
    """The modern preset has no biases; --bias gives them, as --no-bias takes them from the others."""
    from transformer.cli.train.options import read_options

    assert not read_options(["--preset", "modern"]).config.model.bias
    assert not read_options(["--preset", "tiny", "--no-bias"]).config.model.bias
    assert read_options(["--preset", "modern", "--bias"]).config.model.bias


def test_mask_documents_is_a_flag_that_goes_with_the_model(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [json.dumps({"text": story(1, seed)}) for seed in range(60)]  # documents of some 40 bytes
    (tmp_path / "story.jsonl").write_text("\n".join(pieces), encoding="utf-8")
    replaced = {"story.txt": "story.jsonl", "16": "32"}
    train = (*(replaced.get(argument, argument) for argument in TRAIN), "--max-steps", "4", "--mask-documents")
    outcome = command(*train)
    assert outcome.status == 0, outcome.err
    loaded = checkpoint.load_model(tmp_path / "checkpoints_tiny" / "model_epoch_1_byte.pt")
    assert loaded.config.data.mask_documents
    rows = open_dataset(loaded.config.data, loaded.tokenizer).validation
    masked, plain = (evaluate_perplexity(loaded.model, *rows, end_of_text=end).loss for end in (256, None))
    assert masked == pytest.approx(loaded.contents["metrics"]["validation_loss"], rel=1e-6)
    assert plain != pytest.approx(masked, rel=1e-6)
    for name in ("evaluate", "compare"):  # which read each document alone
        outcome = command(name)
        assert outcome.status == 0, outcome.err

    with monkeypatch.context() as patch:
        interrupted_at(patch, 3)
        assert command(*train, "--eval-every", "2", "--checkpoint-dir", "stopped").status == 130
    outcome = command("train", "--resume", "--checkpoint-dir", "stopped")
    assert outcome.status == 0, outcome.err
    resumed = checkpoint.load_model(tmp_path / "stopped" / "model_epoch_1_byte.pt")
    assert resumed.config.data.mask_documents
    assert resumed.contents["metrics"] == loaded.contents["metrics"]


# Stopping and going on


def interrupted_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """From now on, a run is interrupted, as by Ctrl-C, when it is about to take this step."""
    take = Trainer.train_step

    def train_step(self: Trainer) -> None:
        if self.step == step:
            raise KeyboardInterrupt
        take(self)

    patch.setattr(Trainer, "train_step", train_step)


def test_a_run_that_was_interrupted_is_resumed_and_ends_with_the_same_weights(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "story.txt").write_text(story(), encoding="utf-8")
    cadence = ("--max-steps", "12", "--eval-every", "4", "--log-every", "3")
    assert command(*TRAIN, *cadence, "--checkpoint-dir", "whole").status == 0
    with monkeypatch.context() as patch:
        interrupted_at(patch, 10)
        outcome = command(*TRAIN, *cadence, "--checkpoint-dir", "stopped")
    assert outcome.status == 130
    assert outcome.err == "\nstopped\n"
    outcome = command("train", "--resume", "--checkpoint-dir", "stopped")
    assert outcome.status == 0, outcome.err
    assert "resuming from stopped" in outcome.out
    assert "step 8" in outcome.out
    whole, stopped = (checkpoint.load(tmp_path / name / "model_epoch_1_byte.pt") for name in ("whole", "stopped"))
    for name, value in whole["model"].items():
        assert torch.equal(value, stopped["model"][name]), name
    events = read_metrics(tmp_path / "stopped" / "metrics.jsonl")
    assert [event.step for event in events if isinstance(event, StepMetrics)] == [3, 4, 6, 8, 9, 12]
    assert [event.step for event in events if isinstance(event, EvalMetrics)] == [4, 8, 12]


def test_a_finished_run_resumed_is_no_error(command: Command, trained: Path) -> None:
    before = snapshot(trained)["checkpoints_tiny/model_epoch_1_byte.pt"]
    outcome = command("train", "--resume", "--preset", "tiny")
    assert outcome.status == 0, outcome.err
    assert "already finished: the run has taken all of its 20 steps" in outcome.out
    assert "trained on" not in outcome.out
    assert snapshot(trained)["checkpoints_tiny/model_epoch_1_byte.pt"] == before


def test_a_run_is_resumed_without_its_metrics_file(command: Command, trained: Path) -> None:
    (trained / "checkpoints_tiny" / "metrics.jsonl").unlink()
    (trained / "checkpoints_tiny" / "loss_curve.png").unlink()
    assert command("train", "--resume", "--preset", "tiny").status == 0


def test_an_error_before_the_first_step_leaves_an_earlier_runs_metrics(command: Command, trained: Path) -> None:
    """--seed -1 was found out only after the metrics file had been emptied."""
    before = snapshot(trained)
    assert "seed=-1" in error_line(command(*TRAIN, "--max-steps", "2", "--seed", "-1"))
    assert snapshot(trained) == before


# Generate


def test_generate_names_the_checkpoint_that_was_trained(command: Command, trained: Path) -> None:
    outcome = command("generate", "--prompt", "The cat", "--max-new-tokens", "12", "--seed", "7")
    assert outcome.status == 0, outcome.err
    named = outcome.err.splitlines()[0]
    assert named.startswith(str(Path("checkpoints_tiny/model_epoch_1_byte.pt")) + " (byte, ")
    assert "step 20, 1,280 tokens seen" in named


def test_the_same_seed_gives_the_same_text_and_another_one_another(command: Command, trained: Path) -> None:
    first, second, other = (
        command("generate", "--prompt", "The", "--seed", seed, "--max-new-tokens", "40").out for seed in ("7", "7", "8")
    )
    assert first == second
    assert first != other


def test_the_seed_that_was_drawn_gives_the_text_again(command: Command, trained: Path) -> None:
    first = command("generate", "--prompt", "The", "--max-new-tokens", "30")
    seed = re.search(r"seed (\d+)", first.err)
    assert seed is not None
    assert command("generate", "--prompt", "The", "--max-new-tokens", "30", "--seed", seed[1]).out == first.out


@pytest.mark.parametrize("prompt", ["", " ", "\n", "é低🙂", "<|endoftext|>", "The cat sat on the mat. " * 20])
def test_any_prompt_is_continued(command: Command, trained: Path, prompt: str) -> None:
    outcome = command("generate", "--prompt", prompt, "--max-new-tokens", "5", "--seed", "1")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith(prompt)


@pytest.mark.parametrize("preset", SAMPLING_PRESETS)
def test_every_preset_writes_with_its_own_settings(command: Command, trained: Path, preset: str) -> None:
    outcome = command("generate", "--prompt", "a", "--preset", preset, "--max-new-tokens", "3", "--seed", "1")
    assert outcome.status == 0, outcome.err
    assert f"strategy {SAMPLING_PRESETS[preset].strategy}" in outcome.err


@pytest.mark.parametrize("strategy", ["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"])
def test_every_strategy_writes(command: Command, trained: Path, strategy: str) -> None:
    outcome = command("generate", "--prompt", "a", "--strategy", strategy, "--max-new-tokens", "3", "--seed", "1")
    assert outcome.status == 0, outcome.err
    assert f"strategy {strategy}" in outcome.err


def test_a_flag_beside_a_preset_changes_that_setting_only(command: Command, trained: Path) -> None:
    outcome = command("generate", "--prompt", "a", "--preset", "precise", "--top-k", "3", "--max-new-tokens", "2")
    assert "strategy top_k_top_p, temperature 0.5, top_k 3, top_p 0.8" in outcome.err


def test_list_presets_needs_no_checkpoint(command: Command) -> None:
    outcome = command("generate", "--list-presets")
    assert outcome.status == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == list(SAMPLING_PRESETS)
    assert "temperature 0.5, top_k 20, top_p 0.8" in outcome.out


def test_the_latest_checkpoint_is_by_number_and_by_folder(command: Command, trained: Path) -> None:
    folder = trained / "checkpoints_tiny"
    for epoch in (9, 10):
        shutil.copy(folder / "model_epoch_1_byte.pt", folder / f"model_epoch_{epoch}_byte.pt")
    os.utime(folder / "model_epoch_9_byte.pt")  # written last
    quick = ("generate", "--prompt", "a", "--max-new-tokens", "1")
    assert "model_epoch_10_byte.pt (byte" in command(*quick).err
    older = trained / "checkpoints_older"
    older.mkdir()
    shutil.copy(folder / "model_epoch_1_byte.pt", older / "model_epoch_50_byte.pt")
    os.utime(older / "model_epoch_50_byte.pt", (1, 1))
    assert "model_epoch_10_byte.pt (byte" in command(*quick).err
    assert "model_epoch_50_byte.pt (byte" in command(*quick, "--checkpoint", str(older / "model_epoch_50_byte.pt")).err


def test_generate_uses_the_run_just_trained_where_an_earlier_one_was_longer(command: Command, tmp_path: Path) -> None:
    """Three epochs, then a new run of one epoch in the same folder: epoch 3 of the old run was "the latest"."""
    (tmp_path / "story.txt").write_text(story(), encoding="utf-8")
    short = (*TRAIN, "--tokens-per-epoch", "128", "--max-steps", "1000", "--epochs")
    assert command(*short, "3").status == 0
    assert command(*short, "1", "--num-layers", "1").status == 0
    outcome = command("generate", "--prompt", "a", "--max-new-tokens", "1")
    assert "model_epoch_1_byte.pt" in outcome.err


# Evaluate, compare, plot


def numbers(table: str, row: str) -> list[float]:
    line = next(line for line in table.splitlines() if row in line)
    return [float(cell.replace(",", "")) for cell in re.findall(r"[\d,]+\.\d+", line)]


def test_evaluate_counts_the_tokens_that_trainings_last_look_counted(command: Command, trained: Path) -> None:
    """Windows that overlap give them more context than the look's rows, and a model of 20 steps hardly uses it."""
    outcome = command("evaluate")
    assert outcome.status == 0, outcome.err
    events = read_metrics(trained / "checkpoints_tiny" / "metrics.jsonl")
    look = [event for event in events if isinstance(event, EvalMetrics)][-1]
    assert "checkpoints_tiny" in outcome.out.splitlines()[0]
    assert numbers(outcome.out, "│ loss")[0] == pytest.approx(look.loss, rel=0.01)
    assert numbers(outcome.out, "│ perplexity")[0] == pytest.approx(look.perplexity, rel=0.03)
    assert numbers(outcome.out, "│ bits per byte")[0] == pytest.approx(look.bits_per_byte, rel=0.01)
    assert f"{look.tokens:,} tokens" in outcome.out


def test_compare_ranks_by_bits_per_byte(command: Command, trained: Path) -> None:
    assert command(*TRAIN, "--max-steps", "200", "--checkpoint-dir", "checkpoints_longer").status == 0
    outcome = command("compare")
    assert outcome.status == 0, outcome.err
    rows = [line for line in outcome.out.splitlines() if "model_epoch" in line]
    assert ["longer" in row for row in rows] == [True, False]
    scores = [numbers(row, "model_epoch")[0] for row in rows]
    assert scores == sorted(scores)
    only = command("compare", "--directory", "checkpoints_tiny").out
    assert "longer" not in only
    assert "checkpoints_tiny" in only


def test_compare_leaves_out_a_damaged_checkpoint_and_says_so(command: Command, trained: Path) -> None:
    (trained / "checkpoints_tiny" / "model_epoch_2_byte.pt").write_bytes(b"PK junk")
    outcome = command("compare")
    assert outcome.status == 0, outcome.err
    assert re.search(r"left out: \S*model_epoch_2_byte.pt is damaged", outcome.out)
    assert "│ checkpoints_tiny" in outcome.out


def test_compare_leaves_out_a_checkpoint_whose_text_is_gone(command: Command, trained: Path) -> None:
    """One text that had been moved away kept all the other checkpoints from being ranked."""
    (trained / "other.txt").write_text(story(seed=1), encoding="utf-8")
    arguments = [{"story.txt": "other.txt"}.get(argument, argument) for argument in TRAIN]
    assert command(*arguments, "--max-steps", "2", "--checkpoint-dir", "checkpoints_other").status == 0
    (trained / "other.txt").unlink()
    outcome = command("compare")
    assert outcome.status == 0, outcome.err
    assert re.search(r"left out: .*other.txt does not exist", outcome.out)
    assert "│ checkpoints_tiny" in outcome.out


def test_plot_draws_the_latest_run_or_those_named(
    command: Command, trained: Path, plain_pictures: pytest.MonkeyPatch
) -> None:
    plain_pictures.undo()
    for picture in (trained / "checkpoints_tiny").glob("loss_curve.*"):
        picture.unlink()
    outcome = command("plot")
    assert outcome.status == 0, outcome.err
    pictures = [Path("checkpoints_tiny/loss_curve.png"), Path("checkpoints_tiny/loss_curve.svg")]
    assert outcome.out.split() == [str(picture) for picture in pictures]
    assert all((trained / picture).stat().st_size > 20_000 for picture in pictures)
    shutil.copytree(trained / "checkpoints_tiny", trained / "checkpoints_second")
    outcome = command("plot", "checkpoints_tiny", "checkpoints_second/metrics.jsonl", "--out", "both.svg")
    assert outcome.status == 0, outcome.err
    text = (trained / "both.svg").read_text(encoding="utf-8")
    assert "checkpoints_tiny: train" in text
    assert "checkpoints_second: train" in text


def test_plot_of_several_runs_is_a_picture_beside_them_and_a_table(
    command: Command, trained: Path, plain_pictures: pytest.MonkeyPatch
) -> None:
    plain_pictures.undo()
    for name in ("first", "second"):
        shutil.copytree(trained / "checkpoints_tiny", trained / "sweep" / name)
    (trained / "sweep" / "first" / "loss_curve.png").unlink()
    outcome = command("plot", "sweep", "--against", "steps")  # a folder of runs is all of them
    assert outcome.status == 0, outcome.err
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in outcome.out.splitlines() if "│" in line]
    assert sorted(row[0] for row in rows) == ["first", "second"]
    look = [event for event in read_metrics(trained / "sweep/first/metrics.jsonl") if isinstance(event, EvalMetrics)]
    best = min(look, key=lambda event: event.loss)
    told = ["20", "1,280", f"{best.loss:.4f}", f"{look[-1].loss:.4f}", f"{best.bits_per_byte:.3f}"]
    assert [rows[0][column] for column in (1, 2, 4, 5, 6)] == told
    assert outcome.out.splitlines()[-2:] == [str(Path("sweep/comparison.png")), str(Path("sweep/comparison.svg"))]
    assert "steps" in (trained / "sweep" / "comparison.svg").read_text(encoding="utf-8")
    outcome = command("plot", "sweep/first", "checkpoints_tiny")  # in two folders
    assert outcome.out.splitlines()[-2:] == [str(Path("runs/comparison.png")), str(Path("runs/comparison.svg"))]


# Slips

TINY = ("train", "--preset", "tiny")
SLIPS: dict[str, tuple[tuple[str, ...], str]] = {
    "a command misspelt": (("genrate",), "there is no command 'genrate'; did you mean 'generate'?"),
    "a command of nothing like": (("xyzzy",), "there is no command 'xyzzy' (see main.py --help)"),
    "a flag misspelt": (("train", "--bacth-size", "4"), "did you mean --batch-size?"),
    "a flag of another command": (("evaluate", "--prompt", "x"), "--prompt"),
    "a word too many": (("generate", "a", "b"), "main.py generate --help"),
    "text for a number": (("train", "--batch-size", "many"), "--batch-size"),
    "a number without its flag": (("train", "12"), "12"),
    "a flag without its number": (("train", "--batch-size"), "--batch-size"),
    "a half for a whole number": (("train", "--epochs", "1.5"), "--epochs"),
    "a preset misspelt": (("train", "--preset", "tniy"), "did you mean 'tiny'?"),
    "a choice misspelt": (("train", "--activation", "gleu"), "gelu"),
    "a sampling preset misspelt": (("generate", "--preset", "creativ"), "did you mean 'creative'?"),
    "a strategy misspelt": (("generate", "--strategy", "topk"), "top_k"),
    "a dataset that is missing": ((*TINY, "--dataset", "nowhere.txt"), "nowhere.txt does not exist"),
    "a dataset that is empty": ((*TINY, "--dataset", "empty.txt"), "empty.txt holds no text"),
    "a dataset of blanks": ((*TINY, "--dataset", "blank.md"), "blank.md holds no text"),
    "a dataset that is binary": ((*TINY, "--dataset", "junk.txt"), "junk.txt is not UTF-8 text"),
    "a dataset with NULs": ((*TINY, "--dataset", "nul.txt"), "nul.txt is binary, not text"),
    "a dataset of another kind": ((*TINY, "--dataset", "image.png"), "image.png is not .txt, .md, .jsonl, .parquet"),
    "an empty folder": ((*TINY, "--dataset", "folder"), "folder folder has no usable file"),
    "a text too short": ((*TINY, "--dataset", "short.txt"), "give more text, or a smaller seq_length"),
    "one letter": ((*TINY, "--dataset", "letter.txt"), "1 characters cannot be split"),
    "broken jsonl": ((*TINY, "--dataset", "broken.jsonl"), "broken.jsonl line 2 is not JSON"),
    "jsonl without the field": ((*TINY, "--dataset", "body.jsonl"), "its fields are 'body'"),
    "parquet that is not": ((*TINY, "--dataset", "fake.parquet"), "fake.parquet is not a readable parquet file"),
    "no dataset at all": ((*TINY, "--dataset", ""), "dataset is empty"),
    "an encoding misspelt": ((*TINY, "--dataset", "good.txt", "--encoding", "p50k"), "did you mean p50k_base?"),
    "a vocabulary too small": ((*TINY, "--dataset", "good.txt", "--encoding", "bpe99"), "is below 257"),
    "a vocabulary too large": ((*TINY, "--dataset", "good.txt", "--encoding", "bpe90000"), "--encoding bpe"),
    "a vocabulary of another order": ((*TINY, "--encoding", "bpe99999999999"), "must be at most bpe10000000"),
    "a batch of another order": ((*TINY, "--batch-size", str(10**12)), "must be at most 1000000"),
    "epochs of another order": ((*TINY, "--epochs", str(10**22), "--dry-run"), "must be at most 1000000000"),
    "texts of another order": (("generate", "--prompt", "x", "--num-samples", str(10**11)), "at most 1000000"),
    "a text of another order": (("generate", "--prompt", "x", "--max-new-tokens", str(10**30)), "at most 10000000"),
    "samples of another order": (("demo-sampling", "--with-model", "--max-new-tokens", str(10**12)), "at most"),
    "a seed whose sample is too large": (("generate", "--seed", str(2**63 - 1), "--num-samples", "2"), f"seed={2**63}"),
    "a demo whose last text has a seed too large": (("demo", "--seed", str(2**63 - 1)), "must be from 0 to 2"),
    "a prompt that may be a flag": (("generate", "--prompt", "--json"), "--prompt"),
    "a prompt in another encoding": (
        ("generate", "--prompt", "caf\udce9"),
        "--prompt is not UTF-8 text (byte 3 is 0xe9)",
    ),
    "a vocabulary size": ((*TINY, "--vocab-size", "512"), "choose --encoding, for example bpe2048"),
    "a vocabulary size, written together": ((*TINY, "--vocab_size=512"), "choose --encoding, for example bpe2048"),
    "a row longer than the context": ((*TINY, "--seq-length", "64"), "set max_seq_len to 64 as well"),
    "heads that do not divide": ((*TINY, "--d-model", "33"), "d_model=33 is not divisible by num_heads=2"),
    "not a number": ((*TINY, "--learning-rate", "nan"), "learning_rate=nan is not a finite number"),
    "a seed below 0": ((*TINY, "--dataset", "good.txt", "--seed", "-1"), "seed=-1"),
    "a seed too large": ((*TINY, "--dataset", "good.txt", "--seed", str(10**25)), f"seed={10**25}"),
    "nothing to resume": (("train", "--resume"), "nothing to resume"),
    "a folder that is a file": ((*TINY, "--dataset", "good.txt", "--checkpoint-dir", "good.txt"), "good.txt"),
    "no checkpoint yet": (("generate", "--prompt", "x"), "no checkpoint found: train one first"),
    "nothing to evaluate": (("evaluate",), "no checkpoint found: train one first"),
    "nothing to compare": (("compare",), "no checkpoint found in the folders checkpoints*: train one first"),
    "nothing to compare there": (("compare", "--directory", "folder"), "no checkpoint found in folder"),
    "nothing to plot": (("plot",), "no run found here: train a model first"),
    "nothing to plot there": (("plot", "folder"), "there is no metrics file"),
    "a picture of nothing": (("plot", "nowhere"), "there is no file or folder nowhere"),
    "a picture of no kind": (("plot", "good.txt", "--out", "curve"), "end it in .png, .svg or .pdf"),
    "a picture against what there is not": (("plot", "--against", "epochs"), "--against"),
    "a picture of a text": (("plot", "good.txt"), "good.txt, line 1: not a line of metrics"),
    "a picture of a picture": (("plot", "image.png"), "image.png"),
    "a checkpoint that is missing": (("generate", "--checkpoint", "gone.pt"), "there is no checkpoint gone.pt"),
    "a text as checkpoint": (("generate", "--checkpoint", "good.txt", "--prompt", "x"), "good.txt is damaged or not"),
    "a folder without a checkpoint": (("evaluate", "--checkpoint", "folder"), "no checkpoint found in folder"),
    "a negative temperature": (("generate", "--temperature", "-1"), "temperature=-1.0 must not be below 0"),
    "a negative temperature, written together": (("generate", "--temperature=-1"), "must not be below 0"),
    "top_p 0": (("generate", "--top-p", "0"), "top_p=0.0 must be above 0 and at most 1"),
    "top_k 0": (("generate", "--top-k", "0"), "top_k=0 must be above 0"),
    "several sampling settings": (("generate", "--top-k", "0", "--temperature", "-2"), "; temperature=-2.0"),
    "nothing to write": (("generate", "--prompt", "x", "--max-new-tokens", "0"), "max_new_tokens=0"),
}


def spoilt_folder(folder: Path) -> None:
    """Fills a folder with files that cannot be trained on."""
    (folder / "folder").mkdir()
    texts = {
        "empty.txt": "",
        "blank.md": " \n\n\t ",
        "short.txt": "The cat sat on the mat.",
        "letter.txt": "x",
        "nul.txt": "The cat\0 sat",
        "broken.jsonl": '{"text": "fine"}\nnot fine\n',
        "body.jsonl": '{"body": "The cat sat on the mat."}\n',
        "fake.parquet": "PAR1, so to speak",
        "good.txt": story(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("junk.txt", "image.png"):
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(128, 256)) * 30)


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_one_clear_line_and_writes_nothing(command: Command, tmp_path: Path, slip: str) -> None:
    spoilt_folder(tmp_path)
    before = snapshot(tmp_path)
    arguments, said = SLIPS[slip]
    assert said in error_line(command(*arguments))
    assert snapshot(tmp_path) == before


def test_a_short_run_gets_one_plain_sentence_for_all_its_epochs(command: Command, tmp_path: Path) -> None:
    """Each epoch apologised for curves with too few points in a sentence of its own."""
    (tmp_path / "notes.txt").write_text(story(8), encoding="utf-8")
    outcome = command(*TINY, "--dataset", "notes.txt", "--epochs", "3", "--max-steps", "3", "--batch-size", "99")
    assert outcome.out.count("epoch 3: ") == 1, outcome.err
    assert outcome.out.count("uncertain: too few points: a verdict takes four evaluations\n") == 1


def test_several_problems_are_reported_at_once(command: Command, tmp_path: Path) -> None:
    said = error_line(command(*TINY, "--epochs", "0", "--learning-rate", "-1", "--dropout", "2", "--d-model", "33"))
    for part in ("epochs=0", "learning_rate=-1.0", "dropout=2.0", "d_model=33 is not divisible by num_heads=2"):
        assert part in said


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="has Apple's GPU")
@pytest.mark.parametrize("flags", [("--mps",), ("--device", "mps")])
def test_mps_without_apples_gpu_is_said_before_any_text_is_fetched(
    command: Command, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """The dataset came first, so that a machine without a network heard about FineWeb-Edu instead."""
    outcome = command("train", *flags, "--dataset", "nowhere.txt")
    assert "Apple's GPU (MPS) was not found; available:" in error_line(outcome)
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("name", ["generate", "evaluate", "compare"])
def test_an_unknown_device_is_one_line(command: Command, trained: Path, name: str) -> None:
    assert "unknown device 'gpu': one of auto, cuda, mps, cpu" in error_line(command(name, "--device", "gpu"))


# Help


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_main_lists_all_commands(command: Command, arguments: tuple[str, ...]) -> None:
    import main

    outcome = command(*arguments)
    assert outcome.status == 0
    assert outcome.err == ""
    listed = re.findall(r"^  ([a-z-]+) ", outcome.out, re.MULTILINE)
    assert listed == list(main.COMMANDS)
    assert {"train", "generate", "evaluate", "compare", "demo-sampling", "benchmark", "demo", "plot"} <= set(listed)


HELP = {
    "train": ["--batch-size INT", "(default: 8)", "--tokens-per-epoch", "(default: 100000000)", "--mps", "--quick"],
    "generate": ["--temperature FLOAT", "(default: 0.8)", "--top-k INT", "(default: 50)", "--prompt", "--list-presets"],
    "evaluate": [
        "--checkpoint",
        "--text-file",
        "--stride",
        "--batch-size INT",
        "(default: 16)",
        "--json",
        "--device STR",
    ],
    "compare": ["--directory", "(default: None)"],
    "inspect": ["(default: None)", "--json"],
    "plot": ["--out", "(default: None)"],
    "exercises": ["[ACTION ...]", "--folder PATH", "(default: exercises)", "--seconds FLOAT", "(default: 10.0)"],
    "demo": ["--prompt STR", "--seed INT", "(default: 1)"],
    "demo-sampling": ["--with-model", "(default:"],
    "benchmark": ["(default:"],
    "test-fineweb": ["(default:"],
}


@pytest.mark.parametrize("name", HELP)
def test_help_shows_every_setting_with_its_default(command: Command, name: str) -> None:
    status, out = run_main(name, "--help")
    assert status == 0
    words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", out).split())
    assert f"main.py {name}" in words
    for part in HELP[name]:
        assert part in words
    assert "\x1b" not in out


def test_every_setting_in_trains_help_is_explained(command: Command) -> None:
    _, out = run_main("train", "--help")
    words = re.sub(r"[│╭╮╰╯─]", " ", out)
    flags = re.split(r"\n\s+(?=--?[a-z])", words)[1:]
    assert len(flags) > 40
    for flag in flags:
        if not flag.startswith("-h"):
            assert re.search(r"\S\s+\S.*\(default:[^)]+\)", " ".join(flag.split())), flag


# Processes of their own


def process(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )


def test_a_process_trains_and_ends_with_status_0_and_nothing_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(story(), encoding="utf-8")
    done = process(tmp_path, *TRAIN, "--max-steps", "3")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"saved checkpoints_tiny" in done.stdout
    assert re.findall(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]", done.stdout) == []


def test_a_process_that_fails_says_so_with_its_status_and_on_standard_error(tmp_path: Path) -> None:
    failed = process(tmp_path, "generate", "--prompt", "x")
    assert failed.returncode == 2
    assert failed.stdout == b""
    assert len(failed.stderr.splitlines()) == 1
    assert failed.stderr.startswith(b"error: no checkpoint found")
    assert list(tmp_path.iterdir()) == []


# Terminals and files that cannot show every character


def test_a_character_that_cannot_be_shown_does_not_end_the_text(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte model may write half a character, U+FFFD, which Windows' usual code page for pipes lacks."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    with contextlib.redirect_stdout(out):
        outcome = command("generate", "--prompt", "x", "--seed", "1", "--strategy", "multinomial", "--temperature", "9")
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "cp1252", "ascii"])
def test_a_misspelt_flag_is_one_sentence_whatever_the_encoding(command: Command, encoding: str) -> None:
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding=encoding)):
        outcome = command("train", "--bacth-size", "4")
    said = error_line(outcome)
    assert said == "there is no option --bacth-size; did you mean --batch-size? (see main.py train --help)"


def test_the_presets_that_train_promises_exist() -> None:
    """The guide at the top of commands/train.py and --preset's help name them."""
    assert {"default", "quick", "tiny", "demo", "gpt2", "modern"} <= set(PRESETS)
