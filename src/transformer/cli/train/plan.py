"""What a run will cost, on the terminal: a table before the first step, or alone with --dry-run."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from transformer.cli.formatting import duration
from transformer.cli.train.forecast import step_seconds
from transformer.cli.train.session import as_opened
from transformer.config import ConfigError, TrainConfig
from transformer.data.open import open_dataset
from transformer.distributed.processes import Dist
from transformer.planning.cost import Cost, cost, problems, readable, seconds
from transformer.planning.hardware import device_memory, device_peak, free_disk
from transformer.text import Tokenizer, load_tokenizer
from transformer.training.device import pick_device
from transformer.training.precision import Precision

FAR_BEYOND = 1.25
"""A run that needs so many times the device's memory is not begun."""


def dry_run(config: TrainConfig, out: Console, tokenizer: Tokenizer | None = None) -> None:
    """Shows what the run will cost, times a few steps, and downloads nothing. Raises ConfigError where it cannot fit.

    `tokenizer` is that of a checkpoint the run begins with. Under torchrun all processes count, and the first speaks.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    device, world_size = pick_device(config.device), int(os.environ.get("WORLD_SIZE", 1))
    if config.shard:
        Dist(world_size=world_size).check_shard()
    if config.data.is_on_hub:
        config, tokens = with_vocabulary(config, tokenizer), None
    else:
        with contextlib.closing(open_dataset(config.data, tokenizer)) as data:  # local: what there is counts
            config, tokens = as_opened(config, data), data.tokens_per_epoch
    plan = cost(config, tokens, device.type, world_size)
    show_rows(plan_rows(plan, peak_row(plan, device)), out)
    if found := problems(plan, device_memory(device), free_disk(Path(config.checkpoint_dir))):
        raise ConfigError(found)
    if not config.shard:  # which one process cannot try, and the whole model may not fit
        with out.status("timing a few steps"):
            step = step_seconds(config)
        apart = "" if plan.world_size == 1 else ", without what travels between the processes"
        out.print(
            f"time        about {duration(seconds(plan, step))}, {duration(step)} a step on this machine now{apart}"
        )
    out.print("nothing was trained: leave out --dry-run to begin", style="dim")


def show_plan(
    config: TrainConfig, tokens_per_epoch: int | None, device: torch.device, dist: Dist, out: Console
) -> None:
    """Shows before the first step what the run will cost, and warns of what will hardly fit: that is an estimate.

    Raises ConfigError for what is far beyond the device's memory.
    """
    plan = cost(config, tokens_per_epoch, device.type, dist.world_size)
    show_rows(plan_rows(plan, peak_row(plan, device)), out)
    memory = device_memory(device)
    found = problems(plan, memory, free_disk(Path(config.checkpoint_dir)))
    if memory is not None and plan.memory_bytes > FAR_BEYOND * memory:
        raise ConfigError(found)
    for problem in found:
        out.print(f"warning: {problem}", style="yellow")


def peak_row(plan: Cost, device: torch.device) -> tuple[str, str] | None:
    """Returns what is known of the device's peak: the number and its source, and what the shown share of it means."""
    precision = Precision(device, plan.config.precision)
    known = device_peak(device, precision.dtype)
    if known is None:
        return None
    peak, source = known
    numbers = str(precision.dtype).removeprefix("torch.")
    hours = plan.flops_per_token * plan.tokens / peak / plan.world_size / 3600
    return (
        f"{peak / 1e12:,.0f} TFLOP/s",
        f"in {numbers}, says the {source}: {hours:.1f} hours, which no run reaches; "
        "MFU is tokens a second x operations a token / peak",
    )


def with_vocabulary(config: TrainConfig, tokenizer: Tokenizer | None = None) -> TrainConfig:
    """Returns the config with the vocabulary of the tokenizer, or that its encoding has or will have once trained."""
    trained = re.fullmatch(r"bpe(\d+)", config.data.encoding)
    if tokenizer is None and trained:
        size = int(trained[1])
    else:
        size = (tokenizer or load_tokenizer(config.data.encoding)).vocab_size
    return replace(config, model=replace(config.model, vocab_size=size))


def plan_rows(plan: Cost, peak: tuple[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """Returns the plan in a few rows, each a number and what it is made of; `peak` is peak_row's."""
    memory, disk, work = plan.memory, plan.disk, plan.flops
    parts = {"blocks": plan.parameters["blocks"], "vocabulary": plan.parameters["embeddings"] + plan.parameters["head"]}
    head = work["head"] / plan.flops_per_token
    scores = work["scores"] / plan.flops_per_token
    total = plan.flops_per_token * plan.tokens
    alone = plan.world_size == 1
    lasting = ", as much gradient"
    if plan.config.shard:
        gathered, gradients = readable(memory["gathered"]), readable(memory["gradients"])
        lasting = f" (1/{plan.world_size} of all; {gathered} gathered for a while), {gradients} gradient"
    return {
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
            f"{head:.0%} to score the vocabulary, {scores:.0%} to compare tokens; {total:.1e} in all",
        ),
        **({"peak": peak} if peak else {}),
        "memory": (
            f"about {readable(plan.memory_bytes)}",
            f"{readable(memory['weights'])} weights{lasting}, {readable(memory['optimizer'])} optimizer; "
            f"{readable(memory['activations'])} activations of a micro-batch, {readable(memory['working'])} to work; "
            f"{readable(plan.generation_bytes)} of cache for a text that is written; PyTorch itself comes on top"
            + ("" if alone else f"; each of {plan.world_size} processes needs as much"),
        ),
        "disk": (
            f"up to {readable(plan.disk_bytes)}",
            f"{readable(plan.checkpoint_bytes)} after each epoch, {readable(disk['states'])} to go on from"
            + (f", {readable(disk['text_cache'])} of text" if disk["text_cache"] else ""),
        ),
    }


def show_rows(rows: dict[str, tuple[str, str]], out: Console) -> None:
    """Prints rows as a table; where that is no terminal, each as one line, however long."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, (number, meaning) in rows.items():
        table.add_row(name, number, meaning)
        if not out.is_terminal:
            out.print(f"{name:<12}{number}  {meaning}", soft_wrap=True)
    if out.is_terminal:
        out.print(table)
