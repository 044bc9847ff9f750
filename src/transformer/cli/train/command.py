"""The train command: the choice between training, a dry run and a sweep. Guide: commands/train.py."""

from __future__ import annotations

from pathlib import Path

from transformer.cli.console import console, reported_once
from transformer.cli.exercises.training import own_errors, prepared_with, resume_words
from transformer.cli.streams import lasting_output
from transformer.cli.sweep.grid import variants
from transformer.cli.sweep.plan import dry_run_all
from transformer.cli.sweep.run import Sweep
from transformer.cli.train.options import TrainOptions
from transformer.cli.train.plan import dry_run
from transformer.cli.train.run import train
from transformer.cli.train.session import resume_line
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
    elif options.with_exercises:
        train_with_exercises(options)
    else:
        train(config, options.resume, options.resume_from, typed, options.changed_text)


def train_with_exercises(options: TrainOptions) -> None:
    """Trains a model with the reader's own parts."""
    folder = options.exercises_folder
    prepare = prepared_with(folder)
    again = f"{resume_line(Path(options.config.checkpoint_dir))} {resume_words(folder)}"
    with own_errors(folder):
        train(options.config, options.resume, options.resume_from, options.typed, options.changed_text, again, prepare)
