r"""The loss: how wrong the predictions are, and how to find out without building them all.

**The problem.** At each position the model gives every one of V tokens a score, its *logit*. Training needs one number
that says how wrong these are, and its gradient. The plain way builds the whole (tokens, V) table of logits. With
cl100k_base V is 100,277: a micro-batch of 1,024 tokens makes a table of 411 MB, its softmax another, its gradient a
third, all of them written to memory and read back. In a small model that table *is* the cost of training.

**The measure.** Softmax turns logits z into probabilities, and the loss of a position is the surprise at the token y
that really came, in nats (log base e; a nat is 1.44 bits):

    p_v = exp(z_v) / sum_u exp(z_u)        loss = -ln p_y = ln(sum_u exp(z_u)) - z_y

A model that knows nothing gives each token 1/V and pays ln V: 11.5 nats for cl100k_base, 5.5 for 256 bytes. A loss
that starts far above ln V means the initialisation is wrong. By hand, logits [0, ln 3], so p = [1/4, 3/4]:

>>> hidden, weight = torch.ones(1, 1), torch.tensor([[1.0], [3.0]]).log()
>>> [round(float(tiled_loss(hidden, weight, torch.tensor([y]))[0]), 4) for y in (0, 1)]    # ln 4, ln 4/3
[1.3863, 0.2877]

**The gradient** is as plain as a gradient can be. For one position with hidden vector x, and w_v row v of the weight:

    d loss / d z_v = p_v - [v = y]
    d loss / d x   = sum_v p_v w_v - w_y           the row expected minus the row that came
    d loss / d w_v = sum over positions of (p_v - [v = y]) x

**The idea of `tiled_loss`.** All three sums run over the vocabulary, and none needs the whole table at once. Cut the
table into tiles small enough to stay in the processor's cache. While a tile is there, turn its logits into
exponentials e and use them at once, for the denominator and for the expected row:

    for each tile of rows w:   e = exp(x w^T)        s += sum(e)        mix += e w
                               loss = ln s - x . w_y        d x = mix / s - w_y

The exponentials are not yet divided by s, which is known only after the last tile. They need not be: s belongs to the
position, so it can be divided out of x instead, C numbers rather than V. The second walk over the tiles is

    for each tile:             d w_tile += e^T (x / s)   then   d w_y -= x

That is one exponential and three products for an entry of the table, the least possible without skipping any. The
exponentials of a few hundred positions wait in one buffer, used again and again, for the second walk.

**No shift?** Softmax is usually computed as exp(z - max z) for safety: float32 overflows at exp(88). The shift cancels,
so it is needed only for range, and finding the maximum first costs a walk of its own. Here the first try goes without;
where a sum leaves the range from 1e-25 to 1e25, that group of positions is done again with the shift.

**The unit is the sum, with the count beside it.** A mean of means is wrong as soon as two batches differ in size;
sums and counts add up over micro-batches, devices and documents, and are divided once, at the end.

**Cost.** 6 N V C floating-point operations, 83% of a step at the default config; extra memory of one buffer and the
gradient of the weight. benchmarks/results/ holds what was measured. Below TILED_FROM_VOCAB entries the whole table fits
the cache and plain_loss is faster: next_token_loss chooses. Gradients are made during the forward pass, for that is
when the tiles are hot; backward() only scales them.

**Not chosen.** Sampling a part of the vocabulary (another loss), a hierarchical softmax (another model), recomputing
the tiles in the second walk instead of keeping them (a third more work, for a buffer that is small already). Leaving
out tiles whose probabilities are negligible (arXiv 2411.09009): after 100 steps no tile stayed below 2^-20, with the
vocabulary in order of frequency or not. Below bfloat16's 2^-12 stayed 94% of them in that order, entry by entry, but
none as a whole: what they hold together counts (benchmarks/results/gradient_filtering.json).
**Is it working?** It equals plain_loss to rounding, in value and gradients; the loss begins near ln V and falls.

Papers: perplexity and cross-entropy, Shannon 1951; the running sum over tiles, arXiv 1805.02867; losses in tiles,
arXiv 2411.09009. Read before: model.py. Next: training_utils.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.config import IGNORE
from transformer.loss import next_token_loss as plain_loss

TILED_FROM_VOCAB = 2_048
"""Vocabularies from this size on use tiles."""
TILE = 768
"""Vocabulary entries in a tile on a CPU: with the positions of a group, about what a core's second cache holds."""
WIDE_TILE = 16_384
"""Entries in a tile on a GPU, which likes few large products better than many small ones; chosen, not measured yet."""
BUFFER_NUMBERS = 9 << 22
"""Most exponentials kept at once: 144 MiB in float32."""


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
    """Returns the cross-entropy of each position, (N,) in nats, without gradients and without the table of logits.

    hidden (N, C) and weight (V, C) as in next_token_loss; targets (N,) int64, of which each counts.
    """
    vocab = weight.shape[0]
    if vocab < TILED_FROM_VOCAB:
        logits = F.linear(hidden, weight)  # (N, V)
        return F.cross_entropy(logits.float() if logits.dtype.itemsize < 4 else logits, targets, reduction="none")
    hidden = hidden.to(_product_dtype(hidden))
    group = _group(len(hidden), vocab)
    buffer = hidden.new_empty(group * min(vocab, _tile(hidden)))
    parts = [hidden.new_empty(0, dtype=torch.promote_types(hidden.dtype, torch.float32))]
    with torch.autocast(hidden.device.type, enabled=False):
        for x, y in zip(hidden.split(group), targets.split(group), strict=True):
            log_sum = _walk(x, weight, _cut(buffer, len(x), vocab, keep=False), wants_mix=False)[0]  # (n, 1)
            target_rows = weight.index_select(0, y).to(x.dtype)  # (n, C)
            parts.append(log_sum[:, 0] - (x * target_rows).sum(1, dtype=log_sum.dtype))
    return torch.cat(parts)


def tiled_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss tile by tile, never holding (N, V). Same arguments and result, equal to rounding."""
    wants_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    if torch.compiler.is_compiling():
        nats = _compiled_head(hidden.to(_product_dtype(hidden)), weight, targets, wants_gradient)[0]
    else:
        nats = _TiledLoss.apply(hidden, weight, targets, wants_gradient)
    return nats, (targets != IGNORE).sum()


class _TiledLoss(torch.autograd.Function):
    """Hands tiled_head's value and gradients to autograd."""

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
    """tiled_head as a single operation, into which torch.compile does not look: it may walk a second time."""
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
    """The precision of the products: autocast's where it is on. float16 cannot hold exponentials, so float32 there."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    return torch.float32 if dtype == torch.float16 else dtype


def tiled_head(hidden: Tensor, weight: Tensor, targets: Tensor, wants_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the summed nats () and the gradients of hidden (N, C) and weight (V, C), empty where not wanted."""
    vocab = weight.shape[0]
    group = _group(len(hidden), vocab)
    buffer = hidden.new_empty(group * (vocab if wants_gradient else min(vocab, _tile(hidden))))
    nats = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
    d_hidden = torch.empty_like(hidden) if wants_gradient else hidden.new_empty(0)
    d_weight = torch.empty_like(weight) if wants_gradient else weight.new_empty(0)
    for start in range(0, len(hidden), group):
        x, y = hidden[start : start + group], targets[start : start + group]  # (n, C), (n,)
        ignored = (y == IGNORE)[:, None]  # (n, 1)
        x, y = x.masked_fill(ignored, 0), y.masked_fill(ignored[:, 0], 0)  # adds nothing to the weight's gradient
        tiles = _cut(buffer, len(x), vocab, keep=wants_gradient)
        target_rows = weight.index_select(0, y).to(x.dtype)  # (n, C); a target outside the vocabulary raises here
        log_sum, inverse_sum, mix = _walk(x, weight, tiles, wants_gradient)  # (n, 1), (n, 1), (n, C)
        target_logit = (x * target_rows).sum(1, keepdim=True, dtype=nats.dtype)  # (n, 1)
        nats += (log_sum - target_logit).masked_fill(ignored, 0).sum()
        if wants_gradient:
            d_hidden[start : start + group] = (mix * inverse_sum - target_rows).masked_fill(ignored, 0)
            scaled = (x * inverse_sum).to(x.dtype)  # (n, C): x / s
            for tile, d_rows in zip(tiles, d_weight.split(_tile(d_weight)), strict=True):
                _add_product(d_rows, tile.T, scaled, fresh=start == 0)
            d_weight.index_add_(0, y, x.to(weight.dtype), alpha=-1)
    if wants_gradient and len(hidden) == 0:
        d_weight.zero_()
    return nats, d_hidden, d_weight


def _group(positions: int, vocab: int) -> int:
    """Returns the positions in a group: the groups are alike in size, and the exponentials of each fit the buffer."""
    groups = -(-positions // max(1, BUFFER_NUMBERS // vocab))
    return max(1, -(-positions // max(1, groups)))


def _tile(tensor: Tensor) -> int:
    """Returns the entries in a tile on the device of the tensor."""
    return TILE if tensor.device.type == "cpu" else WIDE_TILE


def _cut(buffer: Tensor, rows: int, vocab: int, keep: bool) -> list[Tensor]:
    """Returns a (rows, tile) view of the buffer for each tile; the same memory for all unless they must be kept."""
    width = _tile(buffer)
    starts = range(0, vocab, width)
    sizes = [min(width, vocab - start) for start in starts]
    offsets = [start * rows * keep for start in starts]
    return [buffer[offset : offset + rows * size].view(rows, size) for offset, size in zip(offsets, sizes, strict=True)]


def _walk(x: Tensor, weight: Tensor, tiles: list[Tensor], wants_mix: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The first walk: fills the tiles with exponentials; returns ln s, 1 / s (n, 1) and mix (n, C)."""
    shift = None
    total, mix = _exponentials(x, weight, tiles, wants_mix, shift)
    if not bool(((total > 1e-25) & (total < 1e25)).all()):  # inf, nan and 0 included
        shift = torch.stack([(x @ rows.to(x.dtype).T).amax(1) for rows in weight.split(_tile(weight))]).amax(0)[:, None]
        total, mix = _exponentials(x, weight, tiles, wants_mix, shift)
    log_sum = total.log() if shift is None else total.log() + shift
    return log_sum, total.reciprocal(), mix


def _exponentials(
    x: Tensor, weight: Tensor, tiles: list[Tensor], wants_mix: bool, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(x.dtype, torch.float32)
    total = torch.zeros(len(x), 1, dtype=wide, device=x.device)
    mix = torch.zeros(x.shape, dtype=wide, device=x.device)
    for tile, rows in zip(tiles, weight.split(_tile(weight)), strict=True):
        rows = rows.to(x.dtype)  # (tile, C)
        torch.mm(x, rows.T, out=tile)  # (n, tile) logits
        if shift is not None:
            tile -= shift
        total += tile.exp_().sum(1, keepdim=True, dtype=wide)
        if wants_mix:
            _add_product(mix, tile, rows)
    return total, mix


def _add_product(out: Tensor, a: Tensor, b: Tensor, fresh: bool = False) -> None:
    """out += a @ b in place, or out = a @ b where out is fresh; narrower products are added in out's precision."""
    if out.dtype == a.dtype:
        torch.addmm(out, a, b, beta=0 if fresh else 1, out=out)
    elif fresh:
        out.copy_(a @ b)
    else:
        out += a @ b
