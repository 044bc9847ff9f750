r"""Perplexity: measuring a language model.

**The problem.** "The loss is 4.1" says little without a unit and a baseline.

**The measure.** A good model gives the actual text a high probability. A token to which the model gave probability p
has a *surprisal* of -ln p nats. Over N tokens:

    loss        = (1/N) sum_i -ln p(token_i | tokens before it)         nats per token
    perplexity  = exp(loss)

Perplexity is a number of choices: a model of perplexity 20 is as uncertain, on average, as if it chose among 20 equally
likely tokens. A model that gives all V tokens the same probability has perplexity V, a perfect model has 1:

>>> round(calculate_perplexity_from_loss(math.log(50)), 6)
50.0
>>> round(calculate_perplexity(torch.zeros(1, 3, 8), torch.tensor([[1, 5, 7]])), 6)     # equal logits over 8 tokens
8.0

**Two baselines** that ignore the context. The *uniform* baseline gives every token 1/V; its loss is ln V. The *unigram*
baseline gives every token its frequency in other text. The gap between a model and the unigram baseline is the gain
from context. By hand: four tokens occurred 3, 0, 0 and 1 times in other text. One is added to each count, so that no
token is impossible: the first two tokens have probabilities 4/8 and 1/8. A text of these two tokens is a choice among 2
and then among 8, and the geometric mean sqrt(2 * 8) is

>>> round(math.exp(unigram_nats(torch.tensor([1, 1, 0, 0]), torch.tensor([3, 0, 0, 1]))), 6)
4.0

**Comparing encodings.** Perplexity is per token, and tokens differ: a token of cl100k_base is about four bytes of text,
a token of a byte encoding is one. A model that predicts whole words has a higher perplexity than one that predicts
letters, even if it is better. *Bits per byte* relates the surprisal to the text itself:

    bits per byte = (sum of nats / ln 2) / bytes of text

It is also a compression rate: at 2.0 the model can store the text in a quarter of its size. The surprisal of each
end-of-text is included, although no byte of the text encodes it: a decoder must also know where the text ends.

>>> score = Evaluation(nats=80 * math.log(2), tokens=20, text_bytes=40)
>>> round(score.bits_per_byte, 3), round(score.perplexity, 3)
(2.0, 16.0)

**Sums, not means.** Batches hold different numbers of tokens, and a mean of batch means gives a token of a small batch
more weight. So nats and counts are summed, divided once, and exp comes last: the mean of several perplexities is never
smaller than the perplexity of the mean loss.

**Two ways to read a text.** `evaluate_perplexity` reads rows of the packed stream, as training does. It is fast, and
training evaluates with it; but the first tokens of each row have little context. `score_documents` in
evaluation/document_perplexity.py reads every document alone, in overlapping windows, so its tokens have more context.
Compare numbers of the same kind only. evaluation/statistics.py estimates how accurate they are.

**Cost.** A forward pass over the text.
**Is it working?** An untrained model scores about ln V; training text scores no worse than validation text.

Papers: perplexity, Jelinek et al. 1977, "Perplexity, a measure of the difficulty of speech recognition tasks"; Shannon
1951, "Prediction and entropy of printed English"; bits per byte across encodings, arXiv 2101.00027.
Read before: loss.py. Next: optimizer.py.
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
    """The score of a model on a text: summed surprisal in nats, predicted tokens, and size of the text in bytes."""

    nats: float
    tokens: int
    text_bytes: int = 0

    @property
    def loss(self) -> float:
        """Nats per token; nan without tokens."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return calculate_perplexity_from_loss(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text; nan if the size of the text is unknown."""
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
    """Evaluates a model on rows of a packed text: inputs and targets (rows, T) int64, on any device.

    Targets of IGNORE do not count. `text_bytes` is the size of the text that the targets encode. Given the id of
    end-of-text, attention stays within documents, as for a model that was trained so. `on_batch` is called after each
    batch with the number of rows done so far, and the nats and tokens of the batch. Dropout is off, no gradient is
    recorded, and the model's mode is restored.
    """
    nats, tokens, device = torch.zeros((), dtype=torch.float64), 0, model.device
    with torch.no_grad(), eval_mode(model):
        batches = zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
        for number, (rows, wanted) in enumerate(batches, start=1):
            rows, wanted = rows.to(device), wanted.to(device)
            mask = None if end_of_text is None else document_mask(rows, end_of_text)  # (B, 1, T, T)
            batch_nats, count = model.loss(rows, wanted, mask)
            nats += batch_nats.double().cpu()  # float64: thousands of batches add up without rounding
            tokens += int(count)
            if on_batch is not None:
                on_batch(min(len(inputs), number * batch_size), float(batch_nats), int(count))
    return Evaluation(float(nats), tokens, text_bytes)


def calculate_perplexity(logits: Tensor, targets: Tensor) -> float:
    """Returns exp((1/N) sum_i -ln softmax(logits_i)[target_i]) over the N targets that are not IGNORE.

    logits (..., V) of any float type; targets (...) int64. nan if no target counts. Source: Jelinek et al. 1977.
    """
    loss = F.cross_entropy(logits.flatten(0, -2).double(), targets.flatten(), ignore_index=IGNORE)
    return calculate_perplexity_from_loss(loss.item())


def calculate_perplexity_from_loss(loss: float) -> float:
    """Returns exp(loss) for a loss in nats per token; infinite if a float cannot hold it."""
    return math.inf if loss > 700 else math.exp(loss)


def unigram_nats(counts: Tensor, known: Tensor | None = None) -> float:
    """Returns the loss of the unigram baseline, in nats per token.

    counts (V,): how often each token occurs in the evaluated text. known (V,): the same for other text; one is added to
    each (Laplace's rule of succession). None: the frequencies of the evaluated text itself, a lower bound for every
    model that ignores the context.
    """
    counts = counts.double()
    known = counts if known is None else known.double() + 1
    seen = counts > 0  # (V,), so that 0 * log 0 does not occur
    surprisal = known.sum().log() - known[seen].log()  # -ln of each seen token's frequency
    return float((counts[seen] * surprisal).sum() / counts.sum())
