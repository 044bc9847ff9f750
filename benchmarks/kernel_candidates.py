"""The candidates of bench_kernels.py: what they compute, and at which shapes.

A case is one piece of work with several candidates for it. A candidate is a list of parts, each a name and a function;
it is timed part by part, and its time is the sum. "plain" (or "float32") is what the others must be equal to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from generation_contenders import SMOLLM2
from loss_kernels import CONTENDERS, SHAPES, loss
from torch import Tensor, nn

from transformer.attention import explicit_attention, fused_attention
from transformer.config import ModelConfig
from transformer.kernels import accelerate, cpu_linear, row_products
from transformer.kernels.float16 import Float16Linear
from transformer.kernels.int8 import Int8Linear
from transformer.kernels.row_products import Product
from transformer.model import DecoderOnlyTransformer
from transformer.presets import PRESETS
from transformer.processor import Choices

DECODED = {"default": PRESETS["default"].model, "SmolLM2-135M": ModelConfig(**SMOLLM2)}
TRAINED = ("demo", "default", "quick")
ROWS = (1, 2, 4, 8, 16)
CACHED_TOKENS = 512
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2, "int8": 5e-2}
"""Largest difference from the plain result, relative to its largest number."""

Parts = list[tuple[str, Callable[[], Any]]]
Prepare = Callable[[Tensor, int], Product]
"""From a weight (out, in) and the number of rows R to the function from x (R, in) to (R, out), all float32."""


@dataclass
class Case:
    """A piece of work, functions that prepare its candidates, and the choice between them."""

    name: str
    candidates: dict[str, Callable[[], Parts]]
    decision: str = ""
    """What the choice decides; the cases of one decision are judged together. Empty: information only."""
    choice: str = ""
    precisions: dict[str, str] = field(default_factory=dict)
    """The precision of a candidate whose name does not begin with it; float32 if it is not here."""

    def tolerance(self, candidate: str) -> float:
        return TOLERANCE.get(self.precisions.get(candidate, candidate.split()[0]), TOLERANCE["float32"])


def all_cases(chosen: Choices, quick: bool) -> Iterator[Case]:
    """Yields the cases one after another, so that only the weights of one are in memory."""
    for name, shape in DECODED.items():
        config = replace(shape, num_layers=2, vocab_size=2048) if quick else shape
        weights = step_weights(config)
        for rows in ROWS:
            yield product_case(name, weights, rows, chosen)
        for rows in (1, 8):
            yield format_case(name, weights, rows)
            yield attention_case(name, config, rows)
    for name in ("demo",) if quick else SHAPES:
        for precision in ("float32", "bfloat16"):
            yield loss_case(name, precision)
    for name in ("demo",) if quick else TRAINED:
        yield training_case(name, chosen)


def step_weights(config: ModelConfig) -> list[Tensor]:
    """Returns all matrices that a decode step multiplies by, (out, in) float32, in their order."""
    with torch.device("meta"):
        model = DecoderOnlyTransformer(config)
    linear = [module.weight for module in model.blocks.modules() if isinstance(module, nn.Linear)]
    output = torch.empty(config.vocab_size, config.d_model, device="meta")
    generator = torch.Generator().manual_seed(0)
    return [torch.empty(weight.shape).normal_(0, 0.05, generator=generator) for weight in (*linear, output)]


def chosen_product(rows: int, chosen: Choices) -> str:
    """Returns the candidate that row_products.py takes for a float32 product of this many rows."""
    if 0 < chosen.packs_from <= rows and row_products.has_packed_product():
        return "packed"
    return chosen.one_row if rows <= cpu_linear.MOST_ROWS and cpu_linear.HAS_MKL else "plain"


def product_case(name: str, weights: list[Tensor], rows: int, chosen: Choices) -> Case:
    """All float32 products of a decode step of `rows` texts."""
    ways = {"plain": plain, "blocks": blocks, "packed": packed}
    candidates = {way: partial(parts, weights, rows, prepare) for way, prepare in ways.items()}
    return Case(f"{name}, {rows} rows", candidates, f"product of {rows} rows", chosen_product(rows, chosen))


def format_case(name: str, weights: list[Tensor], rows: int) -> Case:
    """The same products with weights in other formats."""
    ways: dict[str, Prepare] = {
        "float32": plain, "float16": half, "bfloat16": lambda weight, rows: plain(weight.bfloat16(), rows),
        "bfloat16 packed": lambda weight, rows: packed(weight.bfloat16(), rows), "int8": int8,
    }  # fmt: skip
    candidates = {way: partial(parts, weights, rows, prepare) for way, prepare in ways.items()}
    return Case(f"{name}, formats, {rows} rows", candidates)


def parts(weights: list[Tensor], rows: int, prepare: Prepare) -> Parts:
    """Returns a product for each weight, named by its shape."""
    products: Parts = []
    for weight in weights:
        x = torch.randn(rows, weight.shape[1], generator=torch.Generator().manual_seed(1))
        products.append(("x".join(map(str, weight.shape)), partial(prepare(weight, rows), x)))
    return products


def plain(weight: Tensor, rows: int) -> Product:
    return lambda x: F.linear(x.to(weight.dtype), weight).float()


def blocks(weight: Tensor, rows: int) -> Product:
    if not cpu_linear.HAS_MKL:
        raise RuntimeError("the batched routine is MKL's, which this build of PyTorch lacks")
    if rows > cpu_linear.MOST_ROWS:
        return partial(cpu_linear.few_rows, weight=weight)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return row_products.row_product(linear, rows, Choices("blocks"))


def packed(weight: Tensor, rows: int) -> Product:
    """A copy of the weights in oneDNN's own order."""
    multiply = row_products.packed(weight, None, rows)
    return lambda x: multiply(x.to(weight.dtype)).float()


def half(weight: Tensor, rows: int) -> Product:
    layer = Float16Linear(weight)
    if layer.packed is None:
        raise RuntimeError("the product of float16 weights is FBGEMM's, which this build of PyTorch lacks")
    return layer


def int8(weight: Tensor, rows: int) -> Product:
    layer = Int8Linear(weight)
    if not layer.has_kernel:
        raise RuntimeError("no integer kernel for this width or device")
    return layer


def attention_case(name: str, config: ModelConfig, batch: int) -> Case:
    """Attention of one new token to CACHED_TOKENS, in each layer of a decode step."""
    generator = torch.Generator().manual_seed(0)

    def numbers(heads: int, tokens: int) -> Tensor:
        return torch.randn(batch, heads, tokens, config.head_dim, generator=generator)

    q = numbers(config.num_heads, 1)  # (B, H, 1, D)
    cached = [[numbers(config.kv_heads, CACHED_TOKENS) for _ in "kv"] for _ in range(config.num_layers)]

    def layers(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Parts:
        return [("layer", lambda k=k, v=v: attend(q, k, v)) for k, v in cached]

    ways = {"plain": lambda *qkv: explicit_attention(*qkv)[0], "grouped": grouped_attention, "fused": fused_attention}
    candidates = {way: (lambda attend=attend: layers(attend)) for way, attend in ways.items()}
    return Case(f"{name}, attention, batch {batch}", candidates)


def grouped_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Explicit attention of one query, without copies of the keys and values for the heads that share them."""
    batch, heads, _, width = q.shape
    grouped = q.view(batch, k.shape[1], heads // k.shape[1], width) * width**-0.5  # (B, KV, G, D)
    return ((grouped @ k.mT).softmax(-1) @ v).view(batch, heads, 1, width)


def loss_case(name: str, precision: str) -> Case:
    """The loss and its gradients at a shape of loss_kernels.py."""
    positions, width, vocab = SHAPES[name]
    torch.manual_seed(0)
    hidden, weight = torch.randn(positions, width), torch.randn(vocab, width).mul_(0.05)
    targets = torch.randint(vocab, (positions,))
    hidden.requires_grad_(), weight.requires_grad_()

    @torch.enable_grad()
    def gradients(candidate: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
        hidden.grad = weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            nats = loss(candidate, hidden, weight, targets, precision)
        nats.backward()
        return nats.detach(), hidden.grad, weight.grad

    candidates = {way: (lambda way=way: [("loss", lambda: gradients(way))]) for way in CONTENDERS}
    return Case(
        f"{name}, {precision}", candidates, f"loss in {precision}", "tiled", dict.fromkeys(candidates, precision)
    )


def training_case(name: str, chosen: Choices) -> Case:
    """Forward and backward of a micro-batch of a preset."""
    config = PRESETS[name]
    torch.manual_seed(0)
    model = accelerate(DecoderOnlyTransformer(config.model).train())
    batch = torch.randint(config.model.vocab_size, (config.batch_size, config.data.seq_length + 1))

    @torch.enable_grad()
    def micro_batch(precision: str) -> Tensor:
        torch.manual_seed(1)  # the same dropout
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            nats, count = model.loss(batch[:, :-1], batch[:, 1:])
        (nats / count).backward()
        return (nats / count).detach()

    ways = ("float32", "bfloat16")
    candidates = {way: (lambda way=way: [("micro-batch", lambda: micro_batch(way))]) for way in ways}
    return Case(f"{name}, training", candidates, "precision of training", chosen.training)
