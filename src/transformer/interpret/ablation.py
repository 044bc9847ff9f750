r"""Ablation: what is lost without a part.

**The problem.** A head attends to the previous token, always. Does the model need it?

**The idea.** Take the part's output away, and measure how much the loss on some texts rises. Three things can stand in
its place, and they ask different questions:

    zero       nothing at all. Simple, and harsh: the rest of the model has never seen a 0 there
    mean       its mean over all texts and positions: what it says on average stays, what depends on the text goes
    resample   its output on another text, at the same position: a typical output, about the wrong text

    change  =  loss(without)  -  loss(with)           above 0: the part helped, in nats per token

Both losses are measured on the same rows, so the standard error is that of the rows' *differences*, which is far below
that of either loss.

By hand, on the model of induction_by_hand.py. "S 5 3 5 3": with certainty 10 the last token is predicted at almost no
loss, and without head 1.0 all 12 tokens are equally likely, a loss of ln 12 = 2.485:

>>> from transformer.interpret.induction_by_hand import induction_model
>>> found = ablate(induction_model(), torch.tensor([[0, 5, 3, 5, 3]]), "blocks.1.attention.heads", head=0, by="zero")
>>> [round(float(loss), 3) for loss in (found.plain[0, -1], found.ablated[0, -1])]
[0.0, 2.485]

**What it does not show.** A small change does not prove that a part does nothing: later parts may make up for the loss
(arXiv 2307.15771), or two heads may do the same. A large one does not say what the part does, only that it counts here.

**Cost.** One pass over the rows for each part, and one for the model as it is.
Papers: arXiv 1905.10650 (heads removed), 2211.00593 (mean ablation); resampling: Chan et al. 2022, "Causal Scrubbing".
Read before: activations.py. Next: patching.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transformer.activations import Function, hooked, recorded
from transformer.generation import eval_mode
from transformer.interpret.in_context import batches, token_losses
from transformer.model import DecoderOnlyTransformer

By = Literal["zero", "mean", "resample"]


@dataclass(frozen=True)
class Ablation:
    """Losses in nats of every token but the first, without and with an ablation: (B, T - 1) float64 each."""

    plain: Tensor
    ablated: Tensor

    @property
    def change(self) -> float:
        """How much the mean loss rises, in nats per token."""
        return float((self.ablated - self.plain).mean())

    @property
    def error(self) -> float:
        """Standard error of the change, from the differences between rows; nan for a single row."""
        rows = (self.ablated - self.plain).mean(1)
        return float(rows.std() / math.sqrt(len(rows))) if len(rows) > 1 else math.nan


@torch.no_grad()
def ablate(
    model: DecoderOnlyTransformer, rows: Tensor, name: str, *, head: int | None = None, by: By = "mean"
) -> Ablation:
    """Returns the losses on rows (B, T) int64 with an activation ablated, or only one head of it.

    `name` as in activations.py. With a head, its axis 1 is that of the heads. "resample" takes the output on the row
    before, so rows should be in random order. Raises ValueError for an unknown name or head, and for a single
    row to resample.
    """
    return ablate_all(model, rows, [(name, head)], by)[0]


@torch.no_grad()
def ablate_all(
    model: DecoderOnlyTransformer,
    rows: Tensor,
    parts: list[tuple[str, int | None]],
    by: By = "mean",
    on_part: Callable[[int, int], object] | None = None,
) -> list[Ablation]:
    """As ablate(), for several parts (name, head); `on_part` receives the number of parts done, and of all parts."""
    _check(model, rows, parts, by)
    found = []
    with eval_mode(model):
        plain = token_losses(model, rows)
        means = _means(model, rows, sorted({name for name, _ in parts})) if by == "mean" else {}
        for done, (name, head) in enumerate(parts, start=1):
            with hooked(model, {name: _replacement(by, head, means.get(name))}):
                found.append(Ablation(plain, token_losses(model, rows)))
            if on_part is not None:
                on_part(done, len(parts))
    return found


def all_parts(model: DecoderOnlyTransformer) -> list[tuple[str, int | None]]:
    """Returns every head, layer by layer, and then every feed-forward network, as ablate_all() takes them."""
    layers, heads = range(model.config.num_layers), range(model.config.num_heads)
    parts: list[tuple[str, int | None]] = [
        (f"blocks.{layer}.attention.heads", head) for layer in layers for head in heads
    ]
    return parts + [(f"blocks.{layer}.feedforward.output", None) for layer in layers]


def _replacement(by: By, head: int | None, mean: Tensor | None) -> Function:
    """Returns the function that ablates an activation (B, ...), or (B, H, ...) and one head."""

    def replace(activation: Tensor) -> Tensor:
        if by == "resample":
            other = activation.roll(1, 0)  # that of the row before, and of the last row for the first
        else:
            other = torch.zeros_like(activation) if mean is None else mean.to(activation).expand_as(activation)
        if head is None:
            return other
        return torch.cat([activation[:, :head], other[:, head : head + 1], activation[:, head + 1 :]], dim=1)

    return replace


def _means(model: DecoderOnlyTransformer, rows: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Returns the mean of each activation (B, ..., T, N) over all rows and positions: (..., 1, N)."""
    sums: dict[str, Tensor] = {}
    for batch in batches(model, rows):
        with recorded(model, names) as found:
            model(batch[:, :-1])
        for name, activation in found.items():
            sums[name] = sums.get(name, 0) + activation.float().sum((0, -2)).cpu().double().unsqueeze(-2)
    return {name: total / (len(rows) * (rows.shape[1] - 1)) for name, total in sums.items()}


def _check(model: DecoderOnlyTransformer, rows: Tensor, parts: list[tuple[str, int | None]], by: By) -> None:
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise ValueError(f"rows have shape {tuple(rows.shape)}, not (rows, tokens) with at least two tokens")
    if by == "resample" and len(rows) < 2:
        raise ValueError("one row has no other row to resample from: give at least two, or ablate by mean")
    heads = model.config.num_heads
    for name, head in parts:
        if head is not None and not (0 <= head < heads and name.endswith(".heads")):
            raise ValueError(f"{name} has no head {head}: heads are 0 to {heads - 1} of blocks.N.attention.heads")
