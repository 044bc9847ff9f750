"""Open a dataset by its configuration: bundled text, files on this machine, or a dataset on the hub."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from transformer.config import DataConfig
from transformer.data.contracts import Notify, TextData, TokenSource, silent
from transformer.data.hub.opening import open_hub_text
from transformer.data.hub.validation_cache import ValidationText
from transformer.dataset import TokenDocuments, validation_rows
from transformer.fineweb_dataset import HubSource, sample_texts
from transformer.text import (
    LocalText,
    Tokenizer,
    Tokens,
    load_refrains,
    load_repeats,
    load_shakespeare,
    load_tokenizer,
    read_local_text,
    split_documents,
    train_bpe,
)

BUNDLED = {"shakespeare": load_shakespeare, "repeats": load_repeats, "refrains": load_refrains}
"""The texts that come with the project (DataConfig.is_bundled): functions that return their documents."""


def open_dataset(config: DataConfig, tokenizer: Tokenizer | None = None, notify: Notify = silent) -> TextData:
    """Opens the dataset of the configuration. The caller closes it.

    A resumed run gives its `tokenizer`; otherwise config.encoding selects one. Raises ValueError, in one line, if the
    text is missing, unreadable or too short, or if neither the hub nor the cache has it.
    """
    if config.is_on_hub:
        return _open_hub_dataset(config, tokenizer, notify)
    text = local_text(config)
    notify(f"{config.dataset}: {text.description}")
    train, held_out = split_documents(text.documents, config.validation_fraction)
    tokenizer = tokenizer or make_tokenizer(config.encoding, train)
    source = TokenDocuments(tokenizer.encode_batch(train), tokenizer.eot_id)
    text_tokens = source.num_tokens - len(source.documents)
    if text_tokens <= config.seq_length:
        raise ValueError(
            f"the training text has {text_tokens} tokens, too few for one row of {config.seq_length} and its target: "
            "give more text, or a smaller seq_length"
        )
    validation = TokenDocuments(tokenizer.encode_batch(held_out), tokenizer.eot_id)
    data = text_data(config, tokenizer, source, min(config.tokens_per_epoch, source.num_tokens), validation)
    return replace(data, digest=text.digest, description=text.description)


def _open_hub_dataset(config: DataConfig, tokenizer: Tokenizer | None, notify: Notify) -> TextData:
    text = open_hub_text(config, notify)
    try:
        validation = ValidationText(text, config.validation_fraction)
        if tokenizer is None:
            sample = sample_texts(text, config.validation_fraction) if config.encoding.startswith("bpe") else []
            tokenizer = make_tokenizer(config.encoding, sample)
        source = HubSource(text, tokenizer, config.validation_fraction, config.num_workers)
        end = np.uint32(tokenizer.eot_id)
        with contextlib.closing(validation.texts()) as texts:
            documents = (np.append(tokenizer.encode_array(document), end) for document in texts)
            data = text_data(config, tokenizer, source, config.tokens_per_epoch, documents)
        return replace(data, revision=text.commit)
    except BaseException:
        text.close()
        raise


def local_text(config: DataConfig) -> LocalText:
    """Returns the documents of a dataset on this machine. Raises ValueError as read_documents does."""
    if config.is_bundled:
        return LocalText.of(BUNDLED[config.dataset]())
    return read_local_text(Path(config.dataset), config.text_column)


def make_tokenizer(encoding: str, texts: Sequence[str]) -> Tokenizer:
    """Returns the encoding of that name; "bpeN" is trained on the texts, with a vocabulary of N entries."""
    if match := re.fullmatch(r"bpe(\d+)", encoding):
        return train_bpe(texts, int(match[1]))
    return load_tokenizer(encoding)


def text_data(
    config: DataConfig, tokenizer: Tokenizer, train: TokenSource, tokens_per_epoch: int, validation: Iterable[Tokens]
) -> TextData:
    """Combines a training source with the first validation_tokens of the validation documents.

    Raises ValueError if there is no validation document.
    """
    parts: list[Tokens] = []
    missing = config.validation_tokens
    for document in validation:
        parts.append(document[:missing])
        missing -= len(parts[-1])
        if missing == 0:
            break
    if not parts:
        raise ValueError(
            f"{config.dataset} has no validation document: none of its few documents is among the "
            f"{config.validation_fraction:.0%} held out; give a larger --validation-fraction, or more text"
        )
    tokens = np.concatenate(parts)
    text_bytes = len(tokenizer.decode_bytes(tokens[tokens != tokenizer.eot_id].tolist()))
    rows = validation_rows(tokens, config.seq_length, tokenizer.eot_id)
    return TextData(tokenizer, train, tokens_per_epoch, rows, text_bytes)
