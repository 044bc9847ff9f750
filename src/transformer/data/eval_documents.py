"""Documents on which a model is evaluated, one by one: the held-out documents of a dataset, or any texts.

Only the held-out documents of a dataset are opened: no training text is fetched from the hub, and of a local text only
as much training text is encoded as the unigram baseline counts. An end-of-text follows each document, as in training. A
limit in tokens takes the first documents and truncates the last of them. The default limit gives the tokens on which a
run evaluates during training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from transformer.config import DataConfig
from transformer.data.contracts import Notify, silent
from transformer.data.hub.opening import open_hub_text
from transformer.data.hub.validation_cache import ValidationText
from transformer.data.open import local_text
from transformer.text import Tokenizer, Tokens, split_documents

COUNTED_TOKENS = 5_000_000
"""Maximum number of tokens of training text that are counted for the unigram baseline."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Documents:
    """D texts in tokens."""

    name: str
    """A description for messages and tables."""
    tokens: list[Tokens]
    """Each document's tokens; the last is an end-of-text, except in a truncated document."""
    text_bytes: list[int]
    """Bytes of text that each document's tokens encode."""
    counts: Counts
    """How often each token occurs in the documents, (V,)."""
    known: Counts | None = None
    """How often each token occurs in the training text, (V,); None if that text is not on this machine."""
    digest: str | None = None
    """Of the whole text, if it is a dataset on this machine (text/local_files.py)."""

    @property
    def num_tokens(self) -> int:
        """Tokens in all documents, end-of-text included."""
        return sum(map(len, self.tokens))


def held_out_documents(
    config: DataConfig, tokenizer: Tokenizer, max_tokens: int | None = None, notify: Notify = silent
) -> Documents:
    """Returns the first held-out documents of a dataset; max_tokens=None: the tokens on which a run evaluates.

    Raises ValueError, in one line, for a text that is missing, unreadable or unreachable.
    """
    name, limit = f"held-out text of {config.dataset}", max_tokens or config.validation_tokens
    if config.is_on_hub:
        with contextlib.closing(_hub_texts(config, notify)) as texts:
            return encode_documents(texts, tokenizer, name, limit)
    text = local_text(config)
    train, held_out = split_documents(text.documents, config.validation_fraction)
    documents = encode_documents(held_out, tokenizer, name, limit)
    return replace(documents, known=_counted(train, tokenizer), digest=text.digest)


def training_counts(config: DataConfig, tokenizer: Tokenizer) -> Counts | None:
    """Returns how often each token occurs in the training text, (V,); None if the text is not on this machine."""
    if config.is_on_hub:
        return None
    try:
        return _counted(split_documents(local_text(config).documents, config.validation_fraction)[0], tokenizer)
    except ValueError:  # the file was removed or changed
        return None


def encode_documents(texts: Iterable[str], tokenizer: Tokenizer, name: str, max_tokens: int | None = None) -> Documents:
    """Encodes texts, with an end-of-text after each, up to max_tokens. Raises ValueError if there is no text."""
    found = _encoded(texts, tokenizer, max_tokens)
    if not found:
        raise ValueError(f"{name} has no text on which to evaluate a model: give some")
    sizes = [len(tokenizer.decode_bytes(tokens[tokens != tokenizer.eot_id].tolist())) for tokens in found]
    return Documents(name, found, sizes, _counts(found, tokenizer))


def _counted(texts: Iterable[str], tokenizer: Tokenizer) -> Counts:
    return _counts(_encoded(texts, tokenizer, COUNTED_TOKENS), tokenizer)


def _counts(documents: list[Tokens], tokenizer: Tokenizer) -> Counts:
    return np.bincount(np.concatenate(documents), minlength=tokenizer.vocab_size)


def _encoded(texts: Iterable[str], tokenizer: Tokenizer, max_tokens: int | None) -> list[Tokens]:
    """Reads only as many texts as max_tokens needs, and truncates the last one."""
    found: list[Tokens] = []
    left = max_tokens
    for text in filter(None, texts):
        found.append(np.append(tokenizer.encode_array(text), np.uint32(tokenizer.eot_id))[:left])
        if left is not None and (left := left - len(found[-1])) == 0:
            break
    return found


def _hub_texts(config: DataConfig, notify: Notify) -> Generator[str]:
    """Yields the held-out documents of a hub dataset. Those in its validation file need no network."""
    hub_text = open_hub_text(config, notify)
    try:
        yield from ValidationText(hub_text, config.validation_fraction).texts()
    finally:
        hub_text.close()
