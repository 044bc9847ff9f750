"""Documents: the bundled plays, your own files, and the split into training and validation documents.

A document is one text; in training, end-of-text follows it. A hash of its text decides whether it is a training or a
validation document: the split never changes, needs no list, and puts duplicates on the same side.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

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


def read_documents(path: Path, text_column: str = "text") -> Iterator[str]:
    """Yields the documents of a file, or of all usable files in a folder and its subfolders, in order of their paths.

    `.jsonl` and `.parquet` have a document in the `text_column` of each row; null and blank texts are skipped. A `.txt`
    or `.md` file is cut by `cut_sections`, so that a single long file can be split too; it is read into memory at once.
    Raises ValueError: when called, for an unusable path; while iterating, for unreadable contents.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a file or folder of {', '.join(READERS)}")
    if path.is_dir():
        found = sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix())
        files = [file for file in found if _is_usable(file, path)]
        if not files:
            raise ValueError(f"folder {path} has no usable file: put {', '.join(READERS)} files into it")
    elif path.suffix.lower() in READERS:
        files = [path]
    else:
        raise ValueError(f"{path} is not {', '.join(READERS)}: rename it if it is plain text, else convert it")
    return _read_files(path, files, text_column)


def _is_usable(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in READERS and file.is_file()


def _read_files(path: Path, files: list[Path], text_column: str) -> Iterator[str]:
    empty = True
    for file in files:
        try:
            for document in READERS[file.suffix.lower()](file, text_column):
                if document.strip():
                    empty = False
                    yield document
        except OSError as error:
            raise ValueError(f"{file} cannot be read: {error.strerror or error}") from error
    if empty:
        raise ValueError(f"{path} holds no text: give some; training needs a few thousand characters at least")


def plain_documents(contents: bytes, where: str) -> list[str]:
    """Returns the documents of plain text, cut like a file's. Raises ValueError if it is not text; `where` names it."""
    return cut_sections(_decoded(contents, where))


def _read_plain(file: Path, text_column: str) -> Iterator[str]:
    yield from plain_documents(file.read_bytes(), str(file))


def _read_jsonl(file: Path, text_column: str) -> Iterator[str]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{file} line {number}"
            text = _decoded(line, where)
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where} is not JSON ({error}): put one object on each line") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where} is not an object: wanted {{{json.dumps(text_column)}: ...}}")
            if text_column not in row:
                raise ValueError(
                    f"{where} has no field {text_column!r}: its fields are {_names(row)}; name the one with the text"
                )
            value = row[text_column]
            if not isinstance(value, str | None):
                raise ValueError(f"{where}: field {text_column!r} is {type(value).__name__}, wanted a string")
            yield value or ""


def _read_parquet(file: Path, text_column: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            if text_column not in schema.names:
                raise ValueError(
                    f"{file} has no column {text_column!r}: its columns are {_names(schema.names)}; "
                    "name the one with the text"
                )
            kind = schema.field(text_column).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise ValueError(f"{file}: column {text_column!r} is {kind}, wanted string")
            for batch in table.iter_batches(batch_size=1024, columns=[text_column]):
                for value in batch.column(0):
                    yield value.as_py() or ""
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file} is not a readable parquet file ({reason}): write it again") from error


def _decoded(contents: bytes, where: str) -> str:
    """Decodes UTF-8 text, without a byte-order mark. Raises ValueError for anything that is not text."""
    try:
        text = contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{where} is binary, not text (NUL at character {text.index(chr(0))}): remove it")
    return text


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".txt": _read_plain,
    ".md": _read_plain,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
