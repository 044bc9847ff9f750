"""Attention with dropout on a CPU, where PyTorch has no fused kernel that drops weights."""

from __future__ import annotations

from torch import Tensor

from transformer.attention import attention_weights, fused_attention
from transformer.kernels.dropout import dropout as drop


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """fused_attention; for dropout on a CPU, explicit weights and the dropout of kernels/dropout.py."""
    if not dropout or q.device.type != "cpu":
        return fused_attention(q, k, v, mask, dropout)
    weights = attention_weights(q, k, mask)  # (B, H, T, S)
    v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)  # (B, H, S, D)
    return drop(weights, dropout) @ v  # (B, H, T, D)
