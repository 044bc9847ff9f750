"""Tensors that do not fit their config.json are refused before they cost memory; those that fit cost their own size."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tiny_families import save
from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.interop.errors import SourceError
from transformer.interop.families import hf_settings, hf_weights, model_config, read_model, read_weights
from transformer.interop.tensor_files import TensorFolder

CONFIG = ModelConfig(
    vocab_size=61, d_model=32, num_heads=4, num_layers=2, d_ff=40, max_seq_len=64, position="rotary", norm="rmsnorm",
    activation="swiglu", bias=False, dropout=0.0, tie_embeddings=False,
)  # fmt: skip
SETTINGS = hf_settings(CONFIG, "float32")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process's memory from /proc")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(hf_weights(DecoderOnlyTransformer(CONFIG)))


def read(settings: dict[str, Any], weights: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Any:
    return read_model(settings, weights.__getitem__, weights.keys(), dtype)


def peak_growth(do: Callable[[], object]) -> int:
    """Returns by how many bytes the memory of this process grew at most during a call."""

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from here
    before = status("VmRSS")
    do()
    return status("VmHWM") - before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model.norm.weight": None}, "config.json describes are missing: norm.weight"),
        ({"lm_head.weight": None}, "describes are missing: lm_head.weight"),
        ({"model.layers.1.self_attn.q_proj.weight": None}, r"2 layers, but there are no weights .*layers\.1"),
        ({"model.layers.0.self_attn.q_proj.weight": None}, r"2 layers, but there are no weights .*layers\.0"),
        ({"model.layers.0.self_attn.k_proj.weight": None}, r"are missing: layers\.0\.self_attn\.k_proj\.weight"),
        ({"model.layers.2.mlp.up_proj.weight": torch.zeros(40, 32)}, "does not describe: layers.2"),
        ({"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}, r"does not describe: .*q_proj\.bias"),
        ({"model.layers.0.mlp.experts.0.up.weight": torch.zeros(2)}, "does not describe: .*experts"),
        ({"score.weight": torch.zeros(2, 32)}, r"does not describe: score\.weight"),
        ({"norm.weight": torch.zeros(32)}, "twice: with and without 'model.'"),
        ({"model.norm.weight": torch.zeros(33)}, r"norm\.weight: has shape \(33,\).*describes \(32,\)"),
        ({"model.norm.weight": torch.zeros(32, 1)}, "has shape"),
        ({"model.embed_tokens.weight": torch.zeros(60, 32)}, r"has shape \(60, 32\)"),
        ({"model.layers.0.mlp.up_proj.weight": torch.zeros(32, 40)}, r"has shape \(32, 40\)"),
        ({"model.norm.weight": torch.zeros(32, dtype=torch.int8)}, "holds torch.int8, not floating-point"),
        ({"model.norm.weight": torch.zeros(32).to(torch.float8_e4m3fn)}, "not floating-point numbers of 16 bits"),
        ({"model.norm.weight": torch.full((32,), float("nan"))}, "norm.weight: holds nan"),
        ({"lm_head.weight": torch.full((61, 32), float("-inf"))}, "lm_head.weight: holds nan, or numbers too large"),
    ],
)
def test_tensors_that_do_not_fit_are_named(weights: dict[str, Tensor], change: dict[str, Any], reason: str) -> None:
    changed = {name: tensor for name, tensor in (weights | change).items() if tensor is not None}
    with pytest.raises(SourceError, match=reason) as error:
        read(SETTINGS, changed)
    assert str(error.value).isprintable()


def test_numbers_too_large_for_the_chosen_dtype_are_named(weights: dict[str, Tensor]) -> None:
    large = weights | {"model.norm.weight": torch.full((32,), 1e6)}
    read(SETTINGS, large, torch.bfloat16)
    with pytest.raises(SourceError, match=r"norm\.weight: .*numbers too large for torch\.float16"):
        read(SETTINGS, large, torch.float16)


def test_a_tied_head_may_be_stored_too_if_it_is_the_token_table(weights: dict[str, Tensor]) -> None:
    tied = SETTINGS | {"tie_word_embeddings": True}
    same = weights | {"lm_head.weight": weights["model.embed_tokens.weight"].double()}
    model = read(tied, same)
    assert model.head.weight is model.embeddings.token.weight
    for head in (weights["lm_head.weight"], torch.zeros(3), torch.zeros(61, 32, dtype=torch.int8)):
        with pytest.raises(SourceError, match=r"lm_head\.weight: differs from the token table"):
            read(tied, weights | {"lm_head.weight": head})


def test_masks_and_tables_of_older_programs_are_ignored(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    read(SETTINGS, weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
    settings = save("gpt2", tmp_path)
    folder = TensorFolder(tmp_path)
    stored = {name.removeprefix("transformer."): folder.tensor(name) for name in folder.names}  # as OpenAI's files
    assert "wte.weight" in stored
    masks = {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    models = [read(settings, stored | masks), read_model(settings, folder.tensor, folder.names, torch.float32)]
    assert all(map(torch.equal, *(model.parameters() for model in models)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_is_read_in_the_chosen_dtype(weights: dict[str, Tensor], dtype: torch.dtype) -> None:
    model = read(SETTINGS, {name: tensor.bfloat16() for name, tensor in weights.items()}, dtype)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.rotary is not None
    assert model.rotary.dtype == torch.float32
    assert torch.equal(model.rotary, DecoderOnlyTransformer(CONFIG).rotary)
    for name, tensor in hf_weights(model):
        assert torch.equal(tensor, weights[name].bfloat16().to(dtype)), name


def test_a_model_that_exists_is_filled_in_place(weights: dict[str, Tensor]) -> None:
    model = DecoderOnlyTransformer(model_config(SETTINGS))
    before = list(model.parameters())
    read_weights(model, SETTINGS, weights.__getitem__, weights.keys())
    assert all(map(lambda new, old: new is old, model.parameters(), before))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in hf_weights(model))


def test_reading_a_model_draws_no_random_numbers(weights: dict[str, Tensor]) -> None:
    before = torch.get_rng_state()
    read(SETTINGS, weights)
    assert torch.equal(torch.get_rng_state(), before)


@needs_linux
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_hidden_layers": 10_000}, "describes 10,000 layers"),
        ({"vocab_size": 3_000_000, "tie_word_embeddings": True}, "has shape|memory"),
        ({"intermediate_size": 5_000_000}, "has shape|memory"),
        ({"hidden_size": 100_000}, "has shape|memory"),
        ({"hidden_size": 10**6, "intermediate_size": 10**7, "vocab_size": 10**7}, "memory"),
        ({"num_attention_heads": 10**6, "num_key_value_heads": 10**6, "head_dim": 10**6}, "large|memory"),
        ({"max_position_embeddings": 10**7}, "a context of 10,000,000 needs tables"),
        ({"max_position_embeddings": 10**8}, "tables|memory"),
    ],
)
def test_sizes_that_the_weights_do_not_have_cost_no_memory(
    weights: dict[str, Tensor], change: dict[str, Any], reason: str
) -> None:
    def refused() -> None:
        with pytest.raises(SourceError, match=reason):
            read(SETTINGS | change, weights)

    assert peak_growth(refused) < 16 * 2**20


@needs_linux
def test_a_model_is_read_in_little_more_memory_than_its_own(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, vocab_size=8192, d_model=512, d_ff=1024, num_layers=6)
    save_file(dict(hf_weights(DecoderOnlyTransformer(config))), tmp_path / "model.safetensors")
    folder, settings = TensorFolder(tmp_path), hf_settings(config, "float32")
    kept: list[DecoderOnlyTransformer] = []
    read_model(settings, folder.tensor, folder.names, torch.float32)  # what the first call alone allocates
    growth = peak_growth(lambda: kept.append(read_model(settings, folder.tensor, folder.names, torch.float32)))
    assert growth < 1.2 * folder.nbytes
    assert sum(weight.nbytes for weight in kept[0].parameters()) == folder.nbytes
