"""Values of a config.json that somebody else wrote, each read with the type that it must have."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any, NoReturn

from transformer.config_base import LARGEST
from transformer.interop.errors import SourceError


class Settings:
    """The values, and how many positions of the context are kept (None: all)."""

    def __init__(self, values: Mapping[str, Any], kept: int | None = None, where: str = "config.json") -> None:
        self.values, self.kept, self.where = values, kept, where

    def with_defaults(self, **values: Any) -> Settings:
        """Returns the same settings with other defaults than those of the other families."""
        return Settings({**values, **self.values}, self.kept, self.where)

    def refuse(self, reason: str) -> NoReturn:
        raise SourceError(f"{self.where}: {reason}")

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a value, or the default if there is none; null is none."""
        value = self.values.get(name)
        return default if value is None else value

    def count(self, name: str, default: int | None = None, largest: int = LARGEST["d_ff"]) -> int:
        """Returns a whole number from 1 to `largest`; without a default it must be there."""
        value = self.get(name, default)
        if value is None:
            self.refuse(f"{name} is missing")
        if type(value) is not int or not 1 <= value <= largest:
            self.refuse(f"{name}={reprlib.repr(value)} is not a whole number from 1 to {largest:,}")
        return value

    def context(self, name: str, default: int | None = None) -> int:
        """Returns how many positions are kept of the model's own, whose number has this name."""
        own = self.count(name, default, LARGEST["max_seq_len"])
        if self.kept is None:
            return own
        if not 1 <= self.kept <= own:
            raise SourceError(f"--max-seq-len {self.kept} must be from 1 to {own}, the context of the model")
        return self.kept

    def number(self, name: str, default: float | None = None) -> float:
        """Returns a finite number above 0; without a default it must be there."""
        value = self.get(name, default)
        if value is None:
            self.refuse(f"{name} is missing")
        if type(value) not in (int, float) or not 0 < value < 1e30 or not math.isfinite(value):
            self.refuse(f"{name}={reprlib.repr(value)} is not a finite number above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if type(value) is not bool:
            self.refuse(f"{name}={reprlib.repr(value)} is not true or false")
        return value

    def choice(self, name: str, known: Mapping[str, str], default: str) -> str:
        """Returns our name of one of the known values."""
        value = self.get(name, default)
        if not isinstance(value, str) or value not in known:
            self.refuse(f"{name}={reprlib.repr(value)} is not supported; supported: {', '.join(known)}")
        return known[value]

    def inner(self, name: str) -> Settings:
        """Returns a group of settings within these; empty if there is none."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            self.refuse(f"{name}={reprlib.repr(value)} is not a group of settings")
        return Settings(value, where=f"{self.where}: {name}")
