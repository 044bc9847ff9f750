r"""Activation patching: which places of the model carry the difference between two prompts.

**The problem.** The model answers one prompt with "b" and another, almost the same, with something else. Where, in all
its layers and positions, is the difference that decides?

**The idea.** Run both prompts, A (*clean*) and B (*corrupt*), of equal length. Take one activation of one run, put it
in its place in the other, and see whether the answer follows:

    denoising    B, with one activation of A     1: the answer is A's again: this place is enough
    noising      A, with one activation of B     1: the answer is B's: this place is needed

    effect = (patched - base) / (other - base)          0: no effect, 1: the whole difference

`base` is the answer of the run that is patched, `other` that of the run from which the activation comes. The answer is
one number, usually the logit of A's token minus that of B's. The two directions differ: of two places that each carry
the answer, either is enough and neither is needed.

By hand, on the model of induction_by_hand.py. "S 5 3 7 5" continues with 3, "S 6 3 7 5" with nothing, because no
5 was there before. The stream of position 1 carries the difference into block 0, that of position 2 (whose previous
token it is) into block 1, and the last one to the logits:

>>> from transformer.interpret.induction_by_hand import induction_model
>>> clean, corrupt = torch.tensor([[0, 5, 3, 7, 5]]), torch.tensor([[0, 6, 3, 7, 5]])
>>> answer = logit_difference(3, 4)
>>> patch_positions(induction_model(), clean, corrupt, answer).round().abs().tolist()
[[0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]
>>> patch_heads(induction_model(), clean, corrupt, answer).round().abs().tolist()               # heads 0.1 and 1.0
[[0.0, 1.0], [1.0, 0.0]]

**What it does not show.** Only what differs between these two prompts: a head that does the same work for both has no
effect, however important. And a patched run is one that the model never makes by itself, so an effect can come from a
combination that no text produces. Effects need not add up to 1.

**Cost.** Two passes, and one pass of a batch for each layer: H copies of the prompt for heads, T for positions (less
those before the first difference, where both runs are equal), H T for both.
Papers: arXiv 2004.12265, 2202.05262; how to do it and how to read it, arXiv 2309.16042, 2404.15255. Read before:
activations.py, attribution.py. Next: neurons.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.activations import hooked, recorded
from transformer.generation import eval_mode
from transformer.model import DecoderOnlyTransformer

Answer = Callable[[Tensor], Tensor]
"""The logits after the last token, (N, V), -> one number for each, (N,)."""
Direction = Literal["denoising", "noising"]
Streams = Literal["residual", "residual_mid", "attention.output", "feedforward.output"]
ROWS_AT_ONCE = 64
"""Most copies of a prompt in one pass."""


def logit_difference(target: int, versus: int) -> Answer:
    """The answer that is usual: the logit of one token minus that of another."""
    return lambda logits: logits[:, target] - logits[:, versus]


def patch_positions(
    model: DecoderOnlyTransformer,
    clean: Tensor,
    corrupt: Tensor,
    answer: Answer,
    what: Streams = "residual",
    direction: Direction = "denoising",
    on_layer: Callable[[int, int], object] | None = None,
) -> Tensor:
    """Returns the effect of patching one activation at one position: (L, T), or (L + 1, T) for the residual stream.

    Prompts are (1, T) int64 each. Row n of "residual" is the stream before block n; the last row is that after the last
    block. `on_layer` receives the number of rows done, and of all. Errors are those of prepare().
    """
    layers = model.config.num_layers
    names = [f"blocks.{layer}.{'residual_before' if what == 'residual' else what}" for layer in range(layers)]
    if what == "residual":
        names.append(f"blocks.{layers - 1}.residual_after")
    same = common_start(clean, corrupt)
    masks = torch.eye(clean.shape[-1], dtype=torch.bool)[same:, :, None]  # (T - same, T, 1): a copy for each position
    effects = _effects(model, clean, corrupt, answer, names, masks, direction, on_layer)
    return F.pad(effects, (same, 0))  # nothing differs before: no effect


def common_start(clean: Tensor, corrupt: Tensor) -> int:
    """Returns the number of tokens before the first difference: there, all activations of both prompts are equal.

    It is 0 for prompts that prepare() refuses.
    """
    if clean.shape != corrupt.shape or torch.equal(clean, corrupt):
        return 0
    return int((clean != corrupt).any(0).nonzero()[0])


def patch_heads(
    model: DecoderOnlyTransformer,
    clean: Tensor,
    corrupt: Tensor,
    answer: Answer,
    by_position: bool = False,
    direction: Direction = "denoising",
    on_layer: Callable[[int, int], object] | None = None,
) -> Tensor:
    """Returns the effect of patching the output of one head: (L, H) at all positions, or (L, H, T) at each one.

    Arguments and errors are those of patch_positions().
    """
    heads, length = model.config.num_heads, clean.shape[-1]
    names = [f"blocks.{layer}.attention.heads" for layer in range(model.config.num_layers)]
    masks = torch.eye(heads, dtype=torch.bool)[:, :, None, None]  # (H, H, 1, 1)
    if by_position:
        masks = (masks & torch.eye(length, dtype=torch.bool)[:, None, None, :, None]).flatten(0, 1)  # (T H, H, T, 1)
    effects = _effects(model, clean, corrupt, answer, names, masks, direction, on_layer)
    return effects.unflatten(1, (length, heads)).transpose(1, 2) if by_position else effects


class Runs(NamedTuple):
    """What patching starts from: a prompt to patch, the activations of the other one, and the answers of both."""

    prompt: Tensor
    found: dict[str, Tensor]
    base: Tensor
    other: Tensor


def prepare(
    model: DecoderOnlyTransformer,
    clean: Tensor,
    corrupt: Tensor,
    answer: Answer,
    names: list[str],
    direction: Direction = "denoising",
) -> Runs:
    """Runs both prompts. Raises ValueError for prompts that are not (1, T) and of equal length, or of equal answers."""
    if clean.shape != corrupt.shape or clean.ndim != 2 or len(clean) != 1:
        shapes = f"{tuple(clean.shape)} and {tuple(corrupt.shape)}"
        raise ValueError(
            f"the prompts have the shapes {shapes}: patching needs one text each, with equally many tokens"
        )
    source, prompt = (clean, corrupt) if direction == "denoising" else (corrupt, clean)
    with recorded(model, names) as found:
        other = answer(model.next_logits(source.to(model.device)))
    base = answer(model.next_logits(prompt.to(model.device)))
    if torch.equal(base, other):
        raise ValueError("both prompts have the same answer, so there is no difference to find: change the prompts")
    return Runs(prompt.to(model.device), found, base, other)


@torch.no_grad()
def _effects(
    model: DecoderOnlyTransformer,
    clean: Tensor,
    corrupt: Tensor,
    answer: Answer,
    names: list[str],
    masks: Tensor,
    direction: Direction,
    on_layer: Callable[[int, int], object] | None,
) -> Tensor:
    """Returns the effect of each mask (N, ...) on each named activation, (len(names), N) on the CPU."""
    effects = []
    with eval_mode(model):
        runs = prepare(model, clean, corrupt, answer, names, direction)
        for done, name in enumerate(names, start=1):
            answers = [_patched(model, runs, name, part, answer) for part in masks.split(ROWS_AT_ONCE)]
            effects.append((torch.cat(answers) - runs.base) / (runs.other - runs.base))  # (N,)
            if on_layer is not None:
                on_layer(done, len(names))
    return torch.stack(effects).cpu()


def _patched(model: DecoderOnlyTransformer, runs: Runs, name: str, masks: Tensor, answer: Answer) -> Tensor:
    """Returns the answers of copies of the prompt, each patched where its mask is True: (N,)."""
    masks, source = masks.to(runs.prompt.device), runs.found[name]  # (N, ...), (1, ...)
    with hooked(model, {name: lambda activation: torch.where(masks, source, activation)}):
        return answer(model.next_logits(runs.prompt.expand(len(masks), -1)))
