"""Damaged checkpoints, and checkpoints that hold odd values, through every command that reads one."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from fuzzing import HOSTILE, altered, call, damaged, odd_value, run_cases
from transformer.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from transformer.data.open import open_dataset
from transformer.trainer import Trainer
from transformer.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TEXT = "".join(f"Line {n}: {n * n} red hens on a hill, and {n} more.\n" for n in range(60))
LIGHT: list[Callable[[str], list[str]]] = [
    lambda path: ["inspect", path],
    lambda path: ["inspect", path, "--json"],
    lambda path: ["generate", "--checkpoint", path, "--prompt", "ab", "--max-new-tokens", "3"],
    lambda path: ["generate", "--checkpoint", path, "--prompt", "", "--max-new-tokens", "2", "--preset", "greedy"],
    lambda path: ["evaluate", "--checkpoint", path, "--text-file", "notes.txt", "--max-tokens", "40"],
    lambda path: ["evaluate", "--checkpoint", path, "--max-tokens", "40", "--kernels", "plain"],
    lambda path: ["export-page", "--checkpoint", path, "--out", "model.js"],
    lambda path: ["inspect", "odd/best"],
]
HEAVY: list[Callable[[str], list[str]]] = [
    lambda path: ["compare", path, "whole/model_epoch_1_bpe265.pt", "--text-file", "notes.txt", "--max-tokens", "40"],
    lambda path: ["demo-sampling", "--with-model", "--checkpoint", path, "--max-new-tokens", "2"],
    lambda path: ["train", "--init-from", path, "--dataset", "notes.txt", "--max-steps", "1", "--validation-tokens",
                  "40", "--batch-size", "2", "--accumulation-steps", "1", "--device", "cpu", "--checkpoint-dir", "new"],
    lambda path: ["train", "--resume", path, "--max-steps", "3"],
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with notes.txt and a run of two steps in whole/, whose checkpoint and state hold all that can be."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "notes.txt").write_text(TEXT, encoding="utf-8")
    config = TrainConfig(
        ModelConfig(265, d_model=8, num_heads=2, num_layers=1, d_ff=12, max_seq_len=16, dropout=0.0),
        DataConfig("notes.txt", "bpe265", seq_length=16, validation_tokens=40, tokens_per_epoch=64),
        OptimizerConfig("muon"), epochs=1, batch_size=2, accumulation_steps=1, eval_every=1, log_every=1,
        sample_tokens=2, checkpoint_dir="whole", device="cpu", trackers=(),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Trainer(config, open_dataset(config.data)).fit()
        for path in (*checkpoint.epochs(Path("whole")), *checkpoint.states(Path("whole"))):
            origin = {"path": "before.pt", "dataset": "notes.txt", "step": 3, "tokens": 96, "init_from": None}
            checkpoint.save(path, {**checkpoint.load(path), "init_from": origin})
    return folder


@pytest.fixture(scope="module")
def stored(run: Path) -> dict[str, bytes]:
    """The bytes of the checkpoint and the state, by the names under which the cases write them."""
    (run / "odd").mkdir()
    return {f"odd/{path.name}": path.read_bytes() for path in (run / "whole").glob("*.pt")}


def through_commands(path: str, chance: Random, heavy: float) -> None:
    commands = HEAVY if chance.random() < heavy else LIGHT
    call(*chance.choice(commands)(path))


def plainly(stored: dict[str, bytes]) -> Callable[[], None]:
    def plain() -> None:
        for name, data in stored.items():
            Path(name).write_bytes(data)
            for command in (*LIGHT, *HEAVY):
                call(*command(name))

    return plain


def test_damage_is_refused_in_one_line_or_has_changed_nothing(run: Path, stored: dict[str, bytes]) -> None:
    def case(chance: Random) -> None:
        name = chance.choice(sorted(stored))
        data = stored[name]
        for _ in range(chance.choice([1, 1, 3])):
            data = damaged(data, chance)
        Path(name).write_bytes(data)
        through_commands(name, chance, heavy=0.01)

    run_cases(run, 1_300, case, plainly(stored))


def odd_tensor(chance: Random, like: torch.Tensor | None = None) -> Any:
    """A tensor that no model has saved: of the shape of `like` or another."""
    shape = chance.choice([(), (0,), (3,), (2, 3), (265, 8), (8,)] if like is None else [tuple(like.shape)])
    dense = torch.ones(shape)
    return chance.choice(
        [
            dense * float("nan"), dense * 1e38, dense.to_sparse(), dense.bool(), dense.long(), dense.half(),
            dense.to(torch.complex64), dense.bfloat16(), dense.double(), torch.zeros(1).expand(shape or (1,)),
            torch.zeros(1, 1).expand(400_000_000, 8), torch.empty(shape, device="meta"), torch.nn.Parameter(dense),
            torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8), dense.to(torch.float8_e4m3fn),
        ]
    )  # fmt: skip


def odd(chance: Random) -> Any:
    return odd_tensor(chance) if chance.random() < 0.2 else odd_value(chance)


BOLD: list[Callable[[dict[str, Any], Random], None]] = [
    lambda c, chance: c["config"]["model"].update(vocab_size=chance.choice([1, 400_000_000, 2**62])),
    lambda c, chance: c["config"]["model"].update(num_layers=chance.choice([2, 5_000, 10**7])),
    lambda c, chance: c["config"]["model"].update(max_seq_len=10**chance.randrange(2, 14), position="rotary"),
    lambda c, chance: c["config"]["model"].update(max_seq_len=10**chance.randrange(2, 14), position="sinusoidal"),
    lambda c, chance: c["config"]["model"].update(d_model=2**chance.randrange(40), num_heads=2**chance.randrange(20)),
    lambda c, chance: c.update(tokenizer={"kind": "named", "name": "cl100k_base"}),
    lambda c, chance: c["tokenizer"].update(pattern=chance.choice(["(", "", "(a+)+$", "(?<=a+)b", "\\p{Xyz}", ".*"])),
    lambda c, chance: c["model"].update(
        {name: odd_tensor(chance, value) for name, value in c["model"].items() if chance.random() < 0.3}
    ),
    lambda c, chance: c["model"].update({HOSTILE: torch.ones(2)}),
    lambda c, chance: c["config"]["data"].update(dataset=HOSTILE, text_column=HOSTILE),
    lambda c, chance: c.setdefault("metrics", {}).update(verdict=HOSTILE, reason=HOSTILE),
    lambda c, chance: c.update(init_from={"path": HOSTILE, "dataset": HOSTILE, "step": 1, "tokens": 1}),
    lambda c, chance: c.update(versions={"torch": HOSTILE, HOSTILE: "1"}),
]  # fmt: skip


def test_odd_contents_are_refused_in_one_line_or_shown_as_text(run: Path, stored: dict[str, bytes]) -> None:
    trees = {name: torch.load(io.BytesIO(data), weights_only=True) for name, data in stored.items()}

    def case(chance: Random) -> None:
        name = chance.choice(sorted(trees))
        contents = torch.load(io.BytesIO(stored[name]), weights_only=True)
        if chance.random() < 0.3:
            chance.choice(BOLD)(contents, chance)
        else:
            for _ in range(chance.choice([1, 1, 2])):
                part = chance.choice(sorted(contents, key=str))
                contents = {**contents, part: altered(contents[part], chance, odd)}
        torch.save(contents, name)
        through_commands(name, chance, heavy=0.04)

    run_cases(run, 1_300, case, plainly(stored))
