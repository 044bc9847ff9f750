"""accelerate() swaps in faster twins that compute what the core computes; "plain" keeps the core files as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transformer import DecoderOnlyTransformer, KVCache
from transformer.activations import hooked, recorded
from transformer.attention import CausalSelfAttention, causal_mask, fused_attention
from transformer.kernels import accelerate, cpu_linear, dropout, tiled_loss
from transformer.kernels.activation_checkpointing import CheckpointedBlock, checkpoint_activations
from transformer.kernels.attention import attend
from transformer.kernels.decode_step import FastDecoder
from transformer.kernels.int8 import Int8Linear, quantise
from transformer.loss import next_token_loss

Models = Callable[..., DecoderOnlyTransformer]

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
POSITIONS = ["learned", "sinusoidal", "rotary", "alibi"]


def modules_of(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules()]


def value_and_gradients(model: DecoderOnlyTransformer) -> list[Tensor]:
    nats, count = model.loss(TOKENS, TOKENS.roll(-1, 1))
    return [nats, count, *torch.autograd.grad(nats, list(model.parameters()))]


@given(
    position=st.sampled_from(POSITIONS), activation=st.sampled_from(["gelu", "relu", "swiglu"]),
    kv_heads=st.sampled_from([1, 2, 4]), vocab=st.sampled_from([17, 2_100]), tied=st.booleans(), bias=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
@settings(max_examples=25)
def test_logits_loss_gradients_and_greedy_text_stay_equal(
    tiny_model: Models, position: str, activation: str, kv_heads: int, vocab: int, tied: bool, bias: bool,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    model = tiny_model(
        dtype=dtype, position=position, activation=activation, num_kv_heads=kv_heads, vocab_size=vocab,
        tie_embeddings=tied, bias=bias,
    )  # fmt: skip
    faster = accelerate(copy.deepcopy(model))
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(faster(TOKENS), model(TOKENS), **tolerance)
    torch.testing.assert_close(value_and_gradients(faster), value_and_gradients(model), **tolerance)
    if dtype == torch.float64:
        assert torch.equal(faster.generate(TOKENS, max_new_tokens=9), model.generate(TOKENS, max_new_tokens=9))


def test_plain_changes_nothing(tiny_model: Models) -> None:
    model = tiny_model(dropout=0.1)
    before = modules_of(model)
    assert accelerate(model, "plain") is model
    assert modules_of(model) == before
    assert model.next_token_loss is next_token_loss
    assert all(block.attention.attend is fused_attention for block in model.layers)


def test_the_twins_are_swapped_in_with_the_same_parameters_and_twice_is_as_once(tiny_model: Models) -> None:
    model = tiny_model(dropout=0.1)
    names, parameters = list(model.state_dict()), list(model.parameters())
    assert accelerate(model, "amd-avx2") is model
    once = modules_of(model)
    assert modules_of(accelerate(model, "amd-avx2")) == once
    assert FastDecoder in once
    assert cpu_linear.Linear in once
    assert dropout.Dropout in once
    assert not {nn.Linear, nn.Dropout} & set(once)
    assert model.next_token_loss is tiled_loss.next_token_loss
    assert all(block.attention.attend is attend for block in model.layers)
    assert list(model.state_dict()) == names
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), parameters, strict=True))
    assert model.head.weight is model.embeddings.token.weight


def test_an_accelerated_model_can_be_quantised(tiny_model: Models) -> None:
    model = accelerate(tiny_model(dtype=torch.float32, d_model=32))
    quantise(model)
    assert isinstance(model.head, Int8Linear)
    assert model.generate(TOKENS, max_new_tokens=3).shape == (2, 11)


@given(
    queries=st.integers(1, 6), earlier=st.integers(0, 6), kv_heads=st.integers(1, 3), groups=st.integers(1, 3),
    mask=st.sampled_from(["none", "bool", "float"]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=50)
def test_the_dropout_path_of_attention_has_the_plain_value_and_gradient_if_nothing_is_dropped(
    queries: int, earlier: int, kv_heads: int, groups: int, mask: str, seed: int
) -> None:
    """Dropout with probability almost 0 drops nothing here, so the twin's own path must give the plain numbers."""
    random, keys = torch.Generator().manual_seed(seed), earlier + queries
    shapes = [(2, kv_heads * groups, queries, 4), (2, kv_heads, keys, 4), (2, kv_heads, keys, 4)]
    qkv = [torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_() for shape in shapes]
    masks = {
        "none": None,
        "bool": causal_mask(queries, keys),
        "float": torch.randn(queries, keys, generator=random, dtype=torch.float64),
    }
    found, expected = attend(*qkv, masks[mask], dropout=1e-9), fused_attention(*qkv, masks[mask])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), qkv), torch.autograd.grad(expected.sum(), qkv), rtol=1e-9, atol=1e-9
    )


def test_attention_drops_weights_in_training_only(tiny_model: Models) -> None:
    model = accelerate(tiny_model(dropout=0.5))
    attention = model.layers[0].attention
    assert isinstance(attention, CausalSelfAttention)
    torch.testing.assert_close(model(TOKENS), model(TOKENS), rtol=0, atol=0)
    model.train()
    assert not torch.equal(model(TOKENS), model(TOKENS))


@pytest.mark.parametrize("position", POSITIONS)
def test_activation_checkpointing_keeps_values_gradients_and_random_numbers(tiny_model: Models, position: str) -> None:
    model = tiny_model(position=position, dropout=0.2).train()
    frugal = copy.deepcopy(model)
    checkpoint_activations(frugal)
    assert {type(block) for block in frugal.blocks} == {CheckpointedBlock}
    results = []
    for each in (model, frugal):
        torch.manual_seed(3)
        results.append(value_and_gradients(each))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_activations_are_recorded_and_changed_with_activation_checkpointing(tiny_model: Models) -> None:
    model = tiny_model().train()
    frugal = copy.deepcopy(model)
    checkpoint_activations(frugal)
    results = []
    for each in (model, frugal):
        changes = {"blocks.0.residual_mid": lambda x: x * 2, "blocks.1.attention.weights": lambda x: x**2}
        with hooked(each, changes), recorded(each, ["blocks.1.residual_after"]) as found:
            results.append([*value_and_gradients(each), found["blocks.1.residual_after"]])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


def test_a_checkpointed_model_in_training_mode_fills_its_cache(tiny_model: Models) -> None:
    """The cache was once advanced but not written: later tokens attended to zeros."""
    model = tiny_model().train()
    checkpoint_activations(model)
    cache = KVCache.allocate(model.config, 2, dtype=torch.float64)
    parts = [model(TOKENS[:, :5], cache), model(TOKENS[:, 5:], cache)]
    torch.testing.assert_close(torch.cat(parts, 1), model(TOKENS), rtol=1e-9, atol=1e-9)
