"""The loss is the summed cross-entropy of the targets that count, and its gradient is p - [v = y]."""

from __future__ import annotations

import math

import pytest
import torch

from transformer.config import IGNORE
from transformer.loss import next_token_loss


def test_the_loss_by_hand() -> None:
    hidden, weight = torch.ones(2, 1), torch.tensor([[1.0], [3.0]]).log()  # probabilities 1/4 and 3/4
    nats, count = next_token_loss(hidden, weight, torch.tensor([0, 1]))
    assert nats.item() == pytest.approx(math.log(4) + math.log(4 / 3), abs=1e-6)
    assert (nats.shape, count.shape, count.dtype, int(count)) == ((), (), torch.int64, 2)


def test_the_gradient_by_hand() -> None:
    hidden = torch.ones(1, 1, requires_grad=True)
    weight = torch.tensor([[1.0], [3.0]]).log().requires_grad_()
    nats, _ = next_token_loss(hidden, weight, torch.tensor([0]))
    d_hidden, d_weight = torch.autograd.grad(nats, (hidden, weight))
    # The logits' gradient is p - [v = y] = [-3/4, 3/4]; times the weight's rows, and times x = 1.
    torch.testing.assert_close(d_hidden, torch.tensor([[0.75 * math.log(3)]]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(d_weight, torch.tensor([[-0.75], [0.75]]), rtol=1e-5, atol=1e-6)


def test_equal_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    nats, count = next_token_loss(torch.zeros(3, 4), torch.randn(50, 4), torch.tensor([0, 7, 49]))
    assert (nats / count).item() == pytest.approx(math.log(50), abs=1e-5)


def test_ignored_targets_are_not_counted_and_have_no_gradient() -> None:
    hidden, weight = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4)
    targets = torch.tensor([1, IGNORE, 8, IGNORE, 0, 3])
    nats, count = next_token_loss(hidden, weight, targets)
    kept, _ = next_token_loss(hidden[targets != IGNORE], weight, targets[targets != IGNORE])
    assert int(count) == 4
    torch.testing.assert_close(nats, kept)
    (gradient,) = torch.autograd.grad(nats, hidden)
    assert (gradient[targets == IGNORE] == 0).all()


def test_no_targets_cost_nothing() -> None:
    for rows in (0, 4):
        hidden = torch.randn(rows, 4, requires_grad=True)
        nats, count = next_token_loss(hidden, torch.randn(9, 4), torch.full((rows,), IGNORE))
        nats.backward()
        assert (nats.item(), int(count)) == (0, 0)
        assert (hidden.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    hidden, weight = torch.randn(20, 16).to(dtype), torch.randn(300, 16).to(dtype)
    targets = torch.arange(20)
    nats, _ = next_token_loss(hidden, weight, targets)
    exact, _ = next_token_loss(hidden.double(), weight.double(), targets)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats.double(), exact, rtol=5e-3, atol=0)


@pytest.mark.parametrize("target", [-1, 9])
def test_a_target_outside_the_vocabulary_is_an_error(target: int) -> None:
    with pytest.raises((IndexError, ValueError, RuntimeError)):
        next_token_loss(torch.zeros(1, 4), torch.zeros(9, 4), torch.tensor([target]))
