"""The train command: the choice between training, a dry run and a sweep. Guide: commands/train.py."""

from __future__ import annotations

from transformer.cli.console import console, reported_once
from transformer.cli.streams import lasting_output
from transformer.cli.sweep.grid import variants
from transformer.cli.sweep.plan import dry_run_all
from transformer.cli.sweep.run import Sweep
from transformer.cli.train.options import TrainOptions
from transformer.cli.train.plan import dry_run
from transformer.cli.train.run import train
from transformer.cli.train.start import Start, from_checkpoint


def main(options: TrainOptions) -> None:
    with lasting_output("the command continues, and a run writes to its metrics.jsonl"):
        train_or_plan(options)


def train_or_plan(options: TrainOptions) -> None:
    config, typed = options.config, options.typed
    with reported_once():
        grid = variants(config, options.set, typed) if options.set else []
    if grid and options.dry_run:
        dry_run_all(grid, console())
    elif grid:
        Sweep(grid).train(options.resume, console())
    elif options.dry_run:
        start = Start(config) if config.init_from is None else from_checkpoint(config, typed)
        dry_run(start.config, console(), start.tokenizer)
    else:
        train(config, options.resume, options.resume_from, typed, options.changed_text)
