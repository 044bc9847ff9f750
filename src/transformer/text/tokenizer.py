"""What every encoding can do, the byte-level encoding, and decoding token by token.

A tokenizer turns text into integers below `vocab_size` and back. Text goes through UTF-8 bytes on the way, so
any text comes back whole. One id, `eot_id`, stands for "end of text": it is written between documents and is
never the encoding of any text, not even of the marker `<|endoftext|>` typed out in a page.

The one thing bytes cannot hold is half of a surrogate pair, which Python strings allow and UTF-8 does not.
Each becomes U+FFFD, the replacement character; two halves side by side become the character they spell.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.uint32]

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

    def encode(self, text: str) -> list[int]:
        """The ids of ordinary text; end-of-text is never among them."""
        ...

    def encode_array(self, text: str) -> Tokens:
        """`encode` as an array, (tokens,) uint32, perhaps read-only: faster where there is much text."""
        ...

    def encode_batch(self, texts: Sequence[str], pool: ThreadPoolExecutor | None = None) -> list[Tokens]:
        """`encode_array` of each text, in order, on the threads of `pool`, or on as many of its own as help."""
        ...

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The bytes the ids stand for: U+FFFD for an id without a meaning, the marker for end-of-text."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """The text the ids stand for, with U+FFFD where their bytes are not whole UTF-8 characters."""
        ...

    def state(self) -> dict[str, object]:
        """What `tokenizer_from_state` needs to rebuild this encoding: str, int, bytes and lists of them."""
        ...


class ByteTokenizer:
    """One id a byte of UTF-8, plus end-of-text: 257 ids, nothing to train, the longest sequences.

    >>> ByteTokenizer().encode("né")
    [110, 195, 169]
    """

    name = "byte"
    short_name = "byte"
    vocab_size = 257
    eot_id = 256

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
    """Text from tokens that arrive one at a time. A character may span tokens: it appears once it is whole.

    >>> stream = StreamDecoder(ByteTokenizer())
    >>> [stream.push(token) for token in "né".encode()]
    ['n', '', 'é']
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The characters that this token completes, often none or several."""
        return self._decoder.decode(self._tokenizer.decode_bytes((token,)))

    def flush(self) -> str:
        """U+FFFD if the tokens ended inside a character, else nothing. The decoder is then as new."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def replace_lone_surrogates(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become U+FFFD, pairs the character they spell."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def checked_ids(tokens: Iterable[int], vocab_size: int) -> list[int]:
    """The ids as a list of plain ints; raises ValueError for one outside 0 … vocab_size − 1."""
    ids = [int(token) for token in tokens]
    for i in ids:
        if not 0 <= i < vocab_size:
            raise ValueError(f"token {i} is outside this encoding's 0 to {vocab_size - 1}")
    return ids
