"""What the runs of a sweep will cost, each and together: `train --set ... --dry-run`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from transformer.cli.formatting import duration
from transformer.cli.sweep.grid import Variant
from transformer.cli.train.forecast import step_seconds
from transformer.cli.train.plan import with_vocabulary
from transformer.cli.train.start import Start
from transformer.config import ConfigError, DataConfig
from transformer.data.open import open_dataset
from transformer.planning.cost import Cost, cost, problems, readable, seconds
from transformer.planning.hardware import device_memory, free_disk
from transformer.training.device import pick_device

HEADINGS = ("run", "parameters", "steps", "tokens", "operations", "memory", "disk", "time")


def dry_run_all(variants: Sequence[Variant], out: Console) -> None:
    """Shows what each run will cost and all together, and downloads nothing. Raises ConfigError where that cannot fit.

    A few steps of each are timed.
    """
    first = variants[0]
    device = pick_device(first.config.device)
    sizes: dict[tuple[DataConfig, str | None], tuple[int, int | None]] = {}  # many variants share a text
    plans: dict[str, Cost] = {}
    for variant in variants:
        start = variant.start
        text = (start.config.data, start.config.init_from)
        vocab_size, tokens = sizes[text] = sizes.get(text) or text_size(start)
        model = replace(start.config.model, vocab_size=vocab_size)
        plans[variant.name] = cost(replace(start.config, model=model), tokens, device.type)
    shared = max(plan.disk["text_cache"] for plan in plans.values())  # the text's cache
    disk = shared + sum(plan.disk_bytes - plan.disk["text_cache"] for plan in plans.values())
    memory, free = device_memory(device), free_disk(first.directory)
    found = [f"{name}: {problem}" for name, plan in plans.items() for problem in problems(plan, memory, None)]
    if disk > free:
        found.append(f"the runs write about {readable(disk)} and the disk has {readable(free)} left")
    times: dict[str, float] = {}
    if not found:
        with out.status("timing a few steps of each"):
            times = {name: seconds(plan, step_seconds(plan.config)) for name, plan in plans.items()}
    out.print(plans_table(plans, times, disk))
    if found:
        raise ConfigError(found)
    out.print("nothing was trained: leave out --dry-run to begin", style="dim")


def text_size(start: Start) -> tuple[int, int | None]:
    """Returns the vocabulary's size and an epoch's tokens, None for text on the hub, which is not asked for."""
    if start.config.data.is_on_hub:
        return with_vocabulary(start.config, start.tokenizer).model.vocab_size, None
    with contextlib.closing(open_dataset(start.config.data, start.tokenizer)) as text:
        return text.tokenizer.vocab_size, text.tokens_per_epoch


def plans_table(plans: Mapping[str, Cost], times: Mapping[str, float], disk_bytes: int) -> Table:
    """Returns a row for each run, and one for all: of memory it has the most, of the rest the sum."""
    table = Table(title=f"{len(plans)} runs, one after another", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "run" else "right", overflow="fold")
    for name, plan in plans.items():
        parameters = f"{sum(plan.parameters.values()) / 1e6:.2f}M"
        time = duration(times[name]) if times else "-"
        table.add_row(name, parameters, *amounts([plan]), readable(plan.disk_bytes), time)
    table.add_section()
    time = duration(sum(times.values())) if times else "-"
    table.add_row("all", "", *amounts(list(plans.values())), readable(disk_bytes), time)
    return table


def amounts(plans: Sequence[Cost]) -> list[str]:
    """Returns steps, tokens, operations and memory of these runs."""
    work = sum(plan.tokens * plan.flops_per_token for plan in plans)
    most = max(plan.memory_bytes for plan in plans)
    steps, tokens = sum(plan.steps for plan in plans), sum(plan.tokens for plan in plans)
    return [f"{steps:,}", f"{tokens:,}", f"{work:.1e}", readable(most)]
