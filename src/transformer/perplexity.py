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

**Against what.** Two models that read nothing stand beside the number. *Uniform* gives every token 1/V and scores ln V.
*Unigram* knows how often each token comes, and not what stands before it. What a model gained by reading shows against
the second. Four tokens were counted 3, 0, 0 and 1 times in other text; with one added to each, so that none is
impossible, the first two have 4/8 and 1/8. A text of these two is a choice among 2 and among 8, and sqrt(2 * 8) is

>>> round(math.exp(unigram_nats(torch.tensor([1, 1, 0, 0]), torch.tensor([3, 0, 0, 1]))), 6)
4.0

**Comparing encodings.** Perplexity is per token, and tokens differ: cl100k_base packs some four bytes into one, a byte
encoding one. A model that guesses whole words looks worse than one that guesses letters, and need not be. *Bits per
byte* counts surprise against the text itself:

    bits per byte = (sum of nats / ln 2) / bytes of text

It is also a compression rate: 2.0 means that the model could store the text in a quarter of its size. The surprise at
each end-of-text is in the sum, though no byte of text spells it: where a text ends has to be told as well.

>>> score = Evaluation(nats=80 * math.log(2), tokens=20, text_bytes=40)
>>> round(score.bits_per_byte, 3), round(score.perplexity, 3)
(2.0, 16.0)

**Sums, not means.** Batches and documents hold different numbers of tokens; the mean of their means weighs a token of a
small one more. Sums of nats and counts add up exactly, and exp comes once, at the end (the mean of exponentials is
another number altogether, and always a larger one).

**Two ways to read the text.** `evaluate_perplexity` reads rows of the packed stream, as training does: quick, used for
a run's looks at itself, and each row's first tokens have little before them, or the end of another document.
`document_scores.score_documents` reads every document alone, in windows that overlap, so that each token has context.
Tokens with more context are easier, so its numbers tend to lie lower: compare them with each other, not with looks.

**Cost.** A forward pass over the text, without the table of logits (loss.py).
**Is it working?** An untrained model scores about ln V; training text scores no worse than validation text.

Papers: perplexity, Jelinek et al. 1977, "Perplexity, a measure of the difficulty of speech recognition tasks"; Shannon
1951, "Prediction and entropy of printed English"; bits per byte across encodings, arXiv 2101.00027.
Read before: loss.py. Next: document_scores.py, scheduler.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.config import IGNORE
from transformer.data.document_mask import document_mask
from transformer.generation import eval_mode
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


def evaluate_perplexity(
    model: DecoderOnlyTransformer,
    inputs: Tensor,
    targets: Tensor,
    text_bytes: int = 0,
    batch_size: int = 16,
    end_of_text: int | None = None,
    on_batch: Callable[[int, float, int], object] | None = None,
) -> Evaluation:
    """Scores a text that dataset.validation_rows cut: inputs and targets (rows, T) int64 on any device.

    sum_i -ln p(target_i | the row before it), and the count of i; their quotient is the loss, exp of that the
    perplexity (Jelinek et al. 1977). Targets of IGNORE do not count. `text_bytes` is the size of the text that the
    targets spell. Given the id of end-of-text, attention stays within documents, as it should for a model that was
    trained so. `on_batch` is called after each batch with the rows done so far and the batch's nats and tokens.
    Dropout is off; the model's mode is restored.
    """
    nats, tokens = torch.zeros((), dtype=torch.float64), 0
    device = model.device
    with torch.no_grad(), eval_mode(model):
        batches = zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
        for number, (rows, wanted) in enumerate(batches, start=1):
            rows, wanted = rows.to(device), wanted.to(device)
            mask = None if end_of_text is None else document_mask(rows, end_of_text)
            batch_nats, count = model.loss(rows, wanted, mask)
            nats += batch_nats.double().cpu()
            tokens += int(count)
            if on_batch is not None:
                on_batch(min(len(inputs), number * batch_size), float(batch_nats), int(count))
    return Evaluation(float(nats), tokens, text_bytes)


def calculate_perplexity(logits: Tensor, targets: Tensor) -> float:
    """Returns exp((1/N) sum_i -ln softmax(logits_i)[target_i]) over the N targets that are not IGNORE.

    logits (..., V) of any float type; targets (...) int64. nan where no target counts. Source: Jelinek et al. 1977.
    """
    loss = F.cross_entropy(logits.flatten(0, -2).double(), targets.flatten(), ignore_index=IGNORE)
    return calculate_perplexity_from_loss(loss.item())


def calculate_perplexity_from_loss(loss: float) -> float:
    """Returns exp(loss) for a loss in nats a token; infinite where that is beyond what a float can hold."""
    return math.inf if loss > 700 else math.exp(loss)


def unigram_nats(counts: Tensor, known: Tensor | None = None) -> float:
    """Returns the nats a token of a model that knows how often each token comes, and nothing else.

    counts (V,): of the text to be scored. known (V,): of other text; one is added to each (Laplace's rule of
    succession). None: the frequencies of the text itself, which no model that reads nothing can be better than.
    """
    counts = counts.double()
    known = counts if known is None else known.double() + 1
    seen = counts > 0
    surprise = known.sum().log() - known[seen].log()
    return float((counts[seen] * surprise).sum() / counts.sum())
