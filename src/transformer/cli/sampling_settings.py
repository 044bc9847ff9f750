"""Notices about sampling settings that change nothing, for the commands that accept them."""

from __future__ import annotations

from collections.abc import Iterable

from transformer.config import SamplingConfig
from transformer.sampling import is_greedy


def unused_settings(sampling: SamplingConfig, names: Iterable[str]) -> list[str]:
    """Returns those of the named settings that have no effect together with the others.

    >>> unused_settings(SamplingConfig("top_p"), ["top_k", "top_p"])
    ['top_k']
    >>> unused_settings(SamplingConfig("greedy"), ["min_p"])
    ['min_p']
    """
    used = {"strategy", "temperature", "repetition_penalty"}
    if sampling.strategy == "greedy":
        used.remove("temperature")
    if not is_greedy(sampling):
        used |= {"min_p"} | {name for name in ("top_k", "top_p") if name in sampling.strategy}
    return [name for name in names if name not in used]


def top_k_notice(sampling: SamplingConfig, vocab_size: int) -> str | None:
    """Returns a sentence if top_k is larger than the vocabulary, so that it removes nothing."""
    if is_greedy(sampling) or "top_k" not in sampling.strategy or sampling.top_k <= vocab_size:
        return None
    return f"top_k={sampling.top_k} keeps all {vocab_size} tokens of the vocabulary"
