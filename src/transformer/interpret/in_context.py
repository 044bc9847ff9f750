r"""In-context learning: how much better a model predicts the end of a text for having read its beginning.

**The problem.** A model can know a language from training, and it can learn from the text before it. The loss does not
tell them apart.

**The idea.** Random tokens, repeated once:

    first half    r1 r2 r3 ... rN        nothing to predict: the loss is ln V for the best possible model
    second half   r1 r2 r3 ... rN        fully determined by the first half, if the model looks back

No knowledge of the language helps in either half. So a second half with a lower loss than the first comes from the
context alone, and the usual mechanism is the *induction head* (heads.py): find the last occurrence of this token, and
predict what followed it. In training both appear together, within few steps.

On a text, the same difference between late and early positions of a row is smaller and has other causes too: a late
position has seen more of the topic, the names, the style. It is worth knowing, and it does not name a mechanism.

By hand, a row "7 4 7 4" of N = 2, with losses of the tokens after the first of 3, 3 and 1 nats. The first half counts
the target "4"; the target "7" at position 2 is left out, because nothing yet shows that the row repeats; the second
half counts the last "4":

>>> found = halves(torch.tensor([[3.0, 3.0, 1.0]]))
>>> found.first, found.second, found.gain
(3.0, 1.0, 2.0)

**Drawing tokens.** `repeated_rows` draws from the *ordinary* tokens of a vocabulary: without end-of-text and other
special tokens, which have a meaning of their own. For a model of a text, tokens in proportion to their frequency there
are fairer: a rare token, which the model has hardly seen, has a high loss wherever it stands. Even so the loss of the
first half is often above ln V, because random tokens contradict what the model knows.

**Cost.** One forward pass over the rows.
Papers: in-context learning score and induction heads, arXiv 2209.11895; repeated random tokens, transformer-circuits
2021, "A mathematical framework for transformer circuits". Read before: heads.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.generation import eval_mode
from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer

LOGITS_AT_ONCE = 2**24
"""Logits that are computed at once, 64 MiB in float32: it decides how many rows a batch has."""


@dataclass(frozen=True)
class InContextLoss:
    """Mean losses of both halves of some rows, in nats per token."""

    first: float
    second: float
    error: float
    """Standard error of the gain, from the differences between rows; nan for a single row."""

    @property
    def gain(self) -> float:
        """How much lower the loss of the second half is."""
        return self.first - self.second


def ordinary_tokens(tokenizer: Tokenizer) -> Tensor:
    """Returns the ids that stand for text, (N,) int64: all but end-of-text and others that control generation."""
    special = {tokenizer.eot_id, *tokenizer.stop_ids, tokenizer.bos_id}
    return torch.tensor([token for token in range(tokenizer.vocab_size) if token not in special])


def repeated_rows(
    ordinary: Tensor, rows: int, length: int, generator: torch.Generator, counts: Tensor | None = None
) -> Tensor:
    """Returns rows (rows, 2 * length) int64 of `length` random tokens, repeated once, drawn from `ordinary` (N,).

    With `counts` (N,) they are drawn in proportion to them. Within a row no token is drawn twice if there are enough,
    so that each has exactly one earlier occurrence.
    """
    if counts is not None:
        weights = counts.double().expand(rows, -1)
        chosen = torch.multinomial(weights, length, replacement=length > len(ordinary), generator=generator)
    elif length <= len(ordinary):
        chosen = torch.stack([torch.randperm(len(ordinary), generator=generator)[:length] for _ in range(rows)])
    else:
        chosen = torch.randint(len(ordinary), (rows, length), generator=generator)
    return ordinary[chosen].repeat(1, 2)


def familiar_rows(text: Tensor, rows: int, longest: int) -> Tensor:
    """Returns repeated_rows() of tokens drawn as often as they occur in text (N,) int64; always the same ones.

    A row has at most `longest` tokens before they are repeated, and a third of the different ones: else the rarest
    would be drawn too.
    """
    tokens, counts = text.unique(return_counts=True)
    length = max(2, min(longest, len(tokens) // 3))
    return repeated_rows(tokens, rows, length, torch.Generator().manual_seed(0), counts)


@torch.no_grad()
def token_losses(model: DecoderOnlyTransformer, rows: Tensor) -> Tensor:
    """Returns the loss of every token after the first, in nats: rows (B, T) int64 -> (B, T - 1) float64."""
    losses = []
    with eval_mode(model):
        for tokens in batches(model, rows):
            logits = model(tokens[:, :-1]).float()  # (B, T - 1, V)
            losses.append(F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").cpu().double())
    return torch.cat(losses)


def batches(model: DecoderOnlyTransformer, rows: Tensor) -> tuple[Tensor, ...]:
    """Splits the rows so that their logits fit; at least two rows to a batch, because resampling takes a neighbour."""
    size = max(2, LOGITS_AT_ONCE // (model.config.vocab_size * rows.shape[1]))
    return rows.to(model.device).tensor_split(max(1, len(rows) // size))


def in_context_loss(model: DecoderOnlyTransformer, rows: Tensor) -> InContextLoss:
    """Returns the losses of the first and of the second half of rows (B, T) int64, T even and at least 4.

    For rows of repeated_rows() the difference is learnt from the context alone; for rows of a text see above.
    """
    return halves(token_losses(model, rows))


def halves(losses: Tensor) -> InContextLoss:
    """Returns the means of both halves of rows of T tokens, from the losses of all but the first, (B, T - 1).

    The target at position T / 2, the first of the second half, counts in neither.
    """
    middle = losses.shape[1] // 2  # index of the target at position T / 2
    first, second = losses[:, :middle].double().mean(1), losses[:, middle + 1 :].double().mean(1)  # (B,) each
    gains = first - second
    error = float(gains.std() / math.sqrt(len(gains))) if len(gains) > 1 else math.nan
    return InContextLoss(float(first.mean()), float(second.mean()), error)
