"""Muon for the trainer: on matrices sharded between processes, and with steps that can be skipped on the device.

The plain version is optimizer.py. Two things are added:

- **Sharded matrices.** FSDP leaves each process some rows of every matrix. Singular values belong to the whole matrix,
  so its direction is gathered first; every process orthogonalises it and keeps its own rows of the result.
- **Skipped steps.** A step whose gradient is not finite must change nothing. To decide that in Python would wait for
  the device in every step, so the decision stays there: if `found_inf` is 1, the momentum replaces the gradient, which
  leaves the momentum as it is, and the size of the step is 0. PyTorch's fused AdamW has the same `found_inf`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from transformer.optimizer import Muon, orthogonalised


class DistributedMuon(Muon):
    """Muon that accepts sharded matrices and skips the step if `found_inf` is 1."""

    found_inf: Tensor | None = None
    """() float32 on the device; None: never skip."""

    def _update(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"]
        rate: float | Tensor = group["lr"]
        if self.found_inf is not None:
            gradient = torch.where(self.found_inf > 0, momentum, gradient)
            rate = rate * (1 - self.found_inf)
        momentum.lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp(momentum, group["momentum"])
        rows, columns = matrix.shape
        matrix.mul_(1 - rate * group["weight_decay"])
        matrix.sub_(_orthogonalised(direction) * (rate * max(1.0, rows / columns) ** 0.5))


def _orthogonalised(direction: Tensor) -> Tensor:
    """Returns orthogonalised(direction); if it is sharded, this process's rows. All processes must call it."""
    if not hasattr(direction, "device_mesh"):
        return orthogonalised(direction)
    from torch.distributed.tensor import DTensor, distribute_tensor  # seconds to import: only for a sharded run

    assert isinstance(direction, DTensor)
    whole = orthogonalised(direction.full_tensor())
    return distribute_tensor(whole, direction.device_mesh, direction.placements, src_data_rank=None)
