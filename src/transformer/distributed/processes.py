"""The place of this process among those that train together, and what they tell one another.

`torchrun` starts the processes and tells each its place in environment variables. A process that was started without it
is a world of its own: it communicates with nobody, and nothing here costs it anything.

Small numbers and settings travel between the CPUs, by gloo, also where gradients travel between GPUs, by NCCL: what the
processes agree on then waits for no GPU. All processes must make the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Dist:
    """Process `rank` of `world_size`, `local_rank` of its machine; rank 0 is the one that writes files and speaks.

    As a context manager it leaves the others at its end, once all of them are there.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    job: str | None = None
    """The id that torchrun gave the job, the same after a restart."""
    restarts: int = 0
    """How often torchrun has restarted the job, because one of its processes had ended."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Dist:
        """Joins the processes that torchrun started with this one; without torchrun, a process is alone.

        Raises ValueError where the environment names several processes, but not this one's place.
        """
        world_size = int(environment.get("WORLD_SIZE", 1))
        job, restarts = environment.get("TORCHELASTIC_RUN_ID"), int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
        if world_size == 1:
            return cls(job=job, restarts=restarts)
        wanted = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        if missing := [name for name in wanted if name not in environment]:
            raise ValueError(
                f"WORLD_SIZE={world_size} is set, but {', '.join(missing)} not: start the processes with torchrun, or "
                "unset WORLD_SIZE to train with one"
            )
        has_nccl = torch.cuda.is_available() and torch.distributed.is_nccl_available()
        backend, rank = "cpu:gloo,cuda:nccl" if has_nccl else "gloo", int(environment["RANK"])
        store = _clean_store(environment, restarts) if restarts else None
        if store is None:
            torch.distributed.init_process_group(backend)
        else:
            torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
        return cls(rank, world_size, int(environment["LOCAL_RANK"]), job, restarts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world_size > 1 and kind is None:  # after an error, who waits for the others may wait for ever
            self.wait()  # torchrun ends all as soon as one has gone
            torch.distributed.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def own(self, device: torch.device) -> torch.device:
        """Returns the device of this process: of several GPUs each process of a machine has one.

        Raises ValueError where there is none left for it.
        """
        if self.world_size == 1 or device.type == "cpu":
            return device
        if device.type != "cuda":
            raise ValueError(f"several processes train on CUDA or on the CPU, not on {device}: give --device cpu")
        if self.local_rank >= (there := torch.cuda.device_count()):
            raise ValueError(
                f"there is no GPU for process {self.local_rank} of this machine, counted from 0: it has {there}; start "
                f"torchrun with --nproc-per-node {there}, or give --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def check_shard(self) -> None:
        """Raises ValueError where there is nobody to share a model with."""
        if self.world_size == 1:
            raise ValueError(
                "--shard spreads one model over several processes, and there is one: start them with torchrun "
                "--nproc-per-node N main.py train ... --shard, or leave --shard out"
            )

    def place(self, model: M, device: torch.device, blocks: Iterable[nn.Module] | None = None) -> M:
        """Returns the model on the device; given its blocks, spread over all processes, who all have made the same.

        Raises ValueError where there is one process only to spread it over.
        """
        if blocks is None:
            return model.to(device)
        self.check_shard()
        from transformer.distributed.fsdp import shard

        shard(model, blocks, device, self.world_size)
        return model

    @contextlib.contextmanager
    def whole(self, model: M) -> Iterator[M]:
        """Inside the block the model can be used by rank 0 alone, without gradients; all enter and leave it together.

        A sharded model takes its whole size there, in the memory of every process; any other stays as it is.
        """
        if not is_sharded(model):
            yield model
            return
        from transformer.distributed import fsdp as sharding

        with sharding.whole(model):
            yield model

    def whole_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Returns the model's state dict; of a sharded one whole tensors on rank 0, and an empty one elsewhere."""
        if not is_sharded(model):
            return model.state_dict()
        from transformer.distributed import fsdp as sharding

        return sharding.whole_weights(model)

    def parallel(self, objective: nn.Module) -> nn.Module:
        """Returns the module wrapped so that backward leaves the mean of all processes' gradients.

        Alone, or where a sharded model in it sees to that, it is returned as it is.
        """
        if self.world_size == 1 or is_sharded(objective):
            return objective
        return DistributedDataParallel(objective, forward_sync_buffers=False, gradient_as_bucket_view=True)

    def share(self, rows: Tensor, padding: int) -> Tensor:
        """Returns this process's of the rows, r::W, equally many for all: some get one more, made of `padding`."""
        own = rows[self.rank :: self.world_size]
        missing = -(-len(rows) // self.world_size) - len(own)
        return F.pad(own, (0, 0, 0, missing), value=padding)

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum of `values` over all processes."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Returns every process's value, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def from_main(self, value: T | None) -> T:
        """Returns rank 0's value; what the others give does not count."""
        values = [value]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(values)
        return cast(T, values[0])

    def wait(self) -> None:
        """Returns when all processes are here."""
        self.sum(torch.zeros(1))


def _clean_store(environment: Mapping[str, str], restarts: int) -> Any:
    """Returns a corner of torchrun's store that holds no address of a process that has ended; None: not known where.

    torchrun keeps one store over all restarts, in which a process may find where another one used to listen
    (PyTorch's issue 135712). Several machines may count restarts differently, so this helps on one.
    """
    is_shared = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not is_shared or environment.get("GROUP_WORLD_SIZE") != "1":
        return None
    own: Any = torch.distributed  # which does not say to mypy that it has stores
    store = own.TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_master=False)
    return own.PrefixStore(f"restart_{restarts}", store)


def is_sharded(module: nn.Module) -> bool:
    """Whether a model in the module is spread over several processes."""
    return any(hasattr(part, "set_requires_gradient_sync") for part in module.modules())


def gradients_stay(objective: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Inside the block backward leaves every process its own gradients; the next one brings all together."""
    if isinstance(objective, DistributedDataParallel):
        return objective.no_sync()
    if not is_sharded(objective):
        return contextlib.nullcontext()
    from transformer.distributed import fsdp as sharding

    return sharding.gradients_stay(objective)
