"""A linear layer for few rows on a CPU: nn.Linear with another matrix product.

Generation processes one token at a time, so every weight is read from memory for a single row. On a CPU, PyTorch calls
a matrix-vector routine that reaches a quarter of the memory bandwidth. The same weights viewed as a batch of matrices
with BLOCK rows each take the batched product instead, which divides the blocks among the cores and is two to four times
as fast:

    weight (out, in)  =  blocks (n, BLOCK, in)                 a view: nothing is copied
    blocks (n, BLOCK, in) @ x (n, in, R)  ->  (n, BLOCK, R)    the same x for each block

The result has the same sums in another order. With more rows than MOST_ROWS, with gradients, under autocast, or without
MKL, which has the batched routine, the layer is nn.Linear. benchmarks/generation.py measures it.

The size of a block is a divisor of the weight's rows where there is one: rows that are left over need a product of
their own, whose start costs as much as a matrix of 576 x 576 (36 microseconds in blocks of 96 rows, 85 in blocks of 128
with 64 rows left over; two cores of an AMD EPYC).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_BLOCK, BLOCK = 64, 128
"""Rows of the weight in one block; 32 to 256 are about equally fast."""
MOST_ROWS = 8
"""Most rows of x; from about 16 rows on, the plain product is as fast."""
HAS_MKL = torch.backends.mkl.is_available()


class Linear(nn.Linear):
    """x (..., in) -> (..., out), with nn.Linear's parameters."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > MOST_ROWS * self.in_features or not _blocks_pay(x):
            return F.linear(x, self.weight, self.bias)
        rows = x.reshape(-1, self.in_features)  # (R, in)
        return few_rows(rows, self.weight, self.bias).view(*x.shape[:-1], self.out_features)


def _blocks_pay(x: Tensor) -> bool:
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
        and HAS_MKL
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def block_rows(out: int) -> int:
    """Returns the rows of one block for a weight of `out` rows; at least two blocks, for two cores.

    >>> block_rows(1536), block_rows(576), block_rows(100_277)       # 12 and 6 blocks; 783, and 53 rows left over
    (128, 96, 128)
    """
    divisors = (block for block in range(BLOCK, LEAST_BLOCK - 1, -1) if out % block == 0 and out > block)
    return next(divisors, min(BLOCK, max(1, out // 2)))


def few_rows(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns x (R, in) @ weight (out, in).T + bias (out,), as (R, out), block by block of the weight's rows."""
    rows, (out, width) = len(x), weight.shape
    block = block_rows(out)
    count = out // block
    whole = count * block
    columns = x.t().expand(count, width, rows)
    if whole == out:
        blocks = weight.view(count, block, width)
        y = torch.bmm(blocks, columns) if bias is None else torch.baddbmm(bias.view(count, block, 1), blocks, columns)
    else:  # the last rows do not fill a block
        y = x.new_empty(out, rows)
        target, blocks = y[:whole].view(count, block, rows), weight[:whole].view(count, block, width)
        torch.bmm(blocks, columns, out=target)
        torch.mm(weight[whole:], x.t(), out=y[whole:])
        if bias is not None:
            y += bias[:, None]
    return y.view(1, out) if rows == 1 else y.view(out, rows).t().contiguous()  # (R, out)
