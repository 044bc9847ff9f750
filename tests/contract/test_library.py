"""SURFACE's library rows L1 to L6, as they are written."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import torch

import transformer
from transformer import DecoderOnlyTransformer, KVCache, ModelConfig
from transformer.config import OptimizerConfig

SOURCE = Path(transformer.__file__).parent
SETTINGS = {
    "vocab_size": 101,
    "d_model": 32,
    "num_heads": 4,
    "num_layers": 2,
    "d_ff": 64,
    "max_seq_len": 16,
    "dropout": 0.1,
}
L4_FILES = (
    "attention", "embeddings", "feedforward", "block", "model", "sampling", "perplexity", "scheduler",
    "training_utils", "dataset", "fineweb_dataset",
)  # fmt: skip
# STYLE's list is longer: these are lessons too.
LESSONS = (*L4_FILES, "kv_cache", "loss", "generation", "trainer")


@pytest.fixture(scope="module")
def model() -> DecoderOnlyTransformer:
    torch.manual_seed(0)
    return DecoderOnlyTransformer(**SETTINGS)


def lesson(name: str) -> str:
    return ast.get_docstring(ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))) or ""


def test_l1_the_model_is_built_from_these_keywords(model: DecoderOnlyTransformer) -> None:
    assert {name: getattr(model.config, name) for name in SETTINGS} == SETTINGS
    assert model(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 101)


def test_l1_the_model_is_built_from_a_config(model: DecoderOnlyTransformer) -> None:
    twin = DecoderOnlyTransformer(ModelConfig(**SETTINGS))  # type: ignore[arg-type]
    assert twin.config == model.config
    assert [p.shape for p in twin.parameters()] == [p.shape for p in model.parameters()]


@pytest.mark.parametrize("strategy", ["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"])
def test_l2_generate_returns_batch_by_length_and_max_length_counts_the_prompt(
    model: DecoderOnlyTransformer, strategy: str
) -> None:
    start_tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    text = model.generate(start_tokens, max_length=100, sampling_strategy=strategy, use_cache=True)
    assert text.shape == (2, 100)  # far beyond max_seq_len
    assert text.dtype == torch.int64
    assert torch.equal(text[:, :3], start_tokens)
    assert ((text >= 0) & (text < 101)).all()


def test_l2_generates_defaults_are_the_documented_ones(model: DecoderOnlyTransformer) -> None:
    parameters = inspect.signature(DecoderOnlyTransformer.generate).parameters
    assert list(parameters)[1:5] == ["start_tokens", "max_length", "sampling_strategy", "use_cache"]
    assert [parameters[name].default for name in ("sampling_strategy", "use_cache")] == ["greedy", True]
    assert model.generate(torch.tensor([[1, 2, 3]])).shape == (1, 100)  # max_length


def test_l2_max_new_tokens_counts_only_what_is_new(model: DecoderOnlyTransformer) -> None:
    assert model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=7).shape == (1, 10)


@pytest.mark.parametrize("strategy", ["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"])
def test_l2_use_cache_never_changes_the_output(strategy: str) -> None:
    torch.manual_seed(0)
    model = DecoderOnlyTransformer(**SETTINGS).double()  # in float64 rounding decides between no two logits
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        texts.append(model.generate(torch.tensor([[1, 2, 3]]), 60, strategy, use_cache=use_cache))
    assert torch.equal(*texts)


def test_l3_each_layers_cache_is_batch_heads_seq_len_d_k(model: DecoderOnlyTransformer) -> None:
    cache = KVCache.allocate(model.config, batch_size=2)
    model.eval()(torch.zeros(2, 5, dtype=torch.int64), cache)
    assert len(cache.keys) == len(cache.values) == 2
    d_k = 32 // 4
    for tensor in cache.keys + cache.values:
        assert tensor[:, :, : cache.length].shape == (2, 4, 5, d_k)


@pytest.mark.parametrize(("dtype", "number_bytes"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_l3_memory_per_layer_is_2_heads_seq_len_d_k_bytes(dtype: torch.dtype, number_bytes: int) -> None:
    config = ModelConfig(**SETTINGS)  # type: ignore[arg-type]
    cache = KVCache.allocate(config, batch_size=1, dtype=dtype)
    cache.advance(11)
    heads, seq_len, d_k = 4, 11, 8
    assert cache.nbytes == config.num_layers * (2 * heads * seq_len * d_k * number_bytes)


@pytest.mark.parametrize("name", L4_FILES)
def test_l4_the_source_file_exists_by_this_name(name: str) -> None:
    assert (SOURCE / f"{name}.py").is_file()


@pytest.mark.parametrize("name", LESSONS)
def test_l4_the_file_opens_with_a_lesson(name: str) -> None:
    text = lesson(name)
    assert len(text.splitlines()) >= 30
    for part in (
        r"\*\*The problem\.\*\*",
        r"Is it working\?",
        r"(?i)\bcost",
        r"Read (before|next)|Next",
    ):
        assert re.search(part, text), part


# generation, dataset and trainer rest on no one paper; each says what it builds on by naming files instead.
@pytest.mark.parametrize("name", [n for n in LESSONS if n not in {"generation", "dataset", "trainer"}])
def test_l4_the_lesson_names_its_papers(name: str) -> None:
    text = " ".join(lesson(name).split())
    assert re.search(r"Papers?\b", text)
    assert re.search(r"arXiv \d{4}\.\d{4,5}", text)


def test_l5_positions_are_learned_by_default_and_sinusoidal_is_an_option(model: DecoderOnlyTransformer) -> None:
    assert ModelConfig().position == "learned"
    assert model.embeddings.position is not None
    assert model.embeddings.position.weight.shape == (16, 32)
    assert model.embeddings.position.weight.requires_grad
    sinusoidal = DecoderOnlyTransformer(**SETTINGS, position="sinusoidal")
    assert sinusoidal.embeddings.position is None
    assert sinusoidal(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3, 101)


def test_l6_gradient_accumulation_lives_in_training_utils() -> None:
    from transformer.training_utils import Objective, accumulate_gradients

    model = DecoderOnlyTransformer(**{**SETTINGS, "dropout": 0.0})
    tokens = torch.randint(0, 101, (4, 9))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    gradients = []
    for parts in ([slice(0, 4)], [slice(0, 1), slice(1, 4)]):
        model.zero_grad()
        accumulate_gradients(Objective(model), [(inputs[part], targets[part]) for part in parts], divisor=32)
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_l6_warm_up_and_cosine_live_in_scheduler() -> None:
    from transformer.scheduler import lr_scale

    settings = dataclasses.replace(OptimizerConfig(), warmup_fraction=0.1, min_lr_ratio=0.1)
    found = [lr_scale(step, 100, settings) for step in range(100)]
    assert found[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert lr_scale(55, 101, settings) == pytest.approx(0.55)  # half-way down the cosine of 92 parts, 10 steps up
    assert lr_scale(100, 100, settings) == pytest.approx(0.1)  # and from there on


def test_l6_prefill_and_decode_are_documented_modes_of_attention() -> None:
    text = lesson("attention")
    assert re.search(r"prefill and decode: two modes", text, re.IGNORECASE)
    assert "*Prefill*" in text
    assert "*Decode*" in text
