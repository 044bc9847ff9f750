"""The base class of all groups of settings: checking, and conversion to and from plain dicts.

`check()` reports every problem of a configuration at once; `from_dict()` also refuses unknown names and
suggests the closest one. The settings are in config.py. Only the standard library is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C", bound="Config")

RENAMED = {"text_field": "text_column"}
"""Names of settings in older checkpoints, and their names now."""

LARGEST = {
    "vocab_size": 10**7, "d_model": 10**6, "num_heads": 10**6, "num_kv_heads": 10**6, "num_layers": 10**4,
    "d_ff": 10**7, "max_seq_len": 10**8, "head_width": 10**6, "seq_length": 10**8, "batch_size": 10**6,
    "accumulation_steps": 10**6, "epochs": 10**9, "shuffle_rows": 10**8, "num_workers": 10**4, "cache_gb": 10**9,
    "shard_mb": 10**9, "network_patience": 10**9, "save_every_minutes": 10**9, "sample_tokens": 10**7,
    "max_new_tokens": 10**7, "max_length": 10**7, "num_samples": 10**6, "seed": 2**63 - 1,
}  # fmt: skip
"""Upper bounds of settings that become sizes: above any useful value, below what exhausts memory or time at once."""
LARGEST_WHOLE = 10**15
"""The upper bound of every other whole number."""


class ConfigError(ValueError):
    """One or more settings cannot be used; `problems` lists them, the message joins them."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


def near_miss(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean X?" for the known name closest to `name`, or an empty string if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class Config:
    """A group of settings: it can check itself, become a plain dict, and come back from one."""

    def problems(self) -> list[str]:
        """Returns one sentence for each rule that the settings break."""
        return []

    def check(self) -> Self:
        """Raises ConfigError with all problems at once; returns self, so that calls chain."""
        found = type_problems(self) or size_problems(self) or self.problems()
        if found:
            raise ConfigError(found)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as nested dicts of plain values, as a checkpoint stores them."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds and checks the settings from (nested) plain values; ConfigError lists all problems."""
        config, found = build(cls, values)
        found += type_problems(config) or size_problems(config) or config.problems()
        if found:
            raise ConfigError(found)
        return config


def leaves(config: Config, group: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yields group, name and value of every setting; the group of the run's own settings is ""."""
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if isinstance(value, Config):
            yield from leaves(value, field.name)
        else:
            yield group, field.name, value


def build(cls: type[C], values: Mapping[str, Any]) -> tuple[C, list[str]]:
    """Returns the config built from the names that exist, and a problem for each that does not."""
    hints = get_type_hints(cls)
    known: dict[str, Any] = {}
    found: list[str] = []
    for name, value in values.items():
        name = RENAMED.get(name, name)
        if name not in hints:
            found.append(f"unknown setting {name!r}{near_miss(name, hints)}")
        elif isinstance(hints[name], type) and issubclass(hints[name], Config) and isinstance(value, Mapping):
            known[name], inner = build(hints[name], value)
            found += inner
        elif get_origin(hints[name]) is tuple and isinstance(value, list):  # JSON knows no tuples
            known[name] = tuple(value)
        else:
            known[name] = value
    return cls(**known), found


def type_problems(config: Config) -> list[str]:
    """Returns a sentence for every setting whose value has the wrong type or is not among the choices."""
    found: list[str] = []
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if isinstance(value, Config):
            found += type_problems(value)
            continue
        options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        if not any(_fits(value, option) for option in options):
            choices = [choice for option in options for choice in _choices(option)]
            wanted = f"one of {', '.join(map(str, choices))}" if choices else _type_names(options)
            close = near_miss(str(value), map(str, choices))
            found.append(f"{name}={value!r} is not {wanted}{close}")
    return found


def _choices(option: Any) -> tuple[Any, ...]:
    return _choices(get_args(option)[0]) if get_origin(option) is tuple else get_args(option)


def _fits(value: object, option: Any) -> bool:
    if get_origin(option) is tuple:  # of any length
        return isinstance(value, tuple) and all(_fits(item, get_args(option)[0]) for item in value)
    if get_origin(option) is Literal:
        return value in get_args(option)
    if option is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if option is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, option)


def from_text(hint: Any, text: str) -> Any:
    """Returns the value of a typed word for a setting of this type, or the word itself if it has none.

    check() then reports the type that was expected.

    >>> from_text(float, "1e-3"), from_text(int | None, "none"), from_text(bool, "true"), from_text(int, "many")
    (0.001, None, True, 'many')
    """
    words: dict[Any, dict[str, bool | None]] = {bool: {"true": True, "false": False}, types.NoneType: {"none": None}}
    for option in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        with contextlib.suppress(ValueError, KeyError):
            if option in words:
                return words[option][text.lower()]
            if option in (int, float):
                return option(text)
    return text


def _type_names(options: Iterable[Any]) -> str:
    names = {int: "a whole number", float: "a finite number", str: "text", bool: "True or False"}
    return " or ".join(
        names.get(option, "a group of settings" if option is not types.NoneType else "None") for option in options
    )


def positive(config: object, *names: str) -> list[str]:
    values = {name: getattr(config, name) for name in names}
    return [f"{name}={value} must be above 0" for name, value in values.items() if value is not None and value <= 0]


def between(config: object, low: float, high: float, *names: str) -> list[str]:
    values = {name: getattr(config, name) for name in names}
    return [
        f"{name}={value} must be from {low:g} to below {high:g}"
        for name, value in values.items()
        if not low <= value < high
    ]


def size_problems(settings: object) -> list[str]:
    """Returns a sentence for every number above its bound in a dataclass, and in the dataclasses within it."""
    found: list[str] = []
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found += size_problems(value)
        for number in value if isinstance(value, tuple) else (value,):
            bound = LARGEST.get(field.name, LARGEST_WHOLE if isinstance(number, int) else math.inf)
            if isinstance(number, int | float) and number > bound:
                found.append(f"{field.name}={number} must be at most {bound}")
    return found


def seed_problems(seed: int) -> list[str]:
    """Returns a sentence if not all random generators accept the seed."""
    return [] if 0 <= seed < 2**63 else [f"seed={seed} must be from 0 to 2**63 - 1"]
