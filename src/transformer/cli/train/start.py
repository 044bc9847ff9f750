"""Where a run begins: with fresh weights, with those of a checkpoint (--init-from), or in the middle, from a state."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from transformer.cli.train.resume import batch_change, load_state, merged
from transformer.config import ConfigError, TrainConfig
from transformer.config_base import leaves
from transformer.distributed import sharded_checkpoint
from transformer.distributed.processes import Dist
from transformer.text import Tokenizer, tokenizer_from_state
from transformer.trainer import Trainer
from transformer.training import checkpoint


@dataclass(frozen=True)
class Start:
    """A run's settings, and the file that it begins with or goes on from; without a path, fresh weights."""

    config: TrainConfig
    path: Path | None = None
    contents: dict[str, Any] = field(default_factory=dict)
    resumes: bool = False
    """Whether the file is the state of this very run."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The file's encoding; None: the config names one, or one is to be trained."""
        return tokenizer_from_state(self.contents["tokenizer"]) if self.contents else None


def starting_point(
    dist: Dist, config: TrainConfig, resume: bool, resume_from: Path | None, typed: Set[str], out: Console
) -> Start:
    """Returns where the run begins, of which `typed` are the settings that somebody gave. All processes must ask.

    Raises CheckpointError for a file that cannot be read, ConfigError for settings that contradict it.
    """
    start = Start(config)
    if resume or resume_from is not None:
        directory = config.checkpoint_dir
        state, contents = load_state(resume_from, Path(directory), out)
        config = merged(contents, config, typed, dist.world_size)
        if resume_from is None:  # the run's folder may have been moved
            config = replace(config, checkpoint_dir=directory)
        start = Start(config, state, contents, resumes=True)
    restarts = max(dist.gather(dist.restarts))  # a machine that has joined later has counted fewer
    if restarts and (own := left_by_this_job(dist, restarts, Path(config.checkpoint_dir), out)):
        contents = sharded_checkpoint.load(own)
        stored = TrainConfig.from_dict(contents["config"])  # which came from the same command line
        return Start(replace(stored, checkpoint_dir=config.checkpoint_dir), own, contents, resumes=True)
    return from_checkpoint(config, typed) if start.path is None and config.init_from is not None else start


def left_by_this_job(dist: Dist, restarts: int, directory: Path, out: Console) -> Path | None:
    """Returns the state that this job saved before torchrun restarted it, where rank 0 finds one; tells which."""
    own = None
    if dist.is_main and checkpoint.states(directory):
        state, contents = load_state(None, directory, out)
        own = state if contents.get("job") == dist.job else None  # else an earlier run's, which is not to go on
    (own,) = dist.from_main((own,))
    found = f"goes on from {own}" if own else "had saved no state yet"
    out.print(f"torchrun has restarted this job, restart {restarts}: it {found}", style="yellow")
    return own


def take_over(trainer: Trainer, start: Start, out: Console) -> None:
    """Gives the trainer what the file holds, the whole state or the weights alone, and says so."""
    assert start.path is not None
    if start.resumes:
        trainer.restore(start.contents, start.path)
        out.print(f"resuming from {start.path}, step {trainer.step}, with the settings stored there")
        if change := batch_change(start.contents, trainer):
            out.print(change)
        return
    trainer.begin_with(start.contents, start.path)
    out.print(
        f"beginning with the weights of {start.path}, step {start.contents['step']}, in {trainer.directory}; "
        f"its validation loss on this text is {trainer.evaluate().loss:.4f}"
    )


def from_checkpoint(config: TrainConfig, typed: Set[str]) -> Start:
    """Returns the start of a new run with the weights, shape, row length and encoding of the config's init_from.

    Of the shape only dropout may be another, and the longest context unless its positions are learned. Raises
    ConfigError that lists every other typed setting that contradicts the checkpoint.
    """
    path = checkpoint.named(Path(config.init_from or ""))
    contents = sharded_checkpoint.load(path)
    stored = TrainConfig.from_dict(contents["config"])
    encoding = tokenizer_from_state(contents["tokenizer"]).name
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
