"""What test_fsdp.py lets processes do that share one model; each writes what it saw to seen_RANK.pt.

The command line names the parts: "first", of the default suite, and "more", of the slow tests.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ranks
from test_trainer import numbers, tiny_run, tiny_text
from transformer.config import TrainConfig
from transformer.distributed import sharded_checkpoint
from transformer.distributed.processes import Dist
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError
from transformer.training.events import Event

SHAPES: dict[str, dict[str, Any]] = {
    "adamw": {  # 13 rows; 6 numbers are not a multiple of 4
        "d_model": 6, "num_layers": 2, "validation_tokens": 100, "precision": "float32", "qk_norm": "all",
        "norm_position": "after", "qkv_bias": False, "watch_inside": True,
    },
    "muon": {
        "d_model": 8, "num_layers": 2, "optimizer": "muon", "position": "rotary", "norm": "rmsnorm",
        "activation": "swiglu", "bias": False, "tie_embeddings": False, "mask_documents": True,
        "activation_checkpointing": True, "precision": "float32", "head_width": 6, "qk_norm": "head",
        "parallel_blocks": True,
    },
}  # fmt: skip
ROWS = 4
"""Rows of a micro-batch, of all processes together."""
PROMPT = [[1, 2, 3]]


def new(config: TrainConfig, dist: Dist) -> tuple[Trainer, list[Event]]:
    events: list[Event] = []
    return Trainer(config, tiny_text(config), [events.append], dist), events


def whole_weights(trainer: Trainer) -> dict[str, Tensor]:
    """Returns the weights as every process, sharded or not, sees them."""
    return {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value.clone()
        for name, value in trainer.model.state_dict().items()
    }


def written(trainer: Trainer, dist: Dist) -> list[list[int]]:
    """Returns what the model writes, which rank 0 alone asks for."""
    with dist.unsharded(trainer.model) as model:
        if not dist.is_main:
            return []
        return model.generate(torch.tensor(PROMPT), 10).tolist()  # beyond the context of 8


def learning(folder: Path, dist: Dist, kind: str) -> dict[str, Any]:
    """The same run sharded and not, and what its model writes; the process's numbers of all the model's."""
    seen: dict[str, Any] = {}
    for shard in (True, False):
        where = folder / f"{kind}_{shard}"
        config = tiny_run(where, batch_size=ROWS // dist.world_size, max_steps=6, shard=shard, **SHAPES[kind])
        trainer, events = new(config, dist)
        trainer.fit()
        seen[str(shard)] = {
            "weights": whole_weights(trainer),
            "events": [numbers(event) for event in events],
            "written": written(trainer, dist),
        }
        if shard:
            values = dict(trainer.model.named_parameters()).values()
            averages = [value for optimizer in trainer.optimizers for state in optimizer.state.values()
                        for value in state.values() if value.ndim]  # fmt: skip
            for name, tensors in (("parameters", values), ("averages", averages)):
                seen[name] = (sum(t.to_local().numel() for t in tensors), sum(t.numel() for t in tensors))
    return seen


def resuming(folder: Path, dist: Dist) -> dict[str, Any]:
    """A run with dropout; the same stopped after step 3 and resumed, while rank 0 uses the model now and then."""
    settings = {
        "dropout": 0.2,
        "num_layers": 2,
        "max_steps": 6,
        "eval_every": 4,
        "shard": True,
        "precision": "bfloat16",
    }
    config = tiny_run(folder / "whole", batch_size=ROWS // dist.world_size, **settings)
    whole, _ = new(config, dist)
    whole.fit()
    other = dataclasses.replace(config, checkpoint_dir=str(folder / "stopped"))
    first, _ = new(other, dist)
    written(first, dist)  # before the first step
    for _ in range(3):
        first.train_step()
        written(first, dist)
    path = first.save_state()
    torch.manual_seed(12345)  # a new process has another random state
    second, _ = new(other, dist)
    second.resume(path)
    second.fit()
    alike = new(dataclasses.replace(other, shard=False), dist)[0]
    alike.resume(path)  # every process reads all parts
    return {
        "path": str(path),
        "weights": whole_weights(whole),
        "resumed weights": whole_weights(second),
        "losses": (second.evaluate().loss, alike.evaluate().loss),
    }


def bad_gradient(folder: Path, dist: Dist) -> dict[str, Any]:
    """A step in which the last process alone has an infinite gradient."""
    seen = {}
    for kind in SHAPES:
        trainer, _ = new(tiny_run(folder / "bad", batch_size=1, shard=True, **SHAPES[kind]), dist)
        is_bad = dist.rank == dist.world_size - 1

        def spoil(_module: object, _inputs: object, out: Tensor, run: Trainer = trainer, bad: bool = is_bad) -> None:
            out.register_hook(lambda gradient: gradient * math.inf if bad and run.step == 1 else gradient)

        trainer.model.final_norm.register_forward_hook(spoil)
        trainer.train_step()
        before = whole_weights(trainer)
        trainer.train_step()
        after = whole_weights(trainer)
        trainer.train_step()
        seen[kind] = {
            "changed": any(not torch.equal(value, before[name]) for name, value in after.items()),
            "skipped": trainer.report().skipped,
            "continues": any(not torch.equal(value, before[name]) for name, value in whole_weights(trainer).items()),
        }
    return seen


def rounding(folder: Path, dist: Dist) -> dict[str, Any]:
    """Steps in narrower numbers, of two micro-batches each, sharded and not: their losses and gradients' lengths."""
    seen = {}
    for precision, again in (("bfloat16", False), ("float16", True)):
        for shard in (True, False):
            settings = {"precision": precision, "activation_checkpointing": again, "num_layers": 2, "shard": shard}
            trainer, _ = new(tiny_run(folder / "narrow", batch_size=1, **settings), dist)
            seen[precision, shard] = []
            for _ in range(3):
                trainer.train_step()
                report = trainer.report()
                seen[precision, shard] += [report.loss, report.grad_norm]
    return seen


def full_disk(folder: Path, dist: Dist) -> dict[str, Any]:
    """A state that the last process has no room for."""
    trainer, _ = new(tiny_run(folder / "full", batch_size=1, shard=True), dist)
    trainer.train_step()
    path = trainer.save_state()
    trainer.train_step()
    error = ""
    if sys.platform != "win32":
        import resource

        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if dist.rank == dist.world_size - 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
        try:
            trainer.save_state()
        except CheckpointError as caught:
            error = str(caught)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    dist.wait()
    found = {"error": error, "step": sharded_checkpoint.load(path)["step"]}
    found["files"] = sorted(file.name for file in path.parent.iterdir())
    dist.wait()
    return {**found, "then": sharded_checkpoint.load(trainer.save_state())["step"]}


def going_on(folder: Path, dist: Dist) -> dict[str, Any]:
    """Three more steps after what others have left, sharded or not."""
    where = folder / "handed"
    config = tiny_run(where, batch_size=ROWS // dist.world_size, max_steps=9, shard=True, **SHAPES["muon"])
    trainer, _ = new(config, dist)
    dist.wait()
    trainer.resume(sharded_checkpoint.newest_first(where)[0])
    dist.wait()
    begun, _ = new(dataclasses.replace(config, seed=2), dist)
    epoch = checkpoint.latest(folder / "muon_True")
    begun.initialise_from(checkpoint.load(epoch), epoch)
    for _ in range(3):
        trainer.train_step()
    return {
        "path": str(trainer.save_state()),
        "weights": whole_weights(trainer),
        "step": trainer.step,
        "begun weights": whole_weights(begun),
    }


def first(folder: Path, dist: Dist) -> dict[str, Any]:
    return {job.__name__: job(folder, dist) for job in (resuming, bad_gradient, rounding, full_disk)}


def more(folder: Path, dist: Dist) -> dict[str, Any]:
    seen: dict[str, Any] = {kind: learning(folder, dist, kind) for kind in SHAPES}
    assert checkpoint.states(folder / "adamw_False")
    return {**seen, "going_on": going_on(folder, dist)}


def main() -> None:
    folder = Path.cwd()
    torch.set_num_threads(1)
    parts = {"first": first, "more": more}
    with Dist.from_environment() as dist:
        seen: dict[str, Any] = {}
        for name in sys.argv[2:]:
            seen |= parts[name](folder, dist)
        torch.save(seen, folder / f"seen_{dist.rank}.pt")


if __name__ == "__main__":
    ranks.start(main)
