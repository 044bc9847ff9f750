r"""Quantisation: the weights as small integers, so that a token costs a quarter of the bytes.

**The problem.** Generating one token reads every weight once and does two FLOPs with it, so memory bandwidth limits the
speed: a model of 30 million weights reads 120 MB for each token at 4 bytes a weight. Fewer bytes make it faster.

**The idea.** A row of a matrix, the weights of one output, is stored as whole numbers from -127 to 127 and one scale:

    scale  = max |w| / 127                  a row's own: one large weight spoils no other row
    q      = round(w / scale)               one byte
    w      ~ q * scale                      error at most half a scale

    y = x W^T  ~  (x Q^T) * scale           multiply by the scale after the sum

By hand, the row [0.5, -1.27, 0.0]: scale 1.27 / 127 = 0.01, and q = [50, -127, 0]:

>>> layer = Int8Linear(torch.tensor([[0.5, -1.27, 0.0]]))
>>> layer.quantised.tolist(), round(float(layer.scale), 4)
([[50, -127, 0]], 0.01)

**What it costs.** Rounding adds noise to each weight, about 0.7 % of the root mean square of its row (a scale is about
2.9 standard deviations / 127 for a row of 256 weights, and the error 1 / sqrt(12) of a scale), and much of it cancels
in a sum over hundreds of weights. `main.py evaluate --int8` measures the loss of quality; benchmarks/int8.py found one
ten-thousandth of a bit per byte on a small model.
**What is not quantised.** Norms, biases and position vectors are few and stay as they are, and so does the token table,
which is read one row at a time; if it is tied, the output projection gets a quantised copy. Activations are not
quantised: for few rows they are rounded to bfloat16 for the kernel, and for many rows (a prompt, an evaluation) the
weights are dequantised first.
**Not chosen.** A library's quantiser: torchao's weight-only layers become fast through torch.compile, and
without it dequantise the whole matrix each time. 4 bits, which need calibration data (arXiv 2210.17323). Training with
such weights: rounding has no gradient.

Paper: arXiv 2208.07339.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_ROWS = 16
"""Most rows of x for the integer kernel; for more, dequantising the weights is faster."""

KERNEL_STEP = 32
"""The kernel reads this many inputs at a time, so it reads beyond the end of a row that is not a multiple of it."""


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, for inference; x (..., in) -> (..., out). Built from weight (out, in).

    It works on the device on which it is built.
    """

    quantised: Tensor
    scale: Tensor
    ones: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        scale = weight.detach().float().abs().amax(1) / 127  # (out,)
        scale = scale.masked_fill(scale == 0, 1.0)  # a row of zeros stays zeros
        self.out_features, self.in_features = weight.shape
        self.has_kernel = self.in_features % KERNEL_STEP == 0 and _has_kernel(weight.device.type)
        self.register_buffer("quantised", (weight.detach() / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("ones", torch.ones(len(scale), dtype=torch.bfloat16, device=weight.device))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The dequantised weights, (out, in) float32."""
        return self.quantised * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)  # (R, in)
        if 0 < len(rows) <= MOST_ROWS and self.has_kernel:
            sums = torch._weight_int8pack_mm(rows.bfloat16(), self.quantised, self.ones)  # (R, out)
        else:
            sums = F.linear(rows, self.quantised.to(x.dtype))
        out = sums.to(x.dtype) * self.scale.to(x.dtype)
        if self.bias is not None:
            out = out + self.bias
        return out.view(*x.shape[:-1], self.out_features)


@functools.cache
def _has_kernel(device: str) -> bool:
    """Whether PyTorch can multiply bfloat16 by int8 rows on this kind of device."""
    try:
        x = torch.ones(1, 32, dtype=torch.bfloat16, device=device)
        torch._weight_int8pack_mm(x, torch.ones(32, 32, dtype=torch.int8, device=device), x[0])
    except RuntimeError:  # NotImplementedError is one
        return False
    return True


def quantise(model: nn.Module, layer: Callable[[Tensor, Tensor | None], nn.Module] = Int8Linear) -> None:
    """Replaces every linear layer of the model by its int8 form, in place: for generation and evaluation.

    `layer` makes another form from weight (out, in) and bias, such as float16.Float16Linear.
    """
    for name, child in model.named_children():
        if isinstance(child, nn.Linear):
            setattr(model, name, layer(child.weight, child.bias))
        else:
            quantise(child, layer)
