"""--resume: finds a readable state, and merges its settings with the flags."""

from __future__ import annotations

import contextlib
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from transformer.config import ConfigError, DataConfig, TrainConfig
from transformer.config_base import leaves
from transformer.distributed import sharded_checkpoint
from transformer.scheduler import lr_scale
from transformer.trainer import Trainer
from transformer.training.checkpoint import CheckpointError

MAY_CHANGE = {
    "epochs", "max_steps", "eval_every", "log_every", "patience", "save_every_minutes", "save_every_steps", "keep_last",
    "checkpoint_dir", "device", "cache_dir", "cache_shards", "cache_gb", "num_workers", "network_patience", "trackers",
    "compile", "activation_checkpointing", "sample_tokens", "sample_prompt", "shard", "precision", "kernels",
    "watch_inside",
}  # fmt: skip
"""Settings that may change when a run is resumed. The others would make it a different run."""
SHARE = {"batch_size", "accumulation_steps"}
"""The rows that each process contributes to a step; they may change with the number of processes."""


def load_state(path: Path | None, directory: Path, out: Console) -> tuple[Path, dict[str, Any]]:
    """Returns the state at `path`, or the newest readable one in `directory`; reports those that are damaged.

    Raises CheckpointError if there is none.
    """
    if path is not None:
        return path, sharded_checkpoint.load(path)
    states = sharded_checkpoint.newest_first(directory)
    if not states:
        others = ", ".join(sorted({str(path.parent) for path in Path().glob("checkpoints*/training_state_*")}))
        hint = f"; --checkpoint-dir chooses another folder, and there is one in {others}" if others else ""
        raise CheckpointError(f"there is no training_state_* in {directory}: nothing to resume{hint}")
    *newer, oldest = states
    damaged = []
    for state in newer:
        try:
            contents = sharded_checkpoint.load(state)
            break
        except CheckpointError as error:
            out.print(f"{error}; trying the previous state")
            damaged.append(state)
    else:
        state, contents = oldest, sharded_checkpoint.load(oldest)
    for path in damaged:  # otherwise the next save would replace the intact state
        with contextlib.suppress(OSError):
            path.replace(f"{path}.damaged")
    return state, contents


def merged(contents: dict[str, Any], given: TrainConfig, typed: Set[str], world_size: int = 1) -> TrainConfig:
    """Returns the stored settings of a state, with those settings of `given` that are in `typed` and may change.

    With a different number of processes, batch_size and accumulation_steps may change too. `shard` always comes from
    `given`. Raises ConfigError with every other setting in `typed` that contradicts the stored one.
    """
    stored = TrainConfig.from_dict(contents["config"])
    may_change = MAY_CHANGE if world_size == contents.get("world_size", 1) else MAY_CHANGE | SHARE
    problems: list[str] = []
    changes: dict[str, dict[str, Any]] = {}
    for (group, name, old), (_, _, new) in zip(leaves(stored), leaves(given), strict=True):
        if name not in typed or new == old:
            continue
        if name in may_change or (name == "dataset" and may_be_same_text(contents, stored.data, given.data)):
            changes.setdefault(group, {})[name] = new
        else:
            problems.append(f"--{name.replace('_', '-')} {new}: the run has {old}")
    if problems:
        raise ConfigError([f"a resumed run keeps its settings ({'; '.join(problems)}): leave these flags out"])
    groups = {group: replace(getattr(stored, group), **values) for group, values in changes.items() if group}
    return replace(stored, **groups, **{**changes.get("", {}), "shard": given.shard})


def may_be_same_text(contents: dict[str, Any], stored: DataConfig, given: DataConfig) -> bool:
    """Whether both datasets are on this machine and the text itself decides, by its digest, whether it is the same."""
    if stored.is_on_hub or given.is_on_hub:
        return False
    return contents.get("text") is not None or Path(stored.dataset).resolve() == Path(given.dataset).resolve()


def check_text_is_there(data: DataConfig) -> None:
    """Raises ConfigError if a run to be resumed has read a file that is not there, as its path is read here."""
    if not data.is_on_hub and not data.is_bundled and not Path(data.dataset).exists():
        where = "" if Path(data.dataset).is_absolute() else f" in {Path.cwd()}"
        raise ConfigError(
            [f"the run reads {data.dataset}, which does not exist{where}: give --dataset with its path now"]
        )


def batch_change(contents: dict[str, Any], trainer: Trainer) -> str | None:
    """Returns a line if a step has a different number of rows than before, because the number of processes changed."""
    stored, config, processes = TrainConfig.from_dict(contents["config"]), trainer.config, trainer.dist.world_size
    before = stored.batch_size * stored.accumulation_steps * contents.get("world_size", 1)
    rows = config.batch_size * config.accumulation_steps * processes
    if rows == before:
        return None
    return (
        f"with another number of processes, {processes} for {contents.get('world_size', 1)}, a step takes {rows} rows, "
        f"not {before}: --batch-size and --accumulation-steps may be changed to compensate"
    )


def schedule_change(contents: dict[str, Any], trainer: Trainer) -> str | None:
    """Returns a line if the run has another length than before, which moves the learning rate on its schedule."""
    stored, config = TrainConfig.from_dict(contents["config"]), trainer.config
    epochs = stored.epochs * trainer.steps_per_epoch
    before, now = min(epochs, stored.max_steps or epochs), trainer.total_steps
    old, new = (lr_scale(trainer.step, total, config.optimizer) for total in (before, now))
    if (stored.epochs, stored.max_steps) == (config.epochs, config.max_steps) or old == new:
        return None
    rates = f"the learning rate continues at {new:.0%} of its peak, where it was at {old:.0%}"
    return f"the schedule now ends at step {now:,}, not {before:,}: {rates}"
