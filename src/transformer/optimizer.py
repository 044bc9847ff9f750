r"""The optimizer: from gradients to better weights.

**The problem.** The gradient says how the loss changes with each weight. Subtracting it with one learning rate for all
weights (plain SGD) works poorly on transformers: the gradients of a rare token's embedding, of a norm and of a matrix
differ by orders of magnitude, so a rate that suits one of them is too small or too large for another.

**AdamW** keeps two running means for each weight: m of its gradient g, and v of the squared gradient. Both start at 0,
so after t steps they are divided by 1 - b^t. Dividing m' by the root of v' measures the gradient in units of its own
usual size, so every weight moves by about the learning rate:

    m = b1 m + (1 - b1) g         v = b2 v + (1 - b2) g^2         m' = m / (1 - b1^t)         v' = v / (1 - b2^t)
    w = w - rate * (m' / (sqrt(v') + eps) + decay * w)

By hand, first step: m' = g and v' = g^2, so any gradient moves a weight by the rate, against its sign:

>>> w = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
>>> adamw = torch.optim.AdamW([w], lr=0.1, weight_decay=0.0)
>>> w.grad = torch.tensor([[5.0, -0.001]]); adamw.step()
>>> [round(x, 3) for x in w[0].tolist()]
[0.9, 1.1]

*Weight decay* pulls weights towards 0, which favours simpler functions. Only matrices and embedding tables are decayed:
a norm's weight belongs near 1, not 0, and a bias does not grow without limit.

**Muon**, for the matrices inside the blocks. A matrix is more than its entries: its gradient M = U S V^T is often
dominated by a few directions with large singular values, and AdamW, which scales entry by entry, leaves them dominant.
Muon keeps a running mean of the gradient and steps along U V^T, the same directions with every singular value set to 1.
No singular value has to be computed. A few iterations of

    X = a X + b (X X^T) X + c (X X^T)^2 X          a, b, c = 3.4445, -4.7750, 2.0315

starting from X = M / |M| (|M|: the root of the sum of squares), whose singular values lie in [0, 1], bring all but the
smallest to between about 0.7 and 1.2. That takes only matrix products, which processors do best.

>>> update = orthogonalised(torch.tensor([[2.0, 0.0], [0.0, 0.02]]))        # singular values 2 and 0.02 ...
>>> bool((update.diagonal() - 1).abs().max() < 0.35)                        # ... both become about 1
True

AdamW keeps the rest. A norm or a bias is a vector: it has no singular values. A token embedding is a table, not a map
from vectors to vectors: each row is used on its own, and most rows have no gradient in a given step. The fused
projection of queries, keys and values is orthogonalised as one (3C, C) matrix.

**Cost.** AdamW keeps two numbers per weight and updates them once per step. Muon keeps one, and computes five rounds of
three products: for an (m, n) matrix with m <= n that is 5 (4 m^2 n + 2 m^3), 20 to 30 m^2 n FLOPs, small compared with
the 6 m n per token that the gradient cost, if a step has thousands of tokens. **Why beta2 = 0.95 and not 0.999?** A
mean over the last 20 steps adapts within a run of some thousand steps. **Why not torch.optim.Muon?** It computes in
bfloat16, which is slow on CPUs without bfloat16 units; here the products use the gradient's own precision.

**Is it working?** grad_norm in the metrics is steady, and clipped now and then. Papers: Adam, arXiv 1412.6980; AdamW,
arXiv 1711.05101; Muon, Jordan et al. 2024, and its scale for large models, arXiv 2502.16982. Next: scheduler.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from transformer.config import OptimizerConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's quintic iteration (Jordan et al. 2024)."""


class Muon(torch.optim.Optimizer):
    """Momentum, then orthogonalisation; for matrices only. `lr` is about the size of each singular value of a step."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group)

    def _update(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if not state:  # the first step
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - group["momentum"])  # 0.95 of the old mean + 0.05 of the new gradient
        direction = gradient.lerp(momentum, group["momentum"])  # Nesterov: the same mean, one gradient ahead
        rows, columns = matrix.shape
        # With more rows than columns, the rows of U V^T have a length of sqrt(columns / rows), not 1: undo that.
        size = group["lr"] * max(1.0, rows / columns) ** 0.5
        matrix.mul_(1 - group["lr"] * group["weight_decay"])  # decoupled from the gradient, as in AdamW
        matrix.sub_(orthogonalised(direction) * size)


def orthogonalised(matrix: Tensor, rounds: int = 5) -> Tensor:
    """Returns approximately U V^T of matrix = U S V^T, (m, n). Singular values far below the norm stay below 1."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix  # wide, so that X X^T is the smaller product
    x = x / (x.norm() + 1e-7)  # the norm is at least the largest singular value
    for _ in range(rounds):
        gram = x @ x.T  # (m, m)
        x = a * x + (b * gram + c * gram @ gram) @ x  # an odd polynomial in X acts on its singular values alone
    orthogonal: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return orthogonal


def build_optimizers(
    model: nn.Module, settings: OptimizerConfig, muon: type[Muon] = Muon
) -> list[torch.optim.Optimizer]:
    """Returns optimizers that own every trained parameter exactly once. Each group remembers its "peak_lr".

    `muon` is the class to use for Muon: the trainer passes one that works on sharded matrices and can skip a step.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    use_muon = settings.optimizer == "muon"
    matrices = [p for name, p in named.items() if use_muon and p.ndim == 2 and name.startswith("blocks.")]
    taken = {id(p) for p in matrices}
    rest = [p for p in named.values() if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},  # norms and biases
    ]
    betas = (settings.beta1, settings.beta2)
    fused = all(p.device.type in ("cpu", "cuda", "mps") for p in rest)  # one kernel for the whole update
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], settings.learning_rate, betas, fused=fused)
    ]
    if matrices:
        optimizers.append(muon(matrices, settings.muon_learning_rate, weight_decay=settings.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], scale: float) -> None:
    """Sets every group's learning rate to `scale` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * scale
