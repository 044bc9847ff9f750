r"""Activations: reading and changing what a model computes between tokens and logits.

**The problem.** A model answers with logits. To understand an answer one wants the tensors in between: where a head
attends, what a layer adds. And to test an explanation one wants to change a tensor and see whether the answer changes.

**The idea.** Every tensor has a name, the same for every model, and a function that is attached to a name is called
with the tensor when the model computes it. What the function returns takes its place; None leaves it as it is.

    embeddings                           (B, T, C)     the residual stream before the first block
    blocks.N.residual_before             (B, T, C)     ... before block N
    blocks.N.attention_norm              (B, T, C)     what attention reads
    blocks.N.attention.queries           (B, H, T, D)  as they are compared: rotated
    blocks.N.attention.keys .values      (B, K, S, D)  of all S tokens so far, those in a cache included
    blocks.N.attention.scores            (B, H, T, S)  what softmax reads: masked keys have -inf
    blocks.N.attention.weights           (B, H, T, S)  before dropout
    blocks.N.attention.heads             (B, H, T, D)  each head's weighted sum of values
    blocks.N.attention.output            (B, T, C)     what is added to the stream
    blocks.N.residual_mid                (B, T, C)     the stream between attention and feed-forward network
    blocks.N.feedforward_norm            (B, T, C)     what the feed-forward network reads
    blocks.N.feedforward.hidden          (B, T, d_ff)  after the activation function (swiglu: after the product)
    blocks.N.feedforward.output          (B, T, C)     what is added to the stream
    blocks.N.residual_after              (B, T, C)     the stream after block N
    final_norm                           (B, T, C)
    logits                               (B, T, V)     in next_logits() and generation (B, V), of the last token

With `parallel_blocks` no stream is between the two parts, so there is no residual_mid. With `norm_position="after"`
the parts read the stream itself, and the norm's result is what they add: the names of the norms are left out.

By hand: if all heads and all hidden units are 0, each block adds only its biases. They start at 0, so the stream after
the last block is still the embeddings:

>>> import torch
>>> from transformer.model import DecoderOnlyTransformer
>>> model = DecoderOnlyTransformer(vocab_size=7, d_model=8, num_heads=2, num_layers=2, d_ff=16).eval()
>>> tokens, zero = torch.tensor([[1, 2, 3]]), torch.zeros_like
>>> with hooked(model, {"blocks.*.attention.heads": zero, "blocks.*.feedforward.hidden": zero}):
...     logits, found = run_with_cache(model, tokens, ["embeddings", "blocks.1.residual_after"])
>>> list(found), torch.equal(found["embeddings"], found["blocks.1.residual_after"])
(['embeddings', 'blocks.1.residual_after'], True)
>>> run_with_cache(model, tokens, ["blocks.*.attention.weights"])[1]["blocks.1.attention.weights"].shape
torch.Size([1, 2, 3, 3])

**How.** PyTorch calls functions (*hooks*) before and after a module, and most names are a module's input or output.
Queries to heads pass through `attention.attend`, an attribute, which is replaced while hooks are on. Only if scores or
weights are asked for, they are computed step by step; otherwise the model's own attention runs. When the `with` block
ends, also by an error, everything is as before. Without hooks the model runs no line of this file.

**Cost.** A recorded tensor stays in memory: scores and weights are 8 B H T S bytes per layer in float32. Prepared or
compiled decode steps have no modules to hook, so those of kernels/ and inference/ run the modules while hooks are on.
**What it does not reach.** `model.loss` computes logits in its own way, so `logits` is not called there; hooks must be
on during backward too if activation checkpointing recomputes the blocks.

The names follow TransformerLens, with this project's terms. Read before: model.py. Next: interpret/.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from transformer.attention import CausalSelfAttention, Context, attention_scores
from transformer.block import Block
from transformer.kv_cache import KVCache

Function = Callable[[Tensor], Tensor | None]
"""activation -> what takes its place, of the same shape; None: unchanged."""


class Model(Protocol):
    """The parts of DecoderOnlyTransformer that have names; model.py imports this file, so it cannot be named here."""

    @property
    def embeddings(self) -> nn.Module: ...
    @property
    def layers(self) -> list[Block]: ...
    @property
    def final_norm(self) -> nn.Module: ...
    @property
    def head(self) -> nn.Module: ...
    def hidden(self, tokens: Tensor, cache: KVCache | None = None, context: Context | None = None) -> Tensor: ...


class Site(NamedTuple):
    """Where an activation is found: the input or output of a module, or, by its own name, inside attention."""

    module: nn.Module
    place: str
    block: Block | None = None
    """For residual_mid: the block whose output changes with it."""


def activation_names(model: Model) -> list[str]:
    """Returns the names of all activations of the model, in the order of computation."""
    return list(_sites(model))


def run_with_cache(
    model: Model,
    tokens: Tensor,
    names: Collection[str] | None = None,
    cache: KVCache | None = None,
    context: Context | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the logits (B, T, V) of tokens (B, T) int64, and the activations by name.

    `names` may contain patterns, such as blocks.*.attention.weights; None: all. `cache` and `context` (batches with
    padding: inference/padding.py) as in model.hidden(). Mode and gradients are the caller's: with gradients, the
    activations are part of the graph. Raises ValueError for a name that matches nothing.
    """
    with recorded(model, names) as activations:
        logits: Tensor = model.head(model.hidden(tokens, cache, context))
    return logits, activations


def run_with_hooks(
    model: Model,
    tokens: Tensor,
    functions: Mapping[str, Function],
    cache: KVCache | None = None,
    context: Context | None = None,
) -> Tensor:
    """Returns the logits (B, T, V) of tokens (B, T) int64, while `functions` are attached, as hooked() does."""
    with hooked(model, functions):
        logits: Tensor = model.head(model.hidden(tokens, cache, context))
    return logits


@contextmanager
def recorded(model: Model, names: Collection[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """Inside the `with` block, fills the dict that it gives with the latest activation of each name.

    For anything that is not one pass to the logits: model.hidden(), a loss, generation.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Function:
        return lambda activation: found.update({name: activation})

    known = activation_names(model)
    with hooked(model, {name: keep(name) for name in (known if names is None else _matching(known, names))}):
        yield found


@contextmanager
def hooked(model: Model, functions: Mapping[str, Function]) -> Iterator[None]:
    """Inside the `with` block, each function is called with the activations of its name or pattern.

    It returns the tensor that takes the activation's place, of the same shape, or None, and may also change the
    activation in place. Functions of one name are called in order, those of an outer `with` block first. Raises
    ValueError for a name that matches nothing, before anything is attached.
    """
    sites = _sites(model)
    attached = [(name, function) for pattern, function in functions.items() for name in _matching(sites, [pattern])]
    with ExitStack() as stack:
        if attached:  # a mark on the model itself: see is_hooked
            stack.callback(_module(model).register_forward_pre_hook(lambda *call: None).remove)
        for name, function in attached:
            _attach(stack, sites[name], _checked(name, function))
        yield


def is_hooked(model: nn.Module) -> bool:
    """Whether hooked() is on, or another hook of the model itself: then prepared steps give way to its modules."""
    return bool(model._forward_pre_hooks)


def _module(model: Model) -> nn.Module:
    assert isinstance(model, nn.Module)
    return model


def _sites(model: Model) -> dict[str, Site]:
    """Returns the site of every activation, in the order of computation."""
    sites = {"embeddings": Site(model.embeddings, "output")}
    for layer, block in enumerate(model.layers):
        sites.update({f"blocks.{layer}.{name}": site for name, site in _block_sites(block).items()})
    return sites | {"final_norm": Site(model.final_norm, "output"), "logits": Site(model.head, "output")}


def _block_sites(block: Block) -> dict[str, Site]:
    after, attention, network = block.norms_after, block.attention, block.feedforward
    sites = {"residual_before": Site(block, "input")}
    if not after:
        sites["attention_norm"] = Site(block.attention_norm, "output")
    for part in ("queries", "keys", "values", "scores", "weights", "heads"):
        sites[f"attention.{part}"] = Site(attention, part)
    sites["attention.output"] = Site(block.attention_norm if after else attention, "output")
    if not block.is_parallel:
        sites["residual_mid"] = Site(network if after else block.feedforward_norm, "input", block)
    if not after:
        sites["feedforward_norm"] = Site(block.feedforward_norm, "output")
    sites["feedforward.hidden"] = Site(network.down, "input")
    sites["feedforward.output"] = Site(block.feedforward_norm if after else network, "output")
    return sites | {"residual_after": Site(block, "output")}


def _matching(known: Collection[str], names: Collection[str]) -> list[str]:
    """Returns the known names that match one of these names or patterns, in the order of computation."""
    if isinstance(names, str):
        raise TypeError(f"give a collection of names: [{names!r}]")
    found: set[str] = set()
    for name in names:
        matches = {name} if name in known else {other for other in known if fnmatchcase(other, name)}
        if not matches:
            nearest = ", ".join(difflib.get_close_matches(name, known, cutoff=0))
            raise ValueError(f"no activation is named {name!r}; nearest: {nearest}")
        found |= matches
    return [other for other in known if other in found]


def _checked(name: str, function: Function) -> Function:
    """The function, with an error for a result that broadcasting would hide."""

    def checked(activation: Tensor) -> Tensor | None:
        result = function(activation)
        if result is not None and (not isinstance(result, Tensor) or result.shape != activation.shape):
            found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(f"the function for {name} returned {found}, not a tensor of {tuple(activation.shape)}")
        return result

    return checked


def _attach(stack: ExitStack, site: Site, function: Function) -> None:
    """Attaches the function until the stack is closed."""
    module = site.module
    if site.block is not None:
        _attach_to_middle(stack, module, site.block, function)
    elif site.place == "input":
        stack.callback(module.register_forward_pre_hook(_on_input(function)).remove)
    elif site.place == "output":
        stack.callback(module.register_forward_hook(lambda module, call, output: function(output)).remove)
    else:
        assert isinstance(module, CausalSelfAttention)
        stack.callback(setattr, module, "attend", module.attend)
        module.attend = HookedAttention.around(module.attend, site.place, function)


def _on_input(function: Function) -> Callable[[nn.Module, tuple[object, ...]], tuple[object, ...] | None]:
    """The function as a hook before a module: it changes the first argument."""

    def hook(module: nn.Module, call: tuple[object, ...]) -> tuple[object, ...] | None:
        first, *others = call
        assert isinstance(first, Tensor)
        result = function(first)
        return None if result is None else (result, *others)

    return hook


def _attach_to_middle(stack: ExitStack, reader: nn.Module, block: Block, function: Function) -> None:
    """Attaches the function to the stream between the block's two parts, which `reader` reads.

    The block also adds that stream to its result, so a change must be added there too.
    """
    changed: list[tuple[Tensor, Tensor]] = []

    def on_stream(stream: Tensor) -> Tensor | None:
        result = function(stream)
        changed[:] = [] if result is None else [(result, stream)]
        return result

    def on_result(module: nn.Module, call: object, output: Tensor) -> Tensor | None:
        if not changed:
            return None
        result, stream = changed.pop()
        return output + (result - stream)

    stack.callback(reader.register_forward_pre_hook(_on_input(on_stream)).remove)
    # First of the hooks on the block's output, so that residual_after includes the change.
    stack.callback(block.register_forward_hook(on_result, prepend=True).remove)


Attend = Callable[..., Tensor]


@dataclass(frozen=True)
class HookedAttention:
    """Takes the place of `attention.attend` while hooks are on; `functions` are in order, with their places."""

    plain: Attend
    functions: tuple[tuple[str, Function], ...]

    @classmethod
    def around(cls, attend: Attend, place: str, function: Function) -> HookedAttention:
        """Returns `attend` with one more function."""
        if isinstance(attend, HookedAttention):
            return cls(attend.plain, (*attend.functions, (place, function)))
        return cls(attend, ((place, function),))

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
        # k and v may be views of a cache, which later tokens change and which no function may change.
        q, k, v = self._pass("queries", q.clone()), self._pass("keys", k.clone()), self._pass("values", v.clone())
        if any(place in ("scores", "weights") for place, _ in self.functions):
            if mask is not None and mask.is_floating_point():
                mask = mask.to(q.dtype)  # as in fused_attention
            scores = self._pass("scores", attention_scores(q, k, mask))
            weights = self._pass("weights", scores.softmax(dim=-1))  # (B, H, T, S)
            v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)  # (B, H, S, D)
            return self._pass("heads", F.dropout(weights, dropout) @ v)  # (B, H, T, D)
        return self._pass("heads", self.plain(q, k, v, mask, dropout))

    def _pass(self, place: str, activation: Tensor) -> Tensor:
        for at, function in self.functions:
            if at == place:
                result = function(activation)
                activation = activation if result is None else result
        return activation
