"""Output of --json."""

from __future__ import annotations

import json
import math


def print_json(values: object, indent: int | None = 2) -> None:
    """Prints nested dicts and lists as JSON, with null for numbers that are not finite, which JSON cannot express.

    indent None: on one line.
    """
    print(json.dumps(_finite(values), indent=indent, default=str))


def _finite(values: object) -> object:
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
