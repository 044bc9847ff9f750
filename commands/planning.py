"""What one or several runs will cost, on the terminal: before the first step, or alone with --dry-run."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from transformer.config import ConfigError, DataConfig, TrainConfig
from transformer.cost import Cost, cost, problems, readable
from transformer.dataset import open_dataset
from transformer.runtime.capacity import device_memory, device_peak_flops, free_disk
from transformer.runtime.device import pick_device
from transformer.runtime.precision import Precision
from transformer.text import load_tokenizer
from transformer.trainer import Trainer

Size = tuple[int, int | None]


def dry_run(config: TrainConfig, out: Console) -> None:
    """Shows what the run will cost and downloads nothing. Raises ConfigError where it cannot fit.

    Under torchrun it counts all processes, and the first one speaks.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    device = pick_device(config.device)
    plan = planned(config, device.type, world_size=int(os.environ.get("WORLD_SIZE", 1)))
    out.print(plan_table(plan, device_peak_flops(device, Precision(device, config.precision).dtype)))
    if found := problems(plan, device_memory(device), free_disk(Path(config.checkpoint_dir))):
        raise ConfigError(found)
    out.print("nothing was trained: leave out --dry-run to begin", style="dim")


def dry_run_all(configs: Mapping[str, TrainConfig], out: Console) -> None:
    """Shows what runs by name will cost, each and together. Raises ConfigError where one, or all files, cannot fit."""
    first = next(iter(configs.values()))
    device = pick_device(first.device)
    size_of = functools.cache(text_size)  # within this call: files may change
    plans = {name: planned(config, device.type, size_of) for name, config in configs.items()}
    text = max(plan.disk["text_cache"] for plan in plans.values())  # which they share
    disk = text + sum(plan.disk_bytes - plan.disk["text_cache"] for plan in plans.values())
    table = Table(title=f"{len(plans)} runs, one after another", title_justify="left", show_footer=True)
    footers = {
        "run": "all",
        "parameters": "",
        "steps": f"{sum(plan.steps for plan in plans.values()):,}",
        "tokens": f"{sum(plan.tokens for plan in plans.values()):,}",
        "operations": f"{sum(plan.tokens * plan.flops_per_token for plan in plans.values()):.1e}",
        "memory": readable(max(plan.memory_bytes for plan in plans.values())),
        "disk": readable(disk),
    }
    for heading, footer in footers.items():
        table.add_column(heading, footer, justify="left" if heading == "run" else "right", overflow="fold")
    for name, plan in plans.items():
        size, work = f"{sum(plan.parameters.values()) / 1e6:.2f}M", f"{plan.tokens * plan.flops_per_token:.1e}"
        needs = readable(plan.memory_bytes), readable(plan.disk_bytes)
        table.add_row(name, size, f"{plan.steps:,}", f"{plan.tokens:,}", work, *needs)
    out.print(table)
    memory, free = device_memory(device), free_disk(Path(first.checkpoint_dir))
    found = [f"{name}: {problem}" for name, plan in plans.items() for problem in problems(plan, memory, None)]
    if disk > free:
        found.append(f"the runs write about {readable(disk)} and the disk has {readable(free)} left")
    if found:
        raise ConfigError(found)
    out.print("nothing was trained: leave out --dry-run to begin", style="dim")


def planned(
    config: TrainConfig, device: str, size_of: Callable[[DataConfig], Size] | None = None, world_size: int = 1
) -> Cost:
    """Returns what the run takes; `size_of` is text_size, or one that remembers."""
    vocab_size, tokens_per_epoch = (size_of or text_size)(config.data)
    model = replace(config.model, vocab_size=vocab_size)
    return cost(replace(config, model=model), tokens_per_epoch, device, world_size)


def warn(trainer: Trainer, out: Console) -> None:
    """Says, before the first step, what will probably not fit. An estimate: the run goes on."""
    world_size = trainer.dist.world_size
    plan = cost(trainer.config, trainer.data.tokens_per_epoch, trainer.device.type, world_size)
    for problem in problems(plan, device_memory(trainer.device), free_disk(trainer.directory)):
        out.print(f"warning: {problem}", style="yellow")


def text_size(data: DataConfig) -> Size:
    """Returns the vocabulary's size and an epoch's tokens; None for text on the hub, which is not asked for."""
    if not data.is_on_hub:
        with contextlib.closing(open_dataset(data)) as text:  # what there is counts, and it is quick
            return text.tokenizer.vocab_size, text.tokens_per_epoch
    trained = re.fullmatch(r"bpe(\d+)", data.encoding)
    return int(trained[1]) if trained else load_tokenizer(data.encoding).vocab_size, None


def plan_table(plan: Cost, peak: float | None = None) -> Table:
    """Returns the plan in a few rows; `peak` is the device's, in operations a second."""
    memory, disk, work = plan.memory, plan.disk, plan.flops
    parts = {"blocks": plan.parameters["blocks"], "vocabulary": plan.parameters["embeddings"] + plan.parameters["head"]}
    head = work["head"] / plan.flops_per_token
    scores = work["scores"] / plan.flops_per_token
    total = plan.flops_per_token * plan.tokens
    alone = plan.world_size == 1
    hours = total / peak / plan.world_size / 3600 if peak else None
    whose_peak = "the device's peak" if alone else f"the peak of {plan.world_size} devices"
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
            + (f", {hours:.1f} hours at {whose_peak}, which no run reaches" if hours else ""),
        ),
        "memory": (
            f"about {readable(plan.memory_bytes)}",
            f"{readable(memory['weights'])} weights, as much gradient, {readable(memory['optimizer'])} optimizer; "
            f"{readable(memory['activations'])} activations of a micro-batch, {readable(memory['working'])} to work in"
            + ("" if alone else f"; each of {plan.world_size} processes needs as much"),
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
