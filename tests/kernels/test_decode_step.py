"""A prepared decode step equals the core's, and gives way to it wherever it would not."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from transformer import DecoderOnlyTransformer, processor
from transformer.config import SamplingConfig, Weights
from transformer.inference.batch import generate_batch
from transformer.inference.padding import next_logits, pad
from transformer.kernels import accelerate, cpu_linear, round_weights
from transformer.kernels import decode_step as steps
from transformer.kernels.decode_step import FastDecoder
from transformer.kernels.row_products import has_packed_product, packed, row_product
from transformer.processor import OTHER, TABLE, Choices
from variants import variants

Models = Callable[..., DecoderOnlyTransformer]
POSITIONS = ["learned", "sinusoidal", "rotary", "alibi"]
GREEDY = SamplingConfig()


def prepared(model: FastDecoder) -> object:
    return model._prepared and model._prepared[1]


def decoded(model: DecoderOnlyTransformer, tokens: Tensor, padding: Tensor | None = None) -> list[Tensor]:
    """The logits of the last six tokens, one at a time, after a prompt of the others."""
    cache = model.allocate_cache(len(tokens))
    with torch.no_grad():
        next_logits(model, tokens[:, :-6], cache, padding)
        return [
            next_logits(model, tokens[:, i : i + 1], cache, padding)
            for i in range(tokens.shape[1] - 6, tokens.shape[1])
        ]


def assert_the_step_equals_the_modules(model: DecoderOnlyTransformer, rows: int, padded: bool, kernels: str) -> None:
    faster = accelerate(copy.deepcopy(model), kernels)
    tokens = torch.randint(model.config.vocab_size, (rows, 12), generator=torch.Generator().manual_seed(rows))
    padding = torch.arange(rows) % 4 if padded else None
    ours = decoded(faster, tokens, padding)
    assert isinstance(faster, FastDecoder)
    assert prepared(faster) is not None
    torch.testing.assert_close(ours, decoded(model, tokens, padding), rtol=1e-4, atol=1e-4)


@given(
    position=st.sampled_from(POSITIONS), activation=st.sampled_from(["gelu", "gelu_tanh", "relu", "swiglu"]),
    norm=st.sampled_from(["layernorm", "rmsnorm"]), kv_heads=st.sampled_from([1, 2, 4]), bias=st.booleans(),
    tied=st.booleans(), rows=st.integers(1, 9), padded=st.booleans(), kernels=st.sampled_from(["auto", *TABLE]),
)  # fmt: skip
@settings(max_examples=40)
def test_the_step_gives_the_logits_of_the_core(
    tiny_model: Models, position: str, activation: str, norm: str, kv_heads: int, bias: bool, tied: bool, rows: int,
    padded: bool, kernels: str,
) -> None:  # fmt: skip
    model = tiny_model(
        dtype=torch.float32, position=position, activation=activation, norm=norm, num_kv_heads=kv_heads, bias=bias,
        tie_embeddings=tied, vocab_size=300,
    ).eval()  # fmt: skip
    assert_the_step_equals_the_modules(model, rows, padded, kernels)


@given(settings_=variants(), rows=st.integers(1, 3), padded=st.booleans(), kernels=st.sampled_from(["auto", *TABLE]))
@settings(max_examples=40)
def test_the_step_follows_the_settings_of_every_family(
    tiny_model: Models, settings_: dict[str, Any], rows: int, padded: bool, kernels: str
) -> None:
    model = tiny_model(dtype=torch.float32, **settings_).eval()
    assert_the_step_equals_the_modules(model, rows, padded, kernels)


@pytest.mark.parametrize("weights", ["float16", "int8"])
@pytest.mark.parametrize(
    "settings_",
    [
        {"head_width": 48, "qk_norm": "head", "qkv_bias": True, "parallel_blocks": True, "rotary_fraction": 0.25},
        {"qk_norm": "all", "norm_position": "after", "rope_scaling": "linear:2"},
    ],
)
def test_the_step_of_rounded_weights_follows_the_settings_of_every_family(
    tiny_model: Models, settings_: dict[str, Any], weights: Weights
) -> None:
    shape = {"d_model": 64, "num_kv_heads": 2, "position": "rotary", "norm": "rmsnorm", "bias": False, **settings_}
    model = tiny_model(dtype=torch.float32, **shape).eval()
    round_weights(model, weights)
    faster = accelerate(copy.deepcopy(model))
    tokens = torch.randint(17, (2, 12), generator=torch.Generator().manual_seed(0))
    ours = decoded(faster, tokens)
    assert isinstance(faster, FastDecoder)
    assert prepared(faster) is not None
    torch.testing.assert_close(ours, decoded(model, tokens), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("position", POSITIONS)
@torch.no_grad()
def test_on_an_unknown_processor_the_logits_are_the_cores_bit_for_bit(
    tiny_model: Models, position: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "processor", lambda: processor.Processor("new", "unknown"))
    model = accelerate(tiny_model(dtype=torch.float32, position=position).eval())
    assert isinstance(model, FastDecoder)
    assert all(type(module) is not cpu_linear.Linear for module in model.modules())
    assert model.choices == OTHER
    tokens = torch.randint(12, (3, 12))
    ours = decoded(model, tokens)
    model.__class__ = DecoderOnlyTransformer
    assert all(torch.equal(a, b) for a, b in zip(ours, decoded(model, tokens), strict=True))


def replaced_module(model: DecoderOnlyTransformer) -> None:
    class Other(type(model.layers[0].feedforward)):  # type: ignore[misc]
        pass

    model.layers[0].feedforward.__class__ = Other


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(),
        lambda model: model.layers[0].attention.out.register_forward_hook(lambda *_: None),
        lambda model: model.layers[0].register_forward_pre_hook(lambda *_: None),
        replaced_module,
        lambda model: setattr(model.layers[0].attention, "attend", lambda q, k, v, *rest: v[:, :, -1:]),
    ],
    ids=["training mode", "a hook", "a hook before", "a part of another type", "other attention"],
)
@torch.no_grad()
def test_a_model_that_was_changed_runs_the_cores_code(
    tiny_model: Models, change: Callable[[DecoderOnlyTransformer], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = accelerate(tiny_model(dtype=torch.float32, num_kv_heads=4).eval())
    monkeypatch.setattr(steps.DecodeStep, "__call__", lambda *_: pytest.fail("took the prepared step"))
    change(model)
    cache = model.allocate_cache(1)
    model.next_logits(torch.tensor([[1]]), cache)
    assert cache.length == 1


def test_gradients_flow_through_a_single_token_too(tiny_model: Models) -> None:
    model = accelerate(tiny_model(dtype=torch.float32).eval())
    model.next_logits(torch.tensor([[1]]), model.allocate_cache(1)).sum().backward()
    assert model.layers[0].feedforward.up.weight.grad is not None


@torch.no_grad()
def test_changed_weights_and_copies_are_followed(tiny_model: Models) -> None:
    model = accelerate(tiny_model(dtype=torch.float32).eval())
    tokens = torch.randint(12, (1, 12))
    before = decoded(model, tokens)[-1]
    model.layers[0].feedforward.down.weight.mul_(3)
    after = decoded(model, tokens)[-1]
    assert not torch.allclose(before, after)
    clone = copy.deepcopy(model)
    assert clone._prepared is None
    clone.layers[0].feedforward.down.weight.div_(3)
    torch.testing.assert_close(decoded(clone, tokens)[-1], before, rtol=1e-4, atol=1e-4)
    assert torch.equal(decoded(model, tokens)[-1], after)
    torch.save(model, file := io.BytesIO())  # a pickle has no prepared step
    assert file.tell() > 0


@torch.no_grad()
def test_a_batch_of_the_wrong_size_and_a_full_cache_are_refused_as_before(tiny_model: Models) -> None:
    model = accelerate(tiny_model(dtype=torch.float32).eval())
    cache = model.allocate_cache(2, max_len=1)
    with pytest.raises(ValueError, match="a batch of 2, not 1"):
        model.next_logits(torch.tensor([[1]]), cache)
    model.next_logits(torch.tensor([[1], [2]]), cache)
    with pytest.raises(ValueError, match="do not fit"):
        model.next_logits(torch.tensor([[1], [2]]), cache)
    assert cache.length == 1


@torch.no_grad()
def test_greedy_text_is_the_cores_in_float64(tiny_model: Models) -> None:
    model = tiny_model().eval()
    faster = accelerate(copy.deepcopy(model))
    tokens, padding = pad([[1, 2, 3], [4, 5], [6, 7, 8, 9, 10]])
    ours = generate_batch(faster, tokens, 20, GREEDY, padding=padding)  # beyond the context: the window moves
    assert torch.equal(ours, generate_batch(model, tokens, 20, GREEDY, padding=padding))


@pytest.mark.skipif(not has_packed_product(), reason="this build of PyTorch has no oneDNN product")
@given(rows=st.integers(1, 9), out=st.integers(1, 300), width=st.integers(1, 80), bias=st.booleans())
@settings(max_examples=20)
def test_packed_products_are_equal_for_any_number_of_rows(rows: int, out: int, width: int, bias: bool) -> None:
    random = torch.Generator().manual_seed(out)
    x, layer = torch.randn(rows, width, generator=random), nn.Linear(width, out, bias=bias)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 3e-2)):
        weight, offset = layer.weight.detach().to(dtype), None if layer.bias is None else layer.bias.detach().to(dtype)
        product = packed(weight, offset, 8)
        expected = nn.functional.linear(x.to(dtype), weight, offset)
        torch.testing.assert_close(product(x.to(dtype)), expected, rtol=tolerance, atol=tolerance)


def test_a_large_model_is_not_copied_for_a_batch(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_PACKED_BYTES", 10)
    chosen: list[Choices] = []
    monkeypatch.setattr(
        steps, "row_product", lambda linear, rows, choices: chosen.append(choices) or row_product(linear, rows, choices)
    )
    steps.DecodeStep(tiny_model(dtype=torch.float32), 8, Choices(packs_from=2))
    assert {choices.packs_from for choices in chosen} == {0}
