"""Encodings by name: tiktoken's, two of which ship with this package, and raw bytes.

`cl100k_base` and `p50k_base` are read from `data/`, without a network or a cache directory. Their files must have the
sha256 that tiktoken publishes. tiktoken downloads any other of its encodings on first use and stores it in
TIKTOKEN_CACHE_DIR.
"""

from __future__ import annotations

import base64
import difflib
import functools
import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
import tiktoken

from .long_runs import LONGEST, SpaceRule, cut_long_spaces
from .tokenizer import (
    END_OF_TEXT,
    REPLACEMENT,
    ByteTokenizer,
    Tokenizer,
    Tokens,
    checked_ids,
    encode_in_slices,
    replace_lone_surrogates,
)

RANKS_SHA256 = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "p50k_base": "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
}
# The regular expressions that cut text into pieces before merging are part of each encoding's definition.
PATTERNS = {
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    "p50k_base": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
}
SPACE_RULES = {
    "cl100k_base": SpaceRule("\r\n", punctuation_is_not="LN", breaks="\r\n", end_is_one=True),
    "p50k_base": SpaceRule("", punctuation_is_not="LN", breaks="", end_is_one=True),
}
"""What these patterns do with white space: long_runs.py."""
SPECIAL_TOKENS = {
    "cl100k_base": {
        END_OF_TEXT: 100257,
        "<|fim_prefix|>": 100258,
        "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276,
    },
    "p50k_base": {END_OF_TEXT: 50256},
}


@dataclass(frozen=True, eq=False)
class TiktokenTokenizer:
    """A byte-pair encoding run by tiktoken. `state` returns a copy of `saved`."""

    encoding: tiktoken.Encoding
    saved: dict[str, object] = field(repr=False)
    space: SpaceRule | None = None
    """How the regular expression cuts white space; None: long white space is an error."""

    @property
    def name(self) -> str:
        return self.encoding.name

    @property
    def short_name(self) -> str:
        return self.name.removesuffix("_base")

    @property
    def vocab_size(self) -> int:
        return self.encoding.n_vocab

    @property
    def eot_id(self) -> int:
        return self.encoding.eot_token

    @property
    def bos_id(self) -> None:
        return None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return (self.eot_id,)

    def encode(self, text: str) -> list[int]:
        if len(text) < LONGEST:
            return self.encoding.encode_ordinary(text)
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def encode_array(self, text: str) -> Tokens:
        try:
            if self.space is None or len(text) < LONGEST:
                return self._encode_part(text)
            parts = [self._encode_part(*part) for part in cut_long_spaces(text, self.space)]
        except UnicodeEncodeError:
            return self.encode_array(replace_lone_surrogates(text))
        except ValueError as error:  # of the regular expression
            raise ValueError(
                f"{self.name} cannot encode a text of {len(text):,} characters that starts with {text[:40]!r}: "
                f"shorten its runs of white space ({error})"
            ) from error
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _encode_part(self, text: str, is_one_piece: bool = False) -> Tokens:
        if is_one_piece:
            return np.array(self.encoding._encode_single_piece(text), dtype=np.uint32)
        return self.encoding.encode_to_numpy(text, disallowed_special=())

    def encode_batch(self, texts: Sequence[str], pool: ThreadPoolExecutor | None = None) -> list[Tokens]:
        return encode_in_slices(self._encode_all, texts, pool)  # tiktoken lets other threads run while it encodes

    def _encode_all(self, texts: Sequence[str]) -> list[Tokens]:
        return [self.encode_array(text) for text in texts]

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        ids = checked_ids(tokens, self.vocab_size)
        try:
            return self.encoding.decode_bytes(ids)
        except KeyError:  # an unused id of the encoding, which an untrained model may sample
            return b"".join(self._token_bytes(i) for i in ids)

    def _token_bytes(self, token: int) -> bytes:
        try:
            return self.encoding.decode_single_token_bytes(token)
        except KeyError:
            return REPLACEMENT

    def decode(self, tokens: Iterable[int]) -> str:
        return self.decode_bytes(tokens).decode(errors="replace")

    def state(self) -> dict[str, object]:
        return dict(self.saved)


def load_tokenizer(name: str) -> Tokenizer:
    """Returns the encoding called `name`: "cl100k_base", "p50k_base", "byte", or any that tiktoken can download.

    Raises ValueError for an unknown name or a damaged bundled file, ConnectionError if a download fails.
    """
    if name == "byte":
        return ByteTokenizer()
    if name in RANKS_SHA256:
        return _bundled(name)
    known = sorted({"byte", *RANKS_SHA256, *tiktoken.list_encoding_names()})
    if name not in known:
        near = [f"{name}_base"] if f"{name}_base" in known else difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown encoding {name!r}: {hint}There are {', '.join(known)}")
    return _downloaded(name)


@functools.cache
def _bundled(name: str) -> TiktokenTokenizer:
    encoding = tiktoken.Encoding(
        name,
        pat_str=PATTERNS[name],
        mergeable_ranks=_parse_ranks(read_bundled(f"{name}.tiktoken", RANKS_SHA256[name])),
        special_tokens=SPECIAL_TOKENS[name],
    )
    return TiktokenTokenizer(encoding, {"kind": "named", "name": name}, SPACE_RULES[name])


def _downloaded(name: str) -> TiktokenTokenizer:
    try:
        encoding = tiktoken.get_encoding(name)
    except OSError as error:  # requests' errors are OSErrors too
        raise ConnectionError(
            f"{name} must be downloaded once, and the download failed ({type(error).__name__}): "
            f"connect to the network, or use {' or '.join(RANKS_SHA256)}, which need none"
        ) from error
    if END_OF_TEXT not in encoding.special_tokens_set:
        raise ValueError(f"encoding {name} has no {END_OF_TEXT}: use one that has, such as cl100k_base")
    return TiktokenTokenizer(encoding, {"kind": "named", "name": name})


def read_bundled(file_name: str, sha256: str) -> bytes:
    """Returns a file of this package's `data/`. Raises ValueError unless it has the given sha256."""
    try:
        contents = resources.files(__package__).joinpath("data", file_name).read_bytes()
    except OSError as error:
        raise ValueError(f"bundled file {file_name} cannot be read: install the package again") from error
    if hashlib.sha256(contents).hexdigest() != sha256:
        raise ValueError(f"bundled file {file_name} is damaged (wrong sha256): install the package again")
    return contents


def _parse_ranks(contents: bytes) -> dict[bytes, int]:
    """Parses tiktoken's file format: a line for each token, with its bytes in base64 and its rank."""
    pairs = (line.split() for line in contents.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}
