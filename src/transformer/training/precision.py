"""The number formats of a run: where reduced precision is used, and the loss scaling that float16 needs.

Weights, optimizer state, sums, norms and the loss stay float32; under autocast, matrix products use bfloat16 or float16
copies. bfloat16 has the range of float32. float16 covers 6e-8 to 65,504, and many gradients are smaller than that. So
the loss, and with it every gradient, is multiplied by a large scale before backward() and divided by it afterwards
(arXiv 1710.03740). The scale adapts: a step that overflows changes nothing and halves it; GROW_AFTER good steps in a
row double it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from transformer.config import TrainConfig
from transformer.distributed.processes import Dist
from transformer.processor import choices

FIRST_SCALE = 2.0**16
GROW_AFTER = 2_000


class Precision:
    """The precision of a run on its device, with matrix products in `dtype`."""

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32, is_sharded: bool = False) -> None:
        self.device, self.dtype = device, dtype
        self.keeps_copies = not is_sharded
        """Whether micro-batches share autocast's copies of the weights. A sharded model gathers its weights for each
        micro-batch: a gradient through an older copy would arrive after the gradients were exchanged, and be lost.
        """
        self.may_round = device.type == "cuda" and dtype != torch.float32
        self.scale: Tensor | None = None
        """Factor on the loss for float16, () float32 on the device; None for the other formats."""
        if self.dtype == torch.float16:
            self.scale, self._good_steps = torch.tensor([FIRST_SCALE, 0.0], device=device).unbind()

    @property
    def loss_scale(self) -> Tensor | float:
        """The factor on the loss: 1 unless the format is float16."""
        return 1.0 if self.scale is None else self.scale

    def evaluation(self) -> AbstractContextManager[object]:
        """Inside the block, an evaluation's matrix products use the chosen format on a GPU, and float32 on a CPU."""
        return nullcontext() if self.device.type == "cpu" else self.autocast()

    def autocast(self) -> AbstractContextManager[object]:
        """Inside the block, matrix products use the chosen format."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype, cache_enabled=self.keeps_copies)

    @contextlib.contextmanager
    def tf32(self) -> Iterator[None]:
        """Inside the block, float32 matrix products on CUDA round their inputs to 10 bits of mantissa (TF32)."""
        before = torch.get_float32_matmul_precision()
        if self.may_round:
            torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            if self.may_round:
                torch.set_float32_matmul_precision(before)

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divides the gradients by the loss scale."""
        if self.scale is not None:
            inverse = self.scale.reciprocal()
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(inverse)

    def adapt(self, bad: Tensor) -> None:
        """Updates the scale after a step; `bad`, a bool on the device: its gradient was not finite."""
        if self.scale is not None:
            self._good_steps = torch.where(bad, 0.0, self._good_steps + 1)
            grows = self._good_steps >= GROW_AFTER
            self.scale = self.scale * torch.where(bad, 0.5, torch.where(grows, 2.0, 1.0))
            self._good_steps = torch.where(grows, 0.0, self._good_steps)

    def state(self) -> list[float]:
        """Returns the scale and the good steps since its last change; empty if nothing is scaled."""
        return [] if self.scale is None else [float(self.scale), float(self._good_steps)]

    def restore(self, state: list[float]) -> None:
        """Restores state(). A run resumed on a device with another format starts with a fresh scale."""
        if self.scale is not None and state:
            self.scale, self._good_steps = torch.tensor(state, device=self.device).unbind()


def skip_step_if(bad: Tensor, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Makes the next step() of each optimizer change nothing if `bad`, a bool on the device, is True.

    Nothing waits for the device: PyTorch's fused AdamW reads `found_inf` there, and so does DistributedMuon. Other
    optimizers cannot skip a step.
    """
    for optimizer in optimizers:
        if optimizer.defaults.get("fused") or hasattr(optimizer, "found_inf"):
            optimizer.grad_scale, optimizer.found_inf = None, bad.float()  # type: ignore[attr-defined]


def chosen_dtype(config: TrainConfig, device: torch.device, dist: Dist | None = None) -> torch.dtype:
    """Returns the format of a run's matrix products. Processes on machines that choose differently take float32."""
    if config.precision != "auto":
        dtype: torch.dtype = getattr(torch, config.precision)
        return dtype
    found = set((dist or Dist()).gather(automatic_dtype(device, config.kernels)))
    return found.pop() if len(found) == 1 else torch.float32


def automatic_dtype(device: torch.device, kernels: str = "auto") -> torch.dtype:
    """Returns the format that "auto" chooses: for a CPU, that of the kernels' row in the table of processors."""
    if device.type == "cpu":
        return torch.bfloat16 if choices(kernels).training == "bfloat16" else torch.float32
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
