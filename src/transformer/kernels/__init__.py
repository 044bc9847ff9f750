"""Faster versions of core functions and modules: the same arguments, the same numbers to rounding, more code.

The core is written to be read. accelerate() swaps in, on a model that is already built, the versions that are written
to be fast. `kernels="plain"` keeps the core files as they are, to compare or to debug. A property test in
tests/kernels/ compares each with the plain version in value and gradient.

    core                              faster version             what is faster
    nn.Linear                         cpu_linear.Linear          few rows, on a CPU for which processor.py says so
    model.next_logits                 decode_step.FastDecoder    one token at a time, on a CPU
    nn.Dropout, attention's dropout   dropout, attention         training on a CPU
    loss.next_token_loss              tiled_loss                 large vocabularies; memory
    sampling.keep_top_p               top_p                      large vocabularies
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from transformer.attention import CausalSelfAttention
from transformer.config import Kernels, Weights
from transformer.kernels import attention, cpu_linear, dropout, tiled_loss, top_p
from transformer.kernels.decode_step import FastDecoder
from transformer.kernels.float16 import Float16Linear
from transformer.kernels.int8 import quantise
from transformer.model import DecoderOnlyTransformer
from transformer.processor import choices

M = TypeVar("M", bound=DecoderOnlyTransformer)


def accelerate(model: M, kernels: Kernels = "auto") -> M:
    """Swaps faster versions into the model, in place, and returns it; "plain" changes nothing, a second call neither.

    "auto" takes the routines that the table of processor.py has for this processor, another name those of that row.
    Parameters stay the same objects: tied weights stay tied, and a state dict keeps its names. Each version runs the
    plain code itself wherever it would not be faster: other devices, more rows, small vocabularies.
    """
    if kernels == "plain":
        return model
    chosen = choices(kernels)
    for module in model.modules():
        if type(module) is nn.Linear and chosen.one_row == "blocks":
            module.__class__ = cpu_linear.Linear
        elif type(module) is nn.Dropout:
            module.__class__ = dropout.Dropout
        elif isinstance(module, CausalSelfAttention):
            module.attend = attention.attend
    if type(model) is DecoderOnlyTransformer:
        model.__class__ = FastDecoder  # type: ignore[assignment]
    if isinstance(model, FastDecoder):
        model.choices = chosen
    model.next_token_loss = tiled_loss.next_token_loss
    model.filter_logits = top_p.filter_logits
    return model


def round_weights(model: nn.Module, weights: Weights) -> None:
    """Rounds the weight matrices of the model to the format, in place, for generation and evaluation: int8.py."""
    if weights == "int8":
        quantise(model)
    elif weights == "float16":
        quantise(model, Float16Linear)
