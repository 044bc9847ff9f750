r"""The logit lens: the model's prediction, read after every layer.

**The problem.** A model predicts after its last layer. Where does the prediction come from: is it there early, and the
late layers make it more certain, or does it change on the way?

**The idea.** All layers write to the same stream, and the output projection reads it. So read it early:

    lens after block N  =  softmax(head(final_norm(residual_after N)))

    embeddings --block 0-- x1 --block 1-- x2 --final norm, output projection--> logits
        |                  |              |
        +------------------+--------------+--> the same norm and projection: three readings

The last reading is the model's own prediction. `kl` says how far the others are from it: the Kullback-Leibler
divergence, sum_v p_last(v) ln(p_last(v) / p(v)) in nats, is 0 for the same probabilities.

By hand, on the model of induction_by_hand.py: only its last layer predicts anything. Before, all logits are 0 and each
of the 12 tokens has probability 1/12:

>>> from transformer.interpret.induction_by_hand import induction_model
>>> readings = logit_lens(induction_model(), torch.tensor([[0, 5, 3, 7, 5]]), count=1)
>>> [(reading.name, round(float(reading.probabilities[0, -1, 0]), 3)) for reading in readings]
[('embeddings', 0.083), ('blocks.0.residual_after', 0.083), ('blocks.1.residual_after', 1.0)]
>>> int(readings[-1].ids[0, -1, 0])
3

**What it does not show.** The projection was trained to read the last stream only. An early layer may hold the answer
in directions that a later one rotates into place; the lens shows noise there, and that proves nothing about what the
layer knows. (The *tuned lens*, arXiv 2303.08112, trains a map for each layer. It is not here: it says what could be
read, by a map that has itself learnt from the text.) With tied embeddings the first readings often show the input
token itself, because the stream still has its row.

**Cost.** One forward pass, and one output projection for each reading; only one reading's logits are in memory.
Papers: nostalgebraist 2020, "interpreting GPT: the logit lens"; arXiv 2303.08112. Read before: activations.py. Next:
attribution.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from transformer.activations import recorded
from transformer.generation import eval_mode
from transformer.model import DecoderOnlyTransformer


class Reading(NamedTuple):
    """What the output projection reads in one stream, at every position."""

    name: str
    """The activation that was read."""
    ids: Tensor
    """(B, T, count) int64: the most likely tokens, the best first."""
    probabilities: Tensor
    """(B, T, count): theirs."""
    kl: Tensor
    """(B, T): Kullback-Leibler divergence of the model's own prediction from this one, in nats."""


def stream_names(model: DecoderOnlyTransformer, middle: bool = False) -> list[str]:
    """Returns the names of the streams, from the embeddings to what follows the last block.

    With `middle` also those between attention and feed-forward network, which parallel blocks do not have.
    """
    parts = ["residual_mid", "residual_after"] if middle and not model.config.parallel_blocks else ["residual_after"]
    return ["embeddings"] + [f"blocks.{layer}.{part}" for layer in range(model.config.num_layers) for part in parts]


@torch.no_grad()
def lens_logits(model: DecoderOnlyTransformer, tokens: Tensor, middle: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Yields the name of each stream and its logits (B, T, V), the last stream first; tokens (B, T) int64.

    `middle` as in stream_names(). The first logits are the model's own. It runs without dropout.
    """
    with eval_mode(model), recorded(model, stream_names(model, middle)) as streams:
        model.hidden(tokens)
    for name, stream in reversed(streams.items()):
        yield name, model.head(model.final_norm(stream))


@torch.no_grad()
def logit_lens(model: DecoderOnlyTransformer, tokens: Tensor, count: int = 5, middle: bool = False) -> list[Reading]:
    """Returns the reading of each stream, from the embeddings to the model's own prediction; tokens (B, T) int64."""
    readings: list[Reading] = []
    own: Tensor | None = None  # (B, T, V) log-probabilities
    for name, logits in lens_logits(model, tokens, middle):
        log_probabilities = logits.float().log_softmax(-1)  # (B, T, V)
        own = log_probabilities if own is None else own
        best = log_probabilities.topk(min(count, logits.shape[-1]))
        kl = (own.exp() * (own - log_probabilities)).sum(-1)
        readings.append(Reading(name, best.indices, best.values.exp(), kl))
    return readings[::-1]
