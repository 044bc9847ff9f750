"""How much longer the steps of a tokenizer.json can make a text.

Forty steps that each replace "a" by "aa" make a terabyte of one letter, and the `tokenizers` library ends the process
if it finds no memory. So each step is an upper bound on (times, more): a text of n letters becomes one of at most
times * n + more, letters before the vocabulary and tokens after it. A file whose steps exceed the limits together is
refused before the library runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_TIMES, MOST_MORE, MOST_STEPS = 64, 64, 64
"""Far above known models: Llama 2 puts one mark before a text and one token before its tokens."""
BOUNDED = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt"}
"""Normalizers that lengthen a text a few times, however often they are applied."""


def check_growth(found: Mapping[str, Any]) -> None:
    """Raises ValueError for steps that could make a short text too long for the memory."""
    normalizers = list(steps(found.get("normalizer"), "normalizers"))
    for step in normalizers:
        if (kind := step.get("type")) not in BOUNDED | {"Replace", "Prepend", "ByteLevel"}:
            raise ValueError(f"tokenizer.json: its normalizer {str(kind)[:40]!r} is not supported")
    pieces = steps(found.get("pre_tokenizer"), "pretokenizers")
    bounds = list(map(_bound, [*normalizers, *pieces, *steps(found.get("post_processor"), "processors")]))
    times, more = 1.0, 0.0
    for factor, constant in bounds:
        times, more = min(times * factor, 1e9), min(more * factor + constant, 1e9)
    if len(bounds) > MOST_STEPS or times > MOST_TIMES or more > MOST_MORE:
        raise ValueError("tokenizer.json: its steps could make a short text too long for the memory")


def _bound(step: Mapping[str, Any]) -> tuple[float, float]:
    """Returns (times, more) of a step."""
    match step:
        case {"type": "ByteLevel"}:  # the character that stands for a byte may have two
            return 2, 1
        case {"type": "Prepend", "prepend": str(first)}:
            return 1, len(first)
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if old:
            return max(1.0, len(new) / len(old)), 0
        case {"type": "Replace", "content": str(new)}:  # an expression may match between any two letters
            return 1 + len(new), len(new)
        case {"type": "TemplateProcessing", "single": list(parts), "special_tokens": dict(tokens)}:
            longest = max((len(ids) for token in tokens.values() for ids in _lists(token)), default=0)
            texts = sum("Sequence" in part for part in parts if isinstance(part, dict))
            return max(1, texts), (len(parts) - texts) * longest
    return 1, 0


def _lists(value: object) -> list[list[Any]]:
    return [one for one in value.values() if isinstance(one, list)] if isinstance(value, dict) else []


def steps(part: object, inner: str) -> Iterator[Mapping[str, Any]]:
    """Yields the steps of a part, those within a sequence one by one; `inner` names them. Raises ValueError."""
    if part is None:
        return
    if not isinstance(part, dict):
        raise ValueError(f"tokenizer.json: the {inner.removesuffix('s')} must be an object")
    if part.get("type") != "Sequence":
        yield part
        return
    if not isinstance(inside := part.get(inner) or [], list):
        raise ValueError(f"tokenizer.json: the {inner} must be a list")
    for step in inside:
        yield from steps(step, inner)
