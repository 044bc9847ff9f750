"""What a run will cost, on the terminal: a table before the first step, or alone with --dry-run."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from running import as_opened
from transformer.config import ConfigError, TrainConfig
from transformer.cost import Cost, cost, problems, readable
from transformer.dataset import open_dataset
from transformer.runtime.capacity import device_memory, device_peak_flops, free_disk
from transformer.runtime.device import pick_device
from transformer.runtime.distributed import Dist
from transformer.text import load_tokenizer
from transformer.trainer import Trainer


def dry_run(config: TrainConfig, out: Console) -> None:
    """Shows what the run will cost and downloads nothing. Raises ConfigError where it cannot fit."""
    device, world_size = pick_device(config.device), int(os.environ.get("WORLD_SIZE", 1))  # torchrun's, not joined
    if config.shard:
        Dist(world_size=world_size).check_shard()
    if config.data.is_on_hub:
        config, tokens = with_vocabulary(config), None
    else:
        with contextlib.closing(open_dataset(config.data)) as data:  # local: what there is counts, and it is quick
            config, tokens = as_opened(config, data), data.tokens_per_epoch
    plan = cost(config, tokens, device.type, world_size)
    out.print(plan_table(plan, device_peak_flops(device)))
    if found := problems(plan, device_memory(device), free_disk(Path(config.checkpoint_dir))):
        raise ConfigError(found)
    out.print("nothing was trained: leave out --dry-run to begin", style="dim")


def warn(trainer: Trainer, out: Console) -> None:
    """Says, before the first step, what will probably not fit. An estimate: the run goes on."""
    world_size = trainer.dist.world_size
    plan = cost(trainer.config, trainer.data.tokens_per_epoch, trainer.device.type, world_size)
    for problem in problems(plan, device_memory(trainer.device), free_disk(trainer.directory)):
        out.print(f"warning: {problem}", style="yellow")


def with_vocabulary(config: TrainConfig) -> TrainConfig:
    """Returns the config with the vocabulary that its encoding has, or will have once it is trained."""
    trained = re.fullmatch(r"bpe(\d+)", config.data.encoding)
    size = int(trained[1]) if trained else load_tokenizer(config.data.encoding).vocab_size
    return replace(config, model=replace(config.model, vocab_size=size))


def plan_table(plan: Cost, peak: float | None = None) -> Table:
    """Returns the plan in a few rows; `peak` is the device's, in operations a second."""
    memory, disk, work = plan.memory, plan.disk, plan.flops
    parts = {"blocks": plan.parameters["blocks"], "vocabulary": plan.parameters["embeddings"] + plan.parameters["head"]}
    head = work["head"] / plan.flops_per_token
    scores = work["scores"] / plan.flops_per_token
    total = plan.flops_per_token * plan.tokens
    lasting = ", as much gradient"
    if plan.config.shard:
        gathered, gradients = readable(memory["gathered"]), readable(memory["gradients"])
        lasting = f" (1/{plan.world_size} of all; {gathered} gathered for a while), {gradients} gradient"
    rows = {
        "parameters": (
            f"{sum(plan.parameters.values()) / 1e6:.2f}M",
            ", ".join(f"{count / 1e6:.2f}M in the {name}" for name, count in parts.items()),
        ),
        "length": (
            f"{plan.steps:,} steps",
            f"{plan.tokens / 1e6:,.1f}M tokens, {plan.tokens_per_step:,} a step; "
            f"{plan.evaluations} looks at validation text",
        ),
        "work": (
            f"{plan.flops_per_token / 1e6:,.1f}M operations a token",
            f"{head:.0%} to score the vocabulary, {scores:.0%} to compare tokens; {total:.1e} in all"
            + (f", {total / peak / 3600:.1f} hours at the device's peak, which no run reaches" if peak else ""),
        ),
        "memory": (
            f"about {readable(plan.memory_bytes)}",
            f"{readable(memory['weights'])} weights{lasting}, {readable(memory['optimizer'])} optimizer; "
            f"{readable(memory['activations'])} activations of a micro-batch, {readable(memory['working'])} to work in",
        ),
        "disk": (
            f"up to {readable(plan.disk_bytes)}",
            f"{readable(plan.checkpoint_bytes)} after each epoch, {readable(disk['states'])} to go on from"
            + (f", {readable(disk['text_cache'])} of text" if disk["text_cache"] else ""),
        ),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, (number, meaning) in rows.items():
        table.add_row(name, number, meaning)
    return table
