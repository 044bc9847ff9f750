"""Documents: the bundled plays, and the split into training and validation documents.

A document is one text; in training, end-of-text follows it. A hash of its text decides whether it is a training or a
validation document: the split never changes, needs no list, and puts duplicates on the same side.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable

from .encodings import read_bundled

SHAKESPEARE_FILE = "shakespeare.txt.gz"
SHAKESPEARE_SHA256 = "2e517aa89853105807a7c55a783d96d5c00f2aa29a1c125377fa2ec61b8aac03"
PAGE_BREAK = "\f"  # between the bundled documents

SPLIT_KEY = b"validation"
SECTION_CHARS = 4000
BREAKS = ("\n\n", "\n\r\n", "\n", " ")  # a long text is cut after one of these, the first if possible


def load_shakespeare() -> list[str]:
    """Returns the bundled plays, a document per scene, about 5 MB. Raises ValueError if the file is damaged."""
    try:
        text = gzip.decompress(read_bundled(SHAKESPEARE_FILE, SHAKESPEARE_SHA256))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"bundled file {SHAKESPEARE_FILE} cannot be unpacked: {error}") from error
    return text.decode("ascii").split(PAGE_BREAK)


def text_digest(text: str, key: bytes = SPLIT_KEY) -> int:
    """Returns a keyed BLAKE2b hash of the text's bytes, from 0 to 2**64 - 1. It decides the split."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "big")


def is_validation(text: str, fraction: float = 0.1, key: bytes = SPLIT_KEY) -> bool:
    """Whether `text` is held out for validation: its digest is in the lowest `fraction` of all digests."""
    return text_digest(text, key) < fraction * 2**64


def split_documents(documents: Iterable[str], fraction: float = 0.1) -> tuple[list[str], list[str]]:
    """Returns (train, validation), each in the order given, by `is_validation`. The two never share a text.

    A single document is first cut into about ten pieces. If a side would be empty, one document moves there: the first
    to train, the last to validation. Raises ValueError if there are not two different documents.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation fraction {fraction} is not between 0 and 1: 0.1 is usual")
    texts = list(documents)
    if len(texts) == 1:
        texts = cut_sections(texts[0], max(1, len(texts[0]) // 15))
    if len(set(texts)) < 2:
        raise ValueError(
            f"{sum(map(len, texts))} characters cannot be split into training and validation text: "
            "give at least two different documents, or one of some length"
        )
    held_out = {text for text in texts if is_validation(text, fraction)}
    if not held_out:
        held_out = {next(text for text in reversed(texts) if text != texts[0])}
    elif len(held_out) == len(set(texts)):
        held_out.remove(texts[0])
    return [text for text in texts if text not in held_out], [text for text in texts if text in held_out]


def cut_sections(text: str, smallest: int = SECTION_CHARS) -> list[str]:
    """Returns consecutive pieces of a text, of `smallest` to twice as many characters; a shorter text is one piece.

    Each cut is at the first blank line in that range, else at an end of line, else at a space, else anywhere.

    >>> cut_sections("One.\\n\\nTwo.\\n\\nThree.", smallest=5)
    ['One.\\n\\n', 'Two.\\n\\n', 'Three.']
    """
    pieces = []
    start = 0
    while len(text) - start > 2 * smallest:
        low, high = start + smallest, min(start + 2 * smallest, len(text) - smallest)
        ends = (text.find(mark, low - len(mark), high) + len(mark) for mark in BREAKS)
        cut = next((end for end in ends if end >= low), low)
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]]
