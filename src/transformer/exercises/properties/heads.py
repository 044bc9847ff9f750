"""Properties of split_heads(x, num_heads) and merge_heads(x): a token's numbers are cut into H pieces, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from transformer.exercises.property import Broken, about, difference, expect_tensor, readable

CASES = ((1, 1, 2, 2), (1, 2, 2, 1), (1, 2, 2, 2), (2, 3, 2, 4), (2, 4, 3, 2))
"""B texts, T tokens, H heads, D numbers in each, in increasing size."""


def numbered(batch: int, tokens: int, width: int) -> Tensor:
    """Vectors (B, T, C) whose numbers say where they are: 0, 1, 2, ... for token 0, 10, 11, ... for token 1."""
    token = 100 * torch.arange(batch).view(-1, 1, 1) + 10 * torch.arange(tokens).view(-1, 1)
    return (token + torch.arange(width)).float()


def by_heads(x: Tensor, heads: int) -> Tensor:
    """The heads of x (B, T, C), each cut out and all stacked: (B, H, T, D)."""
    return torch.stack(x.chunk(heads, dim=-1), dim=1)


@about("split_heads", hint="The heads become a dimension of their own, in front of the tokens.")
def splitting_puts_heads_before_tokens(solution: Any) -> None:
    """split_heads returns (B, H, T, D)."""
    expect_tensor(solution.split_heads(numbered(2, 5, 12), 3), "split_heads(x, 3) of x (2, 5, 12)", B=2, H=3, T=5, D=4)


@about(
    "split_heads",
    hint="A reshape keeps the order of the numbers in memory: token by token. Straight to (B, H, T, D) it fills head 0 "
    "with the first tokens. Cut the last dimension first; then exchange two dimensions.",
)
def a_head_has_neighbouring_numbers_of_each_token(solution: Any) -> None:
    """Head h of a token has the numbers h D to (h + 1) D - 1 of this token."""
    for batch, tokens, heads, width in CASES:
        x = numbered(batch, tokens, heads * width)
        call = f"split_heads(x, {heads})"
        found = expect_tensor(solution.split_heads(x, heads), call, B=batch, H=heads, T=tokens, D=width)
        wanted = by_heads(x, heads)
        if (place := difference(found, wanted)) is not None:
            b, h, t, _ = place
            raise Broken(
                f"{call}, where text {b} is {readable(x[b])}: head {h} of token {t} is {readable(found[b, h, t])} "
                f"instead of {readable(wanted[b, h, t])}"
            )


@about("merge_heads", hint="The result has one vector for each token again, of C = H D numbers.")
def merging_gives_a_vector_for_each_token(solution: Any) -> None:
    """merge_heads returns (B, T, C)."""
    x = by_heads(numbered(2, 5, 12), 3)
    expect_tensor(solution.merge_heads(x), "merge_heads(x) of x (2, 3, 5, 4)", B=2, T=5, C=12)


@about(
    "merge_heads",
    hint="The heads of one token belong side by side. In (B, H, T, D) they are not next to each other in memory: "
    "exchange the two dimensions before you flatten.",
)
def merging_undoes_splitting(solution: Any) -> None:
    """merge_heads puts the heads of a token side by side, in their order: it undoes the split."""
    for batch, tokens, heads, width in CASES:
        x = numbered(batch, tokens, heads * width)
        call = f"merge_heads of {heads} heads"
        found = expect_tensor(solution.merge_heads(by_heads(x, heads)), call, B=batch, T=tokens, C=heads * width)
        if (place := difference(found, x)) is not None:
            b, t, _ = place
            raise Broken(
                f"{call}, {readable(by_heads(x, heads)[b])}: token {t} of text {b} is {readable(found[b, t])} instead "
                f"of {readable(x[b, t])}"
            )


PROPERTIES = (
    splitting_puts_heads_before_tokens, a_head_has_neighbouring_numbers_of_each_token,
    merging_gives_a_vector_for_each_token, merging_undoes_splitting,
)  # fmt: skip
