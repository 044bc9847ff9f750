"""Documents to measure a model on, one by one: the held-out ones of a dataset, or any texts.

A dataset is opened for them alone: no training text is fetched, and of a local one no more is encoded than is counted
for the baseline. Each document ends in an end-of-text, as in training. A limit in tokens takes the first ones, the last
of them cut short, so that the default limit gives the tokens that a run looks at while it trains.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from transformer.config import DataConfig
from transformer.dataset import Tell, local_documents, say_nothing
from transformer.text import Tokenizer, Tokens, split_documents

COUNTED_TOKENS = 5_000_000
"""Tokens of training text that are counted for the baseline at most."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Documents:
    """D texts in tokens."""

    name: str
    """What they are, for a person."""
    tokens: list[Tokens]
    """Each document's, an end-of-text the last, except where the limit cut it."""
    text_bytes: list[int]
    """The bytes that each one's tokens spell."""
    counts: Counts
    """How often each token comes in them, (V,)."""
    known: Counts | None = None
    """How often each token comes in the training text, (V,); None where there is none at hand."""

    @property
    def num_tokens(self) -> int:
        """Tokens in all documents, end-of-text included."""
        return sum(map(len, self.tokens))


def held_out_documents(
    config: DataConfig, tokenizer: Tokenizer, max_tokens: int | None = None, tell: Tell = say_nothing
) -> Documents:
    """Returns the first held-out documents of a dataset; max_tokens None: as many tokens as a run looks at.

    Raises ValueError, in one line, for a text that is missing, unreadable or out of reach.
    """
    name, limit = f"held-out text of {config.dataset}", max_tokens or config.validation_tokens
    if config.is_on_hub:
        with contextlib.closing(_remote_texts(config, tell)) as texts:
            return encode_documents(texts, tokenizer, name, limit)
    train, held_out = split_documents(local_documents(config), config.validation_fraction)
    return replace(encode_documents(held_out, tokenizer, name, limit), known=_counted(train, tokenizer))


def training_counts(config: DataConfig, tokenizer: Tokenizer) -> Counts | None:
    """Returns how often each token comes in a dataset's training text, (V,); None where that is not on this machine."""
    if config.is_on_hub:
        return None
    try:
        return _counted(split_documents(local_documents(config), config.validation_fraction)[0], tokenizer)
    except ValueError:  # it is gone, or no longer what it was
        return None


def encode_documents(texts: Iterable[str], tokenizer: Tokenizer, name: str, max_tokens: int | None = None) -> Documents:
    """Encodes texts, an end-of-text after each, up to max_tokens. Raises ValueError where there is no text."""
    found = _encoded(texts, tokenizer, max_tokens)
    if not found:
        raise ValueError(f"{name} holds no text to measure a model on: give some")
    sizes = [len(tokenizer.decode_bytes(tokens[tokens != tokenizer.eot_id].tolist())) for tokens in found]
    return Documents(name, found, sizes, _counts(found, tokenizer))


def _counted(texts: Iterable[str], tokenizer: Tokenizer) -> Counts:
    return _counts(_encoded(texts, tokenizer, COUNTED_TOKENS), tokenizer)


def _counts(documents: list[Tokens], tokenizer: Tokenizer) -> Counts:
    return np.bincount(np.concatenate(documents), minlength=tokenizer.vocab_size)


def _encoded(texts: Iterable[str], tokenizer: Tokenizer, max_tokens: int | None) -> list[Tokens]:
    """Reads no more texts than have max_tokens; the last one is cut there."""
    found: list[Tokens] = []
    left = max_tokens
    for text in filter(None, texts):
        found.append(np.append(tokenizer.encode_array(text), np.uint32(tokenizer.eot_id))[:left])
        if left is not None and (left := left - len(found[-1])) == 0:
            break
    return found


def _remote_texts(config: DataConfig, tell: Tell) -> Generator[str]:
    """Yields the held-out documents of a hub dataset; without a network, those of its validation file."""
    from transformer.data.hub.text import open_remote_text
    from transformer.data.hub.validation_cache import HeldOut

    remote = open_remote_text(config, tell)
    try:
        yield from HeldOut(remote, config.validation_fraction).texts()
    finally:
        remote.close()
        remote.cache.close()
