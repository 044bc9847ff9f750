"""The numbers that a run computes in: which products may be coarser than float32, and what float16 needs beside that.

Weights, the optimizer's averages, sums, norms and the loss stay float32; autocast lets matrix products read bfloat16 or
float16 copies. bfloat16 has the range of float32. float16 ends at 6e-8 and at 65,504, and many gradients are smaller
than that: so the loss, and with it every gradient, is multiplied by a large number before backward() and divided by it
after (arXiv 1710.03740). The number is found by trying: a step that overflows changes nothing and halves it, and
GROW_AFTER good steps in a row double it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

FIRST_SCALE = 2.0**16
GROW_AFTER = 2_000


class Precision:
    """The precision of a run on its device: "auto" is bfloat16 on CUDA, float16 where it lacks that, else float32."""

    def __init__(self, device: torch.device, wanted: str = "auto", is_sharded: bool = False) -> None:
        self.device = device
        self.keeps_copies = not is_sharded
        """Whether micro-batches share autocast's copies of the weights. A sharded model gathers its weights for each;
        what came back through an older copy would reach the gradient after that has been sent, and be lost.
        """
        self.dtype: torch.dtype = automatic_dtype(device) if wanted == "auto" else getattr(torch, wanted)
        self.may_round = device.type == "cuda" and wanted != "float32"
        self.scale: Tensor | None = None
        """What float16's loss is multiplied by, () float32 on the device; None for the others."""
        if self.dtype == torch.float16:
            self.scale, self._good_steps = torch.tensor([FIRST_SCALE, 0.0], device=device).unbind()

    def autocast(self) -> AbstractContextManager[object]:
        """Products of matrices in the chosen numbers, within."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype, cache_enabled=self.keeps_copies)

    @contextlib.contextmanager
    def tf32(self) -> Iterator[None]:
        """On CUDA, products that stay float32 read their inputs rounded to 10 bits after the point (TF32), within."""
        before = torch.get_float32_matmul_precision()
        if self.may_round:
            torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            if self.may_round:
                torch.set_float32_matmul_precision(before)

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divides the gradients by the scale that the loss was multiplied by."""
        if self.scale is not None:
            inverse = self.scale.reciprocal()
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(inverse)

    def adapt(self, bad: Tensor) -> None:
        """Moves the scale after a step; `bad`, a bool on the device, says whether its gradient was not finite."""
        if self.scale is not None:
            self._good_steps = torch.where(bad, 0.0, self._good_steps + 1)
            grows = self._good_steps >= GROW_AFTER
            self.scale = self.scale * torch.where(bad, 0.5, torch.where(grows, 2.0, 1.0))
            self._good_steps = torch.where(grows, 0.0, self._good_steps)

    def state(self) -> list[float]:
        """The scale and the good steps behind it, as plain numbers; empty where nothing is scaled."""
        return [] if self.scale is None else [float(self.scale), float(self._good_steps)]

    def restore(self, state: list[float]) -> None:
        """Goes on from state(). A run that has changed its precision, with its device, begins anew."""
        if self.scale is not None and state:
            self.scale, self._good_steps = torch.tensor(state, device=self.device).unbind()


def automatic_dtype(device: torch.device) -> torch.dtype:
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
