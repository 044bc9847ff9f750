"""The cost of the runs of a sweep, each and in total: `train --set ... --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from transformer.cli.console import fitting_table, varying_parts
from transformer.cli.formatting import duration
from transformer.cli.sweep.grid import Variant
from transformer.cli.train.forecast import step_seconds
from transformer.cli.train.plan import with_text
from transformer.config import ConfigError, DataConfig, TrainConfig
from transformer.planning.cost import Cost, cost, problems, readable, seconds
from transformer.planning.hardware import device_memory, free_disk
from transformer.training.device import pick_device

HEADINGS = ("parameters", "steps", "tokens", "FLOPs", "memory", "disk", "time")
WIDE = 120
"""Names of runs are shortened to what differs on a narrower terminal."""


def dry_run_all(variants: Sequence[Variant], out: Console) -> None:
    """Shows the cost of each run and of all, and times a few steps of each; downloads nothing.

    Raises ConfigError if the runs cannot fit.
    """
    device = pick_device(variants[0].config.device)
    texts: dict[tuple[DataConfig, str | None], tuple[TrainConfig, int | None]] = {}  # many runs share a text
    plans: dict[str, Cost] = {}
    for variant in variants:
        start = variant.start
        text = (start.config.data, start.config.init_from)
        opened, tokens = texts[text] = texts.get(text) or with_text(start.config, start.tokenizer)
        model = replace(start.config.model, vocab_size=opened.model.vocab_size)
        plans[variant.name] = cost(replace(start.config, model=model), tokens, device.type)
    shared = max(plan.disk["text_cache"] for plan in plans.values())
    disk = shared + sum(plan.disk_bytes - plan.disk["text_cache"] for plan in plans.values())
    memory, free = device_memory(device), free_disk(variants[0].directory)
    found = [f"{name}: {problem}" for name, plan in plans.items() for problem in problems(plan, memory, None)]
    if disk > free:
        found.append(f"the runs write about {readable(disk)} and the disk has {readable(free)} left")
    times = dict.fromkeys(plans, 0.0)
    if not found:
        with out.status("timing a few steps of each"):
            times = {name: seconds(plan, step_seconds(plan.config)) for name, plan in plans.items()}
    rows = [cells([plan], plan.disk_bytes, times[name]) for name, plan in plans.items()]
    rows.append(cells(list(plans.values()), disk, sum(times.values())))
    narrow = out.width < WIDE
    columns = {"run": [*(varying_parts(list(plans)) if narrow else plans), "all"]}
    columns |= dict(zip(HEADINGS, map(list, zip(*rows, strict=True)), strict=True))
    title = f"{len(plans)} runs, one after another"
    out.print(fitting_table(title, columns, out.width, ["run"], ["FLOPs", "parameters", "tokens", "disk"]))
    if found:
        raise ConfigError(found)
    out.print("nothing was trained; run the same line without --dry-run to train", style="dim")


def cells(plans: Sequence[Cost], disk_bytes: int, run_seconds: float) -> list[str]:
    """Returns the cells of one run, or of several: the maximum of their memory, and the sum of the rest."""
    parameters = f"{sum(plans[0].parameters.values()) / 1e6:.2f}M" if len(plans) == 1 else ""
    steps, tokens = sum(plan.steps for plan in plans), sum(plan.tokens for plan in plans)
    flops = sum(plan.tokens * plan.flops_per_token for plan in plans)
    memory = readable(max(plan.memory_bytes for plan in plans))
    time = duration(run_seconds) if run_seconds else "-"
    return [parameters, f"{steps:,}", f"{tokens:,}", f"{flops:.1e}", memory, readable(disk_bytes), time]
