"""Weights between another program's names and layouts and ours, family by family, both ways.

The names are in family_names.py. Three layouts differ from ours:

- Llama and the families after it store queries, keys and values as three matrices; ours is one, their rows in turn.
- GPT-2 stores the matrices of a block as (inputs, outputs), the transpose of PyTorch's (outputs, inputs).
- GPT-NeoX has one matrix for queries, keys and values, but head by head: the rows of head 0's query, key, value, then
  head 1's. And it rotates the first R of a head's D numbers, pairing i with i + R/2, while we pair i with i + D/2 and
  leave the last pairs unrotated. Both are an order of rows, which neox_rows() computes.

Every tensor is read, converted and placed on its own, the largest first, so that the memory in use never exceeds the
model's by more than one small tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from transformer.config import ModelConfig
from transformer.interop.errors import SourceError
from transformer.interop.family_names import NAMES, Names, head_names, their_names
from transformer.interop.family_settings import family_name, model_config
from transformer.model import DecoderOnlyTransformer
from transformer.training.checkpoint_contents import FLOATS, all_finite, brief, check_memory, listed, meta_model
from transformer.training.filling import place, place_tables

SMALL_TABLES = 64 * 2**20
"""Bytes that tables of positions may take in any model; in a larger model, as many as its weights."""


def read_model(
    settings: Mapping[str, Any],
    tensor: Callable[[str], Tensor],
    names: Collection[str],
    dtype: torch.dtype,
    max_seq_len: int | None = None,
) -> DecoderOnlyTransformer:
    """Returns the model of a config.json with its weights in `dtype`, on the CPU, in eval mode.

    `tensor` returns a tensor by its name in `names`; max_seq_len is as in model_config(). Nothing is allocated before
    the settings fit the names. Raises SourceError if the weights are not those that the settings describe.
    """
    config = model_config(settings, max_seq_len)
    check_layers(config, settings, names)
    try:
        model = meta_model(config)
        check_memory(model)
    except ValueError as error:
        raise SourceError(f"config.json: {error}") from error
    read_weights(model.to(dtype), settings, shortened(tensor, settings, max_seq_len), names)
    check_tables(model)
    place_tables(model)
    return model.eval()


def shortened(
    tensor: Callable[[str], Tensor], settings: Mapping[str, Any], max_seq_len: int | None
) -> Callable[[str], Tensor]:
    """Returns `tensor` with the first rows of a table of learned positions, as many as are kept."""
    tables = NAMES[family_name(settings)].modules.get("embeddings.position", ())
    ends = tuple(f"{table}.weight" for table in tables)
    return lambda name: tensor(name)[:max_seq_len] if name.endswith(ends) else tensor(name)


def check_layers(config: ModelConfig, settings: Mapping[str, Any], names: Collection[str]) -> None:
    """Raises SourceError unless there are tensors of every layer: a model has as many layers as its file."""
    source = NAMES[family_name(settings)]
    for layer in reversed(range(config.num_layers)):
        [name, *_] = their_names(source, f"blocks.{layer}.attention.qkv.weight")
        if name not in names and source.prefix + name not in names:
            raise SourceError(f"config.json describes {config.num_layers:,} layers, but there are no weights {name}")


def check_tables(model: DecoderOnlyTransformer) -> None:
    """Raises SourceError for a context whose tables of positions are far larger than the weights."""
    weights, tables = (sum(part.nbytes for part in parts) for parts in (model.parameters(), model.buffers()))
    if tables > max(SMALL_TABLES, weights):
        raise SourceError(
            f"config.json: a context of {model.config.max_seq_len:,} needs tables of {tables:,} bytes; the weights "
            f"have only {weights:,}: give a smaller --max-seq-len"
        )


@torch.no_grad()
def read_weights(
    model: DecoderOnlyTransformer,
    settings: Mapping[str, Any],
    tensor: Callable[[str], Tensor],
    names: Collection[str],
) -> None:
    """Fills the model in place from tensors of another program, converted to its dtype one at a time.

    Parameters on the meta device are allocated on the CPU when their turn comes; tables of positions are left alone.
    Raises SourceError if a tensor is missing, has no place in the model, or has another shape or kind than its place.
    """
    source = NAMES[family_name(settings)]
    stored = match_names(model, source, names)
    parameters = sorted(model.named_parameters(), key=lambda item: -item[1].numel())
    for ours, _ in parameters:
        read_weight(model, source, ours, [stored[name] for name in their_names(source, ours)], tensor)
    for head in (stored[name] for name in head_names(source) if name in stored and model.config.tie_embeddings):
        if not torch.equal(tensor(head).to(model.head.weight.dtype), model.head.weight):
            raise SourceError(f"{head}: differs from the token table, to which config.json ties it")


def read_weight(
    model: DecoderOnlyTransformer, source: Names, ours: str, theirs: list[str], tensor: Callable[[str], Tensor]
) -> None:
    """Fills one of our parameters from the tensors that make it up."""
    parameter, parts = model.get_parameter(ours), [tensor(name) for name in theirs]
    check_parts(views(parameter, ours, source.layout, model.config), theirs, parts)
    if parameter.is_meta:
        parameter = place(model, ours, torch.empty(parameter.shape, dtype=parameter.dtype))
    order = rows(ours, source.layout, model.config)
    for view, part in zip(views(parameter, ours, source.layout, model.config), parts, strict=True):
        view.copy_(part if order is None else part[order])
    if not all_finite(parameter):
        raise SourceError(f"{brief(', '.join(theirs))}: holds nan, or numbers too large for {parameter.dtype}")


def match_names(model: DecoderOnlyTransformer, source: Names, names: Collection[str]) -> dict[str, str]:
    """Returns name without prefix -> name in the file; SourceError if they are not the names of the model's weights."""
    stored = {name.removeprefix(source.prefix): name for name in names}
    if len(stored) < len(names):
        raise SourceError(f"some weights are there twice: with and without {source.prefix!r} before their names")
    for other in head_names(source)[1:]:  # newer programs write the head under another name
        if other in stored:
            stored.setdefault(head_names(source)[0], stored.pop(other))
    wanted = {name for ours, _ in model.named_parameters() for name in their_names(source, ours)}
    if missing := sorted(wanted - stored.keys()):
        raise SourceError(listed("weights that config.json describes are missing", missing))
    tied = head_names(source) if model.config.tie_embeddings else []
    extra = [name for name in stored if name not in wanted and not re.fullmatch(source.unused, name)]
    if extra := [name for name in extra if name not in tied]:
        raise SourceError(listed("weights that config.json does not describe", sorted(extra)))
    return stored


def check_parts(places: list[Tensor], names: list[str], parts: list[Tensor]) -> None:
    """Raises SourceError unless each tensor has the shape of its place, and is of floating-point numbers."""
    for spot, name, part in zip(places, names, parts, strict=True):
        if part.shape != spot.shape:
            raise SourceError(f"{name}: has shape {tuple(part.shape)}, and config.json describes {tuple(spot.shape)}")
        if part.dtype not in FLOATS:
            raise SourceError(f"{name}: holds {part.dtype}, not floating-point numbers of 16 bits or more")


def views(weight: Tensor, ours: str, layout: str, config: ModelConfig) -> list[Tensor]:
    """Returns the parts of one of our weights, each with the shape that the other program stores."""
    if layout == "rows" and ".qkv." in ours:
        width = config.kv_heads * config.head_dim
        return list(weight.split([config.num_heads * config.head_dim, width, width]))
    is_transposed = layout == "transposed" and ours.startswith("blocks.") and weight.ndim == 2
    return [weight.T if is_transposed else weight]


def rows(ours: str, layout: str, config: ModelConfig) -> Tensor | None:
    """Returns which row of their tensor is each row of ours; None: the same row."""
    return neox_rows(config) if layout == "by head" and ".qkv." in ours else None


def neox_rows(config: ModelConfig) -> Tensor:
    """Returns for each row of our query, key, value matrix the row of GPT-NeoX's, (3 H D,) int64.

    One head of four numbers, two of which are rotated: theirs pairs 0 with 1, ours 0 with 2.

    >>> neox_rows(ModelConfig(d_model=4, num_heads=1, position="rotary", rotary_fraction=0.5)).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7, 8, 9, 10, 11]
    """
    heads, width = config.num_heads, config.head_dim
    rotated = round(config.rotary_fraction * width)
    theirs = torch.arange(3 * heads * width).view(heads, 3, width).transpose(0, 1)  # (3, H, D): queries, keys, values
    pairs = torch.cat([part.view(2, -1) for part in torch.arange(width).split([rotated, width - rotated])], dim=1)
    return torch.cat([theirs[:2, :, pairs.flatten()], theirs[2:]]).flatten()


@torch.no_grad()
def their_weights(model: DecoderOnlyTransformer, settings: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yields name and tensor of every weight that the config.json describes, one at a time, in the model's dtype.

    A bias that the other architecture needs and the model lacks is zero; a sinusoidal table is its learned one.
    """
    source, shapes = NAMES[family_name(settings)], meta_model(model_config(settings))
    own = dict(model.named_parameters())
    if model.embeddings.sinusoids is not None:
        own["embeddings.position.weight"] = nn.Parameter(model.embeddings.sinusoids)
    dtype = model.embeddings.token.weight.dtype
    for ours, shape in shapes.named_parameters():
        weight = own[ours].to(dtype) if ours in own else torch.zeros(shape.shape, dtype=dtype)
        order = rows(ours, source.layout, model.config)
        for name, view in zip(their_names(source, ours), views(weight, ours, source.layout, model.config), strict=True):
            prefix = "" if ours.startswith("head.") else source.prefix
            yield prefix + name, (view if order is None else view[order.argsort()]).detach().contiguous()
