"""The starting point of a run: new weights, the weights of a checkpoint (--init-from), or a saved state (--resume)."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from transformer.cli.models import find_checkpoint
from transformer.cli.train.resume import batch_change, check_text_is_there, load_state, merged, schedule_change
from transformer.config import ConfigError, TrainConfig
from transformer.config_base import leaves
from transformer.distributed import sharded_checkpoint
from transformer.distributed.processes import Dist
from transformer.text import Tokenizer, tokenizer_from_state
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.machine import message_about_machine
from transformer.training.same_text import message_about_text


@dataclass(frozen=True)
class Start:
    """A run's settings, and the checkpoint or state that it starts from. Without a path: new weights."""

    config: TrainConfig
    path: Path | None = None
    contents: dict[str, Any] = field(default_factory=dict)
    resumes: bool = False
    """Whether the file is a saved state of this run."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The file's encoding. None: the one that the config names, which may still have to be trained."""
        return tokenizer_from_state(self.contents["tokenizer"]) if self.contents else None


def starting_point(
    dist: Dist, config: TrainConfig, resume: bool, resume_from: Path | None, typed: Set[str], out: Console
) -> Start:
    """Returns the starting point of the run; `typed` are the names of the settings given by flags.

    All processes must call it. Raises CheckpointError for an unreadable file, ConfigError for settings that contradict
    it.
    """
    start = Start(config)
    if resume or resume_from is not None:
        directory = config.checkpoint_dir
        state, contents = load_state(resume_from, Path(directory), out)
        checkpoint.checked(contents, state)
        config = merged(contents, config, typed, dist.world_size)
        check_text_is_there(config.data)
        if resume_from is None:  # the folder may have been renamed since
            config = replace(config, checkpoint_dir=directory)
        start = Start(config, state, contents, resumes=True)
    restarts = max(dist.gather(dist.restarts))  # a machine that joined later has a lower count
    if restarts and (own := left_by_this_job(dist, restarts, Path(config.checkpoint_dir), out)):
        contents = sharded_checkpoint.load(own)
        stored = TrainConfig.from_dict(contents["config"])  # they came from the same command line
        return Start(replace(stored, checkpoint_dir=config.checkpoint_dir), own, contents, resumes=True)
    return from_checkpoint(config, typed) if start.path is None and config.init_from is not None else start


def left_by_this_job(dist: Dist, restarts: int, directory: Path, out: Console) -> Path | None:
    """Returns the state that this job saved before torchrun restarted it, or None; prints which. Rank 0 searches."""
    own = None
    if dist.is_main and checkpoint.states(directory):
        state, contents = load_state(None, directory, out)
        own = state if contents.get("job") == dist.job else None  # not the state of an earlier run
    (own,) = dist.from_main((own,))
    found = f"resumes from {own}" if own else "had saved no state yet"
    out.print(f"torchrun restarted this job, restart {restarts}: it {found}", style="yellow")
    return own


def take_over(trainer: Trainer, start: Start, out: Console, changed_text: bool = False) -> None:
    """Loads the file into the trainer, the whole state or only the weights, and reports it."""
    assert start.path is not None
    if start.resumes:
        trainer.load_state(start.contents, start.path, changed_text)
        out.print(f"resuming from {start.path}, step {trainer.step}, with its stored settings")
        for message in (
            message_about_text(trainer.data, start.contents, trainer.config.data.dataset),
            message_about_machine(trainer.machine, start.contents),
            batch_change(start.contents, trainer),
            schedule_change(start.contents, trainer),
        ):
            if message:
                out.print(message)
        return
    trainer.initialise_from(start.contents, start.path)
    out.print(
        f"starting from the weights of {start.path}, step {start.contents['step']}, in {trainer.directory}; "
        f"its validation loss on this text is {trainer.evaluate().loss:.4f}"
    )


def from_checkpoint(config: TrainConfig, typed: Set[str]) -> Start:
    """Returns the start of a new run with the weights, model shape, row length and encoding of the config's init_from.

    Only dropout may differ, and max_seq_len unless positions are learned. Raises ConfigError with every other setting
    in `typed` that contradicts the checkpoint.
    """
    if not config.init_from:  # an unset variable of the shell; as a path it would be this folder
        raise checkpoint.CheckpointError("no checkpoint is named: --init-from takes a file, a folder or a source")
    path = find_checkpoint(Path(config.init_from))
    contents = sharded_checkpoint.load(path)
    stored, tokenizer = checkpoint.checked(contents, path)
    encoding = tokenizer.name
    is_learned = stored.model.position == "learned"
    free = {"dropout"} if is_learned else {"dropout", "max_seq_len"}
    changes, problems = {}, []
    for (_, name, old), (_, _, new) in zip(leaves(stored.model), leaves(config.model), strict=True):
        if name in typed and new != old:
            if name in free:
                changes[name] = new
            else:
                problems.append(f"--{name.replace('_', '-')} {new}: it has {old}")
    seq_length = config.data.seq_length if "seq_length" in typed else stored.data.seq_length
    if is_learned and seq_length > stored.model.max_seq_len:
        problems.append(f"--seq-length {seq_length}: its learned positions end at {stored.model.max_seq_len}")
    if "encoding" in typed and config.data.encoding != encoding:
        problems.append(f"--encoding {config.data.encoding}: it has {encoding}")
    if problems:
        raise ConfigError([f"{path} keeps its shape and encoding ({'; '.join(problems)}): leave these flags out"])
    model, data = replace(stored.model, **changes), replace(config.data, encoding=encoding, seq_length=seq_length)
    return Start(replace(config, model=model, data=data, init_from=str(path)).check(), path, contents)
