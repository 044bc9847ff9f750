"""The runs of `--set NAME=VALUE,VALUE`: every combination of the values, each in a folder of its own."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from transformer.cli.console import rank_prefix
from transformer.cli.options import PATHS
from transformer.cli.train.start import Start, from_checkpoint
from transformer.config import ConfigError, TrainConfig, near_miss
from transformer.config_base import from_text, leaves

Groups = dict[str, tuple[str, Any]]
FIXED = {
    "vocab_size": "vocab_size is determined by the encoding: --set encoding=bpe1024,bpe2048",
    "checkpoint_dir": "every run of a sweep has its own folder inside --checkpoint-dir",
}
"""Settings that a sweep cannot vary, and the reason."""


@dataclass(frozen=True)
class Variant:
    """A run of a sweep."""

    name: str
    """The values of this run, also the name of its folder: learning_rate_0.001_num_layers_2."""
    config: TrainConfig
    typed: frozenset[str]
    """The names of the settings that were given, by --set or by a flag."""

    @property
    def directory(self) -> Path:
        return Path(self.config.checkpoint_dir)

    @property
    def start(self) -> Start:
        """The starting point of a new run. Raises ConfigError for impossible settings."""
        if self.config.init_from is None:
            return Start(self.config.check())
        return from_checkpoint(self.config, self.typed)


def variants(base: TrainConfig, given: Sequence[str], typed: Set[str] = frozenset()) -> list[Variant]:
    """Returns `base` with every combination of the values; the last setting varies fastest.

    `given`: texts such as "learning_rate=1e-3,3e-3". `typed`: the names of the settings given by flags. Raises
    ConfigError with the problems of all runs, and ValueError under torchrun.
    """
    if rank_prefix():
        raise ValueError("--set trains one run after another in one process: start without torchrun, or without --set")
    groups = groups_and_types(base)
    choices, parent = choices_of(given, groups), Path(base.checkpoint_dir)
    found: list[Variant] = []
    problems: list[str] = []
    for values in itertools.product(*choices.values()):
        chosen = dict(zip(choices, values, strict=True))
        name = free_name(parent, chosen, {variant.name.casefold() for variant in found})
        config = replace(with_settings(base, chosen, groups), checkpoint_dir=str(parent / name))
        found.append(Variant(name, config, frozenset({*typed, *choices})))
        try:
            _ = found[-1].start
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    return found


def choices_of(given: Sequence[str], groups: Groups) -> dict[str, list[Any]]:
    """Returns the distinct values of each setting. Raises ConfigError with every text that is wrong."""
    choices: dict[str, list[Any]] = {}
    problems = []
    for text in given:
        typed, _, values = text.partition("=")
        name = typed.strip().lstrip("-").replace("-", "_")
        if name not in groups:
            problems.append(f"--set {text}: there is no setting {name!r}{near_miss(name, groups)}")
        elif name in FIXED:
            problems.append(f"--set {text}: {FIXED[name]}")
        elif not values:
            problems.append(f"--set {text} has no values: --set {name}=A,B tries A and B")
        elif name in choices:
            problems.append(f"--set {name} is given twice: name all its values in one, {name}=A,B")
        else:
            words = [word.strip() for word in values.split(",")]
            if name in PATHS:
                words = [os.path.expanduser(word) for word in words]  # noqa: PTH111
            choices[name] = list(dict.fromkeys(from_text(groups[name][1], word) for word in words))
    if problems:
        raise ConfigError(problems)
    return choices


def groups_and_types(config: TrainConfig) -> Groups:
    """Returns the group of each setting ("" for the run itself) and its type."""
    holders: dict[str, Any] = {group: getattr(config, group) if group else config for group, _, _ in leaves(config)}
    types = {group: get_type_hints(type(holder)) for group, holder in holders.items()}
    return {name: (group, types[group][name]) for group, name, _ in leaves(config)}


def with_settings(config: TrainConfig, chosen: dict[str, Any], groups: Groups) -> TrainConfig:
    for name, value in chosen.items():
        group = groups[name][0]
        changes: dict[str, Any] = {name: value}
        if group:
            changes = {group: replace(getattr(config, group), **changes)}
        config = replace(config, **changes)
    return config


def free_name(parent: Path, chosen: dict[str, Any], taken: Set[str]) -> str:
    """Returns a folder name that needs no quotes in any shell and that is not taken; case does not count.

    If a sweep of an earlier version left a folder with its kind of name, learning_rate=0.001,num_layers=2, that one.
    """
    values = {name: str(value)[-60:] for name, value in chosen.items()}
    earlier = ",".join(f"{name}={value}" for name, value in values.items())
    earlier = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", earlier).rstrip(". ")
    name = re.sub(r"[^\w.+-]", "-", "_".join(f"{name}_{value}" for name, value in values.items())).rstrip(".")
    name = shortened(name) if shortened(earlier) != earlier or not (parent / earlier).is_dir() else earlier
    names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(name for name in names if name.casefold() not in taken)


def shortened(name: str) -> str:
    """Returns a name that every file system allows, 255 bytes with what is appended; a digest replaces a long end."""
    if len(name.encode()) <= 200:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name.encode()[:180].decode(errors='ignore')}_{digest}"
