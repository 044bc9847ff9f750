"""A resumed run reads the text that it began with: a changed one is refused, another path to it is not."""

from __future__ import annotations

import gzip
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from same_runs import assert_same_run
from transformer.training import checkpoint

pytestmark = pytest.mark.usefixtures("plain_pictures")

Command = Callable[..., Any]
TINY = ("train", "--preset", "tiny", "--device", "cpu", "--num-layers", "1", "--batch-size", "2", "--log-every", "1")
TINY += (
    "--epochs",
    "2",
    "--eval-every",
    "4",
    "--schedule",
    "constant",
    "--warmup-fraction",
    "0",
    "--trackers",
    "--sample-tokens",
    "0",
    "--checkpoint-dir",
)
STATE = "training_state_byte.pt"


def story(sentences: int) -> str:
    chance = random.Random(0)
    return "".join(
        " ".join(chance.choices(["the", "cat", "sat", "on", "a", "mat"], k=9)) + ".\n" for _ in range(sentences)
    )


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with notes.txt, a run on it of four steps in stopped/, and the same run of eight in whole/."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "notes.txt").write_text(story(30), encoding="utf-8", newline="\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("THP_MEM_ALLOC_ENABLE", "1")
        patch.setattr(sys, "path", list(sys.path))
        from main import main

        for name, steps in (("whole", "8"), ("stopped", "4")):
            assert main([*TINY, name, "--dataset", "notes.txt", "--max-steps", steps]) == 0
    return folder


@pytest.fixture
def here(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path, dirs_exist_ok=True))


RESUME = ("train", "--resume", "--checkpoint-dir", "stopped", "--max-steps", "8")


def test_a_run_begins_with_what_its_text_holds(command: Command, here: Path) -> None:
    (here / "notes").mkdir()
    (here / "notes.txt").rename(here / "notes" / "a.txt")
    (here / "notes" / "b.csv").touch()
    outcome = command(*TINY, "run", "--dataset", "notes", "--max-steps", "1")
    size = (here / "notes" / "a.txt").stat().st_size
    assert outcome.out.splitlines()[0] == f"notes: 1 file, 1 document, {size:,} bytes of text; 1 file skipped (1 .csv)"


def test_a_changed_text_is_refused_and_nothing_is_touched(command: Command, here: Path) -> None:
    """The run went on without a word; its epochs and its validation text meant something else from then on."""
    with (here / "notes.txt").open("a", encoding="utf-8") as file:
        file.write(story(10))
    before = {path: path.read_bytes() for path in (here / "stopped").rglob("*") if path.is_file()}
    outcome = command(*RESUME)
    assert outcome.status == 2
    assert outcome.err.startswith("error: the text of notes.txt has changed: the run has read 1 file, 1 document, ")
    assert outcome.err.endswith("restore the text, or give --changed-text to continue with the changed one\n")
    assert {path: path.read_bytes() for path in (here / "stopped").rglob("*") if path.is_file()} == before


def test_a_changed_text_is_accepted_by_a_flag_once_and_epochs_keep_their_length(command: Command, here: Path) -> None:
    length = checkpoint.load(here / "stopped" / STATE)["text"]["tokens_per_epoch"]
    (here / "notes.txt").write_text(story(60), encoding="utf-8")
    outcome = command(*RESUME[:-1], "6", "--changed-text")
    assert outcome.status == 0, outcome.err
    assert "the text has changed: it is read from its start" in outcome.out
    state = checkpoint.load(here / "stopped" / STATE)
    assert (state["step"], state["data"]["epoch"], state["text"]["tokens_per_epoch"]) == (6, 1, length)
    outcome = command(*RESUME)
    assert outcome.status == 0, outcome.err
    assert "has changed" not in outcome.out


@pytest.mark.parametrize("how", ["absolute", "from another folder", "moved and compressed"])
def test_the_same_text_under_another_path_is_accepted(
    command: Command, here: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run resumed from another directory heard that --dataset contradicts the run."""
    flags, resume = ("--dataset", how), RESUME
    if how == "absolute":
        flags = ("--dataset", str(here / "notes.txt"))
    elif how == "from another folder":
        (here / "below").mkdir()
        monkeypatch.chdir(here / "below")
        flags, resume = (
            ("--dataset", "../notes.txt"),
            tuple(f"../{word}" if word == "stopped" else word for word in RESUME),
        )
        outcome = command(*resume)
        assert outcome.err.startswith("error: the run reads notes.txt, which does not exist in ")
        assert outcome.err.endswith("give --dataset with its path now\n")
    elif how == "moved and compressed":
        (here / "n.txt.gz").write_bytes(gzip.compress((here / "notes.txt").read_bytes()))
        (here / "notes.txt").unlink()
        flags = ("--dataset", "n.txt.gz")
    outcome = command(*resume, *flags)
    assert outcome.status == 0, outcome.err
    assert_same_run(here / "stopped", here / "whole")


def test_another_text_is_refused_even_if_it_is_named(command: Command, here: Path) -> None:
    (here / "other.txt").write_text(story(31), encoding="utf-8")
    assert "the text of other.txt has changed" in command(*RESUME, "--dataset", "other.txt").err
    assert "--dataset hf:a/b: the run has notes.txt" in command(*RESUME, "--dataset", "hf:a/b").err


def test_a_state_without_a_digest_is_resumed_with_a_note(command: Command, here: Path) -> None:
    state = here / "stopped" / STATE
    checkpoint.save(state, {name: value for name, value in checkpoint.load(state).items() if name != "text"})
    assert "--dataset n.txt: the run has notes.txt" in command(*RESUME, "--dataset", "n.txt").err
    outcome = command(*RESUME, "--dataset", "./notes.txt")
    assert outcome.status == 0, outcome.err
    assert "this state is older than the check of its text" in outcome.out
    assert_same_run(here / "stopped", here / "whole")


@pytest.mark.parametrize("flags", [(), ("--resume", "--set", "seed=1,2")])
def test_the_flag_needs_one_run_to_resume(command: Command, here: Path, flags: tuple[str, ...]) -> None:
    outcome = command("train", "--preset", "tiny", "--changed-text", *flags)
    assert outcome.err == (
        "error: --changed-text is for one run that continues: give it with --resume, and without --set\n"
    )


def test_evaluate_and_compare_say_that_the_held_out_text_may_have_been_trained_on(command: Command, here: Path) -> None:
    """A document that moved from training to the held-out text gave a better score than it should."""
    (model,) = checkpoint.epochs(here / "whole")
    assert "has changed" not in command("evaluate", "--checkpoint", str(model)).out
    (here / "notes.txt").write_text(story(60), encoding="utf-8")
    said = f"notes.txt has changed since {model} was saved: the model may have been trained on this text\n"
    assert said in command("evaluate", "--checkpoint", str(model)).out
    assert said in command("compare", str(model)).out
    assert "has changed" not in command("evaluate", "--checkpoint", str(model), "--text-file", "notes.txt").out
