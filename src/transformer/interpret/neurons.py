r"""Hidden units of the feed-forward networks: what activates one, and what it writes.

**The problem.** Two thirds of a block's weights are in its feed-forward network. What does unit 17 of layer 3 do?

**The idea.** Three partial answers, from the weights alone and from a text:

    reads     row 17 of the first matrix is a pattern: which token vectors are nearest to it
    writes    column 17 of the last matrix is added to the stream: which logits it raises and lowers directly
    passages  the places in a text where the unit's activation is highest

*Nearest* is by cosine, u . v / (|u| |v|): the angle between two vectors, whatever their lengths. The direction that a
unit writes is read as the output projection reads it, with the weight of the final norm; what raises all logits alike
is subtracted, because softmax ignores it.

By hand, nearest to [1, 1] of the directions [2, 0], [0, -1] and [3, 3]: cosines 0.707, -0.707 and 1.

>>> found = nearest(torch.tensor([1.0, 1.0]), torch.tensor([[2.0, 0.0], [0.0, -1.0], [3.0, 3.0]]), 2)
>>> [(row, round(cosine, 3)) for row, cosine in found]
[(2, 1.0), (0, 0.707)]

**What it does not show.** A unit rarely has one meaning: models keep more features than they have units, so the top
passages of a unit often show two or three unrelated things, and the ones below the top others again (arXiv 2209.10652).
The nearest tokens say something about early layers, whose stream still resembles the embeddings, and little about late
ones.

**Cost.** reads and writes: one product with the (V, C) table. Passages: one forward pass over the text.
Papers: feed-forward layers as key-value memories, arXiv 2012.14913; logits of what is written, 2203.14680. Read before:
feedforward.py, lens.py.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.activations import recorded
from transformer.generation import eval_mode
from transformer.model import DecoderOnlyTransformer

Ranked = list[tuple[int, float]]
"""(index, number) pairs, the best first."""
ACTIVATIONS_AT_ONCE = 2**24
"""Hidden activations of one layer that are computed at once; it decides how many rows a batch has."""


def nearest(vector: Tensor, rows: Tensor, count: int = 10) -> Ranked:
    """Returns the rows (N, C) with the highest cosine to the vector (C,), and the cosines."""
    return ranked(F.cosine_similarity(rows.float(), vector.float(), dim=-1), count)


@torch.no_grad()
def read_tokens(model: DecoderOnlyTransformer, layer: int, unit: int, count: int = 10) -> Ranked:
    """Returns the tokens whose vectors are nearest to what a unit reads (swiglu: what its gate reads)."""
    network = model.layers[_checked(model, layer, unit)].feedforward
    pattern = (network.up if network.gate is None else network.gate).weight[unit]  # (C,)
    if not model.layers[layer].norms_after:
        pattern = pattern * model.layers[layer].feedforward_norm.weight  # the norm multiplies what the unit reads
    return nearest(pattern, model.embeddings.token.weight, count)


@torch.no_grad()
def written_logits(model: DecoderOnlyTransformer, layer: int, unit: int) -> Tensor:
    """Returns how much a unit of activation 1 raises each logit directly, (V,), relative to their mean.

    Up to one positive factor, the frozen scale of the norms. With norm_position="after" the weight of the block's norm
    is included.
    """
    block = model.layers[_checked(model, layer, unit)]
    direction = block.feedforward.down.weight[:, unit]  # (C,)
    if block.norms_after:
        direction = _read_by(block.feedforward_norm, direction)
    logits = model.head.weight @ _read_by(model.final_norm, direction)
    return logits - logits.mean()


@torch.no_grad()
def similar_units(model: DecoderOnlyTransformer, layer: int, unit: int, count: int = 10) -> Ranked:
    """Returns the other units of the layer that write in the most similar directions, with their cosines."""
    written = model.layers[_checked(model, layer, unit)].feedforward.down.weight.T  # (d_ff, C)
    return [pair for pair in nearest(written[unit], written, count + 1) if pair[0] != unit][:count]


class Passage(NamedTuple):
    """A place in a text where a unit is active."""

    row: int
    position: int
    activation: float


@torch.no_grad()
def strongest_passages(
    model: DecoderOnlyTransformer, rows: Tensor, layer: int, unit: int, count: int = 10
) -> list[Passage]:
    """Returns where the unit's activation is highest, at most one place for each row of rows (R, T) int64."""
    name = f"blocks.{_checked(model, layer, unit)}.feedforward.hidden"
    best, batch = [], max(1, ACTIVATIONS_AT_ONCE // (model.config.d_ff * rows.shape[1]))
    with eval_mode(model):
        for tokens in rows.split(batch):
            with recorded(model, [name]) as found:
                model.hidden(tokens.to(model.device))
            best.append(found[name][..., unit].cpu().max(dim=1))  # (R,) values and positions
    values, positions = (torch.cat(part) for part in zip(*best, strict=True))
    return [Passage(row, int(positions[row]), value) for row, value in ranked(values, count)]


def ranked(numbers: Tensor, count: int) -> Ranked:
    """Returns the largest of the numbers (N,) with their indices."""
    values, indices = numbers.topk(min(count, len(numbers)))
    return list(zip(indices.tolist(), values.tolist(), strict=True))


def _read_by(norm: torch.nn.Module, direction: Tensor) -> Tensor:
    """A direction (C,) after a norm, up to the number by which it divides."""
    if isinstance(norm, torch.nn.LayerNorm):
        direction = direction - direction.mean()
    assert isinstance(norm.weight, Tensor)
    return direction * norm.weight


def _checked(model: DecoderOnlyTransformer, layer: int, unit: int) -> int:
    """Returns the layer. Raises ValueError for a layer or unit that the model does not have."""
    config = model.config
    if not (0 <= layer < config.num_layers and 0 <= unit < config.d_ff):
        limits = f"layers are 0 to {config.num_layers - 1}, units 0 to {config.d_ff - 1}"
        raise ValueError(f"the model has no unit {unit} of layer {layer}: {limits}")
    return layer
