"""Numbers are dropped at random, at the right rate, and only in training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.kernels.dropout import Dropout, dropout


@given(st.lists(st.integers(0, 5), max_size=3), st.floats(0, 0.999))
@settings(max_examples=60)
def test_any_shape_keeps_its_shape_and_holds_only_zeros_and_scaled_numbers(shape: list[int], p: float) -> None:
    out = dropout(torch.ones(shape), p)
    assert out.shape == torch.Size(shape)
    kept = out[out != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=2e-2, atol=0)  # p to 1/65,536


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_dropped_fraction_is_p_and_the_mean_stays(p: float) -> None:
    count = 400_000
    out = dropout(torch.ones(count), p)
    five_sigma = 5 * (p * (1 - p) / count) ** 0.5
    assert abs(float((out == 0).float().mean()) - p) < five_sigma
    assert abs(float(out.mean()) - 1) < five_sigma / (1 - p)


def test_the_four_decisions_of_a_draw_are_independent() -> None:
    kept = (dropout(torch.ones(400_000), 0.5) != 0).float().view(-1, 4)
    correlations = torch.corrcoef(kept.T) - torch.eye(4)
    assert float(correlations.abs().max()) < 5 / 100_000**0.5


def test_the_gradient_is_dropped_where_the_number_was() -> None:
    x = torch.ones(1_000, requires_grad=True)
    out = dropout(x, 0.3)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_nothing_is_dropped_outside_training_or_with_p_0() -> None:
    x = torch.randn(100)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_a_seed_fixes_what_is_dropped() -> None:
    torch.manual_seed(3)
    first = dropout(torch.ones(99), 0.5)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(torch.ones(99), 0.5))
    assert not torch.equal(first, dropout(torch.ones(99), 0.5))
