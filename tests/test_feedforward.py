"""The feed-forward network works on each token by itself, with the activation function of the config."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from transformer.config import ModelConfig
from transformer.feedforward import ACTIVATIONS, FeedForward

Configs = Callable[..., ModelConfig]

# The definitions, number by number.
BY_HAND: dict[str, Callable[[float], float]] = {
    "relu": lambda x: max(0.0, x),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "swiglu": lambda x: x / (1 + math.exp(-x)),
}


@pytest.mark.parametrize("activation", BY_HAND)
def test_activations_follow_their_definitions(activation: str) -> None:
    x = torch.linspace(-5, 5, 41, dtype=torch.float64)
    expected = torch.tensor([BY_HAND[activation](number) for number in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[activation](x), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
def test_two_matrices_with_an_activation_function_between(tiny_config: Configs, activation: str) -> None:
    feedforward = FeedForward(tiny_config(activation=activation)).double()
    x = torch.randn(2, 3, 16, dtype=torch.float64)
    hidden = (x @ feedforward.up.weight.T + feedforward.up.bias).detach().apply_(BY_HAND[activation])
    expected = hidden @ feedforward.down.weight.T + feedforward.down.bias
    torch.testing.assert_close(feedforward(x), expected, rtol=1e-9, atol=1e-9)


def test_swiglu_gates_one_projection_with_another(tiny_config: Configs) -> None:
    feedforward = FeedForward(tiny_config(activation="swiglu", bias=False)).double()
    assert feedforward.gate is not None
    x = torch.randn(2, 3, 16, dtype=torch.float64)
    gate = (x @ feedforward.gate.weight.T).detach().apply_(BY_HAND["swiglu"])
    expected = (gate * (x @ feedforward.up.weight.T)) @ feedforward.down.weight.T
    torch.testing.assert_close(feedforward(x), expected, rtol=1e-9, atol=1e-9)


def test_each_token_is_worked_on_by_itself(tiny_config: Configs) -> None:
    feedforward = FeedForward(tiny_config())
    x = torch.randn(2, 5, 16)
    alone = torch.stack([torch.stack([feedforward(token) for token in row]) for row in x])
    torch.testing.assert_close(feedforward(x), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "bias", "numbers"),
    [("gelu", True, 2 * 16 * 24 + 24 + 16), ("gelu", False, 2 * 16 * 24), ("swiglu", False, 3 * 16 * 24)],
)
def test_the_number_of_weights_is_as_the_lesson_says(
    tiny_config: Configs, activation: str, bias: bool, numbers: int
) -> None:
    feedforward = FeedForward(tiny_config(activation=activation, bias=bias))
    assert sum(parameter.numel() for parameter in feedforward.parameters()) == numbers


def test_dropout_acts_on_the_result_in_training_only(tiny_config: Configs) -> None:
    feedforward = FeedForward(tiny_config(dropout=0.5))
    x = torch.randn(20, 20, 16)
    assert 0.45 < (feedforward(x) == 0).float().mean().item() < 0.55
    assert not (feedforward.eval()(x) == 0).any()
