"""A distribution over tokens for the eye: how uncertain it is, a bar for a probability, a name for a token."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from transformer.text import Tokenizer


def entropy_bits(probs: Tensor) -> float:
    """Returns the entropy of probs (V,) in bits: 0 where one token is certain, log2 V where all are alike.

    2 to its power is the number of equally likely tokens that would be as uncertain.
    """
    return abs(float(torch.special.entr(probs).sum())) / math.log(2)  # abs: never -0.0


def bar(share: float, width: int = 5) -> str:
    """Returns a bar that has `width` characters for 1, drawn in eighths of a character; at least one above 0."""
    eighths = max(round(share * width * 8), int(share > 0))
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8]).rstrip()


def token_name(tokenizer: Tokenizer, token: int) -> str:
    """Returns what a token spells, in quotes; its bytes where they are no whole characters."""
    spelt = tokenizer.decode_bytes([token])
    try:
        return repr(spelt.decode())
    except UnicodeDecodeError:
        return repr(spelt)
