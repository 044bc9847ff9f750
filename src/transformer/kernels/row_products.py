"""Products of a few rows with a weight matrix on a CPU: the routine for this processor, prepared once for many tokens.

A decode step multiplies one row for each text by every weight matrix, so memory bandwidth limits it, if the routine
reaches that bandwidth. Which routine does depends on the processor (processor.py), and on the number of rows R:

    plain      F.linear
    blocks     the weight as a batch of matrices (cpu_linear.py); nothing is copied
    packed     oneDNN's product, with a copy of the weight in oneDNN's own order; from about four rows on

For 8 rows and the default model's output projection, (100277, 256) float32, two cores of an AMD EPYC needed 18 ms
plain, 6.3 ms in blocks and 3.4 ms packed; for one row 12, 2.3 and 2.4 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.kernels import cpu_linear
from transformer.processor import Choices

Product = Callable[[Tensor], Tensor]
"""x (R, in) -> (R, out), bias included."""
MOST_PACKED_BYTES = 1 << 30
"""Largest model whose weights are copied for a batch: the copy needs as much memory again."""


def row_product(linear: nn.Module, rows: int, choices: Choices) -> Product:
    """Returns the product of `rows` rows with this layer; its weight is shared with the layer unless it is packed.

    packs_from of the choices must be 0 if nothing may be copied. A layer of another type gives its forward method.
    """
    if not isinstance(linear, nn.Linear) or type(linear) not in (nn.Linear, cpu_linear.Linear):
        return linear.forward
    weight, bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
    if weight.dtype == torch.float32 and rows > 0:
        if 0 < choices.packs_from <= rows and has_packed_product():
            return packed(weight, bias, rows)
        if choices.one_row == "blocks" and rows <= cpu_linear.MOST_ROWS and cpu_linear.HAS_MKL:
            return _blocks(weight, bias, rows)
    return partial(F.linear, weight=weight, bias=bias)


def _blocks(weight: Tensor, bias: Tensor | None, rows: int) -> Product:
    """cpu_linear.few_rows with the views of the weight made once, for one row of a weight that the blocks divide."""
    out, width = weight.shape
    count, left_over = divmod(out, cpu_linear.block_rows(out))
    if rows > 1 or left_over:
        return partial(cpu_linear.few_rows, weight=weight, bias=bias)
    blocks = weight.view(count, -1, width)
    if bias is None:
        return lambda x: torch.bmm(blocks, x.t().expand(count, width, 1)).view(1, out)
    offset = bias.view(count, -1, 1)
    return lambda x: torch.baddbmm(offset, blocks, x.t().expand(count, width, 1)).view(1, out)


def packed(weight: Tensor, bias: Tensor | None, rows: int) -> Product:
    """Returns oneDNN's product with a copy of the weight (out, in), float32 or bfloat16, in the order for `rows` rows.

    The function takes any number of rows, of the weight's type.
    """
    copy = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, copy, bias, "none", [], "")


def has_packed_product() -> bool:
    """Whether this build of PyTorch has oneDNN's product for packed weights."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
