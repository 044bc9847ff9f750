"""The shard cache: its files by hand, any order by any thread, eviction, leases, damage, full disks, kills."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import transformer
from transformer.data.cache import Shard, ShardCache, shard_files
from transformer.data.cache.cache import evictions
from transformer.data.cache.shard_files import Stored
from transformer.data.cache.token_files import RowGroupTokens

SOURCE = "hub://files/a.parquet@1"
META = "cache_metadata.json"
ENCODING = "cl100k_base"
WHOLE, PART, TOKENS = "shard_00000.parquet", "shard_00000.parts/00001.parquet", f"shard_00000.{ENCODING}/00001.npz"
Open = Callable[..., ShardCache]


def shard_at(number: int, row_groups: int = 3, source: str = SOURCE) -> Shard:
    return Shard(number, source, "text", number * row_groups, row_groups)


def documents(shard: Shard, row_group: int) -> list[str | None]:
    """Five documents and what is nearly none, the same for equal shards only."""
    key = f"{shard.source} {shard.first_group + row_group}"
    noise = [hashlib.sha256(f"{key} {n}".encode()).hexdigest() for n in range(5)]
    return [f"{key}: {line} é" for line in noise] + [None, ""]


def column(shard: Shard, row_group: int) -> pa.Array:
    return pa.array(documents(shard, row_group), pa.string())


def tokens_of(shard: Shard, row_group: int, count: int = 40) -> RowGroupTokens:
    random = np.random.default_rng([shard.first_group + row_group, len(shard.source)])
    ids = random.integers(0, 1000, count).astype(np.uint32)
    return RowGroupTokens(ids, np.array([count - 7, 7], np.uint32), random.integers(0, 2**63, 2).astype(np.uint64))


def fill(cache: ShardCache, shard: Shard, tokens: bool = False) -> None:
    for row_group in range(shard.row_groups):
        cache.put_text(shard, row_group, column(shard, row_group))
        if tokens:
            cache.put_tokens(shard, row_group, ENCODING, tokens_of(shard, row_group))


def come(cache: ShardCache, shard: Shard, expected_bytes: int = 0, tokens: bool = False) -> None:
    """All that a run does with a shard."""
    cache.lease(shard, expected_bytes)
    fill(cache, shard, tokens)
    cache.release(shard)


def texts(cache: ShardCache, shard: Shard, row_group: int) -> list[str | None] | None:
    found = cache.text(shard, row_group)
    return None if found is None else found.to_pylist()


def is_right(cache: ShardCache, shard: Shard) -> bool:
    return all(texts(cache, shard, row_group) == documents(shard, row_group) for row_group in range(shard.row_groups))


def names(directory: Path) -> set[str]:
    """All files, but for locks and processes."""
    paths = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    return {path for path in paths if not path.startswith(".") and path != "cache.lock"}


def shard_numbers(cache: ShardCache) -> list[int]:
    return sorted({stored.number for stored in cache.stock()})


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def opened(directory: Path, messages: list[str]) -> Iterator[Open]:
    """Opens caches on `directory` and closes them after the test; every message is one line."""
    caches = []

    def make(**given: Any) -> ShardCache:
        caches.append(ShardCache(directory, **{"notify": messages.append, **given}))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()
    assert not [line for line in messages if "\n" in line]
    assert list((directory / ".processes").glob("*")) == []


# What lies where


def test_the_files_of_a_shard_by_hand(opened: Open, directory: Path, messages: list[str]) -> None:
    cache, shard = opened(), shard_at(12, row_groups=3)
    cache.put_text(shard, 2, column(shard, 2))
    cache.put_text(shard, 0, column(shard, 0))
    cache.put_tokens(shard, 2, ENCODING, tokens_of(shard, 2))
    tokens = f"shard_00012.{ENCODING}/00002.npz"
    parts = {"shard_00012.parts/00000.parquet", "shard_00012.parts/00002.parquet"}
    assert names(directory) == {tokens} | parts
    cache.put_text(shard, 1, column(shard, 1))
    assert names(directory) == {tokens, "shard_00012.parquet"}
    assert not (directory / "shard_00012.parts").exists()
    assert {path.name for path in directory.iterdir() if path.name.startswith(".")} == {".locks", ".processes"}

    path = directory / "shard_00012.parquet"
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups == 3
        assert file.schema_arrow.names == ["text"]
        chunk = file.metadata.row_group(1).column(0)
        assert (chunk.compression, chunk.has_dictionary_page) == ("ZSTD", False)
        assert [file.read_row_group(row_group)["text"].to_pylist() for row_group in range(3)] == [
            documents(shard, row_group) for row_group in range(3)
        ]
        header = json.loads(file.metadata.metadata[b"shard"])
    assert [header[name] for name in ("source", "column", "first_group", "units")] == [SOURCE, "text", 36, 3]

    cache.record("files", ["a.parquet"])
    assert json.loads((directory / META).read_text()) == {
        "format": 1,
        "shards": {},  # earlier versions kept the order of use there
        "checksum": zlib.crc32(b'{"files": ["a.parquet"]}'),
        "listings": {"files": ["a.parquet"]},
    }
    assert messages == []


def test_text_and_tokens_come_back_as_they_were_put(opened: Open) -> None:
    cache, shard = opened(), shard_at(0)
    assert not cache.has_text(shard, 1)
    assert cache.text(shard, 1) is None
    assert cache.tokens(shard, 1, ENCODING) is None
    cache.put_text(shard, 1, column(shard, 1))
    assert cache.has_text(shard, 1)
    assert not cache.has_text(shard, 0)
    assert texts(cache, shard, 1) == documents(shard, 1)
    for encoding, count in (("byte", 9), (ENCODING, 40)):
        cache.put_tokens(shard, 1, encoding, tokens_of(shard, 1, count))
    for encoding, count in (("byte", 9), (ENCODING, 40)):
        found, wanted = cache.tokens(shard, 1, encoding), tokens_of(shard, 1, count)
        assert found is not None
        assert found.ids.tolist() == wanted.ids.tolist()
        assert found.lengths.tolist() == wanted.lengths.tolist()
        assert found.digests.tolist() == wanted.digests.tolist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([], pa.string()),
        pa.array([None, None, ""], pa.large_string()),
        pa.chunked_array([["one"], [], [None, "two"]], pa.string()),
        pa.array(["cut", "é" * 3000, "kept", None, "cut"], pa.string())[1:4],
    ],
    ids=["no document", "no text", "chunks", "slice"],
)
def test_any_column_of_strings_is_kept_in_parts_and_merged(opened: Open, directory: Path, column: Any) -> None:
    cache, shard = opened(), shard_at(0)
    for row_group in (0, 1):
        cache.put_text(shard, row_group, column)
    assert texts(cache, shard, 1) == column.to_pylist()
    cache.put_text(shard, 2, column)
    assert names(directory) == {WHOLE}
    assert [texts(cache, shard, row_group) for row_group in range(3)] == [column.to_pylist()] * 3


def test_a_bad_column_row_group_or_encoding_is_refused(opened: Open) -> None:
    cache, shard = opened(), shard_at(0)
    with pytest.raises(ValueError, match="is int64, wanted string"):
        cache.put_text(shard, 0, pa.array([1, 2]))
    with pytest.raises(ValueError, match="row group 3 is not in shard 0, which has 3"):
        cache.text(shard, 3)
    for encoding in ("parts", "parquet", "a/b", "", "a.b"):
        with pytest.raises(ValueError, match=r"encoding .* cannot name a folder"):
            cache.put_tokens(shard, 0, encoding, tokens_of(shard, 0))


def test_a_folder_that_cannot_be_written_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file cannot be used as a cache \(.*\): give a writable folder") as caught:
        ShardCache(tmp_path / "file")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match=r"cannot be used as a cache \(Permission denied\)"):
        ShardCache(tmp_path / "cache")


def test_a_listing_is_there_for_the_next_run(opened: Open) -> None:
    first = opened()
    assert first.recall("files", dict) is None
    first.record("files", {"a.parquet": [1, 2]})
    first.close()
    first.close()  # a second call does nothing
    assert opened().recall("files", dict) == {"a.parquet": [1, 2]}


def test_the_stock_says_what_is_here(opened: Open, directory: Path) -> None:
    cache, one, two = opened(), shard_at(1), shard_at(2)
    fill(cache, one, tokens=True)
    cache.lease(two)
    cache.put_text(two, 1, column(two, 1))
    ids, text, part = cache.stock()
    assert (ids.number, ids.kind, ids.files) == (1, ENCODING, 3)
    assert ids.nbytes == sum(path.stat().st_size for path in (directory / f"shard_00001.{ENCODING}").glob("*.npz"))
    assert (text.number, text.kind, text.files) == (1, "parquet", 1)
    assert text.nbytes == (directory / "shard_00001.parquet").stat().st_size
    assert (part.number, part.kind, part.files) == (2, "parts", 1)
    assert part.last_use > text.last_use
    assert cache.nbytes == ids.nbytes + text.nbytes + part.nbytes


# Many threads, many users


@settings(max_examples=12)
@given(st.permutations(range(7)), st.integers(1, 4), st.booleans())
def test_any_order_of_row_groups_by_any_threads_makes_the_same_shard(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], threads: int, twice: bool
) -> None:
    shard = shard_at(3, row_groups=7)
    directory = tmp_path_factory.mktemp("order")
    messages: list[str] = []
    with (
        contextlib.closing(ShardCache(directory, notify=messages.append)) as one,
        contextlib.closing(ShardCache(directory, notify=messages.append)) as other,
    ):
        caches = itertools.cycle([one, other])

        def put(target: tuple[ShardCache, int]) -> None:
            cache, row_group = target
            cache.put_text(shard, row_group, column(shard, row_group))

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(put, zip(caches, order * (2 if twice else 1), strict=False)))
        assert names(directory) == {"shard_00003.parquet"}
        with pq.ParquetFile(directory / "shard_00003.parquet") as file:
            found = [file.read_row_group(row_group)["text"].to_pylist() for row_group in range(file.num_row_groups)]
        assert found == [documents(shard, row_group) for row_group in range(7)]
        assert is_right(one, shard)
        assert is_right(other, shard)
    assert messages == []


def test_a_stored_row_group_is_never_missing_while_parts_are_merged(opened: Open, messages: list[str]) -> None:
    cache = opened(max_shards=100)
    stored: list[tuple[Shard, int]] = []
    missing: list[tuple[Shard, int]] = []
    done = threading.Event()

    def read() -> None:
        reader = opened()
        while not done.is_set():
            for shard, row_group in stored[-12:]:
                if texts(reader, shard, row_group) != documents(shard, row_group):
                    missing.append((shard, row_group))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for number in range(12):
            shard = shard_at(number, row_groups=6)
            for row_group in range(6):
                cache.put_text(shard, row_group, column(shard, row_group))
                stored.append((shard, row_group))
        done.set()
        for result in readers:
            result.result()
    assert missing == []
    assert messages == []


def test_a_row_group_that_is_merged_between_two_reads_is_found(opened: Open, directory: Path) -> None:
    cache, shard = opened(), shard_at(0)
    cache.put_text(shard, 0, column(shard, 0))
    cache.put_text(shard, 1, column(shard, 1))

    class Slow(ShardCache):
        def _read(self, path: Path, read: Any, of: Shard | None = None) -> Any:
            found = super()._read(path, read, of)
            cache.put_text(shard, 2, column(shard, 2))  # after the read of the shard file, before that of the part
            return found

    with contextlib.closing(Slow(directory)) as slow:
        assert texts(slow, shard, 1) == documents(shard, 1)
    assert not (directory / PART).exists()


def test_a_row_group_lock_holds_one_thread_at_a_time(opened: Open) -> None:
    caches, shard = [opened(), opened()], shard_at(0)
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            with caches[number % 2].try_lock(shard, 1) as held:
                if held:
                    inside.append(number)
                    most.append(len(inside))
                    time.sleep(0.001)
                    inside.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert set(most) == {1}


def test_a_held_row_group_is_not_waited_for(opened: Open) -> None:
    one, other, shard = opened(), opened(), shard_at(0)
    with one.try_lock(shard, 0) as held:
        assert held
        with other.try_lock(shard, 0) as also:
            assert not also
        with other.try_lock(shard, 1) as free:
            assert free
    with pytest.raises(ZeroDivisionError), other.try_lock(shard, 0):
        _ = 1 / 0  # an error releases the lock, too
    with one.try_lock(shard, 0) as held:
        assert held


def test_two_users_see_what_the_other_stores(opened: Open) -> None:
    one, other, shard = opened(), opened(), shard_at(0)
    one.put_text(shard, 0, column(shard, 0))
    assert texts(other, shard, 0) == documents(shard, 0)
    other.put_text(shard, 1, column(shard, 1))
    other.put_text(shard, 2, column(shard, 2))
    assert is_right(one, shard)
    one.put_tokens(shard, 0, ENCODING, tokens_of(shard, 0))
    assert other.tokens(shard, 0, ENCODING) is not None
    assert one.stock() == other.stock()


# Eviction


def test_the_least_recently_used_shard_is_removed_first(opened: Open) -> None:
    cache = opened(max_shards=3)
    for number in range(3):
        come(cache, shard_at(number))
    cache.lease(shard_at(0))  # used again: now 1 is the oldest
    cache.release(shard_at(0))
    come(cache, shard_at(3))
    assert shard_numbers(cache) == [0, 2, 3]
    come(cache, shard_at(4))
    assert shard_numbers(cache) == [0, 3, 4]
    assert cache.text(shard_at(2), 0) is None


def test_reading_is_a_use_also_by_another_process(opened: Open) -> None:
    cache = opened(max_shards=2)
    come(cache, shard_at(0))
    come(cache, shard_at(1))
    assert is_right(opened(), shard_at(0))
    come(cache, shard_at(2))
    assert shard_numbers(cache) == [0, 2]


def test_order_of_use_survives_a_clock_that_is_set_back(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = opened(max_shards=2)
    come(cache, shard_at(0))
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    come(cache, shard_at(1))
    come(cache, shard_at(2))
    assert shard_numbers(cache) == [1, 2]


def kinds(cache: ShardCache, number: int) -> set[str]:
    return {stored.kind for stored in cache.stock() if stored.number == number}


def test_tokens_go_before_text(opened: Open) -> None:
    cache = opened(max_shards=3)
    for number in range(2):
        come(cache, shard_at(number), tokens=True)
    cache.max_bytes = cache.nbytes
    come_ = lambda expected: (cache.lease(shard_at(2), expected), cache.release(shard_at(2)))  # noqa: E731
    come_(1)
    assert (kinds(cache, 0), kinds(cache, 1)) == ({"parquet"}, {"parquet", ENCODING})
    come_(1 + cache.max_bytes - cache.nbytes)
    assert (kinds(cache, 0), kinds(cache, 1)) == ({"parquet"}, {"parquet"})
    assert is_right(cache, shard_at(0))
    come_(cache.max_bytes)
    assert shard_numbers(cache) == []


def test_tokens_make_room_for_themselves(opened: Open) -> None:
    cache = opened()
    come(cache, shard_at(0), tokens=True)
    cache.put_text(shard_at(1), 0, column(shard_at(1), 0))
    cache.max_bytes = cache.nbytes + 10
    cache.put_tokens(shard_at(1), 0, ENCODING, tokens_of(shard_at(1), 0))
    assert (kinds(cache, 0), kinds(cache, 1)) == ({"parquet"}, {"parts", ENCODING})
    assert cache.nbytes <= cache.max_bytes


def test_bounds_hold_over_many_shards(opened: Open, directory: Path, messages: list[str]) -> None:
    cache, order = opened(), random.Random(0)
    come(cache, shard_at(0), tokens=True)
    one = cache.nbytes
    cache.max_shards, cache.max_bytes = 4, int(3.5 * one)
    for _ in range(40):
        come(cache, shard_at(order.randrange(12)), one, tokens=True)
        assert len(shard_numbers(cache)) <= 4
        assert cache.nbytes <= cache.max_bytes
    assert cache.nbytes > 2 * one
    on_disk = sum((directory / name).stat().st_size for name in names(directory))
    assert on_disk == cache.nbytes
    assert messages == []


def test_leased_shards_stay_even_above_the_limits(opened: Open) -> None:
    cache = opened(max_shards=1, max_bytes=1)
    for number in range(3):
        cache.lease(shard_at(number), 1000)
        fill(cache, shard_at(number), tokens=True)
    assert shard_numbers(cache) == [0, 1, 2]
    assert all(ENCODING in kinds(cache, number) for number in range(3))
    cache.release(shard_at(1))
    cache.lease(shard_at(2))
    assert shard_numbers(cache) == [0, 2]


def test_leases_are_counted(opened: Open) -> None:
    cache, shard, other = opened(max_shards=1), shard_at(0), opened(max_shards=1)
    come(cache, shard)
    cache.lease(shard)
    cache.lease(shard)
    cache.release(shard)
    come(other, shard_at(1))
    assert is_right(cache, shard)
    cache.release(shard)
    come(other, shard_at(1))
    assert cache.text(shard, 0) is None


def test_a_closed_cache_has_no_leases(opened: Open) -> None:
    cache, shard = opened(), shard_at(0)
    cache.lease(shard)
    fill(cache, shard)
    cache.close()
    other = opened(max_shards=1)
    come(other, shard_at(1))
    assert shard_numbers(other) == [1]


@given(
    st.dictionaries(st.tuples(st.integers(0, 8), st.sampled_from(["parquet", "parts", "a", "b"])), st.integers(0, 9)),
    st.permutations(range(9)),
    st.sets(st.integers(0, 8)),
    st.integers(0, 6),
    st.integers(0, 60),
)
def test_evictions_take_only_removable_files_and_no_more_than_needed(
    sizes: dict[tuple[int, str], int], last_use: list[int], leased: set[int], max_shards: int, max_bytes: int
) -> None:
    stock = [Stored(number, kind, 1, nbytes, last_use[number]) for (number, kind), nbytes in sizes.items()]
    going = evictions(stock, leased, max_shards, max_bytes)
    assert len(set(going)) == len(going)
    assert not {stored.number for stored in going} & leased
    left = [stored for stored in stock if stored not in going]
    evictable = [stored for stored in left if stored.number not in leased]
    total = sum(stored.nbytes for stored in left)
    assert total <= max_bytes or not evictable
    numbers = {stored.number for stored in stock}
    oldest = sorted(numbers - leased, key=last_use.__getitem__)
    surplus = oldest[: max(0, len(numbers | leased) - max_shards)]
    assert not any(stored.number in surplus for stored in left)
    for_bytes = [stored for stored in going if stored.number not in surplus]
    if for_bytes:  # without the last one there would be too much
        assert total + for_bytes[-1].nbytes > max_bytes
    if any(stored.kind in ("parquet", "parts") for stored in for_bytes):
        assert not any(stored.kind not in ("parquet", "parts") for stored in evictable)
    ranks = [(stored.kind in ("parquet", "parts"), stored.last_use) for stored in for_bytes]
    assert ranks == sorted(ranks)


# Files of others, and other texts


def test_other_files_in_the_folder_are_left_alone(opened: Open, directory: Path, messages: list[str]) -> None:
    directory.mkdir()
    strange = [
        "README.md",
        ".DS_Store",
        "notes.parquet",
        "shard_1.parquet",
        "shard_00001.parquet.bak",
        "shard_00001.txt",
    ]
    strange += ["shard_00000.backup/mine.txt", "shard_00001.parts.old/00000.parquet", ".processes/notes"]
    for name in strange:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(b"mine")
    cache = opened(max_shards=1, max_bytes=10)
    for number in range(3):
        come(cache, shard_at(number), 1000, tokens=True)
        assert (shard_numbers(cache), kinds(cache, number)) == ([number], {"parquet", ENCODING})
    assert [(directory / name).read_bytes() for name in strange] == [b"mine"] * len(strange)
    (directory / ".processes/notes").unlink()
    assert messages == []


def test_a_foreign_file_with_a_shard_name_is_removed_when_it_is_read_or_evicted(
    opened: Open, directory: Path, messages: list[str]
) -> None:
    directory.mkdir()
    for number in (98, 99):
        (directory / f"shard_000{number}.parquet").write_bytes(b"no parquet")
    cache = opened(max_shards=2)
    assert cache.text(shard_at(98), 0) is None
    assert any("shard_00098.parquet is damaged" in line for line in messages)
    assert (directory / "shard_00099.parquet").exists()
    come(cache, shard_at(1))
    come(cache, shard_at(2))
    assert names(directory) == {"shard_00001.parquet", "shard_00002.parquet"}


def foreign_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": ["another", "text"]}), path, row_group_size=1)


@pytest.mark.parametrize(
    "other",
    [
        Shard(5, "hub://files/a.parquet@2", "text", 15, 3),
        Shard(5, SOURCE, "body", 15, 3),
        Shard(5, SOURCE, "text", 16, 3),
        Shard(5, SOURCE, "text", 15, 4),
    ],
    ids=["revision", "column", "position", "length"],
)
@pytest.mark.parametrize("whole", [True, False])
def test_another_text_under_the_number_is_removed(
    opened: Open, directory: Path, messages: list[str], other: Shard, whole: bool
) -> None:
    shard = shard_at(5)
    first = opened()
    for row_group in range(other.row_groups if whole else 1):
        first.put_text(other, row_group, pa.array(["other"]))
        first.put_tokens(other, row_group, ENCODING, tokens_of(other, row_group, 9))
    first.close()
    cache = opened()
    assert cache.text(shard, 0) is None
    assert cache.tokens(shard, 0, ENCODING) is None
    come(cache, shard, tokens=True)
    assert is_right(cache, shard)
    assert cache.tokens(shard, 0, ENCODING) is not None
    assert cache.tokens(other, 0, ENCODING) is None
    assert any("another text" in line for line in messages)


def test_two_users_with_different_text_under_one_number_never_read_each_others(
    opened: Open, messages: list[str]
) -> None:
    one, other = opened(), opened()
    ours, theirs = shard_at(0), shard_at(0, source="hub://files/a.parquet@2")
    for _ in range(2):
        come(one, ours)
        assert is_right(one, ours)
        come(other, theirs)
        assert is_right(other, theirs)
        assert texts(one, ours, 0) is None
    assert any("another text" in line for line in messages)


def test_files_that_were_swapped_are_noticed(opened: Open, directory: Path, messages: list[str]) -> None:
    cache, shard = opened(), shard_at(0)
    for row_group in (0, 1):
        cache.put_text(shard, row_group, column(shard, row_group))
        cache.put_tokens(shard, row_group, ENCODING, tokens_of(shard, row_group))
    for folder, suffix in (("parts", "parquet"), (ENCODING, "npz")):
        source = directory / f"shard_00000.{folder}"
        shutil.copy(source / f"00000.{suffix}", source / f"00001.{suffix}")
    assert cache.text(shard, 1) is None
    assert cache.tokens(shard, 1, ENCODING) is None
    assert texts(cache, shard, 0) == documents(shard, 0)
    assert [("00001." in line, "removed" in line) for line in messages] == [(True, True)] * 2


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_of_another_text_that_appears_later_is_noticed(
    opened: Open, directory: Path, messages: list[str], whole: bool
) -> None:
    cache, shard, other = opened(), shard_at(0), shard_at(0, source="hub://files/a.parquet@2")
    cache.put_text(shard, 0, column(shard, 0))
    with contextlib.closing(ShardCache(directory.parent / "other")) as elsewhere:
        for row_group in range(3 if whole else 2):
            elsewhere.put_text(other, row_group, column(other, row_group))
    name = WHOLE if whole else PART
    shutil.copy(directory.parent / "other" / name, directory / name)
    assert cache.text(shard, 1) is None
    assert texts(cache, shard, 0) == documents(shard, 0)
    assert not (directory / name).exists()
    assert len(messages) == 1
    assert "another text" in messages[0]


# Damage


def flipped(contents: bytes, position: int) -> bytes:
    return contents[:position] + bytes([contents[position] ^ 0x20]) + contents[position + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda good: b"",
    "half": lambda good: good[: len(good) // 2],
    "less a byte": lambda good: good[:-1],
    "a byte in the middle": lambda good: flipped(good, len(good) // 3),
    "garbage": lambda good: random.Random(0).randbytes(len(good)),
    "text": lambda good: b"not at all a file of ours",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [WHOLE, PART, TOKENS])
@pytest.mark.parametrize("same_time", [True, False])
def test_a_damaged_file_is_reported_removed_and_stored_again(
    opened: Open, directory: Path, messages: list[str], name: str, damage: str, same_time: bool
) -> None:
    cache, shard = opened(), shard_at(0)
    for row_group in range(3 if name == WHOLE else 2):
        cache.put_text(shard, row_group, column(shard, row_group))
        cache.put_tokens(shard, row_group, ENCODING, tokens_of(shard, row_group))
    path = directory / name
    status = path.stat()
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if same_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for user in (cache, opened()):
        read = [user.text(shard, row_group) for row_group in range(3)] + [user.tokens(shard, 1, ENCODING)]
        wanted = [documents(shard, row_group) for row_group in range(3)]  # found when its row group is read
        assert all(found is None or found.to_pylist() == wanted[n] for n, found in enumerate(read[:3]))
        if name == TOKENS:
            assert read[3] is None
    assert len(messages) == 1
    assert path.name in messages[0]
    assert not path.exists()
    come(cache, shard, tokens=True)
    assert is_right(cache, shard)
    assert cache.tokens(shard, 1, ENCODING) is not None
    assert len(messages) == 1


@pytest.mark.parametrize("name", [WHOLE, PART])
def test_a_flipped_bit_anywhere_never_makes_another_text(opened: Open, directory: Path, name: str) -> None:
    """Page checksums leave page headers and the footer open: there, one bit made other documents of the same pages."""
    cache, shard = opened(), shard_at(0)
    for row_group in range(3 if name == WHOLE else 2):
        cache.put_text(shard, row_group, column(shard, row_group))
    path = directory / name
    status, good = path.stat(), path.read_bytes()

    @example(position=5, bit=0)  # the first page's kind
    @given(position=st.integers(0, len(good) - 1), bit=st.integers(0, 7))
    def flip(position: int, bit: int) -> None:
        contents = bytearray(good)
        contents[position] ^= 1 << bit
        path.write_bytes(contents)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        for row_group in range(3):
            assert texts(cache, shard, row_group) in (None, documents(shard, row_group))

    flip()


def test_a_file_that_was_made_again_meanwhile_is_not_removed(
    opened: Open, directory: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, shard = opened(), shard_at(0)
    cache.put_text(shard, 1, column(shard, 1))
    path, read = directory / PART, shard_files.read
    kept = path.read_bytes()
    path.write_bytes(b"damaged")

    def slow(*given: Any, **named: Any) -> Any:
        try:
            return read(*given, **named)
        finally:  # another process stores the file while this one finds it damaged
            path.with_suffix(".new").write_bytes(kept)
            path.with_suffix(".new").replace(path)

    monkeypatch.setattr(shard_files, "read", slow)
    assert texts(cache, shard, 1) == documents(shard, 1)
    assert messages == []


def test_a_damaged_part_is_found_when_parts_are_merged(opened: Open, directory: Path, messages: list[str]) -> None:
    cache, shard = opened(), shard_at(0)
    cache.put_text(shard, 0, column(shard, 0))
    cache.put_text(shard, 1, column(shard, 1))
    (directory / PART).write_bytes(b"gone")
    cache.put_text(shard, 2, column(shard, 2))
    assert names(directory) == {"shard_00000.parts/00000.parquet", "shard_00000.parts/00002.parquet"}
    assert len(messages) == 1
    cache.put_text(shard, 1, column(shard, 1))
    assert names(directory) == {WHOLE}
    assert is_right(cache, shard)


def test_a_folder_where_a_file_should_be_is_as_if_nothing_were_there(opened: Open, directory: Path) -> None:
    cache, shard = opened(), shard_at(0)
    (directory / WHOLE).mkdir(parents=True)
    (directory / WHOLE / "mine").touch()
    come(cache, shard)
    assert is_right(cache, shard)  # from parts, which cannot be merged
    assert (directory / WHOLE / "mine").exists()


METADATA: dict[str, Callable[[str], str | bytes]] = {
    "empty": lambda good: "",
    "half": lambda good: good[: len(good) // 2],
    "garbage": lambda good: bytes(range(256)),
    "deep": lambda good: "[" * 100_000,
    "a list": lambda good: "[]",
    "no listings": lambda good: '{"format": 1}',
    "another format": lambda good: good.replace('"format": 1', '"format": 2'),
    "listings as a list": lambda good: '{"format": 1, "shards": {}, "listings": [1]}',
    "a digit": lambda good: good.replace('"a.parquet": 1', '"a.parquet": 3'),
    "listings as a number": lambda good: '{"format": 1, "shards": {}, "listings": 7}',
}


@pytest.mark.parametrize("damage", METADATA)
def test_damaged_metadata_is_reported_once_and_costs_only_listings(
    opened: Open, directory: Path, messages: list[str], damage: str
) -> None:
    cache, shard = opened(), shard_at(0)
    come(cache, shard, tokens=True)
    cache.record("files", {"a.parquet": 1})
    path = directory / META
    contents = METADATA[damage](path.read_text())
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    other = opened()
    assert other.recall("files", dict) is None
    other.record("files", {"a.parquet": 2})
    assert cache.recall("files", dict) == {"a.parquet": 2}
    assert is_right(other, shard)
    assert other.tokens(shard, 0, ENCODING) is not None
    assert len(messages) == 1
    assert META in messages[0]


def test_an_unreadable_listing_is_reported_and_treated_as_absent(
    opened: Open, directory: Path, messages: list[str]
) -> None:
    cache = opened()
    cache.record("files", 7)
    assert cache.recall("files", dict) is None
    assert messages == [f"{directory / META} has an unreadable entry for files: asking the hub again"]


def test_order_of_use_and_text_need_no_metadata(opened: Open, directory: Path, messages: list[str]) -> None:
    cache = opened(max_shards=2)
    for number in (0, 1, 0):
        come(cache, shard_at(number))
    assert not (directory / META).exists()
    come(opened(max_shards=2), shard_at(2))
    assert shard_numbers(cache) == [0, 2]
    assert is_right(cache, shard_at(0))
    assert messages == []


def test_metadata_that_cannot_be_a_file_costs_only_listings(opened: Open, directory: Path, messages: list[str]) -> None:
    (directory / META).mkdir(parents=True)
    cache, shard = opened(), shard_at(0)
    cache.record("files", 1)
    assert cache.recall("files", int) is None
    come(cache, shard, tokens=True)
    assert is_right(cache, shard)
    assert messages


def test_a_cache_that_is_removed_while_in_use_is_as_if_empty(directory: Path, messages: list[str]) -> None:
    shard = shard_at(0)
    with contextlib.closing(ShardCache(directory, notify=messages.append)) as cache:
        cache.lease(shard)
        fill(cache, shard)
        shutil.rmtree(directory)
        assert cache.text(shard, 0) is None
        fill(cache, shard, tokens=True)
        with cache.try_lock(shard, 0) as held:
            assert held
        cache.lease(shard_at(1), 10)
        cache.release(shard)
    assert not [line for line in messages if "\n" in line]
    with contextlib.closing(ShardCache(directory)) as cache:
        come(cache, shard)
        assert is_right(cache, shard)


def test_a_folder_that_goes_before_the_file_gets_there_is_made_again(
    opened: Open, directory: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, shard = opened(), shard_at(0)
    cache.lease(shard)
    replace = Path.replace

    def late(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        target.parent.rmdir()  # as whoever evicts an unpinned shard does
        return path.replace(target)

    monkeypatch.setattr(Path, "replace", late)
    cache.put_text(shard, 0, column(shard, 0))
    assert names(directory) == {"shard_00000.parts/00000.parquet"}
    assert messages == []


# Merges that were cut short


def test_parts_that_nobody_merged_are_merged_at_the_next_lease(opened: Open, directory: Path) -> None:
    cache, shard = opened(), shard_at(0)
    fill(cache, shard)
    with contextlib.closing(ShardCache(directory.parent / "other")) as other:
        for row_group in (0, 1):
            other.put_text(shard, row_group, column(shard, row_group))
    parts = directory.parent / "other" / "shard_00000.parts"
    with contextlib.closing(ShardCache(directory.parent / "third")) as third:
        for row_group in (1, 2):
            third.put_text(shard, row_group, column(shard, row_group))
    shutil.copy(directory.parent / "third" / "shard_00000.parts" / "00002.parquet", parts)
    (directory / WHOLE).unlink()
    parts.rename(directory / "shard_00000.parts")
    assert is_right(cache, shard)
    cache.lease(shard)
    assert names(directory) == {WHOLE}
    assert is_right(cache, shard)
    shutil.copytree(directory.parent / "third" / "shard_00000.parts", directory / "shard_00000.parts")
    cache.lease(shard)  # killed after the shard was there, before its parts were gone
    assert names(directory) == {WHOLE}


# Full disks


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """full_disk(n): the next n files cannot be flushed to disk."""
    sync, left = os.fsync, [0]

    def fsync(file: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    return lambda times: left.__setitem__(0, times)


def test_on_a_full_disk_the_least_recently_used_shard_is_removed(
    opened: Open, messages: list[str], full_disk: Callable[[int], None]
) -> None:
    cache, shard = opened(), shard_at(2)
    come(cache, shard_at(0))
    come(cache, shard_at(1))
    cache.lease(shard)
    full_disk(1)
    cache.put_text(shard, 0, column(shard, 0))
    assert shard_numbers(cache) == [1, 2]
    assert texts(cache, shard, 0) == documents(shard, 0)
    full_disk(1)
    cache.put_tokens(shard, 0, ENCODING, tokens_of(shard, 0))
    assert shard_numbers(cache) == [2]
    assert cache.tokens(shard, 0, ENCODING) is not None
    assert messages == []


def test_other_documents_are_stored_completely_or_not_at_all_and_never_evicted(
    opened: Open, messages: list[str], full_disk: Callable[[int], None]
) -> None:
    cache, identity = opened(max_shards=1, max_bytes=1), {"validation": "a"}
    first, second = column(shard_at(0), 0), column(shard_at(0), 1)
    assert cache.documents("validation.parquet", identity) == []
    cache.put_documents("validation.parquet", identity, [first, second])
    full_disk(1)
    cache.put_documents("validation.parquet", identity, [second])
    assert len(messages) == 1
    come(cache, shard_at(0))
    come(cache, shard_at(1))
    found = cache.documents("validation.parquet", identity)
    assert [part.to_pylist() for part in found] == [first.to_pylist(), second.to_pylist()]
    assert shard_numbers(cache) == [1]
    assert cache.documents("validation.parquet", {"validation": "b"}) == []
    assert "another text" in messages[-1]


def test_a_disk_that_stays_full_is_reported_once_and_the_run_continues(
    opened: Open, directory: Path, messages: list[str], full_disk: Callable[[int], None]
) -> None:
    cache, shard = opened(), shard_at(0)
    cache.lease(shard)
    full_disk(1000)
    fill(cache, shard, tokens=True)
    cache.record("key", 1)
    assert cache.recall("key", int) is None
    assert texts(cache, shard, 0) is None
    assert names(directory) == set()
    assert len(messages) == 1
    assert "No space left on device" in messages[0]
    assert list((directory / ".processes").rglob("*.tmp")) == []
    full_disk(0)
    fill(cache, shard, tokens=True)
    assert is_right(cache, shard)
    full_disk(2)
    cache.put_tokens(shard, 0, "byte", tokens_of(shard, 0))
    assert len(messages) == 2


def test_without_room_for_the_merged_file_the_parts_are_read(
    opened: Open, directory: Path, messages: list[str], full_disk: Callable[[int], None]
) -> None:
    cache, shard = opened(), shard_at(0)
    cache.lease(shard)
    cache.put_text(shard, 0, column(shard, 0))
    cache.put_text(shard, 1, column(shard, 1))
    whole = directory / WHOLE
    sync = os.fsync
    os.fsync = lambda file: (
        (full_disk(1), sync(file))[1] if (directory / "shard_00000.parts/00002.parquet").exists() else sync(file)
    )
    cache.put_text(shard, 2, column(shard, 2))
    os.fsync = sync
    assert not whole.exists()
    assert is_right(cache, shard)
    assert len(messages) == 1
    full_disk(0)
    cache.lease(shard)
    assert whole.exists()


# Other processes. They load the cache without the rest of the package, which would take seconds.

PREAMBLE = f"""
from __future__ import annotations
import contextlib, hashlib, os, random, sys, time, traceback, types
from pathlib import Path
package = types.ModuleType("transformer")
package.__path__ = {list(transformer.__path__)!r}
sys.modules["transformer"] = package
import numpy as np
import pyarrow as pa
from transformer.data.cache import Shard, ShardCache
from transformer.data.cache.token_files import RowGroupTokens
SOURCE, ENCODING = {SOURCE!r}, {ENCODING!r}
directory = Path(sys.argv[1])
"""
HELPERS = "\n".join(
    inspect.getsource(function) for function in (shard_at, documents, column, tokens_of, fill, come, texts, is_right)
)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREAMBLE + HELPERS + inspect.cleandoc(code), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_leases_and_locks_of_another_process_hold_until_it_is_killed(
    opened: Open, directory: Path, messages: list[str]
) -> None:
    holder = """
        cache = ShardCache(directory)
        shard = shard_at(0)
        cache.lease(shard)
        fill(cache, shard)
        temporary = next((directory / ".processes").iterdir()) / "half.tmp"
        temporary.write_bytes(b"half a file")
        with cache.try_lock(shard, 1):
            print("ready", flush=True)
            sys.stdin.read()
    """
    with python(holder, directory) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        cache, shard = opened(max_shards=1), shard_at(0)
        come(cache, shard_at(1))
        come(cache, shard_at(2))
        assert shard_numbers(cache) == [0, 2]
        assert is_right(cache, shard)
        with cache.try_lock(shard, 1) as mine:
            assert not mine
        process.kill()
        process.wait()
    with cache.try_lock(shard, 1) as mine:
        assert mine
    come(cache, shard_at(3))
    assert shard_numbers(cache) == [3]
    assert len(list((directory / ".processes").iterdir())) == 1
    assert messages == []


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes are limited with resource")
def test_a_limit_on_file_sizes_stops_storing_and_nothing_else(directory: Path) -> None:
    code = """
        import resource
        messages = []
        shard, long = shard_at(0, row_groups=2), pa.array([random.Random(n).randbytes(2000).hex() for n in range(100)])
        with contextlib.closing(ShardCache(directory, notify=messages.append)) as cache:
            cache.put_text(shard, 0, column(shard, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
            cache.put_text(shard, 1, long)
            cache.put_tokens(shard, 1, ENCODING, tokens_of(shard, 1, 20_000))
            assert cache.text(shard, 1) is None and cache.tokens(shard, 1, ENCODING) is None
            assert texts(cache, shard, 0) == documents(shard, 0)
            assert len(messages) == 1 and "File too large" in messages[0] and "\\n" not in messages[0], messages
            assert not list(directory.rglob("*.tmp"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            cache.put_text(shard, 1, long)
            assert cache.text(shard, 1).to_pylist() == long.to_pylist()
            assert (directory / "shard_00000.parquet").exists()
        print("done")
    """
    with python(code, directory) as process:
        assert process.communicate()[0] == "done\n"
    assert process.returncode == 0


def work(directory: Path, seed: int) -> None:
    """Stores, merges and evicts until it is killed."""
    order = random.Random(seed)
    cache = ShardCache(directory, max_shards=2, max_bytes=12_000)
    while True:
        shard = shard_at(order.randrange(4))
        cache.lease(shard, 2000)
        for row_group in order.sample(range(3), 3):
            with cache.try_lock(shard, row_group):
                if cache.text(shard, row_group) is None:
                    cache.put_text(shard, row_group, column(shard, row_group))
            if cache.tokens(shard, row_group, ENCODING) is None:
                cache.put_tokens(shard, row_group, ENCODING, tokens_of(shard, row_group))
        cache.release(shard)


def check(directory: Path) -> int:
    """Asserts that all that can be read is right and nothing is left of the dead; returns the shards that are here."""
    messages: list[str] = []
    with contextlib.closing(ShardCache(directory, max_shards=2, max_bytes=12_000, notify=messages.append)) as cache:
        assert len(list((directory / ".processes").iterdir())) == 1
        assert not list(directory.rglob("*.tmp"))
        for shard in map(shard_at, range(4)):
            for row_group in range(3):
                assert texts(cache, shard, row_group) in (None, documents(shard, row_group))
                found = cache.tokens(shard, row_group, ENCODING)
                assert found is None or found.ids.tolist() == tokens_of(shard, row_group).ids.tolist()
        found = len({stored.number for stored in cache.stock()})
        come(cache, shard_at(0), 2000, tokens=True)
        assert is_right(cache, shard_at(0))
        assert len({stored.number for stored in cache.stock()}) <= 2
        assert cache.nbytes <= 12_000
    assert messages == []
    assert not list((directory / ".processes").iterdir())
    return found


KILLER = """
    def start(function, *arguments):
        child = os.fork()
        if child == 0:
            try:
                os._exit(function(directory, *arguments))
            except BaseException:
                traceback.print_exc()
            os._exit(99)
        return child

    order, here = random.Random(0), 0
    for trial in range(int(sys.argv[2])):
        for child in [start(work, 2 * trial), start(work, 2 * trial + 1)]:
            time.sleep(order.uniform(0, 0.1))
            os.kill(child, 9)
            assert os.waitpid(child, 0)[1] == 9
        found = os.waitstatus_to_exitcode(os.waitpid(start(check), 0)[1])
        assert found <= 4, trial  # what both had pinned may be one or two more than the bound
        here += found
    print("shards seen", here)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes are started quickly with fork")
@pytest.mark.parametrize("trials", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_killed_at_any_moment_nothing_is_wrong_and_nothing_is_left(directory: Path, trials: int) -> None:
    code = inspect.getsource(work) + inspect.getsource(check) + inspect.cleandoc(KILLER)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c"]  # fork beside numpy's idle threads
    command += [PREAMBLE + HELPERS + code, str(directory), str(trials)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + trials)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert int(done.stdout.split()[-1]) > trials  # they came to something between the kills
