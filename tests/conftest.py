"""What every test may use: small seeded models, a tiny checkpoint, and how many processes run the suite."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.config import DataConfig, TrainConfig
from transformer.processor import Processor
from transformer.text import load_tokenizer
from transformer.training import checkpoint

torch.set_num_threads(1)  # the tensors are tiny: a second thread only costs its start
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
MOST_PROCESSES = 8  # each imports PyTorch
if sys.dont_write_bytecode:  # then every process that is started would compile PyTorch's source again, for seconds
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

TINY = {
    "vocab_size": 17,
    "d_model": 16,
    "num_heads": 4,
    "num_layers": 2,
    "d_ff": 24,
    "max_seq_len": 12,
    "dropout": 0.0,
}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Whole folders run on all cores; single files, and the slow tests, in this process, one after another."""
    is_quick = config.option.markexpr == "not slow"
    if not is_quick or not all(Path(argument).is_dir() for argument in config.args):
        return 0
    return min(os.cpu_count() or 1, MOST_PROCESSES)


def pytest_runtest_setup() -> None:
    torch.manual_seed(0)


@pytest.fixture
def on_processor(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """on_processor("amd-avx2"): from here on, this machine has a processor of that kind, as far as choices go."""

    def pretend(kind: str) -> None:
        monkeypatch.setattr("transformer.processor.processor", lambda: Processor(f"the {kind}", kind))

    return pretend


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., ModelConfig]:
    """tiny_config(position="rotary") is the smallest config worth testing, with that setting."""

    def make(**settings: Any) -> ModelConfig:
        return ModelConfig(**{**TINY, **settings}).check()

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_config: Callable[..., ModelConfig]) -> Callable[..., DecoderOnlyTransformer]:
    """tiny_model(position="rotary") is a model in eval mode, in float64.

    Its weights are far larger than fresh ones, biases and norms included, so that a part that is left out or in the
    wrong position shows in the output.
    """

    def make(dtype: torch.dtype = torch.float64, seed: int = 0, **settings: Any) -> DecoderOnlyTransformer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = DecoderOnlyTransformer(tiny_config(**settings)).to(dtype).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape, dtype=dtype), alpha=0.3)
        return model

    return make


@pytest.fixture(scope="session")
def model_of(tiny_model: Callable[..., DecoderOnlyTransformer]) -> Callable[..., DecoderOnlyTransformer]:
    """model_of("rotary", limit=8) is tiny_model with that position and context, built once: tests do not change it.

    In float64 rounding does not decide between two logits, so texts can be compared.
    """

    @functools.cache
    def make(position: str = "learned", limit: int = 6, **settings: Any) -> DecoderOnlyTransformer:
        return tiny_model(position=position, max_seq_len=limit, **settings)

    return make


@pytest.fixture
def tiny_checkpoint(tmp_path: Path) -> Path:
    """checkpoints/model_epoch_3_byte.pt in tmp_path: a byte-level model with fresh weights and a context of 24."""
    torch.manual_seed(0)
    shape = ModelConfig(vocab_size=257, d_model=16, num_heads=2, num_layers=2, d_ff=32, max_seq_len=24, dropout=0.0)
    config = TrainConfig(shape, DataConfig("shakespeare", "byte", seq_length=24, validation_tokens=4_096))
    tokenizer = load_tokenizer("byte")
    contents = checkpoint.model_contents(DecoderOnlyTransformer(shape), config, tokenizer)
    path = checkpoint.epoch_path(tmp_path / "checkpoints", 3, tokenizer.short_name)
    checkpoint.save(path, {**contents, "step": 7, "epoch": 3, "tokens": 5_376})
    return path
