r"""Writes an encoding as the files that `transformers` and `tokenizers` load, with equal ids for any text.

Both kinds of byte-pair encoding cut a text into pieces by a regular expression and then merge neighbours within each
piece. They differ in three points:

- tiktoken stores tokens with ranks, and merges two neighbours if together they are a token, the lowest rank first.
  tokenizer.json stores merges in order. The merge that makes a token is found by encoding its bytes with the tokens of
  lower rank alone: two parts remain (text/bpe.py says why). Three or more: no merging ever makes this token.
- tiktoken first looks a whole piece up. So does tokenizer.json with `ignore_merges`.
- tiktoken's regular expressions are Rust's, those of `tokenizers` Oniguruma's. There, $ also matches before a line
  break, and {1,3}+ repeats: PATTERNS holds an equal expression for each one that this project uses.

Special tokens have ids between or after those of the vocabulary, with gaps. They are in the model's vocabulary too,
because the library numbers an added token that is not there by itself.

By hand, with the ranks of "low" and " low" above those of the bytes: "lo" is l + o; "low" is encoded as lo, w.

>>> ranks = {bytes([value]): value for value in range(256)} | {b"lo": 256, b"low": 257, b" low": 258}
>>> merges(ranks)
[(b'l', b'o'), (b'lo', b'w'), (b' ', b'low')]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from transformer.text import END_OF_TEXT, ByteTokenizer, HuggingFaceTokenizer, Tokenizer
from transformer.text.bpe import SPLIT_PATTERN, byte_alphabet
from transformer.text.encodings import PATTERNS as RUST_PATTERNS
from transformer.text.encodings import TiktokenTokenizer

PATTERNS = {
    RUST_PATTERNS["cl100k_base"]: (
        r"'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|(?>\s+)\z|\s*[\r\n]|\s+(?!\S)|\s"
    ),
    RUST_PATTERNS["p50k_base"]: (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|(?>\s+)\z|\s+(?!\S)|\s"),
    SPLIT_PATTERN: SPLIT_PATTERN,
}
"""By a regular expression of Rust: an equal one of Oniguruma. (?>x) keeps all that x matched; \\z is the end."""
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The regular expression by which the ByteLevel step cuts a text."""


def tokenizer_files(tokenizer: Tokenizer, context: int) -> dict[str, Any]:
    """Returns the contents of tokenizer.json and tokenizer_config.json, as values for JSON; `context` is in tokens.

    Raises ValueError for an encoding that such files cannot express.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer):
        found, settings = json.loads(tokenizer.contents), dict(tokenizer.settings)
        settings.setdefault("eos_token", tokenizer.decode([tokenizer.eot_id]))
    else:
        found, settings = _converted(tokenizer), {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    defaults = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    return {"tokenizer.json": found, "tokenizer_config.json": {**defaults, **settings}}


def _converted(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the tokenizer.json of one of this project's own encodings."""
    if isinstance(tokenizer, ByteTokenizer):
        ranks = {bytes((value,)): value for value in range(256)}
        return _byte_level(ranks, {END_OF_TEXT: tokenizer.eot_id}, None)
    if not isinstance(tokenizer, TiktokenTokenizer):
        raise ValueError(f"encoding {tokenizer.name} cannot be written as a tokenizer.json: it is no BPE encoding")
    encoding = tokenizer.encoding
    pattern = PATTERNS.get(encoding._pat_str)
    if pattern is None:
        raise ValueError(
            f"encoding {tokenizer.name} cannot be written as a tokenizer.json: no equal of its regular expression is "
            f"known; those of {', '.join(RUST_PATTERNS)} and bpeN are"
        )
    special = {name: encoding.encode_single_token(name) for name in encoding.special_tokens_set}
    return _byte_level(encoding._mergeable_ranks, special, pattern)


def _byte_level(ranks: Mapping[bytes, int], special: Mapping[str, int], pattern: str | None) -> dict[str, Any]:
    written = {value: character for character, value in byte_alphabet().items()}

    def text(token: bytes) -> str:
        return "".join(written[value] for value in token)

    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ids = {text(token): rank for token, rank in ranks.items()} | dict(special)
    names = sorted(special, key=special.__getitem__)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": special[name], "content": name, **flags} for name in names],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, step] if pattern else [step]},
        "post_processor": step,
        "decoder": step,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pattern is not None,  # without pieces, a whole text could be the name of a special token
            "vocab": {token: ids[token] for token in sorted(ids, key=ids.__getitem__)},
            "merges": [[text(left), text(right)] for left, right in merges(ranks)],
        },
    }


def merges(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Returns the merge that makes each token of two or more bytes, in the order of their ranks."""
    found = []
    for token in sorted(ranks, key=ranks.__getitem__):
        parts = _parts(token, ranks, ranks[token])
        if len(parts) == 2:
            found.append((parts[0], parts[1]))
    return found


def _parts(token: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """Returns the bytes as the tokens that merging with ranks `below` a rank makes of them."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while True:
        known = [ranks.get(left + right, below) for left, right in pairwise(parts)]
        lowest = min(known, default=below)
        if lowest >= below:
            return parts
        at = known.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
