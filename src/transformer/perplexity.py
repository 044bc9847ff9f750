r"""Perplexity: measuring a language model.

**The problem.** "The loss is 4.1" says little. Against what, and in which units? And a loss averaged carelessly is not
even the loss.

**The measure.** A model is good if the text that really came does not surprise it. The surprise of a token to which it
gave probability p is -ln p nats. Over N tokens:

    loss        = (1/N) sum_i -ln p(token_i | tokens before it)         nats a token
    perplexity  = exp(loss)

Perplexity reads as a number of choices: a model of perplexity 20 is as unsure, on average, as if it had to guess among
20 equally likely tokens. A uniform model over V tokens has perplexity V, a model that always knows has 1:

>>> round(calculate_perplexity_from_loss(math.log(50)), 6)
50.0
>>> round(calculate_perplexity(torch.zeros(1, 3, 8), torch.tensor([[1, 5, 7]])), 6)     # equal logits over 8 tokens
8.0

**Comparing encodings.** Perplexity is per token, and tokens differ: cl100k_base packs some four bytes into one, a byte
encoding one. A model that guesses whole words looks worse than one that guesses letters, and need not be. *Bits per
byte* counts surprise against the text itself:

    bits per byte = (sum of nats / ln 2) / bytes of text

It is also a compression rate: 2.0 means that the model could store the text in a quarter of its size.

>>> score = Evaluation(nats=80 * math.log(2), tokens=20, text_bytes=40)
>>> round(score.bits_per_byte, 3), round(score.perplexity, 3)
(2.0, 16.0)

**Sums, not means.** Batches hold different numbers of counted tokens; the mean of their means weighs a token of a small
batch more. Sums of nats and counts add up exactly, and exp comes once, at the end (the mean of exponentials is another
number altogether, and always a larger one).

**Context.** The text is cut into rows of max_seq_len tokens, and each row's first tokens have little before them. That
makes the number a little worse than the model's best; it is the same for every model measured here, and quick.
Every token is a target exactly once.
**Cost.** A forward pass over the text, without the table of logits (loss.py).
**Is it working?** An untrained model scores about ln V; training text scores no worse than validation text.

Papers: Shannon 1951, "Prediction and entropy of printed English"; bits per byte across encodings, arXiv 2101.00027.
Read before: loss.py. Next: scheduler.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.config import IGNORE
from transformer.generation import evaluating
from transformer.model import DecoderOnlyTransformer


@dataclass(frozen=True)
class Evaluation:
    """What a model scored on a text: summed surprise in nats, tokens predicted, and the text's size in bytes."""

    nats: float
    tokens: int
    text_bytes: int = 0

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return calculate_perplexity_from_loss(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte of text; nan where the text's size is unknown."""
        return self.nats / math.log(2) / self.text_bytes if self.text_bytes else math.nan


@dataclass
class Spread:
    """How much batches differ in loss, from sums that add up over batches and over processes."""

    batches: float = 0.0
    nats_squared: float = 0.0
    nats_times_tokens: float = 0.0
    tokens_squared: float = 0.0

    def add(self, nats: float, tokens: float) -> None:
        """Adds a batch."""
        self.batches += 1
        self.nats_squared += nats * nats
        self.nats_times_tokens += nats * tokens
        self.tokens_squared += tokens * tokens

    def loss_error(self, evaluation: Evaluation) -> float | None:
        """Returns the standard error of the evaluation's loss, as a level; None for fewer than two batches."""
        if self.batches < 2 or not evaluation.tokens:
            return None
        loss = evaluation.loss
        squares = self.nats_squared - 2 * loss * self.nats_times_tokens + loss**2 * self.tokens_squared
        return math.sqrt(max(0.0, squares) * self.batches / (self.batches - 1)) / evaluation.tokens


def evaluate_perplexity(
    model: DecoderOnlyTransformer,
    inputs: Tensor,
    targets: Tensor,
    text_bytes: int = 0,
    batch_size: int = 16,
    end_of_text: int | None = None,
    spread: Spread | None = None,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Scores a text that dataset.validation_rows cut: inputs and targets (rows, T) int64 on any device.

    Targets of IGNORE do not count. `text_bytes` is the size of the text that the targets spell. Given the id of
    end-of-text, attention stays within documents, as it should for a model that was trained so. `spread` collects how
    much the batches differ; `progress` is told the rows that are done. Dropout is off; the model's mode is restored.
    """
    nats, tokens = torch.zeros((), dtype=torch.float64), 0
    device = model.head.weight.device
    with torch.no_grad(), evaluating(model):
        batches = zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
        for number, (rows, wanted) in enumerate(batches, start=1):
            batch_nats, count = model.loss(rows.to(device), wanted.to(device), end_of_text)
            nats += batch_nats.double().cpu()
            tokens += int(count)
            if spread is not None and count:
                spread.add(float(batch_nats), int(count))
            if progress is not None:
                progress(min(len(inputs), number * batch_size))
    return Evaluation(float(nats), tokens, text_bytes)


def calculate_perplexity(logits: Tensor, targets: Tensor) -> float:
    """Returns exp of the mean surprise: logits (..., V), targets (...) int64; IGNORE is not counted."""
    loss = F.cross_entropy(logits.flatten(0, -2).double(), targets.flatten(), ignore_index=IGNORE)
    return calculate_perplexity_from_loss(loss.item())


def calculate_perplexity_from_loss(loss: float) -> float:
    """Returns exp(loss) for a loss in nats a token; infinite where that is beyond what a float can hold."""
    return math.inf if loss > 700 else math.exp(loss)
