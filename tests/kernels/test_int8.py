"""Weights in a quarter of the bytes: what rounding loses is bounded, and whatever the shape, no kernel reads beyond."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import DecoderOnlyTransformer
from transformer.kernels.int8 import KERNEL_STEP, MOST_ROWS, Int8Linear, quantise

Models = Callable[..., DecoderOnlyTransformer]


@given(
    rows=st.integers(1, MOST_ROWS + 3), out=st.integers(1, 140), steps=st.integers(1, 6),
    extra=st.sampled_from([0, 0, 5]), bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=80)
def test_the_product_is_that_of_the_spelled_out_weights_to_bfloat16s_rounding(
    rows: int, out: int, steps: int, extra: int, bias: bool, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    width = steps * KERNEL_STEP + extra  # where it is no multiple, the kernel would read beyond the rows
    weight, x = torch.randn(out, width, generator=random), torch.randn(rows, width, generator=random)
    offset = torch.randn(out, generator=random) if bias else None
    layer = Int8Linear(weight, offset)
    expected = torch.nn.functional.linear(x, layer.weight, offset)
    # x and the sum are each rounded to 8 binary digits.
    bound = 2**-8 * (x.abs() @ layer.weight.abs().t() + expected.abs() + 1)
    assert ((layer(x) - expected).abs() <= bound).all()


@given(out=st.integers(1, 20), width=st.integers(1, 70), seed=st.integers(0, 99))
def test_a_weight_is_off_by_half_a_scale_at_most(out: int, width: int, seed: int) -> None:
    weight = torch.randn(out, width, generator=torch.Generator().manual_seed(seed))
    layer = Int8Linear(weight)
    assert ((layer.weight - weight).abs() <= layer.scale[:, None] * 0.5001).all()
    assert (layer.quantised.abs().amax(1) == 127).all()


def test_a_row_of_zeros_stays_one() -> None:
    layer = Int8Linear(torch.zeros(3, KERNEL_STEP), torch.ones(3))
    assert torch.equal(layer(torch.randn(2, KERNEL_STEP)), torch.ones(2, 3))


@pytest.mark.parametrize("tied", [True, False])
def test_a_quantised_model_writes_and_is_measured_nearly_as_before(tiny_model: Models, tied: bool) -> None:
    model = tiny_model(dtype=torch.float32, d_model=64, tie_embeddings=tied)
    tokens = torch.randint(0, 17, (2, 6), generator=torch.Generator().manual_seed(1))
    table = model.embeddings.token.weight.clone()
    with torch.no_grad():
        logits, (nats, _) = model(tokens), model.loss(tokens, tokens)
        quantise(model)
        assert (model(tokens) - logits).std() < 0.05 * logits.std()
        torch.testing.assert_close(model.loss(tokens, tokens)[0], nats, rtol=0.02, atol=0)
    assert torch.equal(model.embeddings.token.weight, table)  # one row is looked up: it stays as it is
    assert not any(isinstance(module, torch.nn.Linear) for module in model.modules())
    assert model.generate(tokens, max_new_tokens=9).shape == (2, 15)
    assert torch.equal(
        model.generate(tokens[:1], max_new_tokens=3), model.generate(tokens[:1], max_new_tokens=3, use_cache=False)
    )


def test_the_weights_take_a_quarter_of_the_bytes() -> None:
    layer = torch.nn.Linear(256, 1024, bias=False)
    held = sum(buffer.nbytes for buffer in Int8Linear(layer.weight).buffers())
    assert held == layer.weight.nbytes // 4 + 1024 * 6  # one byte a weight, and a scale a row, twice
