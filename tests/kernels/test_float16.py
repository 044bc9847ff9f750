"""float16 weights: the product with the rounded weights, in float32."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from transformer import DecoderOnlyTransformer
from transformer.kernels import accelerate, round_weights
from transformer.kernels.float16 import LARGEST, Float16Linear

Models = Callable[..., DecoderOnlyTransformer]


def without_kernel(layer: Float16Linear) -> Float16Linear:
    """The same layer as it is built where PyTorch has no FBGEMM."""
    layer.rounded, layer.packed = layer.weight.half(), None
    return layer


@given(
    rows=st.integers(0, 40), out=st.integers(1, 90), width=st.integers(1, 90), bias=st.booleans(),
    has_kernel=st.booleans(),
)  # fmt: skip
def test_the_product_is_the_one_with_the_rounded_weights(
    rows: int, out: int, width: int, bias: bool, has_kernel: bool
) -> None:
    random = torch.Generator().manual_seed(out)
    x, weight = torch.randn(rows, width, generator=random), torch.randn(out, width, generator=random)
    offset = torch.randn(out, generator=random) if bias else None
    layer = Float16Linear(weight, offset) if has_kernel else without_kernel(Float16Linear(weight, offset))
    assert torch.equal(layer.weight, weight.half().float())
    torch.testing.assert_close(layer(x), F.linear(x, weight.half().float(), offset), rtol=1e-5, atol=1e-4)
    wide = None if offset is None else offset.double()
    exact = F.linear(x.double(), weight.half().double(), wide)
    torch.testing.assert_close(layer(x[None].double())[0], exact)  # another type than the kernel's


def test_a_weight_beyond_the_range_becomes_its_end() -> None:
    layer = Float16Linear(torch.tensor([[1e6, -1e6, 1e-9]]))
    assert layer.weight.tolist() == [[LARGEST, -LARGEST, 0.0]]


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_writes_and_is_measured_nearly_as_before(tiny_model: Models, tied: bool) -> None:
    model = accelerate(tiny_model(dtype=torch.float32, tie_embeddings=tied).eval())
    tokens = torch.randint(0, 17, (2, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, (nats, _) = model(tokens), model.loss(tokens, tokens)
        round_weights(model, "float32")
        assert not any(isinstance(module, Float16Linear) for module in model.modules())
        round_weights(model, "float16")
        assert isinstance(model.head, Float16Linear)
        assert (model(tokens) - logits).std() < 2e-3 * logits.std()
        torch.testing.assert_close(model.loss(tokens, tokens)[0], nats, rtol=1e-3, atol=0)
        cached = model.generate(tokens, max_new_tokens=5)
    assert torch.equal(cached, model.generate(tokens, max_new_tokens=5, use_cache=False))
    clone = copy.deepcopy(model)
    assert torch.equal(clone(tokens), model(tokens))
    torch.save(model, io.BytesIO())


def test_there_is_one_copy_of_the_weights() -> None:
    layer = Float16Linear(torch.randn(256, 1024))
    assert (layer.packed is None) != (layer.rounded is None)
