"""Properties of previous_token_head and induction_head: two heads set by hand that continue a repeated text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from transformer.attention import causal_mask
from transformer.exercises.property import Broken, about, expect_pair, expect_tensor, readable

TEXTS = (
    (0, 1, 1),
    (0, 1, 2, 1),
    (0, 2, 1, 2),
    (0, 1, 2, 3, 1),
    (0, 1, 2, 3, 2),
    (0, 4, 3, 1, 2, 4),
    (0, 3, 4, 1, 2, 4),
)
"""Each begins with token 0, which occurs nowhere else; the last token occurred exactly once before."""
MOST = 0.9
"""Smallest weight that counts as attending to one position."""
PARTS = ("token", "position", "previous token", "predicted token")


def part_slices(vocabulary: int, length: int) -> dict[str, slice]:
    """The columns of each part of the residual stream, C = V + T + V + V in all."""
    sizes, start, found = (vocabulary, length, vocabulary, vocabulary), 0, {}
    for name, size in zip(PARTS, sizes, strict=True):
        found[name] = slice(start, start + size)
        start += size
    return found


def sizes_of(text: tuple[int, ...]) -> tuple[int, int]:
    """The size of the vocabulary and the length."""
    return max(text) + 1, len(text)


def stream_of(text: tuple[int, ...], with_previous: bool = False) -> Tensor:
    """The residual stream (T, C) before the first head, or as the previous-token head should leave it."""
    vocabulary, length = sizes_of(text)
    parts, ids = part_slices(vocabulary, length), torch.tensor(text)
    x = torch.zeros(length, 3 * vocabulary + length)
    x[:, parts["token"]] = torch.eye(vocabulary)[ids]
    x[:, parts["position"]] = torch.eye(length)
    if with_previous:
        x[1:, parts["previous token"]] = torch.eye(vocabulary)[ids[:-1]]
        x[0, parts["previous token"]] = torch.eye(vocabulary)[ids[0]]  # position 0 can attend to itself only
    return x


def head_of(solution: Any, name: str, text: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The two matrices of a head, of the right shapes."""
    vocabulary, length = sizes_of(text)
    call, width = f"{name}({vocabulary}, {length})", 3 * vocabulary + length
    qk, ov = expect_pair(getattr(solution, name)(vocabulary, length), call, "qk, ov")
    for matrix, which in ((qk, "first"), (ov, "second")):
        expect_tensor(matrix, f"the {which} matrix of {call}", C=width, C_=width)
    return qk.float(), ov.float()


def run_head(x: Tensor, qk: Tensor, ov: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the stream (T, C) after the head, and the head's weights (T, T)."""
    scores = x @ qk @ x.T  # (T, T)
    weights = scores.masked_fill(~causal_mask(len(x), len(x)), -torch.inf).softmax(-1)
    return x + weights @ x @ ov, weights


def attends(weights: Tensor, query: int, key: int, what: str) -> None:
    """Raises Broken unless the query attends to the key."""
    if weights[query, key] < MOST:
        raise Broken(
            f"{what}: position {query} attends to the positions 0 to {query} with the weights "
            f"{readable(weights[query, : query + 1])}; wanted: {MOST} or more for position {key}"
        )


@about(
    "previous_token_head",
    hint="qk[i, j] is what the score gains if number i of the query's vector and number j of the key's are both 1. Let "
    "position t of the query meet position t - 1 of the key, and make the number large: softmax needs a difference.",
)
def the_first_head_attends_to_the_previous_token(solution: Any) -> None:
    """With the matrices of previous_token_head, each position attends to the one before it."""
    for text in TEXTS:
        _, weights = run_head(stream_of(text), *head_of(solution, "previous_token_head", text))
        for position in range(1, len(text)):
            attends(weights, position, position - 1, f"text {list(text)}, previous_token_head")


@about(
    "previous_token_head",
    hint="ov[i, j] copies number i of the vector attended to into number j of the stream: from the part `token` to the "
    "part `previous token`.",
)
def the_first_head_writes_the_previous_token(solution: Any) -> None:
    """previous_token_head writes the token that it attends to into the part `previous token`, and nothing elsewhere."""
    for text in TEXTS:
        vocabulary, length = sizes_of(text)
        x, _ = run_head(stream_of(text), *head_of(solution, "previous_token_head", text))
        wanted = stream_of(text, with_previous=True)
        for name, columns in part_slices(vocabulary, length).items():
            for position in range(1, length):
                if (x[position, columns] - wanted[position, columns]).abs().max() > 1 - MOST:
                    raise Broken(
                        f"text {list(text)}, after previous_token_head: the part `{name}` of position {position} is "
                        f"{readable(x[position, columns])} instead of {readable(wanted[position, columns])}"
                    )


@about(
    "induction_head",
    hint="The query asks with its token; the key answers with its previous token. Where both are equal, the key is the "
    "position after an earlier occurrence.",
)
def the_second_head_attends_to_the_token_after(solution: Any) -> None:
    """With the matrices of induction_head, a repeated token attends to the position after its first occurrence."""
    for text in TEXTS:
        x = stream_of(text, with_previous=True)
        _, weights = run_head(x, *head_of(solution, "induction_head", text))
        last, before = len(text) - 1, text.index(text[-1])
        what = f"text {list(text)}, induction_head: token {text[-1]} at position {last} was at position {before} before"
        attends(weights, last, before + 1, what)


@about("induction_head", hint="The head copies the token of the position that it attends to into `predicted token`.")
def together_they_predict_what_followed(solution: Any) -> None:
    """After both heads the largest number of `predicted token` is the token that followed the first occurrence."""
    for text in TEXTS:
        columns = part_slices(*sizes_of(text))["predicted token"]
        x, _ = run_head(stream_of(text), *head_of(solution, "previous_token_head", text))
        x, _ = run_head(x, *head_of(solution, "induction_head", text))
        wanted, prediction = text[text.index(text[-1]) + 1], x[-1, columns]
        if int(prediction.argmax()) != wanted or prediction.max() < 0.5:
            raise Broken(
                f"text {list(text)}: after the last token, `predicted token` is {readable(prediction)}; token {wanted} "
                f"followed {text[-1]} the first time"
            )


PROPERTIES = (
    the_first_head_attends_to_the_previous_token, the_first_head_writes_the_previous_token,
    the_second_head_attends_to_the_token_after, together_they_predict_what_followed,
)  # fmt: skip
