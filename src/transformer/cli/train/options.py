"""The options of the train command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformer.cli.options import HIDDEN, REPEATED, given_values, parse
from transformer.config import ConfigError, TrainConfig
from transformer.presets import preset_named

FINETUNED = "checkpoints_finetuned"
"""Default folder of a run with --init-from: the preset's folder may contain the checkpoint itself."""
FIRST = ("preset", "dataset", "checkpoint_dir", "resume", "dry_run")
"""The options that the help text lists first."""
GUIDE = "The guide to a run is docs/training.md; commands/train.py says which settings matter most."


@dataclass(frozen=True)
class TrainOptions:
    """Train a model on FineWeb-Edu, on Shakespeare, or on your own text."""

    config: TrainConfig = field(default_factory=TrainConfig, metadata={"heading": "the run"})
    preset: str = "default"
    """Starting point of the settings: default, quick, tiny, demo, induction, gpt2 or modern."""
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
    with_exercises: bool = False
    """Use your own parts: the exercises that pass (see the command `exercises`). The checkpoint is an ordinary one."""
    exercises_folder: Path = Path("exercises")
    """The folder of your exercises, for --with-exercises."""
    set: tuple[str, ...] = field(default=(), metadata=REPEATED)
    """NAME=VALUE,VALUE: train once with each value. Repeat the flag for every combination."""
    typed: frozenset[str] = field(default=frozenset(), metadata=HIDDEN)
    """The names of the settings that were given by flags."""


def read_options(arguments: Sequence[str]) -> TrainOptions:
    """Reads the flags; their defaults are the settings of the preset. Raises ConfigError for impossible settings."""
    arguments = with_resume_path(arguments)
    given = given_values(TrainOptions(), arguments, "train")
    quick = given.get("quick", False)
    name = given.get("preset", "quick" if quick else "default")
    preset = preset_named(name)
    if quick and name != "quick":
        raise ConfigError([f"--quick means --preset quick, which contradicts --preset {name}: give one of them"])
    options = parse(TrainOptions(preset, name), arguments, "train", first=FIRST, guide=GUIDE)
    typed = frozenset(given) | ({"device"} if options.mps else set())
    if "vocab_size" in typed:
        raise ConfigError(["vocab_size is determined by the encoding: choose --encoding, for example bpe2048"])
    config = replace(options.config, device="mps") if options.mps else options.config
    if options.changed_text and (options.set or not (options.resume or options.resume_from)):
        raise ConfigError(["--changed-text is for one run that continues: give it with --resume, and without --set"])
    if options.with_exercises and (options.set or options.dry_run):
        raise ConfigError(["--with-exercises is for one run: give it without --set and --dry-run"])
    if options.set and options.resume_from is not None:
        raise ConfigError(["--set trains several runs: --resume continues all of them and takes no path"])
    if config.init_from is not None:
        if options.resume or options.resume_from is not None:
            raise ConfigError(["--init-from starts a new run and --resume continues one: give one of them"])
        if "checkpoint_dir" not in typed:
            config = replace(config, checkpoint_dir=FINETUNED)
    elif not options.set:  # each run of a sweep or from a checkpoint is checked later
        config.check()
    return replace(options, config=config, typed=typed)


def with_resume_path(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with `--resume PATH` or `--resume=PATH` as `--resume-from PATH`."""
    found = [
        f"--resume-from{word.removeprefix('--resume')}" if word.startswith("--resume=") else word for word in arguments
    ]
    for place, argument in enumerate(found[:-1]):
        if argument == "--resume" and not found[place + 1].startswith("-"):
            found[place] = "--resume-from"
    return found
