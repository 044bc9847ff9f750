"""A resumed run must read the text that it read before: its position, its epochs and its validation losses refer to it.

Checkpoints and training states keep the digest of a text on this machine (text/local_files.py). A hub dataset needs
none: the run keeps its commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformer.data.contracts import TextData
from transformer.training.checkpoint import CheckpointError


def text_facts(data: TextData) -> dict[str, Any] | None:
    """Returns what checkpoints and training states keep of a text on this machine; None for a hub dataset."""
    if data.digest is None:
        return None
    return {"digest": data.digest, "description": data.description, "tokens_per_epoch": data.tokens_per_epoch}


def has_changed(digest: str | None, contents: Mapping[str, Any]) -> bool:
    """Whether the documents with this digest are others than those of the run that saved the checkpoint."""
    kept = contents.get("text")
    return isinstance(kept, dict) and digest is not None and kept.get("digest") != digest


def same_text(data: TextData, contents: Mapping[str, Any], dataset: str, changed_text: bool = False) -> TextData:
    """Returns the text, with epochs as long as before. Raises CheckpointError if it changed, unless changed_text."""
    if has_changed(data.digest, contents) and not changed_text:
        raise CheckpointError(
            f"the text of {dataset} has changed: the run has read {contents['text'].get('description')}, and now it is "
            f"{data.description}: restore the text, or give --changed-text to continue with the changed one"
        )
    kept = contents.get("text")
    return replace(data, tokens_per_epoch=kept["tokens_per_epoch"]) if isinstance(kept, dict) else data


def message_about_text(data: TextData, contents: Mapping[str, Any], dataset: str) -> str | None:
    """Returns a line for a resumed run whose text has changed, or whose state is too old to tell; else None."""
    if has_changed(data.digest, contents):
        return "the text has changed: it is read from its start, and epochs keep their length"
    if data.digest is None or dataset == "shakespeare" or contents.get("text") is not None:
        return None
    return "this state is older than the check of its text: make sure that the text is the same as before"
