"""The place of this process among those that train together. One process is the case of a world of size 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed
from torch import Tensor


@dataclass(frozen=True)
class Dist:
    """Process `rank` of `world_size`; rank 0 is the one that writes files and speaks."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum of `values` over all processes."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values
