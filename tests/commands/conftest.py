"""Commands as a user calls them: through main.py, in an empty folder; and a tiny checkpoint to call them on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from transformer import DecoderOnlyTransformer, checkpoint
from transformer.config import DataConfig, ModelConfig, TrainConfig
from transformer.text import load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "commands"), str(ROOT)]


class Outcome(NamedTuple):
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """command("generate", "--prompt", "x") runs `main.py generate --prompt x` in this process, in tmp_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # main.py sets it; set here, it is taken back
    monkeypatch.setattr(sys, "path", list(sys.path))
    from main import main

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        status = main(list(arguments))
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture
def tiny_checkpoint(tmp_path: Path) -> Path:
    """checkpoints/model_epoch_3_byte.pt in tmp_path: a byte-level model with fresh weights and a context of 24."""
    torch.manual_seed(0)
    shape = ModelConfig(vocab_size=257, d_model=16, num_heads=2, num_layers=2, d_ff=32, max_seq_len=24, dropout=0.0)
    config = TrainConfig(shape, DataConfig("shakespeare", "byte", seq_length=24))
    tokenizer = load_tokenizer("byte")
    contents = checkpoint.model_contents(DecoderOnlyTransformer(shape), config, tokenizer)
    path = checkpoint.epoch_path(tmp_path / "checkpoints", 3, tokenizer.short_name)
    checkpoint.save(path, {**contents, "step": 7, "epoch": 3, "tokens": 5_376})
    return path
