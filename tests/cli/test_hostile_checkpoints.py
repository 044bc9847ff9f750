"""Checkpoints from elsewhere: whatever they hold, every command says in one line why it cannot use them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fuzzing import HOSTILE, call
from transformer.text import load_tokenizer
from transformer.training import checkpoint

Command = Callable[..., Any]
Change = Callable[[dict[str, Any]], object]
READERS = {
    "inspect": ("inspect", "PATH"),
    "generate": ("generate", "--checkpoint", "PATH", "--prompt", "ab", "--max-new-tokens", "2"),
    "generate, greedy": ("generate", "--checkpoint", "PATH", "--prompt", "ab", "--preset", "greedy"),
    "evaluate": ("evaluate", "--checkpoint", "PATH", "--text-file", "notes.txt"),
    "export-page": ("export-page", "--checkpoint", "PATH", "--out", "page.html"),
    "compare": ("compare", "PATH", "--text-file", "notes.txt"),
    "train --init-from": ("train", "--init-from", "PATH", "--dataset", "notes.txt", "--checkpoint-dir", "new"),
}


def repeat_a_number(contents: dict[str, Any]) -> None:
    table = torch.ones(1, 1).expand(257, 16)
    contents["model"].update({"embeddings.token.weight": table, "head.weight": table})


SAID: dict[str, tuple[Change, str]] = {
    "init_from is a text": (lambda c: c.update(init_from="abc"), "init_from is 'abc', not a checkpoint's path"),
    "metrics are a list": (lambda c: c.update(metrics=[1]), "metrics is [1], not numbers by name"),
    "versions are a text": (lambda c: c.update(versions="2"), "versions is '2', not texts by name"),
    "the position is a list": (lambda c: c.update(data=[1]), "data is [1], not whole numbers by name"),
    "sparse weights": (
        lambda c: c["model"].update({"final_norm.weight": torch.ones(16).to_sparse()}),
        "weights that are not dense tensors of floating-point numbers: final_norm.weight",
    ),
    "a weight that repeats one number": (
        repeat_a_number,
        "weights that are not dense tensors of floating-point numbers: embeddings.token.weight",
    ),
    "nan weights": (
        lambda c: c["model"]["final_norm.weight"].fill_(torch.nan),
        "weights that hold nan or infinite numbers: final_norm.weight",
    ),
    "an encoding larger than the model": (
        lambda c: c.update(tokenizer=load_tokenizer("p50k_base").state()),
        "the encoding has 50,281 ids, the model 257",
    ),
    "a vocabulary of 400 million": (
        lambda c: c["config"]["model"].update(vocab_size=400_000_000),
        "vocab_size=400000000 must be at most 10000000",
    ),
    "a vocabulary of 9 million": (
        lambda c: c["config"]["model"].update(vocab_size=9_000_000),
        "the encoding has 257 ids, the model 9,000,000",
    ),
    "a layer of 50 GB": (
        lambda c: c["config"]["model"].update(d_ff=400_000_000),
        "d_ff=400000000 must be at most 10000000",
    ),
    "a layer of 1 GB": (
        lambda c: c["config"]["model"].update(d_ff=9_000_000),
        "blocks.0.feedforward.up.weight (32, 16), not (9000000, 16)",
    ),
}  # fmt: skip


def spoil(path: Path, change: Change) -> None:
    contents = checkpoint.load(path)
    change(contents)
    checkpoint.save(path, contents)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("case", SAID)
def test_every_command_refuses_it_in_one_line(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, case: str
) -> None:
    """They were tracebacks, 51 GB asked for before the shapes were compared, or NULs with exit status 0."""
    (tmp_path / "notes.txt").write_text("Some notes on hens.\n" * 200, encoding="utf-8")
    change, said = SAID[case]
    spoil(tiny_checkpoint, change)
    for name, line in READERS.items():
        outcome = command(*(str(tiny_checkpoint) if part == "PATH" else part for part in line))
        assert outcome.status == 2, name
        assert said in outcome.err, name
        assert len(outcome.err.splitlines()) == 1, name
    assert not (tmp_path / "page.html").exists()


def test_control_characters_in_a_checkpoint_are_shown_as_text(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("Some notes on hens.\n" * 200, encoding="utf-8")
    path = str(tiny_checkpoint)

    def change(contents: dict[str, Any]) -> None:
        contents["init_from"] = {"path": HOSTILE, "dataset": HOSTILE, "step": 1, "tokens": 1}
        contents["metrics"] = {"verdict": HOSTILE, "reason": HOSTILE, "train_loss": 2.0, "validation_loss": 2.0}
        contents["config"]["data"]["dataset"] = HOSTILE
        contents["config"]["sample_prompt"] = HOSTILE
        contents["versions"] = {"torch": HOSTILE}

    spoil(tiny_checkpoint, change)
    readers = [READERS[name] for name in ("inspect", "generate", "evaluate", "export-page")]
    for line in readers:
        assert "HOSTILE" in call(*(path if part == "PATH" else part for part in line)).shown  # call() checks it
    spoil(tiny_checkpoint, lambda contents: contents["model"].update({HOSTILE: torch.ones(2)}))
    for line in readers:
        assert call(*(path if part == "PATH" else part for part in line)).status == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_compare_reads_a_folder_whose_name_is_not_utf_8(command: Command, tiny_checkpoint: Path) -> None:
    """PyTorch cannot map such a file, and a whole checkpoint was called damaged."""
    folder = os.fsdecode(b"checkpoints_caf\xe9")
    tiny_checkpoint.parent.rename(folder)
    Path("notes.txt").write_text("Some notes on hens.\n" * 9, encoding="utf-8")
    outcome = command("compare", folder, "--text-file", "notes.txt", "--out", "runs/compare.svg")
    assert (outcome.status, outcome.err) == (0, "")
    assert "left out" not in outcome.out


# Which checkpoint


def score(path: Path, loss: float, **more: object) -> Path:
    """Writes a copy of the tiny checkpoint as another run's, with this validation loss."""
    contents = checkpoint.load(Path("checkpoints/model_epoch_3_byte.pt"))
    checkpoint.save(path, {**contents, "metrics": {"validation_loss": loss, "bits_per_byte": loss / 0.7, **more}})
    return path


def test_the_best_is_the_best_of_all_runs_and_the_others_are_named(command: Command, tiny_checkpoint: Path) -> None:
    """After a short trial run, `best` was the best of that run, and nothing said that there were others."""
    good = score(Path("checkpoints_demo/model_epoch_1_byte.pt"), 1.5)
    trial = score(Path("checkpoints_tiny/model_epoch_1_byte.pt"), 5.0)
    for number, path in enumerate((tiny_checkpoint, good, trial)):
        os.utime(path, (number, number))
    line = ("generate", "--prompt", "a", "--max-new-tokens", "1")
    latest = command(*line).err.splitlines()
    assert latest[0] == (
        "the latest of 3 runs; the others: checkpoints_demo, checkpoints; "
        "--checkpoint best is the one with the lowest validation loss"
    )
    assert latest[1].startswith(f"{trial} (byte")
    best = command(*line, "--checkpoint", "best").err.splitlines()
    assert best[0] == "the best of 3 runs; the others: checkpoints_tiny, checkpoints"
    assert best[1].startswith(f"{good} (byte")
    assert command(*line, "--checkpoint", "checkpoints_tiny/best").err.startswith(f"{trial} (byte")
    assert command("inspect", "best").err == f"{best[0]}\n"


def test_runs_with_other_encodings_are_compared_in_bits_per_byte(command: Command, tiny_checkpoint: Path) -> None:
    """A token of a large vocabulary is more text: its loss is higher for the same prediction."""
    score(Path("checkpoints_a/model_epoch_1_byte.pt"), 1.5, bits_per_byte=2.2)
    long_tokens = score(Path("checkpoints_b/model_epoch_1_bpe300.pt"), 4.0, bits_per_byte=1.9)
    assert checkpoint.best(Path()) == long_tokens


def test_advice_on_memory_names_flags_that_the_command_has(capsys: pytest.CaptureFixture[str]) -> None:
    """`generate --max-new-tokens 10**12` was told of --batch-size and --d-model."""
    from transformer.cli.app import LESS_MEMORY, main

    for name, advice in LESS_MEMORY.items():
        with pytest.raises(SystemExit):
            main([name, "--help"])
        shown = capsys.readouterr().out
        assert [flag for flag in re.findall(r"--[a-z0-9-]+", advice) if flag not in shown] == [], name
