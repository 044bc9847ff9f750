"""The product for few rows equals nn.Linear, which runs in all other cases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from transformer.kernels import cpu_linear as linear
from transformer.kernels.cpu_linear import MOST_ROWS, Linear, few_rows


@given(
    rows=st.integers(1, MOST_ROWS), out=st.integers(1, 700), width=st.integers(1, 80), bias=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_blocks_give_the_same_product(rows: int, out: int, width: int, bias: bool, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(rows, width, generator=random), torch.randn(out, width, generator=random)
    offset = torch.randn(out, generator=random) if bias else None
    y = few_rows(x, weight, offset)
    assert y.is_contiguous()
    torch.testing.assert_close(y, F.linear(x, weight, offset), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 12), (MOST_ROWS, 12), (2, 3, 12), (12,), (0, 12), (1, MOST_ROWS + 1, 12)])
@torch.no_grad()
def test_any_shape_of_input_comes_out_as_from_nn_linear(shape: tuple[int, ...]) -> None:
    layer = Linear(12, 300)
    x = torch.randn(shape)
    expected = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert layer(x).shape == expected.shape


def test_one_row_on_a_cpu_takes_the_blocks_and_training_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    monkeypatch.setattr(linear, "few_rows", lambda x, *rest: called.append(len(x)) or few_rows(x, *rest))
    monkeypatch.setattr(linear, "HAS_MKL", True)
    layer, x = Linear(8, 300), torch.randn(1, 1, 8)
    layer(x)
    assert called == []  # a gradient is recorded
    with torch.no_grad():
        layer(x)
        layer(torch.randn(MOST_ROWS + 1, 8))
        layer.double()(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.float()(x).dtype == torch.bfloat16
        assert called == [1]
        monkeypatch.setattr(linear, "HAS_MKL", False)
        layer(x)
    assert called == [1]


def test_the_parameters_are_nn_linears() -> None:
    plain, ours = torch.nn.Linear(5, 7), Linear(5, 7)
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(2, 5, requires_grad=True)
    assert torch.equal(ours(x), plain(x))
    ours(x).sum().backward()
    assert x.grad is not None
