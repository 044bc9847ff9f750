"""The parquet files of a dataset repository that make up a subset and a split.

The dataset's card may list them: its `configs` have, for each subset, glob patterns for the files of each split.
If not, the names of folders and files decide. All of this uses names only, without a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformer.config import near_miss

Config = Mapping[str, Any]

SPLITS = ("train", "validation", "valid", "test", "dev")


class NoSuchSubset(ValueError):  # noqa: N818
    """The message completes "the dataset has ..." and lists the existing names."""


def choose(paths: Iterable[str], configs: Sequence[Config], subset: str | None, split: str) -> list[str]:
    """Returns the parquet files of a subset and split, sorted. Raises NoSuchSubset, which lists the existing names.

    configs: those of the dataset card. If they name the subset, their patterns decide (None: the default subset's).
    Otherwise the subset's files are below a folder of its name, sample/10BT for sample-10BT, and the name of the
    file or of its folder contains the split. If no name contains a split, all files are the split "train".

    >>> choose(["en/train-0.parquet", "en/test-0.parquet", "de/train-0.parquet"], [], "en", "train")
    ['en/train-0.parquet']
    """
    files = sorted(path for path in paths if path.lower().endswith(".parquet"))
    config = _config(configs, subset)
    patterns = None if config is None else _patterns(config, split)
    if patterns is not None:
        globs = [_glob(pattern) for pattern in patterns]
        if found := [path for path in files if any(glob.fullmatch(path) for glob in globs)]:
            return found
        raise NoSuchSubset(f"no parquet file for split {split!r} where its card says: {', '.join(patterns)}")
    if not files:
        raise NoSuchSubset("no parquet files")
    if config is not None:
        folder = _inside(config, "")
        return _of_split({path: path.removeprefix(folder) for path in files if path.startswith(folder)}, split)
    names = {path: rest for path in files if subset is not None and (rest := _below(path, subset)) is not None}
    if not names and subset is not None and (configs or subset != "default"):
        known = [_name(config) for config in configs] or sorted({path.rpartition("/")[0] for path in files} - {""})
        raise NoSuchSubset(f"no subset {subset!r}; its subsets: {_listed(known)}{near_miss(subset, known)}")
    return _of_split(names or {path: path for path in files}, split)


def folders(configs: Sequence[Config], subset: str | None, split: str) -> list[str]:
    """Returns the folders of all files that `choose` can return; "" is the whole repository. Raises NoSuchSubset, too.

    >>> folders([{"config_name": "sample-10BT", "data_files": "sample/10BT/*"}], "sample-10BT", "train")
    ['sample/10BT']
    """
    config = _config(configs, subset)
    patterns = [""] if config is None else _patterns(config, split) or [_inside(config, "")]
    return sorted({re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0] for pattern in patterns})


def _of_split(names: Mapping[str, str], split: str) -> list[str]:
    """Returns the paths (keys) whose name (value) contains the split."""
    carried = {path: _splits(name, split) for path, name in names.items()}
    found = [path for path, splits in carried.items() if split in splits]
    if split == "train" and not any(carried.values()):
        found = list(names)
    if found:
        return found
    known = sorted(set().union(*carried.values())) or ["train"]
    raise NoSuchSubset(f"no parquet file for split {split!r}; its splits: {_listed(known)}{near_miss(split, known)}")


def _splits(path: str, asked: str) -> set[str]:
    """Returns the names of splits in the file's name, else in the name of the nearest folder that contains one."""
    for part in reversed(path.lower().removesuffix(".parquet").split("/")):
        words = (*SPLITS, asked)
        if found := {word for word in words if re.search(rf"(?<![a-z0-9]){re.escape(word.lower())}(?![a-z0-9])", part)}:
            return found
    return set()


def _below(path: str, subset: str) -> str | None:
    """Returns the path without the folder, or consecutive folders, named like the subset; None if there are none."""
    named = "[-/]".join(map(re.escape, re.split("[-/]", subset)))
    rest = re.sub(rf"(^|/){named}/", r"\1", path, count=1)
    return None if rest == path else rest


def _config(configs: Sequence[Config], subset: str | None) -> Config | None:
    """Returns the card's entry for the subset, or the default entry; None if the card has none."""
    named = {_name(config): config for config in configs}
    if subset is not None or not named:
        return named.get(subset or "")
    chosen = [named[name] for name in named if name == "default"]
    chosen += [config for config in named.values() if config.get("default")]
    if not chosen and len(named) > 1:
        raise NoSuchSubset(f"several subsets and no default one: choose one of {_listed(list(named))}")
    return (chosen or list(named.values()))[0]


def _name(config: Config) -> str:
    return str(config.get("config_name", "default"))


def _patterns(config: Config, split: str) -> list[str] | None:
    """Returns the patterns of the split's files; None if the card has no patterns, so that names decide."""
    entries = config.get("data_files")
    if entries is None:
        return None
    patterns: dict[str, list[str]] = {}
    for entry in entries if isinstance(entries, list) else [entries]:
        given = entry if isinstance(entry, Mapping) else {"path": entry}
        paths = given.get("path")
        found = [
            _inside(config, str(path).removeprefix("./")) for path in (paths if isinstance(paths, list) else [paths])
        ]
        patterns.setdefault(str(given.get("split", "train")), []).extend(found)
    if split not in patterns:
        known = f"{_listed(list(patterns))}{near_miss(split, patterns)}"
        raise NoSuchSubset(f"no split {split!r} in subset {_name(config)!r}; its splits: {known}")
    return patterns[split]


def _inside(config: Config, path: str) -> str:
    folder = str(config.get("data_dir") or "").removeprefix("./").strip("/")
    return f"{folder}/{path}" if folder else path


def _glob(pattern: str) -> re.Pattern[str]:
    """Returns the pattern as a regular expression: * and ? do not match slashes, ** does."""
    rules = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", pattern)
    classes = (re.sub(r"^\[!", "[^", part) if index % 2 else re.escape(part) for index, part in enumerate(parts))
    return re.compile("".join(rules.get(part, regex) for part, regex in zip(parts, classes, strict=True)), re.DOTALL)


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
