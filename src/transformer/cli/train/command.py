"""The train command: its options, and which of training, planning and sweeping they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tyro.conf import UseAppendAction

from transformer.cli.console import console
from transformer.cli.options import flag_value, parse
from transformer.cli.sweep.grid import variants
from transformer.cli.sweep.plan import dry_run_all
from transformer.cli.sweep.run import Sweep
from transformer.cli.train.plan import dry_run
from transformer.cli.train.resume import typed_settings, with_resume_path
from transformer.cli.train.run import train
from transformer.cli.train.session import told_once
from transformer.cli.train.start import Start, from_checkpoint
from transformer.config import PRESETS, ConfigError, TrainConfig, near_miss

FINETUNED = "checkpoints_finetuned"
"""The folder of a run that begins with a checkpoint, where none is named: not the preset's, which may hold that one."""


@dataclass(frozen=True)
class TrainOptions:
    """Trains a model on FineWeb-Edu, on Shakespeare, or on your own text."""

    config: TrainConfig = field(default_factory=TrainConfig)
    preset: str = "default"
    """Where the settings start from: default, quick, tiny, demo, gpt2 or modern."""
    quick: bool = False
    """The same as --preset quick: a smaller model, and 10M tokens an epoch."""
    mps: bool = False
    """The same as --device mps: forces Apple's GPU."""
    dry_run: bool = False
    """Shows what the run will cost and does nothing else."""
    resume: bool = False
    """Goes on from the newest state in the run's folder, or from the one whose path follows, with its own settings."""
    resume_from: Path | None = None
    """The state to go on from, if not the newest."""
    set: UseAppendAction[tuple[str, ...]] = ()
    """NAME=VALUE,VALUE: trains once with each value of a setting; again: with every combination (default: none)."""


def main(arguments: Sequence[str]) -> None:
    typed = typed_settings(arguments)
    with told_once():
        options = read_options(arguments)
        config, grid = options.config, variants(options.config, options.set, typed) if options.set else []
    if grid and options.dry_run:
        dry_run_all(grid, console())
    elif grid:
        Sweep(grid).train(options.resume, console())
    elif options.dry_run:
        start = Start(config) if config.init_from is None else from_checkpoint(config, typed)
        dry_run(start.config, console(), start.tokenizer)
    else:
        train(config, options.resume, options.resume_from, typed)


def read_options(arguments: Sequence[str]) -> TrainOptions:
    """Reads the flags, with the preset's settings as their defaults."""
    arguments = with_resume_path(arguments)
    quick = "--quick" in arguments
    name = flag_value(arguments, "--preset", "quick" if quick else "default")
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}: one of {', '.join(PRESETS)}{near_miss(name, PRESETS)}")
    if quick and name != "quick":
        raise ConfigError([f"--quick is the preset quick, and --preset {name} another: give one of them"])
    options = parse(TrainOptions, arguments, "train", TrainOptions(PRESETS[name], name))
    options = replace(options, preset=name)
    if "vocab_size" in typed_settings(arguments):
        raise ConfigError(["the vocabulary follows from the encoding: choose --encoding, for example bpe2048"])
    config = replace(options.config, device="mps") if options.mps else options.config
    if options.set and options.resume_from is not None:
        raise ConfigError(["--set trains several runs: --resume goes on with all of them, and takes no path"])
    if config.init_from is not None:
        if options.resume or options.resume_from is not None:
            raise ConfigError(["--init-from begins a new run, --resume goes on with one: give one of them"])
        if "checkpoint_dir" not in typed_settings(arguments):
            config = replace(config, checkpoint_dir=FINETUNED)
    elif not options.set:  # else each run is checked, with its values or with its checkpoint's shape
        config.check()
    return replace(options, config=config)
