"""Token files: the bytes by hand, any unit there and back, the split, and what is damaged."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.cache.token_files import RowGroupTokens, read, write


def unit_of(documents: list[list[int]], digests: list[int]) -> RowGroupTokens:
    return RowGroupTokens(
        np.array([token for document in documents for token in document], np.uint32),
        np.array([len(document) for document in documents], np.uint32),
        np.array(digests, np.uint64),
    )


UNIT = unit_of([[5, 6, 0], [7, 0], [8, 9, 10, 0]], [2**62, 2**63, 2**64 - 1])
EMPTY = unit_of([], [])

units = st.lists(st.tuples(st.lists(st.integers(0, 2**32 - 1), max_size=6), st.integers(0, 2**64 - 1)), max_size=8).map(
    lambda rows: unit_of([ids for ids, _ in rows], [digest for _, digest in rows])
)


def lists(unit: RowGroupTokens) -> list[list[int]]:
    return [unit.ids.tolist(), unit.lengths.tolist(), unit.digests.tolist()]


def test_the_bytes_by_hand(tmp_path: Path) -> None:
    write(tmp_path / "a.tokens", unit_of([[5, 0], [0]], [1, 2**64 - 1]), b"label")
    rest = b"label".ljust(16, b"\0") + struct.pack("<QQ", 3, 2) + struct.pack("<QQ", 1, 2**64 - 1)
    rest += struct.pack("<III", 5, 0, 0) + struct.pack("<II", 2, 1)
    head = b"\x93tokens\n" + struct.pack("<II", 1, zlib.crc32(rest))
    assert (tmp_path / "a.tokens").read_bytes() == head + rest


@given(units, st.binary(max_size=16).filter(lambda label: not label.endswith(b"\0")))
def test_any_unit_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, unit: RowGroupTokens, label: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tokens"
    write(path, unit, label)
    assert path.stat().st_size == unit.nbytes
    found = read(path, label)
    assert lists(found) == lists(unit)
    assert [array.dtype for array in (found.ids, found.lengths, found.digests)] == [np.uint32, np.uint32, np.uint64]


def test_a_unit_without_documents_is_a_file_too(tmp_path: Path) -> None:
    write(tmp_path / "a.tokens", EMPTY)
    found = read(tmp_path / "a.tokens")
    assert lists(found) == [[], [], []]
    assert found.side(0.1, validation=True).tolist() == found.side(0.1, validation=False).tolist() == []


def test_arrays_that_are_slices_of_others_are_written_as_they_look(tmp_path: Path) -> None:
    ids = np.arange(20, dtype=np.uint32)[::2]
    unit = RowGroupTokens(ids, np.array([4, 6], np.uint32), np.array([0, 9, 1, 9], np.uint64)[::2])
    write(tmp_path / "a.tokens", unit)
    assert lists(read(tmp_path / "a.tokens")) == lists(unit)


def test_an_open_file_takes_the_same_bytes_as_a_path(tmp_path: Path) -> None:
    write(tmp_path / "a.tokens", UNIT, b"x")
    with (tmp_path / "b.tokens").open("wb") as file:
        write(file, UNIT, b"x")
    assert (tmp_path / "a.tokens").read_bytes() == (tmp_path / "b.tokens").read_bytes()


def test_what_is_read_cannot_be_written_to_and_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    write(path, UNIT)
    found = read(path)
    if sys.platform != "win32":
        path.unlink()
    for array in (found.ids, found.lengths, found.digests):
        assert not array.flags.writeable
    assert lists(found) == lists(UNIT)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_a_thousand_mapped_units_hold_no_file_open(tmp_path: Path) -> None:
    write(tmp_path / "a.tokens", UNIT)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    held = [read(tmp_path / "a.tokens") for _ in range(1000)]
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # noqa: PTH208
    assert lists(held[-1]) == lists(UNIT)


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    write(path, UNIT, b"label")
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        with pytest.raises(ValueError, match=r"token file|checksum"):
            read(path, b"label")


@pytest.mark.parametrize("unit", [UNIT, EMPTY], ids=["some", "none"])
def test_every_truncation_and_every_addition_is_found(tmp_path: Path, unit: RowGroupTokens) -> None:
    path = tmp_path / "a.tokens"
    write(path, unit)
    good = path.read_bytes()
    for contents in [*(good[:length] for length in range(len(good))), good + b"\0", good + b"\0" * 8, good * 2]:
        path.write_bytes(contents)
        with pytest.raises(ValueError, match=r"bytes|token file|checksum"):
            read(path)


@pytest.mark.parametrize(("ids", "documents"), [(9, 2), (8, 3), (10, 3)])
def test_counts_that_do_not_fit_are_found_even_under_a_right_checksum(tmp_path: Path, ids: int, documents: int) -> None:
    path = tmp_path / "a.tokens"
    write(path, UNIT)
    rest = bytearray(path.read_bytes()[16:])
    rest[16:32] = struct.pack("<QQ", ids, documents)
    path.write_bytes(b"\x93tokens\n" + struct.pack("<II", 1, zlib.crc32(rest)) + rest)
    with pytest.raises(ValueError, match="do not hold"):
        read(path)


def test_tokens_of_another_label_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tokens", UNIT, b"one")
    with pytest.raises(ValueError, match="another text"):
        read(tmp_path / "a.tokens", b"other")
    with pytest.raises(ValueError, match="17 bytes is longer than 16"):
        write(tmp_path / "b.tokens", UNIT, b"x" * 17)


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.tokens")


@pytest.mark.parametrize(
    ("ids", "lengths", "digests"),
    [([1, 2], [3], [0]), ([1, 2], [2], [0, 1]), ([1, 2], [2], []), ([[1, 2]], [2], [0])],
)
def test_arrays_that_disagree_are_no_unit(ids: list[int], lengths: list[int], digests: list[int]) -> None:
    with pytest.raises(ValueError, match=r"do not fit|flat arrays"):
        RowGroupTokens(np.array(ids, np.uint32), np.array(lengths, np.uint32), np.array(digests, np.uint64))


def test_arrays_of_another_type_are_no_unit() -> None:
    with pytest.raises(ValueError, match=r"flat arrays.*int64"):
        RowGroupTokens(np.array([1, 2]), np.array([2], np.uint32), np.array([0], np.uint64))  # type: ignore[arg-type]


def test_the_sides_by_hand() -> None:
    assert UNIT.side(0.5, validation=True).tolist() == [5, 6, 0]  # digests 1/4, 1/2 and nearly 1 of 2**64
    assert UNIT.side(0.5, validation=False).tolist() == [7, 0, 8, 9, 10, 0]
    assert UNIT.side(0.75, validation=True).tolist() == [5, 6, 0, 7, 0]


@given(units, st.one_of(st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0**-64]), st.floats(0, 1)))
def test_each_document_is_on_the_side_that_its_digest_says(unit: RowGroupTokens, fraction: float) -> None:
    wanted: dict[bool, list[int]] = {True: [], False: []}
    start = 0
    for length, digest in zip(unit.lengths.tolist(), unit.digests.tolist(), strict=True):
        wanted[digest < fraction * 2**64] += unit.ids[start : start + length].tolist()  # exact: Python compares so
        start += length
    for validation in (True, False):
        found = unit.side(fraction, validation)
        assert found.dtype == np.uint32
        assert found.tolist() == wanted[validation]


def test_all_documents_are_chosen_without_a_copy() -> None:
    assert UNIT.side(0.0, validation=False) is UNIT.ids
    assert UNIT.side(0.1, validation=False) is UNIT.ids  # no digest is so small
    assert UNIT.side(1.0, validation=True) is UNIT.ids
