"""`inspect`: what a checkpoint holds, and every way in which it can be of no use."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from transformer.config_base import leaves
from transformer.data.open import open_dataset
from transformer.presets import PRESETS
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.checkpoint_report import inspect

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Path]:
    """A run of two epochs of four steps, with the encoding of its own text and both optimizers."""
    folder = tmp_path_factory.mktemp("run")
    text = folder / "notes.txt"
    text.write_text("".join(f"Line {n} tells of {n * n} red hens on a hill.\n" for n in range(400)), encoding="utf-8")
    config = TrainConfig(
        ModelConfig(300, d_model=16, num_heads=2, num_layers=2, d_ff=32, max_seq_len=16, dropout=0.0, bias=False),
        DataConfig(str(text), "bpe300", seq_length=16, tokens_per_epoch=4 * 32, validation_tokens=100),
        OptimizerConfig("muon"), epochs=2, batch_size=2, accumulation_steps=1, eval_every=2, log_every=1,
        checkpoint_dir=str(folder / "checkpoints_run"), device="cpu", trackers=(),
    )  # fmt: skip
    Trainer(config, open_dataset(config.data)).fit()
    return config, folder / "checkpoints_run"


def test_it_says_what_a_run_has_left(command: Command, run: tuple[TrainConfig, Path]) -> None:
    _, folder = run
    outcome = command("inspect", str(folder / "model_epoch_2_bpe300.pt"))
    assert (outcome.status, outcome.err) == (0, "")
    metrics = checkpoint.load(folder / "model_epoch_2_bpe300.pt")["metrics"]
    for part in (
        "epoch checkpoint, ",
        "valid: ",
        "epoch 2, step 8, 256 tokens",
        f"train       loss {metrics['train_loss']:.4f}",
        f"validation  loss {metrics['validation_loss']:.4f}",
        f"{metrics['bits_per_byte']:.4f} bits per byte",
        f"verdict     {metrics['verdict']}: {metrics['reason']}",
        "bpe300, 300 ids, end of text 299; in the file: whole, every entry",
        "d_model 16 (256)",
        f"PyTorch {torch.__version__.split('+')[0]}",
    ):
        assert part in outcome.out
    assert re.search(r"output projection +│ +tied", outcome.out)
    assert all(line == line.rstrip() for line in outcome.out.splitlines())


def test_its_json_holds_every_setting_and_adds_up(command: Command, run: tuple[TrainConfig, Path]) -> None:
    config, folder = run
    state = folder / "training_state_bpe300.pt"
    found = json.loads(command("inspect", str(state), "--json").out)
    assert found["valid"] is True
    assert found["kind"] == "state to resume from"
    assert found["bytes"] == state.stat().st_size
    assert TrainConfig.from_dict(found["config"]) == config
    weights = checkpoint.load(state)["model"]
    counted = sum(value.numel() for name, value in weights.items() if name != "head.weight")
    assert found["parameters"] == sum(part["parameters"] for part in found["parts"]) == counted
    assert sum(part["bytes"] for part in found["parts"]) == 4 * counted
    matrices = sum(weights[name].numel() for name in weights if name.startswith("blocks") and weights[name].ndim == 2)
    assert found["optimizer_bytes"] == 4 * (2 * counted - matrices)  # AdamW keeps two averages, Muon one
    assert found["metrics"]["lowest_validation_loss"] <= found["metrics"]["validation_loss"]


def test_the_latest_the_best_and_a_folder_are_found_as_elsewhere(
    command: Command, run: tuple[TrainConfig, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run[1].parent)
    losses = {path.name: inspect(path).metrics["validation_loss"] for path in checkpoint.epochs(run[1])}
    named = {word: json.loads(command("inspect", *word.split(), "--json").out)["path"]
             for word in ("", "best", "checkpoints_run", "checkpoints_run/best")}  # fmt: skip
    assert {Path(named[word]).name for word in ("", "checkpoints_run")} == {"model_epoch_2_bpe300.pt"}
    assert {Path(named[word]).name for word in ("best", "checkpoints_run/best")} == {
        min(losses, key=losses.__getitem__)
    }


def test_an_older_file_without_metrics_is_valid_too(command: Command, tiny_checkpoint: Path) -> None:
    outcome = command("inspect")
    assert outcome.status == 0, outcome.err
    assert "epoch 3, step 7, 5,376 tokens" in outcome.out
    assert "validation  " not in outcome.out


# The flags


CONFIGS = {
    **PRESETS,
    "other": TrainConfig(
        ModelConfig(num_kv_heads=2, bias=False, tie_embeddings=False, position="alibi"),
        DataConfig("my notes.txt", "byte", mask_documents=True, validation_fraction=0.25, subset="-x"),
        OptimizerConfig("muon", schedule="wsd", learning_rate=3e-4),
        max_steps=7, sample_prompt="-- once", trackers=(), compile=True,
    ),
    "back to the default": dataclasses.replace(PRESETS["demo"], max_steps=None, trackers=("wandb", "tensorboard")),
    "fine-tuned": TrainConfig(init_from="checkpoints_demo/best"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_train_understands_the_flags_and_has_the_same_settings_then(name: str) -> None:
    from transformer.cli.train.options import read_options
    from transformer.reporting.config_flags import DERIVED, train_flags

    config = CONFIGS[name]
    flags = train_flags(config)
    again = read_options(flags).config
    pairs = zip(leaves(config), leaves(again), strict=True)
    assert [pair for pair in pairs if pair[0] != pair[1] and pair[0][1] not in DERIVED] == []
    if name in PRESETS:
        assert flags == ([] if name == "default" else ["--preset", name])


# What is of no use


def spoilt(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    contents = checkpoint.load(path)
    change(contents)
    checkpoint.save(path, contents)


def scale_head(contents: dict[str, Any]) -> None:
    contents["model"]["head.weight"] = contents["model"]["head.weight"] * 2


def other_shape(contents: dict[str, Any]) -> None:
    contents["model"]["final_norm.weight"] = torch.ones(5)


PROBLEMS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a missing weight": (lambda c: c["model"].pop("final_norm.weight"), "weights that are missing: final_norm.weight"),
    "a weight too many": (lambda c: c["model"].update(x=torch.ones(1)), "weights that are not the model's: x"),
    "another shape": (other_shape, "final_norm.weight (5,), not (16,)"),
    "no tensor": (lambda c: c["model"].update({"final_norm.bias": 1}), "final_norm.bias int, not (16,)"),
    "nan": (lambda c: c["model"]["final_norm.weight"].fill_(torch.nan), "nan or infinite numbers: final_norm.weight"),
    "a tie undone": (scale_head, "head.weight is not the token table that it is tied to"),
    "another encoding": (lambda c: c.update(tokenizer={"kind": "named", "name": "p50k_base"}), "50,281 ids, the model"),
    "no encoding": (lambda c: c.update(tokenizer={"kind": "runes"}), "the encoding: not a saved encoding"),
    "many at once": (
        lambda c: c["model"].clear(),
        "embeddings.position.weight, blocks.0.attention_norm.weight and 26 more",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_does_not_fit_is_shown_and_is_an_error(command: Command, tiny_checkpoint: Path, name: str) -> None:
    change, said = PROBLEMS[name]
    spoilt(tiny_checkpoint, change)
    outcome = command("inspect")
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith(f"error: {Path('checkpoints') / tiny_checkpoint.name} is not valid: ")
    assert said in outcome.err
    assert "valid: " not in outcome.out
    assert "tokens" in outcome.out  # the rest is shown all the same
    found = json.loads(command("inspect", "--json").out)
    assert found["valid"] is False
    assert any(said in problem for problem in found["problems"])


def test_averages_that_do_not_fit_are_an_error(command: Command, run: tuple[TrainConfig, Path], tmp_path: Path) -> None:
    state = tmp_path / "training_state_bpe300.pt"
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "the optimizers' state does not fit": lambda c: c["optimizers"].pop(),
        "1 tensors of the optimizer state have another shape": lambda c: c["optimizers"][0]["state"][0].update(
            exp_avg=torch.ones(3)
        ),
        "tensors of the optimizer state hold nan": lambda c: c["optimizers"][1]["state"][0]["momentum"].fill_(
            torch.nan
        ),
    }
    for said, change in changes.items():
        state.write_bytes((run[1] / state.name).read_bytes())
        spoilt(state, change)
        outcome = command("inspect", str(state))
        assert outcome.status == 2
        assert said in outcome.err


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flipped, "has another checksum"),
    "cut short": (lambda path: os.truncate(path, 5000), "is damaged or not a checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged or not a checkpoint"),
    "a text": (lambda path: path.write_text("hello"), "is damaged or not a checkpoint"),
    "another's": (lambda path: torch.save({"state_dict": {}}, path), "not a checkpoint of this project"),
    "a tensor": (lambda path: torch.save(torch.ones(2), path), "not a checkpoint of this project"),
    "a newer format": (lambda path: spoilt(path, lambda c: c.update(format=9)), "has format 9, this version reads"),
    "a newer setting": (lambda path: spoilt(path, lambda c: c["config"].update(x=1)), "unknown setting 'x'"),
    "gone": (Path.unlink, "there is no checkpoint"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_line_and_nothing_else(command: Command, tiny_checkpoint: Path, name: str) -> None:
    spoil, said = REFUSED[name]
    spoil(tiny_checkpoint)
    outcome = command("inspect", str(tiny_checkpoint))
    assert (outcome.status, outcome.out) == (2, "")
    assert len(outcome.err.splitlines()) == 1
    assert said in outcome.err
    assert str(tiny_checkpoint) in outcome.err


def test_an_empty_folder_is_told_how_to_get_a_checkpoint(command: Command) -> None:
    outcome = command("inspect")
    assert (outcome.status, outcome.out) == (2, "")
    assert "no checkpoint found: train one first" in outcome.err


def test_the_flag_of_the_other_commands_is_answered_with_what_this_one_takes(command: Command) -> None:
    outcome = command("inspect", "--checkpoint", "x.pt")
    assert outcome.status == 2
    assert "--checkpoint is no option here: give its value alone, without a flag" in outcome.err
