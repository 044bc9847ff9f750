"""Values for JSON: tokens, rounded numbers, and attention weights in few bytes."""

from __future__ import annotations

import base64
import math
from typing import Any

import torch
from torch import Tensor

from transformer.config import ModelConfig
from transformer.text import Tokenizer

DIGITS = 5


class Pieces:
    """Tokens as values for JSON; a token that occurs often is decoded once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.known: dict[int, dict[str, Any]] = {}

    def of(self, token: int) -> dict[str, Any]:
        """Returns "id", "text", "bytes" if they are no whole character, and "isEnd" for end-of-text."""
        if token not in self.known:
            content = self.tokenizer.decode_bytes([token])
            found: dict[str, Any] = {"id": token, "text": content.decode(errors="replace")}
            if "\ufffd" in found["text"]:
                found["bytes"] = list(content)
            if token == self.tokenizer.eot_id:
                found["isEnd"] = True
            self.known[token] = found
        return self.known[token]

    def best(self, values: Tensor, count: int, name: str, largest: bool = True) -> list[dict[str, Any]]:
        """Returns the tokens with the largest (or smallest) of some values (V,): {"piece", name: value}."""
        best = values.topk(min(count, len(values)), largest=largest)
        pairs = zip(best.indices.tolist(), rounded(best.values), strict=True)
        return [{"piece": self.of(token), name: value} for token, value in pairs]


def rounded(values: Tensor) -> Any:
    """Returns numbers with DIGITS decimals, in nested lists; None for those that are not finite.

    >>> rounded(torch.tensor([[0.123456, math.nan]]))
    [[0.12346, None]]
    """

    def cut(value: Any) -> Any:
        if isinstance(value, list):
            return [cut(part) for part in value]
        return round(value, DIGITS) if math.isfinite(value) else None

    return cut(values.cpu().double().tolist())


def pack(weights: Tensor, bits: int = 16) -> str:
    """Returns attention weights (..., T, T) as base64: rows up to the diagonal, 8 or 16 bits each, lowest byte first.

    The largest whole number of so many bits stands for 1.
    """
    rows, columns = torch.tril_indices(*weights.shape[-2:])
    whole = (weights[..., rows, columns].float() * (2**bits - 1)).round().int().cpu().numpy()
    return base64.b64encode(whole.astype(f"<u{bits // 8}").tobytes()).decode("ascii")


def packed_bytes(config: ModelConfig, length: int) -> int:
    """Returns the length of what pack() makes for a prompt of `length` tokens."""
    return math.ceil(config.num_layers * config.num_heads * length * (length + 1) / 3) * 4
