"""The train command: its options, and the choice between training, a dry run and a sweep. Guide: commands/train.py."""

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
from transformer.cli.train.session import reported_once
from transformer.cli.train.start import Start, from_checkpoint
from transformer.config import ConfigError, TrainConfig
from transformer.presets import preset_named

FINETUNED = "checkpoints_finetuned"
"""Default folder of a run with --init-from: the preset's folder may contain the checkpoint itself."""


@dataclass(frozen=True)
class TrainOptions:
    """Train a model on FineWeb-Edu, on Shakespeare, or on your own text."""

    config: TrainConfig = field(default_factory=TrainConfig)
    preset: str = "default"
    """Starting point of the settings: default, quick, tiny, demo, gpt2 or modern."""
    quick: bool = False
    """Same as --preset quick: a smaller model, and 10M tokens per epoch."""
    mps: bool = False
    """Same as --device mps: train on Apple's GPU."""
    dry_run: bool = False
    """Estimate FLOPs, memory, disk space and time of the run, without training."""
    resume: bool = False
    """Resume from the latest state in the checkpoint folder. `--resume PATH` resumes from that state."""
    resume_from: Path | None = None
    """Same as --resume PATH."""
    changed_text: bool = False
    """With --resume: continue although your text has changed since the state was saved; it is read from its start."""
    set: UseAppendAction[tuple[str, ...]] = ()
    """NAME=VALUE,VALUE: train once with each value. Repeat the flag for every combination (default: none)."""


def main(arguments: Sequence[str]) -> None:
    typed = typed_settings(arguments)
    with reported_once():
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
        train(config, options.resume, options.resume_from, typed, options.changed_text)


def read_options(arguments: Sequence[str]) -> TrainOptions:
    """Reads the flags; their defaults are the settings of the preset."""
    arguments = with_resume_path(arguments)
    quick = "--quick" in arguments
    name = flag_value(arguments, "--preset", "quick" if quick else "default")
    preset = preset_named(name)
    if quick and name != "quick":
        raise ConfigError([f"--quick means --preset quick, which contradicts --preset {name}: give one of them"])
    options = parse(TrainOptions, arguments, "train", TrainOptions(preset, name))
    options = replace(options, preset=name)
    if "vocab_size" in typed_settings(arguments):
        raise ConfigError(["vocab_size is determined by the encoding: choose --encoding, for example bpe2048"])
    config = replace(options.config, device="mps") if options.mps else options.config
    if options.changed_text and (options.set or not (options.resume or options.resume_from)):
        raise ConfigError(["--changed-text is for one run that continues: give it with --resume, and without --set"])
    if options.set and options.resume_from is not None:
        raise ConfigError(["--set trains several runs: --resume continues all of them and takes no path"])
    if config.init_from is not None:
        if options.resume or options.resume_from is not None:
            raise ConfigError(["--init-from starts a new run and --resume continues one: give one of them"])
        if "checkpoint_dir" not in typed_settings(arguments):
            config = replace(config, checkpoint_dir=FINETUNED)
    elif not options.set:  # each run of a sweep or from a checkpoint is checked later
        config.check()
    return replace(options, config=config)
