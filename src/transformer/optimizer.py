r"""The optimizer: from gradients to better weights.

**The problem.** The gradient says how the loss changes with each weight. Stepping against it with one rate for all
(plain SGD) does poorly on transformers: gradients of rare tokens' rows, of norms and of deep matrices differ by
orders of magnitude, so a rate that suits one is useless or ruinous for another.

**AdamW.** Keep for each weight a running mean m of its gradient g and v of its square. Dividing one by the root of the
other gives the gradient in units of its own usual size, so that all weights move by about the rate:

    m = b1 m + (1 - b1) g         v = b2 v + (1 - b2) g^2
    w = w - rate * (m' / (sqrt(v') + eps) + decay * w)          m', v': corrected for their start at 0

By hand, first step: m' = g and v' = g^2, so any gradient moves a weight by the rate, against its sign:

>>> w = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
>>> adamw = torch.optim.AdamW([w], lr=0.1, weight_decay=0.0)
>>> w.grad = torch.tensor([[5.0, -0.001]]); adamw.step()
>>> [round(x, 3) for x in w[0].tolist()]
[0.9, 1.1]

*Weight decay* pulls weights towards 0 and so prefers simpler functions. Only matrices are decayed: a norm's weight
belongs at 1, not 0, and a bias has no scale to keep in check.

**Muon**, for the matrices inside the blocks. A matrix is more than its entries: its gradient is often dominated by a
few directions, and AdamW's entry-by-entry scaling leaves them dominant. Muon takes the running mean M of the gradient
and replaces it by the nearest matrix that treats all directions alike: with M = U S V^T, it steps along U V^T, the
same directions with every strength set to 1. The singular values need not be computed. A few rounds of

    X = a X + b (X X^T) X + c (X X^T)^2 X          a, b, c = 3.4445, -4.7750, 2.0315

push the singular values of X, once scaled into (0, 1], to between about 0.7 and 1.2: only products of matrices, the
cheapest thing a processor does. Embeddings, norms and biases stay with AdamW, for their rows are looked up one by one.

>>> flat = orthogonalised(torch.tensor([[2.0, 0.0], [0.0, 0.02]]))          # strengths 2 and 0.02 ...
>>> bool((flat.diagonal() - 1).abs().max() < 0.35)                          # ... both become about 1
True

torch.optim.Muon works in bfloat16, right for GPUs; processors without bfloat16 units take an order of magnitude
longer for it than for float32. Here the products run in the gradient's own precision.

**Cost.** AdamW keeps two numbers a weight and reads and writes them once a step (PyTorch's fused kernel does it in one
pass). Muon keeps one, and five rounds of three products: for a matrix (m, n) with m <= n about 20 m^2 n operations,
which is small beside the 6 m n a token that the gradient itself cost as soon as a step holds thousands of tokens.
**Chosen.** beta2 = 0.95, not 0.999: a run of some thousand steps cannot wait for an average over a thousand.
**Is it working?** grad_norm in the metrics is steady, now and then clipped. Papers: Adam, arXiv 1412.6980; AdamW, arXiv
1711.05101; Muon, Jordan et al. 2024, and its scale at size, arXiv 2502.16982. Next: scheduler.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from transformer.config import OptimizerConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic in Muon's article (Jordan et al. 2024)."""


def build_optimizers(model: nn.Module, settings: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Returns the optimizers that together own every trained parameter once; each group keeps its "peak_lr"."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    moved_by_muon = [
        p for name, p in named if settings.optimizer == "muon" and p.ndim == 2 and name.startswith("blocks.")
    ]
    chosen = {id(p) for p in moved_by_muon}
    rest = [p for _, p in named if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    fused = all(p.device.type in ("cpu", "cuda", "mps") and p.is_floating_point() for p in rest)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], settings.learning_rate, betas, fused=fused)
    ]
    if moved_by_muon:
        optimizers.append(Muon(moved_by_muon, settings.muon_learning_rate, weight_decay=settings.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], scale: float) -> None:
    """Sets every group's rate to `scale` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * scale


def skip_step_if(optimizers: Iterable[torch.optim.Optimizer], bad: Tensor) -> None:
    """Makes the next step() leave weights and averages as they are where `bad`, a bool on the device, is True.

    Nothing waits for the device: PyTorch's fused AdamW looks at `found_inf` there, as it does for gradient scaling, and
    so does Muon. Other optimizers cannot skip a step.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, Muon) or optimizer.defaults.get("fused"):
            optimizer.grad_scale, optimizer.found_inf = None, bad.float()  # type: ignore[attr-defined]


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; for matrices only. `lr` is the length of a step relative to the matrix's own scale."""

    found_inf: Tensor | None = None

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Moves every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._move(matrix, matrix.grad, group)

    def _move(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        length: float | Tensor = group["lr"]
        if self.found_inf is not None:  # where it is 1, the averages stay, and the step has the length 0
            gradient = torch.where(self.found_inf > 0, state["momentum"], gradient)
            length = length * (1 - self.found_inf)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(momentum, group["momentum"])  # a look ahead, as Nesterov's
        update = _rows_like(matrix, orthogonalised(_whole(ahead)))
        rows, columns = matrix.shape
        matrix.mul_(1 - length * group["weight_decay"])
        matrix.sub_(update.mul_(length * max(1.0, rows / columns) ** 0.5))


def _whole(matrix: Tensor) -> Tensor:
    """Returns a sharded matrix as a whole one, which all processes ask for together; any other as it is."""
    return matrix.full_tensor() if hasattr(matrix, "full_tensor") else matrix


def _rows_like(matrix: Tensor, update: Tensor) -> Tensor:
    """Returns of `update`, which all processes have, the rows that this one has of a sharded matrix."""
    if not hasattr(matrix, "device_mesh"):
        return update
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(update, matrix.device_mesh, matrix.placements, src_data_rank=None)  # type: ignore[attr-defined]


def orthogonalised(matrix: Tensor, rounds: int = 5) -> Tensor:
    """Returns about U V^T of matrix = U S V^T, (m, n): singular values come out near 1, tiny ones below it."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix  # wide, so that X X^T is the smaller product
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    flat: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return flat
