r"""The loss without the table of logits: the vocabulary in tiles that fit the processor's cache.

loss.py builds all logits of all positions. With a vocabulary of 100,277, a micro-batch of 1,024 tokens makes a table of
411 MB, its softmax another one and its gradient a third, all written to memory and read again. In a small model this
table is most of the cost of training.

**The gradient** of the loss of one position, with hidden vector x, target y, and w_v for row v of the weight:

    d loss / d x   = sum_v p_v w_v - w_y                            the expected row minus the target's row
    d loss / d w_v = sum over positions of (p_v - [v = y]) x

**The idea.** All sums run over the vocabulary, and none needs the whole table at once. Cut the table into tiles. While
the logits of a tile are in the cache, compute their exponentials e and use them at once, for the denominator s of
softmax and for the expected row:

    for each tile of rows w:   e = exp(x w^T)        s += sum(e)        expected += e w
                               loss = ln s - x . w_y        d x = expected / s - w_y

The exponentials are not divided by s yet, which is known only after the last tile. They need not be: s belongs to the
position, so x can be divided by it instead, C numbers rather than V. The second pass over the tiles is

    for each tile:             d w_tile += e^T (x / s)   and then   d w_y -= x

That is one exponential and three products for each entry of the table. The exponentials of a group of positions are
kept for the second pass, in one buffer that all groups share.

>>> hidden, weight = torch.ones(1, 1), torch.tensor([[1.0], [3.0]]).log()
>>> [round(float(tiled_loss(hidden, weight, torch.tensor([y]))[0]), 4) for y in (0, 1)]    # ln 4, ln 4/3
[1.3863, 0.2877]

**No shift.** Softmax usually computes exp(z - max z), because float32 overflows at exp(88). The shift cancels, so only
the range needs it, and finding the maximum takes a pass of its own. Here the first attempt does without; if any sum of
a group leaves the range 1e-25 to 1e25, the group is computed again with the shift.

**Cost.** 6 N V C FLOPs for N positions, as the plain loss. Extra memory: one buffer and the gradient of the weight.
Gradients are computed in the forward pass, while the tiles are in the cache; backward() only scales them. On a CPU each
core has its own share of the tiles, and the cores' sums are added at the end of a pass, so that they meet twice for
each group of positions (core_threads.py). Below TILED_FROM_VOCAB entries the whole table fits the cache, and the plain
loss runs.

**PyTorch's own** F.linear_cross_entropy does the same in chunks of positions. Forward and backward on two cores of an
AMD EPYC with AVX-512, in milliseconds, PyTorch's with the better of two chunk sizes (benchmarks/bench_kernels.py; file
benchmarks/results/kernels_amd_avx512_bf16.json):

                    float32                             bfloat16
    shape       plain   tiled   PyTorch's           plain   tiled   PyTorch's
    default     2,309   1,013       1,355           1,637     500         569
    quick       1,688     591         682           1,537     316         407
    gpt2        1,896   1,367       1,639           1,190     713         806
    demo           53      54          49              36      45          27

So the tiles are faster for large vocabularies. In float32 they need half of the additional memory of PyTorch's version:
239 and 459 MiB at the default shape (benchmarks/results/loss_kernels.md). Under autocast they return a float32 sum;
PyTorch's version ignores autocast and returns a bfloat16 number.

On a GPU few large products are faster than many small ones, so one tile holds the whole vocabulary, and only the
positions are cut into groups. For 32,768 of them at GPT-2's shape an H200 takes 16 ms, 83 with all logits
(benchmarks/results/gpu_profile_nvidia_h200.md).

Leaving out tiles with negligible probabilities (arXiv 2411.09009) does not help here: with the vocabulary sorted by
frequency, 94% of the single probabilities were below 2^-12 after 100 steps, but no tile as a whole was negligible
(benchmarks/results/gradient_filtering.json).

Papers: the running sum over tiles, arXiv 1805.02867; losses in tiles, arXiv 2411.09009.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.config import IGNORE
from transformer.kernels.core_threads import on_each_core
from transformer.loss import next_token_loss as plain_loss

TILED_FROM_VOCAB = 2_048
"""Smallest vocabulary that is cut into tiles."""
TILE = 768
"""Vocabulary entries in a tile on a CPU in float32, twice as many in bfloat16: with a group's positions, about the size
of a core's L2 cache."""
ALIGNED = 64
"""The width of a tile is a multiple of this: products of other widths are slower."""
BUFFER_NUMBERS = 9 << 22
"""Most exponentials stored at once on a CPU in float32, twice as many in bfloat16: 144 MiB."""
WIDE_BUFFER_NUMBERS = 1 << 28
"""The same on a GPU, 1 GiB: few large products are faster there than many small ones."""


def next_token_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the summed cross-entropy of predicting `targets`, in nats, and how many were counted.

    hidden (N, C): vectors after the final norm; weight (V, C): the output matrix; targets (N,) int64, IGNORE for
    positions that do not count. Both results are scalars, float and int64. Gradients flow to hidden and weight.
    """
    if weight.shape[0] < TILED_FROM_VOCAB:
        return plain_loss(hidden, weight, targets)
    return tiled_loss(hidden, weight, targets)


@torch.no_grad()
def token_nats(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Returns the cross-entropy of each position, (N,) in nats, without gradients and without all logits at once.

    hidden (N, C) and weight (V, C) as in next_token_loss; targets (N,) int64, none of them IGNORE.
    """
    vocab = weight.shape[0]
    if vocab < TILED_FROM_VOCAB:
        logits = F.linear(hidden, weight)  # (N, V)
        return F.cross_entropy(logits.float() if logits.dtype.itemsize < 4 else logits, targets, reduction="none")
    hidden = hidden.to(_product_dtype(hidden))
    group = positions_at_once(len(hidden), vocab, hidden.dtype, hidden.device.type)
    tiles = _Tiles(hidden, weight, group, keep=False)
    parts = [hidden.new_empty(0, dtype=torch.promote_types(hidden.dtype, torch.float32))]
    with torch.autocast(hidden.device.type, enabled=False):
        for x, y in zip(hidden.split(group), targets.split(group), strict=True):
            log_sum = _first_pass(x, tiles, wants_expected=False)[0]  # (n, 1)
            target_rows = weight.index_select(0, y).to(x.dtype)  # (n, C)
            parts.append(log_sum[:, 0] - (x * target_rows).sum(1, dtype=log_sum.dtype))
    return torch.cat(parts)


def tiled_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss tile by tile, without the (N, V) table. Same arguments and result, equal up to rounding."""
    wants_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    if torch.compiler.is_compiling():
        nats = _compiled_head(hidden.to(_product_dtype(hidden)), weight, targets, wants_gradient)[0]
    else:
        nats = _TiledLoss.apply(hidden, weight, targets, wants_gradient)
    return nats, (targets != IGNORE).sum()


class _TiledLoss(torch.autograd.Function):
    """Passes tiled_head's value and gradients to autograd."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, wants_gradient: bool) -> Tensor:
        dtype = _product_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            nats, d_hidden, d_weight = tiled_head(hidden.to(dtype), weight, targets, wants_gradient)
        ctx.gradients = (d_hidden.to(hidden.dtype), d_weight) if wants_gradient else None
        return nats

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_nats: Tensor) -> tuple[Tensor, Tensor, None, None]:
        if ctx.gradients is None:
            raise RuntimeError("tiled_loss was already differentiated; compute the loss again for another backward")
        (d_hidden, d_weight), ctx.gradients = (
            ctx.gradients,
            None,
        )  # handed over, not copied: the weight's is large
        return d_hidden.mul_(d_nats.to(d_hidden.dtype)), d_weight.mul_(d_nats.to(d_weight.dtype)), None, None


@torch.library.custom_op("transformer::tiled_head", mutates_args=())
def _compiled_head(
    hidden: Tensor, weight: Tensor, targets: Tensor, wants_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """tiled_head as one operation that torch.compile does not trace: it may need a second attempt."""
    with torch.autocast(hidden.device.type, enabled=False):
        return tiled_head(hidden, weight, targets, wants_gradient)


@_compiled_head.register_fake
def _shapes(hidden: Tensor, weight: Tensor, targets: Tensor, wants_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    nats = hidden.new_empty((), dtype=torch.promote_types(hidden.dtype, torch.float32))
    if not wants_gradient:
        return nats, hidden.new_empty(0), weight.new_empty(0)
    return nats, torch.empty_like(hidden), torch.empty_like(weight)


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output[1:])


def _scale_gradients(ctx: Any, d_nats: Tensor, *unused: Tensor) -> tuple[Tensor, Tensor, None, None]:
    d_hidden, d_weight = ctx.saved_tensors
    return d_hidden * d_nats.to(d_hidden.dtype), d_weight * d_nats.to(d_weight.dtype), None, None


_compiled_head.register_autograd(_scale_gradients, setup_context=_keep_gradients)


def _product_dtype(hidden: Tensor) -> torch.dtype:
    """The precision of the products: autocast's if it is on, but float32 instead of float16, where exp overflows."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    return torch.float32 if dtype == torch.float16 else dtype


def tiled_head(hidden: Tensor, weight: Tensor, targets: Tensor, wants_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the summed nats () and the gradients of hidden (N, C) and weight (V, C), empty if not wanted."""
    group = positions_at_once(len(hidden), len(weight), hidden.dtype, hidden.device.type)
    tiles = _Tiles(hidden, weight, group, keep=wants_gradient)
    nats = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
    d_hidden = torch.empty_like(hidden) if wants_gradient else hidden.new_empty(0)
    d_weight = torch.empty_like(tiles.weight, dtype=weight.dtype) if wants_gradient else weight.new_empty(0)
    for start in range(0, len(hidden), group):
        x, y = hidden[start : start + group], targets[start : start + group]  # (n, C), (n,)
        ignored = (y == IGNORE)[:, None]  # (n, 1)
        x, y = x.masked_fill(ignored, 0), y.masked_fill(ignored[:, 0], 0)  # adds nothing to the weight's gradient
        target_rows = weight.index_select(0, y).to(x.dtype)  # (n, C); a target outside the vocabulary raises here
        log_sum, inverse_sum, expected = _first_pass(x, tiles, wants_gradient)  # (n, 1), (n, 1), (n, C)
        target_logit = (x * target_rows).sum(1, keepdim=True, dtype=nats.dtype)  # (n, 1)
        nats += (log_sum - target_logit).masked_fill(ignored, 0).sum()
        if wants_gradient:
            d_hidden[start : start + group] = (expected * inverse_sum - target_rows).masked_fill(ignored, 0)
            scaled = (x * inverse_sum).to(x.dtype)  # (n, C): x / s
            _second_pass(scaled, tiles, d_weight, fresh=start == 0)
            d_weight.index_add_(0, y, x.to(weight.dtype), alpha=-1)
    if wants_gradient and len(hidden) == 0:
        d_weight.zero_()
    return nats, d_hidden, d_weight.resize_(weight.shape) if wants_gradient else d_weight


def positions_at_once(positions: int, vocab: int, dtype: torch.dtype, device: str) -> int:
    """Returns the positions in a group: groups of equal size, whose exponentials fit the buffer."""
    most = _per_four_bytes(WIDE_BUFFER_NUMBERS if is_wide(device) else BUFFER_NUMBERS, dtype)
    groups = -(-positions // max(1, most // vocab))
    return max(1, -(-positions // max(1, groups)))


def tile_width(vocab: int, dtype: torch.dtype, device: str) -> int:
    """Returns the entries in a tile, ALIGNED."""
    if is_wide(device):
        return _aligned(vocab)
    most, cores = _per_four_bytes(TILE, dtype), torch.get_num_threads()
    tiles = -(-vocab // (most * cores)) * cores  # as many for each core
    return min(most, _aligned(-(-vocab // tiles)))


def is_wide(device: str) -> bool:
    """Whether one tile holds the whole vocabulary, as on a GPU."""
    return device != "cpu"


def _aligned(entries: int) -> int:
    """Rounds up to a multiple of ALIGNED."""
    return -(-entries // ALIGNED) * ALIGNED


def _per_four_bytes(numbers: int, dtype: torch.dtype) -> int:
    """Returns as many numbers of this type as fit the bytes of float32 numbers; not fewer for float64."""
    return numbers * 4 // min(4, dtype.itemsize)


class _Tiles:
    """The vocabulary in tiles, shared out among the cores, and the memory for their exponentials."""

    def __init__(self, hidden: Tensor, weight: Tensor, group: int, keep: bool) -> None:
        """Memory for `group` positions: for the whole vocabulary, or for one tile of each core unless they are kept.

        A wide tile ends with rows of zeros, so that its width is ALIGNED too: with an odd one, a GPU's products took
        three times as long. They are no entries of the vocabulary; their exponentials are set to 0.
        """
        device, self.keep, self.vocab = hidden.device.type, keep, len(weight)
        self.width = tile_width(self.vocab, hidden.dtype, device)
        starts = range(0, self.vocab, self.width)
        self.cores = min(torch.get_num_threads(), len(starts)) if device == "cpu" else 1
        self.weight = F.pad(weight.to(hidden.dtype), (0, 0, 0, self.width - self.vocab)) if is_wide(device) else weight
        cuts = [len(starts) * core // self.cores for core in range(self.cores + 1)]
        self.shares = [starts[first:last] for first, last in itertools.pairwise(cuts)]
        self.buffer = hidden.new_empty(group * (len(self.weight) if keep else self.cores * self.width))

    def of(self, core: int, positions: int) -> Iterator[tuple[slice, Tensor]]:
        """Yields each tile of this core: its slice of the vocabulary, and memory (positions, tile)."""
        for start in self.shares[core]:
            size = min(self.width, len(self.weight) - start)
            offset = positions * (start if self.keep else core * self.width)
            yield slice(start, start + size), self.buffer[offset : offset + positions * size].view(positions, size)


def _first_pass(x: Tensor, tiles: _Tiles, wants_expected: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The first pass: fills the tiles with exponentials; returns ln s, 1 / s (n, 1) and the sum of e w (n, C)."""
    shift = None
    total, expected = _exponentials(x, tiles, wants_expected, shift)
    if not bool(((total > 1e-25) & (total < 1e25)).all()):  # inf, nan and 0 included
        shift = torch.stack(on_each_core(lambda core: _largest(x, tiles, core), tiles.cores)).amax(0)  # (n, 1)
        total, expected = _exponentials(x, tiles, wants_expected, shift)
    log_sum = total.log() if shift is None else total.log() + shift
    return log_sum, total.reciprocal(), expected


def _exponentials(x: Tensor, tiles: _Tiles, wants_expected: bool, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    """Fills the tiles with e; returns the sum of e (n, 1) and, if wanted, the sum of e w (n, C)."""
    wide = torch.promote_types(x.dtype, torch.float32)

    def share(core: int) -> tuple[Tensor, Tensor]:
        total = torch.zeros(len(x), 1, dtype=wide, device=x.device)
        expected = torch.zeros(x.shape if wants_expected else (0,), dtype=wide, device=x.device)
        for rows, tile in tiles.of(core, len(x)):
            weight = tiles.weight[rows].to(x.dtype)  # (tile, C)
            torch.mm(x, weight.T, out=tile)  # (n, tile) logits
            if shift is not None:
                tile -= shift
            tile.exp_()
            if rows.stop > tiles.vocab:
                tile[:, tiles.vocab - rows.stop :] = 0
            total += tile.sum(1, keepdim=True, dtype=wide)
            if wants_expected:
                _add_product(expected, tile, weight)
        return total, expected

    totals, expecteds = zip(*on_each_core(share, tiles.cores), strict=True)
    return functools.reduce(torch.add, totals), functools.reduce(torch.add, expecteds)


def _largest(x: Tensor, tiles: _Tiles, core: int) -> Tensor:
    """Returns the largest logit of each position in this core's tiles, (n, 1)."""
    weight = tiles.weight[: tiles.vocab]
    parts = [(x @ weight[rows].to(x.dtype).T).amax(1) for rows, _ in tiles.of(core, len(x))]
    return torch.stack(parts).amax(0)[:, None]


def _second_pass(scaled: Tensor, tiles: _Tiles, d_weight: Tensor, fresh: bool) -> None:
    """The second pass: adds e^T (x / s) to the gradient of the weight (V, C), which is empty memory if it is fresh."""

    def share(core: int) -> None:
        for rows, tile in tiles.of(core, len(scaled)):
            _add_product(d_weight[rows], tile.T, scaled, fresh)

    on_each_core(share, tiles.cores)


def _add_product(out: Tensor, a: Tensor, b: Tensor, fresh: bool = False) -> None:
    """out += a @ b in place, or out = a @ b if out is fresh; products of lower precision are added in that of out."""
    if out.dtype == a.dtype:
        torch.addmm(out, a, b, beta=0 if fresh else 1, out=out)
    elif fresh:
        out.copy_(a @ b)
    else:
        out += a @ b
