r"""Habits of attention heads: where a head attends, measured over many rows and named.

**The problem.** A picture of attention weights shows one head on one text. Is the bright diagonal the head's habit, or
an accident of this text? And how bright is bright: query 3 has four keys, so even a head that has learnt nothing gives
each of them a quarter.

**The idea.** Four habits are so common that they have names. For a query at position i of the tokens t:

    previous token     the key at i - 1
    first token        the key at 0: a head with nothing to say often rests there
    duplicate token    the keys j < i with t[j] = t[i]: the same token, earlier
    induction          the keys after those, j + 1 < i: what followed this token the last time

    position   0  1  2  3  4          query 4 is the second "b". A head with the habit attends
    token      a  b  c  a  b          to 3 (previous), 0 (first), 1 (duplicate), 2 (induction):
                                      the token there, "c", followed "b" before, and may follow again

A head's *score* for a habit is the attention that it pays to these keys, averaged over the queries that have such a key
at all: 0 never, 1 always. Beside it stands the *even* score, that of a head which spreads its attention evenly over
all keys up to the query, on exactly the same queries. A score says something by its distance from the even score.

By hand, on "abcab": two queries repeat a token, those at 3 and 4. Their keys of induction are 1 and 2, one of 4 keys
and one of 5, so an even head scores (1/4 + 1/5) / 2. A head that attends only to the key two positions back scores 1:

>>> tokens, weights = torch.tensor([[0, 1, 2, 0, 1]]), torch.zeros(1, 1, 5, 5)       # one text, one head
>>> for query, key in enumerate([0, 0, 0, 1, 2]): weights[..., query, key] = 1
>>> found = score_habits([weights], tokens)["induction"]
>>> round(found.even, 6), found.queries, found.score.tolist()
(0.225, 2, [[1.0]])

**Which rows?** On repeated random tokens nothing is left to guess but the repetition, so the scores tell a mechanism
from a preference for certain words; on a text they say what the head does there. Scores are means over queries; rows
differ, so the *standard error* is computed from the rows (a ratio of two sums over rows), not from the queries, which
are not independent.

**What a score does not show.** A weight says where a head reads, not what it writes: a head may attend to a token and
copy nothing. Ablation (ablation.py) and attribution (attribution.py) answer that. Nor does it say how the head found
the key: in rows of N tokens repeated once, a head that counts back N - 1 tokens has the score 1 of induction. So use
rows longer than what the model has seen repeated at a fixed distance, or a text.

**Cost.** One forward pass with explicit weights: L H T^2 numbers for each row, in batches of rows.
Papers: the four habits, arXiv 2209.11895 (induction heads), 1906.04341 (what BERT's heads attend to). Read before:
attention.py. Next: in_context.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.model import DecoderOnlyTransformer

WEIGHTS_AT_ONCE = 2**24
"""Attention weights that are computed at once, 64 MiB in float32: it decides how many rows a batch has."""


@dataclass(frozen=True)
class Habit:
    """How strongly each head has one habit, on some rows."""

    score: Tensor
    """(L, H) float64: attention paid to the keys of the habit, a mean over the queries that have one; nan without."""
    error: Tensor
    """(L, H) float64: standard error of the score, from the differences between rows; nan for a single row."""
    even: float
    """The score of a head that attends evenly to all keys up to the query."""
    queries: int
    """Number of queries that have a key of the habit."""


def previous_token(tokens: Tensor) -> Tensor:
    """The key before each query: tokens (B, T) -> (B, T, T) bool, as of every habit."""
    length = tokens.shape[1]
    return (
        torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril(-1).triu(-1).expand(len(tokens), -1, -1)
    )


def first_token(tokens: Tensor) -> Tensor:
    """The key at position 0, for all queries after it."""
    keys = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool, device=tokens.device)
    keys[:, 1:, 0] = True
    return keys


def duplicate_token(tokens: Tensor) -> Tensor:
    """Earlier keys with the token of the query."""
    return (tokens[:, :, None] == tokens[:, None, :]).tril(-1)


def induction(tokens: Tensor) -> Tensor:
    """Keys after an earlier occurrence of the query's token; never the query itself, as in "aa"."""
    return F.pad(duplicate_token(tokens), (1, -1)).tril(-1)  # a key moves one to the right


HABITS: dict[str, Callable[[Tensor], Tensor]] = {
    "previous token": previous_token,
    "first token": first_token,
    "duplicate token": duplicate_token,
    "induction": induction,
}
"""The habits by name: functions from tokens (B, T) to (B, T, T) bool, True at the keys that belong to a query."""


def head_habits(
    model: DecoderOnlyTransformer, rows: Tensor, on_batch: Callable[[int, int], object] | None = None
) -> dict[str, Habit]:
    """Returns every habit of HABITS for all heads, measured on rows (B, T) int64 without padding.

    `on_batch` receives the number of rows done, and of all rows. Errors are those of model.context().
    """
    config, length = model.config, rows.shape[-1]
    batch = max(1, WEIGHTS_AT_ONCE // (config.num_layers * config.num_heads * length * length))
    parts = []
    for done, tokens in enumerate(rows.split(batch), start=1):
        tokens = tokens.to(model.device)
        parts.append(paid(model.attention_weights(tokens), tokens))
        if on_batch is not None:
            on_batch(min(len(rows), done * batch), len(rows))
    return summarised(parts)


def score_habits(weights: Sequence[Tensor], tokens: Tensor) -> dict[str, Habit]:
    """Returns every habit from given attention weights: L tensors (B, H, T, T) for tokens (B, T)."""
    return summarised([paid(weights, tokens)])


Sums = dict[str, tuple[Tensor, Tensor, Tensor]]
"""By habit, sums over the queries of each row: attention paid (L, H, B), an even head's (B,), and the queries (B,)."""


def paid(weights: Sequence[Tensor], tokens: Tensor) -> Sums:
    """Returns the sums over each row, float64 on the CPU."""
    sums: Sums = {}
    seen = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)  # (T,): number of keys up to each query
    for name, keys_of in HABITS.items():
        keys = keys_of(tokens)  # (B, T, T)
        attention = [(layer.float() * keys[:, None]).sum((-2, -1)).T for layer in weights]  # (H, B) each
        even = (keys.sum(-1) / seen).sum(-1)  # (B,)
        queries = keys.any(-1).sum(-1)  # (B,)
        first, second, third = (part.cpu().double() for part in (torch.stack(attention), even, queries))
        sums[name] = (first, second, third)  # converted on the CPU: MPS has no float64
    return sums


def summarised(parts: Sequence[Sums]) -> dict[str, Habit]:
    """Returns the habits from the sums of batches of rows."""
    habits = {}
    for name in HABITS:
        attention, even, queries = (
            torch.cat(part, dim=-1) for part in zip(*(sums[name] for sums in parts), strict=True)
        )
        total = queries.sum()
        score = attention.sum(-1) / total  # (L, H)
        # A ratio of two sums over rows: its error comes from what each row adds beyond the ratio (Cochran 1977, ch. 6).
        rows = len(queries)
        beyond = (attention - score[..., None] * queries).square().sum(-1)  # (L, H)
        error = (beyond * rows / (rows - 1)).sqrt() / total if rows > 1 else torch.full_like(score, math.nan)
        habits[name] = Habit(score, error, float(even.sum() / total), int(total))
    return habits


def strongest(habit: Habit) -> tuple[int, int]:
    """Returns layer and head with the highest score; a nan counts as lowest."""
    best = int(habit.score.nan_to_num(-1).argmax())
    return divmod(best, habit.score.shape[1])
