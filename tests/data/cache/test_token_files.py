"""Token files: any row group is read as it was written, damage is found, and the split follows the digests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.data.cache import token_files
from transformer.data.cache.token_files import RowGroupTokens


def row_group_of(documents: list[list[int]], digests: list[int]) -> RowGroupTokens:
    return RowGroupTokens(
        np.array([token for document in documents for token in document], np.uint32),
        np.array([len(document) for document in documents], np.uint32),
        np.array(digests, np.uint64),
    )


ROW_GROUP = row_group_of([[5, 6, 0], [7, 0], [8, 9, 10, 0]], [2**62, 2**63, 2**64 - 1])
EMPTY = row_group_of([], [])

row_groups = st.lists(
    st.tuples(st.lists(st.integers(0, 2**32 - 1), max_size=6), st.integers(0, 2**64 - 1)), max_size=8
).map(lambda rows: row_group_of([ids for ids, _ in rows], [digest for _, digest in rows]))


def write(path: Path, tokens: RowGroupTokens, label: bytes = b"label") -> None:
    with path.open("wb") as file:
        token_files.write(file, tokens, label)


def read(path: Path, label: bytes = b"label") -> RowGroupTokens:
    return token_files.read(path, label)


def lists(row_group: RowGroupTokens) -> list[list[int]]:
    return [row_group.ids.tolist(), row_group.lengths.tolist(), row_group.digests.tolist()]


@given(row_groups, st.binary(max_size=16))
def test_any_row_group_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, row_group: RowGroupTokens, label: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npz"
    write(path, row_group, label)
    found = read(path, label)
    assert lists(found) == lists(row_group)
    assert [array.dtype for array in (found.ids, found.lengths, found.digests)] == [np.uint32, np.uint32, np.uint64]


def test_a_row_group_without_documents_is_a_file_too(tmp_path: Path) -> None:
    write(tmp_path / "a.npz", EMPTY)
    found = read(tmp_path / "a.npz")
    assert lists(found) == [[], [], []]
    assert found.side(0.1, validation=True).tolist() == found.side(0.1, validation=False).tolist() == []


def test_arrays_that_are_slices_of_others_are_written_as_they_look(tmp_path: Path) -> None:
    ids = np.arange(20, dtype=np.uint32)[::2]
    row_group = RowGroupTokens(ids, np.array([4, 6], np.uint32), np.array([0, 9, 1, 9], np.uint64)[::2])
    write(tmp_path / "a.npz", row_group)
    assert lists(read(tmp_path / "a.npz")) == lists(row_group)


def test_a_flipped_byte_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """Some bytes of the archive hold dates and the like. All others are covered by a checksum."""
    path = tmp_path / "a.npz"
    write(path, ROW_GROUP)
    good = path.read_bytes()
    found_damaged = 0
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        try:
            assert lists(read(path)) == lists(ROW_GROUP)
        except Exception:  # of many types; the cache treats each as damage
            found_damaged += 1
    assert found_damaged > 0.6 * len(good)


@pytest.mark.parametrize("row_group", [ROW_GROUP, EMPTY], ids=["some", "none"])
def test_every_truncation_is_found(tmp_path: Path, row_group: RowGroupTokens) -> None:
    path = tmp_path / "a.npz"
    write(path, row_group)
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(Exception, match=r"."):
            read(path)


def test_tokens_of_another_label_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.npz", ROW_GROUP, b"one")
    with pytest.raises(ValueError, match="another text"):
        read(tmp_path / "a.npz", b"other")


def test_a_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("ids", "lengths", "digests"),
    [([1, 2], [3], [0]), ([1, 2], [2], [0, 1]), ([1, 2], [2], []), ([[1, 2]], [2], [0])],
)
def test_arrays_that_disagree_are_refused(ids: list[int], lengths: list[int], digests: list[int]) -> None:
    with pytest.raises(ValueError, match=r"do not fit|flat arrays"):
        RowGroupTokens(np.array(ids, np.uint32), np.array(lengths, np.uint32), np.array(digests, np.uint64))


def test_arrays_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match=r"flat arrays.*int64"):
        RowGroupTokens(np.array([1, 2]), np.array([2], np.uint32), np.array([0], np.uint64))  # type: ignore[arg-type]


def test_the_sides_by_hand() -> None:
    assert ROW_GROUP.side(0.5, validation=True).tolist() == [5, 6, 0]  # digests 1/4, 1/2 and nearly 1 of 2**64
    assert ROW_GROUP.side(0.5, validation=False).tolist() == [7, 0, 8, 9, 10, 0]
    assert ROW_GROUP.side(0.75, validation=True).tolist() == [5, 6, 0, 7, 0]


@given(row_groups, st.one_of(st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0**-64]), st.floats(0, 1)))
def test_each_document_is_on_the_side_that_its_digest_says(row_group: RowGroupTokens, fraction: float) -> None:
    wanted: dict[bool, list[int]] = {True: [], False: []}
    start = 0
    for length, digest in zip(row_group.lengths.tolist(), row_group.digests.tolist(), strict=True):
        wanted[digest < fraction * 2**64] += row_group.ids[start : start + length].tolist()  # exact: Python compares so
        start += length
    for validation in (True, False):
        found = row_group.side(fraction, validation)
        assert found.dtype == np.uint32
        assert found.tolist() == wanted[validation]


def test_all_documents_are_chosen_without_a_copy() -> None:
    assert ROW_GROUP.side(0.0, validation=False) is ROW_GROUP.ids
    assert ROW_GROUP.side(0.1, validation=False) is ROW_GROUP.ids  # no digest is so small
    assert ROW_GROUP.side(1.0, validation=True) is ROW_GROUP.ids
