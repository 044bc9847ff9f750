"""Fills a model that was built without memory, one weight at a time: there is never a second copy of the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from transformer.config import ModelConfig
from transformer.model import DecoderOnlyTransformer
from transformer.training.checkpoint_contents import meta_model


def model_of(config: ModelConfig, weights: Mapping[str, Tensor], device: torch.device | str) -> DecoderOnlyTransformer:
    """Returns the model of these settings and weights on `device`, in PyTorch's default dtype.

    A weight that already is on the device and of this dtype becomes the parameter itself.
    """
    model = meta_model(config)
    for name, parameter in [*model.named_parameters()]:
        place(model, name, weights[name].detach().to(device, parameter.dtype).contiguous())
    place_tables(model)
    return model.to(device)


def place(model: DecoderOnlyTransformer, name: str, weight: Tensor) -> nn.Parameter:
    """Puts a new parameter in the place of one without memory."""
    parameter = nn.Parameter(weight)
    module, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(module), leaf, parameter)
    if name == "embeddings.token.weight" and model.config.tie_embeddings:
        model.head.weight = parameter
    return parameter


def place_tables(model: DecoderOnlyTransformer) -> None:
    """Computes the tables of positions of a model that was built without memory, on the CPU."""
    if not any(True for _ in model.buffers()):
        return
    with torch.random.fork_rng(devices=[]):
        small = DecoderOnlyTransformer(dataclasses.replace(model.config, num_layers=1, d_ff=1, vocab_size=1))
    for name, table in small.named_buffers():
        module, _, leaf = name.rpartition(".")
        model.get_submodule(module).register_buffer(leaf, table, persistent=False)
