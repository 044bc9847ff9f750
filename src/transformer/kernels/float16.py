r"""Weights in 16 bits for generation: half the bytes to read for each token, and almost the same numbers.

Generating one token reads every weight once, so memory bandwidth limits the speed (int8.py). float16 has 11 bits of
precision, so rounding changes a weight by at most 0.05 %:

>>> layer = Float16Linear(torch.tensor([[0.1, -1.5, 3e-5]]))
>>> [f"{number:.4g}" for number in layer.weight.flatten().tolist()]
['0.09998', '-1.5', '2.998e-05']

The product converts the weights to float32 in registers while it reads them: x and the sums stay float32, unlike
int8's. It is FBGEMM's, a part of PyTorch on x86. Without it the weights are converted before each product: slowly.
**Not chosen.** bfloat16 weights: the same bytes with 8 bits of precision, and PyTorch rounds x and the result, too.
**What it costs.** `main.py evaluate --weights float16` measures it. Weights beyond 65,504 become that number.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = torch.finfo(torch.float16).max


class Float16Linear(nn.Module):
    """A linear layer with float16 weights, for inference; x (..., in) -> (..., out). Built from weight (out, in).

    It works on the device on which it is built.
    """

    bias: Tensor | None
    rounded: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        rounded = weight.detach().float().clamp(-LARGEST, LARGEST)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.packed = None
        if weight.device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines:
            offset = None if self.bias is None else self.bias.float()
            self.packed = torch.ops.quantized.linear_prepack_fp16(rounded, offset)  # in FBGEMM's own order
        self.register_buffer("rounded", rounded.half() if self.packed is None else None)

    @property
    def weight(self) -> Tensor:
        """The rounded weights, (out, in) float32."""
        if self.rounded is not None:
            return self.rounded.float()
        weight: Tensor = torch.ops.quantized.linear_unpack_fp16(self.packed)[0]
        return weight

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None or x.dtype != torch.float32:
            return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self.packed)
        return out
