"""What --json prints."""

from __future__ import annotations

import json
import math


def print_json(values: object, indent: int | None = 2) -> None:
    """Prints nested dicts and lists as JSON, with null for a number that is not finite, which JSON has none of.

    indent None: in one line.
    """
    print(json.dumps(_finite(values), indent=indent, default=str))


def _finite(values: object) -> object:
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
