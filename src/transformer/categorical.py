"""Drawing token ids from probabilities, so that a seed gives the same ids in any batch and on any device.

torch.multinomial(probs, 1) draws from the same distribution. But it takes its random numbers in an order that depends
on the batch and on the device, so a text would change with the texts beside it. Here each row takes one random number,
drawn on the CPU by default, and its id depends on that number and on its own probabilities only. So a row may also have
its own generator (inference/batch.py).

Read sampling.py before. The core needs only draw() and most_likely().
"""

from __future__ import annotations

import torch
from torch import Tensor

from transformer.loss import at_least_float32


def draw(probs: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws an id from each row: probs (..., V) -> (...,) int64. Raises ValueError as inverse_cdf does."""
    rows = probs.reshape(-1, probs.shape[-1])  # (N, V)
    return inverse_cdf(rows, uniform_numbers(len(rows), generator)).reshape(probs.shape[:-1])


def most_likely(logits: Tensor) -> Tensor:
    """Returns the id with the largest logit of each row: (..., V) -> (...,) int64.

    Raises ValueError for a row whose largest logit is not a finite number.
    """
    best = logits.max(-1)
    check_rows(best.values.isfinite())
    return best.indices


def inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """Turns uniform random numbers (N,) from [0, 1) into ids (N,), drawn from the rows of probs (N, V).

    The probabilities divide the line from 0 to 1 into V intervals; the id is the interval that the number falls into:

    >>> inverse_cdf(torch.tensor([0.5, 0.25, 0.25]).expand(4, -1), torch.tensor([0.0, 0.49, 0.5, 0.99])).tolist()
    [0, 0, 1, 2]

    Never returns an id of probability 0. Raises ValueError for a row without probabilities.
    """
    # Cut to whole multiples of 2^-52, so that sums are exact integers. The rounding of a float sum depends on the order
    # of addition, which varies with batch size and device, and could change the draw.
    cdf = (at_least_float32(probs) * 2**52).long().cumsum(-1)  # (N, V) int64
    total = cdf[:, -1].cpu()  # (N,), about 2^52; not positive if a probability is nan, which becomes the lowest integer
    check_rows(total > 0)
    point = (uniform.to("cpu", torch.float64) * total).long()  # (N,), below the total: float64 is exact up to 2^53
    return torch.searchsorted(cdf, point.to(cdf.device)[:, None], right=True)[:, 0]


def uniform_numbers(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Returns `count` random numbers from [0, 1) on the CPU, in float64, drawn on the device of the generator.

    None: torch's global CPU generator. With a CPU generator a seed gives the same text on every device, apart from
    rounding.
    """
    device = torch.device("cpu") if generator is None else generator.device
    dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    return torch.rand(count, generator=generator, dtype=dtype, device=device).to("cpu", torch.float64)


def check_rows(can_draw: Tensor) -> None:
    """Raises ValueError for the first False in can_draw (...,) bool."""
    if not bool(can_draw.all()):
        row = int((~can_draw.flatten()).nonzero()[0])
        raise ValueError(f"row {row} has no probabilities to draw from: its logits are not finite numbers, or all -inf")
