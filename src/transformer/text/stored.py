"""The encoding that a checkpoint carries."""

from __future__ import annotations

from collections.abc import Mapping

from .bpe import SPLIT_PATTERN, build_bpe
from .encodings import load_tokenizer
from .hf_tokenizer import HuggingFaceTokenizer
from .tokenizer import ByteTokenizer, Tokenizer


def tokenizer_from_state(state: Mapping[str, object]) -> Tokenizer:
    """Returns the encoding whose `state()` this is. Raises ValueError for anything else."""
    match state:
        case {"kind": "byte"}:
            return ByteTokenizer()
        case {"kind": "named", "name": str(name)}:
            return load_tokenizer(name)
        case {"kind": "tokenizer.json"}:
            return HuggingFaceTokenizer.from_state(state)
        case {"kind": "bpe", "ranks": list(ranks), "pattern": str(pattern)}:
            if all(isinstance(token, bytes) for token in ranks):
                try:
                    tokenizer = build_bpe(ranks, pattern)
                    if pattern != SPLIT_PATTERN:  # some make tiktoken panic, others take exponential time
                        raise ValueError("it splits text by a pattern that is not this project's")
                    return tokenizer
                except ValueError as error:
                    raise ValueError(f"saved BPE encoding is damaged: {error}") from error
    wanted = "a dict with kind 'byte', 'named' (and name), 'bpe' (and ranks, pattern) or 'tokenizer.json'"
    raise ValueError(f"not a saved encoding: wanted {wanted}, as Tokenizer.state() returns")
