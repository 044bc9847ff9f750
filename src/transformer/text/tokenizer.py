"""The interface of all encodings, the byte-level encoding, and decoding token by token.

A tokenizer turns text into integers below `vocab_size` and back. Encoding goes through UTF-8
bytes, so that decoding returns any text unchanged. One id, `eot_id`, means "end of text": it is written between
documents and never encodes text, not even the marker `<|endoftext|>` as it may be typed in a page.

UTF-8 cannot represent half of a surrogate pair, which Python strings allow. Each half becomes U+FFFD, the replacement
character; two adjacent halves become the character that they form.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .cores import usable_cores

Tokens = npt.NDArray[np.uint32]
SLICE = 16
"""Texts that a thread encodes at a time."""

END_OF_TEXT = "<|endoftext|>"
REPLACEMENT = "\ufffd".encode()


class Tokenizer(Protocol):
    """An encoding: `name` such as "cl100k_base", and the `short_name` that checkpoint files carry ("cl100k").

    Every id is in 0 … vocab_size − 1, `eot_id` included. Decoding an id outside that range raises ValueError.
    """

    @property
    def name(self) -> str: ...
    @property
    def short_name(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def eot_id(self) -> int: ...
    @property
    def bos_id(self) -> int | None:
        """The id that the model expects before a text, of encodings of other models (hf_tokenizer.py); else None."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids after which generation ends: `eot_id`, then others if there are any."""
        ...

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, never end-of-text."""
        ...

    def encode_array(self, text: str) -> Tokens:
        """Returns the ids as an array (tokens,) uint32, possibly read-only: faster for long texts."""
        ...

    def encode_batch(self, texts: Sequence[str], pool: ThreadPoolExecutor | None = None) -> list[Tokens]:
        """Returns `encode_array` of each text, in order, on the threads of `pool` or of a pool of its own."""
        ...

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Returns the bytes of the ids: U+FFFD for an unused id, the marker for end-of-text."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """Returns the text of the ids, with U+FFFD for bytes that are not complete UTF-8 characters."""
        ...

    def state(self) -> dict[str, object]:
        """Returns the input of `tokenizer_from_state`: str, int, bytes and lists of them."""
        ...


def encode_in_slices(
    encode_all: Callable[[Sequence[str]], list[Tokens]], texts: Sequence[str], pool: ThreadPoolExecutor | None
) -> list[Tokens]:
    """Returns the ids of each text, in order: encode_batch() of an encoding whose threads run at the same time."""
    if pool is None:
        with ThreadPoolExecutor(usable_cores()) as pool:
            return encode_in_slices(encode_all, texts, pool)
    slices = pool.map(encode_all, (texts[start : start + SLICE] for start in range(0, len(texts), SLICE)))
    return [tokens for encoded in slices for tokens in encoded]


class ByteTokenizer:
    """One id per byte of UTF-8, and end-of-text: 257 ids, no training, the longest sequences.

    >>> ByteTokenizer().encode("né")
    [110, 195, 169]
    """

    name = "byte"
    short_name = "byte"
    vocab_size = 257
    eot_id = 256
    bos_id = None
    stop_ids = (256,)

    def encode(self, text: str) -> list[int]:
        return list(replace_lone_surrogates(text).encode())

    def encode_array(self, text: str) -> Tokens:
        return np.frombuffer(replace_lone_surrogates(text).encode(), dtype=np.uint8).astype(np.uint32)

    def encode_batch(self, texts: Sequence[str], pool: ThreadPoolExecutor | None = None) -> list[Tokens]:
        return [self.encode_array(text) for text in texts]

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        ids = checked_ids(tokens, self.vocab_size)
        return b"".join(END_OF_TEXT.encode() if i == self.eot_id else bytes((i,)) for i in ids)

    def decode(self, tokens: Iterable[int]) -> str:
        return self.decode_bytes(tokens).decode(errors="replace")

    def state(self) -> dict[str, object]:
        return {"kind": "byte"}


class StreamDecoder:
    """Decodes tokens that arrive one at a time. A character may span tokens: it is returned when it is complete.

    >>> stream = StreamDecoder(ByteTokenizer())
    >>> [stream.push(token) for token in "né".encode()]
    ['n', '', 'é']
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Returns the characters that this token completes: none, one or several."""
        return self._decoder.decode(self._tokenizer.decode_bytes((token,)))

    def flush(self) -> str:
        """Returns U+FFFD if the tokens ended inside a character, else "". Resets the decoder."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def prompt_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns the ids of a text to continue: after the token that the model expects first, and never empty.

    >>> prompt_ids(ByteTokenizer(), "n"), prompt_ids(ByteTokenizer(), "")
    ([110], [256])
    """
    first = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return first + tokenizer.encode(text) or [tokenizer.eot_id]


def replace_lone_surrogates(text: str) -> str:
    """Returns text that UTF-8 can represent: lone surrogates become U+FFFD, pairs the character that they form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def checked_ids(tokens: Iterable[int], vocab_size: int) -> list[int]:
    """Returns the ids as a list of ints. Raises ValueError for an id outside 0 … vocab_size − 1."""
    ids = [int(token) for token in tokens]
    for i in ids:
        if not 0 <= i < vocab_size:
            raise ValueError(f"token {i} is outside this encoding's 0 to {vocab_size - 1}")
    return ids
