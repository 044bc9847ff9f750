"""A block adds two corrections to the stream, each computed from a normalised copy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from transformer.attention import Context
from transformer.block import Block, norm
from transformer.config import ModelConfig

Configs = Callable[..., ModelConfig]
CONTEXT = Context(torch.arange(5))


def layernorm_by_hand(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def rmsnorm_by_hand(x: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize(("kind", "by_hand"), [("layernorm", layernorm_by_hand), ("rmsnorm", rmsnorm_by_hand)])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_norms_follow_their_formula(
    tiny_config: Configs, kind: str, by_hand: Callable[[Tensor, float], Tensor], eps: float
) -> None:
    x = torch.randn(2, 3, 16, dtype=torch.float64) * 3 + 1
    module = norm(tiny_config(norm=kind, norm_eps=eps)).double()
    torch.testing.assert_close(module(x), by_hand(x, eps), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "bias", "names"),
    [
        ("layernorm", True, ["weight", "bias"]),
        ("layernorm", False, ["weight"]),
        ("rmsnorm", True, ["weight"]),
        ("rmsnorm", False, ["weight"]),
    ],
)
def test_norms_have_a_weight_and_perhaps_a_bias(tiny_config: Configs, kind: str, bias: bool, names: list[str]) -> None:
    assert [name for name, _ in norm(tiny_config(norm=kind, bias=bias)).named_parameters()] == names


def test_a_constant_vector_divides_by_no_zero(tiny_config: Configs) -> None:
    assert norm(tiny_config())(torch.full((1, 16), 7.0)).isfinite().all()
    assert norm(tiny_config(norm="rmsnorm"))(torch.zeros(1, 16)).isfinite().all()


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_the_norm_comes_before_each_part_and_the_parts_add(tiny_config: Configs, kind: str) -> None:
    block = Block(tiny_config(norm=kind), layer=0).double()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    middle = x + block.attention(block.attention_norm(x), CONTEXT)
    expected = middle + block.feedforward(block.feedforward_norm(middle))
    torch.testing.assert_close(block(x, CONTEXT), expected, rtol=1e-12, atol=1e-12)


def test_a_block_that_writes_nothing_passes_the_stream_on_whole(tiny_config: Configs) -> None:
    block = Block(tiny_config(), layer=0)
    for projection in (block.attention.out, block.feedforward.down):
        nn.init.zeros_(projection.weight)
        nn.init.zeros_(projection.bias)
    x = torch.randn(2, 5, 16, requires_grad=True)
    out = block(x, CONTEXT)
    torch.testing.assert_close(out, x, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, torch.ones_like(x), rtol=0, atol=1e-6)


def test_dropout_never_zeroes_the_stream_itself(tiny_config: Configs) -> None:
    block = Block(tiny_config(dropout=0.9), layer=0)
    x = torch.randn(8, 5, 16)
    unchanged = (block(x, CONTEXT) == x).float().mean().item()  # both corrections dropped: 0.9 * 0.9
    assert 0.7 < unchanged < 0.9


def test_norms_that_come_after_act_on_the_corrections(tiny_config: Configs) -> None:
    block = Block(tiny_config(norm_position="after"), layer=0).double()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    y = x + block.attention_norm(block.attention(x, CONTEXT))
    expected = y + block.feedforward_norm(block.feedforward(y))
    torch.testing.assert_close(block(x, CONTEXT), expected, rtol=1e-9, atol=1e-9)


def test_parallel_parts_read_the_same_stream(tiny_config: Configs) -> None:
    block = Block(tiny_config(parallel_blocks=True), layer=0).double()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    corrections = block.attention(block.attention_norm(x), CONTEXT) + block.feedforward(block.feedforward_norm(x))
    torch.testing.assert_close(block(x, CONTEXT), x + corrections, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_norms_that_come_after_are_float32_under_autocast_like_the_stream(tiny_config: Configs, kind: str) -> None:
    block = Block(tiny_config(norm_position="after", norm=kind), layer=0)
    block.attention_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    seen: list[torch.dtype] = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert block(torch.randn(2, 5, 16), CONTEXT).dtype == torch.float32
    assert seen == [torch.float32]
