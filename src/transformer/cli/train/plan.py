"""The cost of a run on the terminal: before the first step, or instead of it with --dry-run."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from transformer.cli.download_progress import notifier
from transformer.cli.formatting import counted, duration, magnitude
from transformer.cli.train.forecast import slow_run, step_seconds
from transformer.cli.train.session import as_opened
from transformer.config import ConfigError, TrainConfig
from transformer.data.contracts import Notify, silent
from transformer.data.open import open_dataset
from transformer.distributed.processes import Dist, whole_number
from transformer.planning.cost import Cost, cost, problems, readable, seconds
from transformer.planning.hardware import device_memory, device_peak, free_disk
from transformer.text import Tokenizer, load_tokenizer
from transformer.training.device import peak_memory_bytes, pick_device
from transformer.training.machine import machine
from transformer.training.precision import chosen_dtype

FAR_BEYOND = 1.25
"""A run that needs more than this multiple of the device's memory is refused; the estimate is not exact."""


def dry_run(config: TrainConfig, out: Console, tokenizer: Tokenizer | None = None) -> None:
    """Shows the cost of the run and times a few steps; downloads nothing. Raises ConfigError if the run cannot fit.

    `tokenizer` belongs to the checkpoint that the run starts from, if any. Under torchrun only rank 0 prints.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    device, world_size = pick_device(config.device), max(1, whole_number(os.environ, "WORLD_SIZE", 1))
    if config.shard:
        Dist(world_size=world_size).check_shard()
    config, tokens = with_text(config, tokenizer, notifier(out, lambda progress: None))
    plan = cost(config, tokens, device.type, world_size)
    show_rows(plan_rows(plan, device), out)
    if found := problems(plan, device_memory(device), free_disk(Path(config.checkpoint_dir))):
        raise ConfigError(found)
    if not config.shard:  # a single process cannot time a sharded model, which may not fit
        with out.status("timing a few steps"):
            step = step_seconds(config)
        without = "" if plan.world_size == 1 else ", without communication between processes"
        out.print(
            f"time        about {duration(seconds(plan, step))}, {duration(step)} per step on this machine now{without}"
        )
    out.print("nothing was trained; run the same line without --dry-run to train", style="dim")


def show_plan(
    config: TrainConfig, tokens_per_epoch: int | None, device: torch.device, dist: Dist, out: Console
) -> None:
    """Shows the cost before the first step, and a warning if memory or disk are probably too small.

    Raises ConfigError if the run needs far more memory than the device has.
    """
    plan = cost(config, tokens_per_epoch, device.type, dist.world_size)
    show_rows(plan_rows(plan, device), out)
    memory = device_memory(device)
    found = problems(plan, memory, free_disk(Path(config.checkpoint_dir)))
    if memory is not None and plan.memory_bytes > FAR_BEYOND * memory:
        raise ConfigError(found)
    for problem in [*found, *filter(None, [slow_run(plan)])]:
        out.print(f"warning: {problem}", style="yellow")


def with_text(
    config: TrainConfig, tokenizer: Tokenizer | None, notify: Notify = silent
) -> tuple[TrainConfig, int | None]:
    """Returns the config with its vocabulary size, and the tokens of an epoch; None for text on the hub, unopened."""
    if config.data.is_on_hub:
        return with_vocabulary(config, tokenizer), None
    with contextlib.closing(open_dataset(config.data, tokenizer, notify)) as data:
        return as_opened(config, data), data.tokens_per_epoch


def with_vocabulary(config: TrainConfig, tokenizer: Tokenizer | None = None) -> TrainConfig:
    """Returns the config with the vocabulary size of the tokenizer or the encoding, which may not be trained yet."""
    trained = re.fullmatch(r"bpe(\d+)", config.data.encoding)
    if tokenizer is None and trained:
        size = int(trained[1])
    else:
        size = (tokenizer or load_tokenizer(config.data.encoding)).vocab_size
    return replace(config, model=replace(config.model, vocab_size=size))


def plan_rows(plan: Cost, device: torch.device) -> dict[str, tuple[str, str]]:
    """Returns the plan as rows: a number, and its parts."""
    parameters, memory, disk = plan.parameters, plan.memory, plan.disk
    head, scores = (plan.flops[part] / plan.flops_per_token for part in ("head", "scores"))
    sharded = (
        f" (1/{plan.world_size} of the model; {readable(memory['gathered'])} gathered from the others)"
        if plan.config.shard
        else ""
    )
    so_far = f" ({readable(peak_memory_bytes(device))} so far)" if device.type == "cpu" else ""
    each = "" if plan.world_size == 1 else f"; for each of {plan.world_size} processes"
    dtype = chosen_dtype(plan.config, device)
    here = machine(device, dtype, plan.config.kernels)
    rows = {
        "parameters": (
            f"{sum(parameters.values()) / 1e6:.2f}M",
            f"{parameters['blocks'] / 1e6:.2f}M in the blocks, "
            f"{(parameters['embeddings'] + parameters['head']) / 1e6:.2f}M in the vocabulary",
        ),
        "length": (
            counted(plan.steps, "step"),
            f"{magnitude(plan.tokens)} tokens, {plan.tokens_per_step:,} per step; "
            f"{counted(plan.evaluations, 'evaluation')}",
        ),
        "compute": (
            f"{plan.flops_per_token / 1e6:,.1f}M FLOPs per token",
            f"{head:.0%} output layer, {scores:.0%} attention scores; {plan.flops_per_token * plan.tokens:.1e} in all",
        ),
        "precision": (here["precision"], f"kernels {here['kernels']}; on {here['processor']} ({here['kind']})"),
        "memory": (
            f"about {readable(plan.memory_bytes)}",
            f"{readable(memory['weights'])} weights{sharded}, {readable(memory['gradients'])} gradients, "
            f"{readable(memory['optimizer'])} optimizer; {readable(memory['activations'])} activations of a "
            f"micro-batch, {readable(memory['working'])} temporary; plus PyTorch itself{so_far}{each}",
        ),
        "disk": (
            f"up to {readable(plan.disk_bytes)}",
            f"{readable(plan.checkpoint_bytes)} after each epoch, {readable(disk['states'])} of training states"
            + (f", {readable(disk['text_cache'])} of text" if disk["text_cache"] else ""),
        ),
    }
    if peak := device_peak(device, dtype):
        flops, source = peak
        hours = plan.flops_per_token * plan.tokens / flops / plan.world_size / 3600
        about = f"according to the {source}; at that rate {hours:.1f} hours, which no run reaches"
        rows["peak"] = (f"{flops / 1e12:,.0f} TFLOP/s", about)
    return rows


def show_rows(rows: dict[str, tuple[str, str]], out: Console) -> None:
    """Prints rows as a table on a terminal, and otherwise as one line each, without wrapping."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, (number, parts) in rows.items():
        table.add_row(name, number, parts)
        if not out.is_terminal:
            out.print(f"{name:<12}{number}  {parts}", soft_wrap=True)
    if out.is_terminal:
        out.print(table)
