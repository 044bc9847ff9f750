"""Headers of GGUF files: what sound ones contain, and one line for each kind of damage, without memory for claims."""

import contextlib
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformer.interop.errors import SourceError
from transformer.interop.gguf_header import GgufList, read_header

HUGE = 2**64 - 1


def text(value: str | bytes, size: int | None = None) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content) if size is None else size) + content


def setting(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str = "t", shape: tuple[int, ...] = (4, 2), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(
    *parts: bytes, tensors: int = 0, settings: int = 0, data: int = 0, version: int = 3, magic: bytes = b"GGUF"
) -> bytes:
    head = magic + struct.pack("<IQQ", version, tensors, settings) + b"".join(parts)
    return head + bytes(-len(head) % 32 + data)


SOUND = gguf(
    setting("a.text", 8, text("né")),
    setting("a.number", 4, struct.pack("<I", 7)),
    setting("a.list", 9, struct.pack("<IQ", 5, 3) + struct.pack("<3i", 1, -2, 3)),
    setting("a.texts", 9, struct.pack("<IQ", 8, 2) + text("x") + text("")),
    tensor("first", (4, 2)),
    tensor("second", (32,), kind=8, offset=32),
    settings=4, tensors=2, data=66,
)  # fmt: skip

DAMAGED = {
    "another file": (b"PK\x03\x04" + bytes(40), "not a GGUF file"),
    "an empty file": (b"", "not a GGUF file"),
    "a version of the past": (gguf(version=1), "version 1 is not supported"),
    "the other order of bytes": (gguf(version=3 << 24), "big-endian"),
    "an absurd number of settings": (gguf(settings=HUGE), "number of settings is 18,446,744,073,709,551,615"),
    "an absurd number of tensors": (gguf(tensors=HUGE), "number of tensors is"),
    "more settings than there are": (gguf(settings=9000), "a key is ''"),
    "more tensors than there are": (gguf(tensors=90_000), "truncated or damaged|the name of a tensor is ''"),
    "an absurd length of a key": (gguf(text("a", HUGE), settings=1), "length of a key is"),
    "a text beyond the end": (gguf(setting("a", 8, text("x", 2**19)), settings=1), "truncated or damaged: a has"),
    "an absurd length of a text": (gguf(setting("a", 8, text("x", 2**62)), settings=1), "the length of a is"),
    "a text that is not UTF-8": (gguf(setting("a", 8, text(b"\xff\xfe")), settings=1), "is not UTF-8"),
    "a key of two lines": (gguf(setting("a\nb", 4, bytes(4)), settings=1), r"a key is 'a\\nb'"),
    "a key twice": (gguf(setting("a", 4, bytes(4)), setting("a", 4, bytes(4)), settings=2), "a occurs twice"),
    "an unknown type": (gguf(setting("a", 99, bytes(8)), settings=1), "unknown type 99"),
    "a list of numbers beyond the end": (
        gguf(setting("a", 9, struct.pack("<IQ", 12, 2**61)), settings=1), "truncated or damaged",
    ),
    "a list of texts beyond the end": (
        gguf(setting("a", 9, struct.pack("<IQ", 8, 2**61)), settings=1), "truncated or damaged",
    ),
    "a list of lists": (gguf(setting("a", 9, struct.pack("<IQ", 9, 1)), settings=1), "a list of the unknown type 9"),
    "no dimension": (gguf(tensor(shape=()), tensors=1), "0 dimensions"),
    "absurdly many dimensions": (gguf(text("t") + struct.pack("<I", 2**31), tensors=1), "2147483648 dimensions"),
    "an empty tensor": (gguf(tensor(shape=(4, 0)), tensors=1), "shape"),
    "an absurd shape": (gguf(tensor(shape=(HUGE, HUGE)), tensors=1, data=64), "truncated: t ends at byte"),
    "a product that overflows to little": (gguf(tensor(shape=(2**32, 2**32)), tensors=1, data=64), "truncated: t ends"),
    "an unknown number format": (gguf(tensor(kind=23), tensors=1, data=64), "number format 23; supported: F32"),
    "half a block": (gguf(tensor(shape=(33, 2), kind=8), tensors=1, data=99), "rows that are no multiple of 32"),
    "an offset beyond the end": (gguf(tensor(offset=2**63), tensors=1, data=64), "truncated: t ends at byte"),
    "an offset that is not aligned": (gguf(tensor(offset=4), tensors=1, data=64), "not a multiple of 32"),
    "a file that ends in a tensor": (gguf(tensor(), tensors=1, data=31), "truncated: t ends at byte"),
    "tensors that overlap": (gguf(tensor("a", (16, 2)), tensor("b", offset=96), tensors=2, data=200), "overlap"),
    "two tensors in one place": (gguf(tensor("a"), tensor("b"), tensors=2, data=200), "a and b overlap"),
    "two tensors of one name": (gguf(tensor("a"), tensor("a", offset=32), tensors=2, data=200), "the same name"),
    "an alignment of 0": (gguf(setting("general.alignment", 4, bytes(4)), settings=1), "power of two"),
    "an alignment of text": (gguf(setting("general.alignment", 8, text("32")), settings=1), "power of two"),
}  # fmt: skip


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def test_a_sound_header_is_read(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, SOUND))
    assert (header.settings["a.text"], header.settings["a.number"]) == ("né", 7)
    lists = [header.settings[key] for key in ("a.list", "a.texts")]
    assert [found.values() for found in lists if isinstance(found, GgufList)] == [[1, -2, 3], ["x", ""]]
    first, second = header.tensors.values()
    assert (first.shape, first.kind, first.size) == ((2, 4), "F32", 32)
    assert (second.shape, second.kind, second.size, second.start - first.start) == ((32,), "Q8_0", 34, 32)
    assert second.start + second.size == len(SOUND)


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_header_is_one_line(tmp_path: Path, case: str) -> None:
    content, reason = DAMAGED[case]
    path = write(tmp_path, content)
    tracemalloc.start()
    with pytest.raises(SourceError, match=reason) as caught:
        read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert peak < 2**18, "a claim of the file was allocated"


def test_no_beginning_of_a_file_is_taken_for_a_file(tmp_path: Path) -> None:
    for length in range(len(SOUND)):
        with pytest.raises(SourceError):
            read_header(write(tmp_path, SOUND[:length]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_give_a_sound_header_or_the_error_of_foreign_files(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(SOUND)
    for at, value in changes:
        content[at] = value
    with contextlib.suppress(SourceError):
        header = read_header(write(tmp_path, bytes(content)))
        assert all(tensor.start + tensor.size <= len(content) for tensor in header.tensors.values())


def test_a_folder_and_a_missing_file_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.gguf"):
        with pytest.raises(SourceError, match="not a file"):
            read_header(path)


def test_a_list_of_too_many_texts_is_refused_before_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformer.interop.gguf_header.MOST_TEXTS", 1)
    (tmp_path / "a.gguf").write_bytes(SOUND)
    with pytest.raises(SourceError, match=r"a\.texts is a list of 2 texts; at most 1 are read"):
        read_header(tmp_path / "a.gguf")
