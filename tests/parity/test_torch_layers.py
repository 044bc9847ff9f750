"""One block and its attention compute what PyTorch's ready-made modules compute; ALiBi agrees with Bloom's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from transformer import ModelConfig
from transformer.attention import CausalSelfAttention, Context, explicit_attention
from transformer.block import Block
from transformer.embeddings import alibi_bias, alibi_slopes

CONTEXT = Context(torch.arange(7))


def config_of(**settings: Any) -> ModelConfig:
    return ModelConfig(**{"vocab_size": 5, "d_model": 24, "num_heads": 4, "d_ff": 40, "dropout": 0.0, **settings})


def stirred(module: nn.Module) -> nn.Module:
    """The module with every parameter moved, norms and biases too."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return module


def not_ahead(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).triu(1)  # True: masked, the opposite of our convention


def test_attention_agrees_with_multihead_attention() -> None:
    attention = CausalSelfAttention(config_of(), layer=0)
    reference = stirred(nn.MultiheadAttention(24, 4, batch_first=True))
    attention.load_state_dict(
        {
            "qkv.weight": reference.in_proj_weight,
            "qkv.bias": reference.in_proj_bias,
            "out.weight": reference.out_proj.weight,
            "out.bias": reference.out_proj.bias,
        }
    )
    x = torch.randn(3, 7, 24)
    out, weights = reference(x, x, x, attn_mask=not_ahead(7), average_attn_weights=False)
    torch.testing.assert_close(attention(x, CONTEXT), out, rtol=1e-5, atol=1e-5)
    q, k, v = attention.project(x)
    heads, found = explicit_attention(q, k, v)  # (B, H, T, D), (B, H, T, T)
    torch.testing.assert_close(found, weights, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(attention.out(heads.transpose(1, 2).flatten(2)), out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_agrees_with_transformer_encoder_layer(activation: str, training: bool) -> None:
    block = Block(config_of(activation=activation), layer=0).train(training)
    reference = nn.TransformerEncoderLayer(
        24, 4, 40, dropout=0.0, activation=activation, layer_norm_eps=1e-5, batch_first=True, norm_first=True
    ).train(training)
    stirred(reference)
    names = {
        "attention_norm": "norm1", "attention.out": "self_attn.out_proj",
        "feedforward_norm": "norm2", "feedforward.up": "linear1", "feedforward.down": "linear2",
    }  # fmt: skip
    source = reference.state_dict()
    weights = {
        f"{ours}.{kind}": source[f"{theirs}.{kind}"] for ours, theirs in names.items() for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):
        weights[f"attention.qkv.{kind}"] = source[f"self_attn.in_proj_{kind}"]
    block.load_state_dict(weights)
    x, theirs_x = (torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    out, expected = block(x, CONTEXT), reference(theirs_x, src_mask=not_ahead(7))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    (their_gradient,) = torch.autograd.grad(expected.square().sum(), theirs_x)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("heads", [4, 6])
def test_alibi_attention_agrees_with_blooms_and_with_a_loop(heads: int) -> None:
    q, k, v = torch.randn(3, 2, heads, 7, 5)
    _, weights = explicit_attention(q, k, v, alibi_bias(alibi_slopes(heads), 7, 7))
    scores = q @ k.transpose(-2, -1) / math.sqrt(5)
    # Bloom adds slope * position of the key; within a row that differs from ours by a constant, which softmax ignores.
    bloom = build_alibi_tensor(torch.ones(2, 7), heads, torch.float32).view(2, heads, 1, 7)
    torch.testing.assert_close(
        weights, (scores + bloom).masked_fill(not_ahead(7), -math.inf).softmax(-1), rtol=1e-5, atol=1e-5
    )
    slopes = alibi_slopes(heads).tolist()
    for head in range(heads):
        for i in range(7):
            terms = [math.exp(scores[0, head, i, j].item() - slopes[head] * (i - j)) for j in range(i + 1)]
            row = torch.tensor([term / sum(terms) for term in terms] + [0.0] * (6 - i))
            torch.testing.assert_close(weights[0, head, i], row, rtol=1e-5, atol=1e-5)
