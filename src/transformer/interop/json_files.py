"""Reads JSON and text that somebody else wrote: config.json, tokenizer.json, the index of sharded weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from transformer.interop.errors import SourceError

LARGEST_JSON = 2**23
"""Bytes of the largest JSON file that is read here. Python needs up to thirty times as many for the values in it."""
LARGEST_TOKENIZER = 2**26
"""Bytes of the largest tokenizer.json, or other text, that is read; the largest known one has 34 MB."""

DEEPEST = 50
"""Levels of lists and objects within one another that are read: code that walks through them needs no check."""
TOO_DEEP = f"its values are nested more than {DEEPEST} levels deep"


def read_json(path: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Returns the JSON object in a file. Raises SourceError if the file holds anything else."""
    return json_object(_content(path, largest), str(path))


def read_text(path: Path, largest: int = LARGEST_TOKENIZER) -> str:
    """Returns the text in a file, which must be UTF-8, with the line ends of Unix. Raises SourceError."""
    try:
        return _content(path, largest).decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not a text in UTF-8") from error


def _content(path: Path, largest: int) -> bytes:
    try:
        if (size := path.stat().st_size) > largest:
            raise SourceError(f"{path}: {size:,} bytes are too many; at most {largest:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from error


def json_object(content: bytes, name: str) -> dict[str, Any]:
    """Returns the JSON object in the bytes; `name` is named in errors. Raises SourceError for anything else."""
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse)
    except RecursionError as error:
        raise SourceError(f"{name}: {TOO_DEEP}") from error
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise SourceError(f"{name}: not a JSON file: {str(error).splitlines()[0]}") from error
    if _depth(value) > DEEPEST:
        raise SourceError(f"{name}: {TOO_DEEP}")
    if not isinstance(value, dict):
        raise SourceError(f"{name}: holds a {type(value).__name__}, not a JSON object")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _depth(value: Any) -> int:
    """Returns how many levels of lists and objects are within one another, at most DEEPEST + 1."""
    levels, inside = 0, [value]
    while levels <= DEEPEST and (inside := [one for one in inside if isinstance(one, dict | list)]):
        levels += 1
        inside = [one for group in inside for one in (group.values() if isinstance(group, dict) else group)]
    return levels
