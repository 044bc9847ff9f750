"""Exercise: an induction head, set by hand. Lesson: src/transformer/interpret/induction_by_hand.py.

Two heads without a network continue a text that repeats itself: "... A B ... A" is followed by B. Token 0 begins each
text and occurs nowhere else. The vector of a position has C = V + T + V + V numbers, in four parts:

    token            V numbers: 1 for the token at this position, 0 for the others
    position         T numbers: 1 for this position, 0 for the others
    previous token   V numbers, all 0 at first; the first head writes here
    predicted token  V numbers, all 0 at first; the second head writes here, and the largest is the prediction

A head has two matrices, qk and ov, each (C, C). For the vectors x (T, C) of a text:

    weights = softmax(x qk x^T), causal       row: the position that attends; column: the position attended to
    x       = x + weights x ov
"""

from __future__ import annotations

from torch import Tensor


def previous_token_head(vocab_size: int, length: int) -> tuple[Tensor, Tensor]:
    """Returns qk and ov, each (C, C), for V = vocab_size and T = length.

    Every position attends to the one before it (weight 0.9 or more), and that one's token is written to the part
    `previous token`, as 1.
    """
    raise NotImplementedError


def induction_head(vocab_size: int, length: int) -> tuple[Tensor, Tensor]:
    """Returns qk and ov, each (C, C), for V = vocab_size and T = length; it runs after previous_token_head.

    A position whose token occurred before attends to the position after that (weight 0.9 or more), and the token there
    is written to the part `predicted token`.
    """
    raise NotImplementedError
