"""This process among the processes that train together, and their communication.

`torchrun` starts the processes and gives each its rank in environment variables. A process started without torchrun is
alone: its world has one process, it communicates with nobody, and every method here returns at once.

Small numbers and settings travel between CPUs with gloo, even when gradients travel between GPUs with NCCL, so that the
processes can agree on them without waiting for a GPU. All processes must make the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """Process `rank` of `world_size`, and `local_rank` of its machine. Rank 0 writes files and prints.

    As a context manager, it leaves the process group at the end, once all processes have arrived there.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    job: str | None = None
    """torchrun's id of the job, the same after a restart."""
    restarts: int = 0
    """How often torchrun has restarted the job because one of its processes failed."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Dist:
        """Joins the processes started by torchrun; without torchrun, a process is alone.

        Raises ValueError if the environment announces several processes but lacks this one's rank, or has no number.
        """
        world_size = whole_number(environment, "WORLD_SIZE", 1)
        restarts = whole_number(environment, "TORCHELASTIC_RESTART_COUNT", 0)
        job = environment.get("TORCHELASTIC_RUN_ID")
        if world_size <= 1:
            return cls(job=job, restarts=restarts)
        wanted = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        if missing := [name for name in wanted if name not in environment]:
            raise ValueError(
                f"WORLD_SIZE={world_size} is set, but {', '.join(missing)} not: start the processes with torchrun, or "
                "unset WORLD_SIZE to train with one"
            )
        rank, local_rank, _ = (whole_number(environment, name, 0) for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"))
        has_nccl = torch.cuda.is_available() and torch.distributed.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
        store = _clean_store(environment, restarts) if restarts else None
        if store is None:
            torch.distributed.init_process_group(backend)
        else:
            torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
        return cls(rank, world_size, local_rank, job, restarts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world_size > 1 and kind is None:  # after an error, waiting for the others may never end
            self.wait()  # torchrun ends all processes as soon as one has left
            torch.distributed.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def own(self, device: torch.device) -> torch.device:
        """Returns this process's device: on a machine with several GPUs each process has one.

        Raises ValueError if there are fewer GPUs than processes.
        """
        if self.world_size == 1 or device.type == "cpu":
            return device
        if device.type != "cuda":
            raise ValueError(f"several processes train on CUDA or on the CPU, not on {device}: give --device cpu")
        if self.local_rank >= (present := torch.cuda.device_count()):
            raise ValueError(
                f"there is no GPU for process {self.local_rank} of this machine, counted from 0: it has {present}; "
                f"start torchrun with --nproc-per-node {present}, or give --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def check_shard(self) -> None:
        """Raises ValueError if there is only one process to shard a model over."""
        if self.world_size == 1:
            raise ValueError(
                "--shard shards one model across several processes, and there is one: start them with torchrun "
                "--nproc-per-node N main.py train ... --shard, or leave --shard out"
            )

    def place(self, model: M, device: torch.device, blocks: Iterable[nn.Module] | None = None) -> M:
        """Returns the model on the device; given its blocks, sharded across all processes, which built the same model.

        Raises ValueError if there is only one process to shard it over.
        """
        if blocks is None:
            return model.to(device)
        self.check_shard()
        from transformer.distributed import fsdp

        fsdp.shard(model, blocks, device, self.world_size)
        return model

    @contextlib.contextmanager
    def unsharded(self, model: M) -> Iterator[M]:
        """Inside the block rank 0 alone can use the model, without gradients. All processes enter and leave together.

        A sharded model takes its full size in the memory of every process there; any other model stays as it is.
        """
        if not is_sharded(model):
            yield model
            return
        from transformer.distributed import fsdp

        with fsdp.unsharded(model):
            yield model

    def full_state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """Returns the model's state dict. Of a sharded model, rank 0 gets full tensors, the others an empty dict."""
        if not is_sharded(model):
            return model.state_dict()
        from transformer.distributed import fsdp

        return fsdp.full_state_dict(model)

    def parallel(self, objective: nn.Module) -> nn.Module:
        """Returns the module wrapped so that backward() leaves the mean of all processes' gradients.

        A single process needs no wrapper, and a sharded model averages its gradients itself.
        """
        if self.world_size == 1 or is_sharded(objective):
            return objective
        return DistributedDataParallel(objective, forward_sync_buffers=False, gradient_as_bucket_view=True)

    def own_rows(self, rows: Tensor, padding: int) -> Tensor:
        """Returns rows r::W for this process, r; all get equally many: some get one more, filled with `padding`."""
        own = rows[self.rank :: self.world_size]
        missing = -(-len(rows) // self.world_size) - len(own)
        return F.pad(own, (0, 0, 0, missing), value=padding)

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum of `values` over all processes."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def sum_all(self, *scalars: Tensor) -> Sequence[Tensor]:
        """Returns the sums of several scalars over all processes, exchanged together in float64."""
        if self.world_size == 1:
            return scalars
        return self.sum(torch.stack([scalar.double() for scalar in scalars])).unbind()

    def gather(self, value: T) -> list[T]:
        """Returns every process's value, ordered by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def from_main(self, value: T | None) -> T:
        """Returns rank 0's value; the values of the other processes are ignored."""
        values = [value]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(values)
        return cast(T, values[0])

    def wait(self) -> None:
        """Returns when all processes have arrived here."""
        self.sum(torch.zeros(1))


def whole_number(environment: Mapping[str, str], name: str, default: int) -> int:
    """Returns the number in an environment variable. Raises ValueError, in one line, if it is none."""
    text = environment.get(name, str(default))
    if not text.strip().isdecimal():
        raise ValueError(f"{name}={text!r} is not a whole number: start with torchrun, or unset it to train alone")
    return int(text)


def sync_last(objective: nn.Module, micro_batches: Sequence[T]) -> Iterator[T]:
    """Yields the micro-batches; processes exchange gradients only in the last one's backward().

    Before that, each process adds up its own gradients: exchanging once per step is as good, and less traffic.
    """
    for batch in micro_batches[:-1]:
        with no_sync(objective):  # holds while the caller computes with this batch
            yield batch
    yield micro_batches[-1]


def no_sync(objective: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Inside the block backward() adds to each process's own gradients; the next one after it exchanges them."""
    if isinstance(objective, DistributedDataParallel):
        return objective.no_sync()
    if not is_sharded(objective):
        return contextlib.nullcontext()
    from transformer.distributed import fsdp

    return fsdp.no_sync(objective)


def is_sharded(module: nn.Module) -> bool:
    """Whether a model in the module is sharded across processes."""
    return any(hasattr(part, "set_requires_gradient_sync") for part in module.modules())


def unshard(tensor: Tensor) -> Tensor:
    """Returns the full tensor of a sharded one, for which all processes must call this; any other as it is."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def _clean_store(environment: Mapping[str, str], restarts: int) -> Any:
    """Returns a part of torchrun's store without addresses of processes that have ended; None if that is unknown.

    torchrun keeps one store over all restarts, in which a process may find the old address of another (PyTorch's issue
    135712). Several machines may count restarts differently, so this helps on one machine only.
    """
    is_shared = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not is_shared or environment.get("GROUP_WORLD_SIZE") != "1":
        return None
    stores: Any = torch.distributed  # its stores are missing from the type hints
    store = stores.TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_master=False)
    return stores.PrefixStore(f"restart_{restarts}", store)
