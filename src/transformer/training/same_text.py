"""A resumed run must read the text that it read before: its position, its epochs and its validation losses refer to it.

A training state keeps the digest of a text on this machine (text/local_files.py). A hub dataset needs none: the run
keeps its commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformer.data.contracts import TextData
from transformer.training.checkpoint import CheckpointError


def text_facts(data: TextData) -> dict[str, Any] | None:
    """Returns what a training state keeps of a text on this machine; None for a hub dataset."""
    if data.digest is None:
        return None
    return {"digest": data.digest, "description": data.description, "tokens_per_epoch": data.tokens_per_epoch}


def has_changed(data: TextData, contents: Mapping[str, Any]) -> bool:
    """Whether the documents are not those that were read when the state was saved. A text without a digest never is."""
    kept = contents.get("text")
    return kept is not None and data.digest is not None and kept["digest"] != data.digest


def same_text(data: TextData, contents: Mapping[str, Any], dataset: str, changed_text: bool = False) -> TextData:
    """Returns the text, with epochs as long as before. Raises CheckpointError if it changed, unless changed_text."""
    if has_changed(data, contents) and not changed_text:
        raise CheckpointError(
            f"the text of {dataset} has changed: the run has read {contents['text']['description']}, and now it is "
            f"{data.description}: restore the text, or give --changed-text to continue with the changed one"
        )
    kept = contents.get("text")
    return data if kept is None else replace(data, tokens_per_epoch=kept["tokens_per_epoch"])
