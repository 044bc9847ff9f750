"""FineWebSource over parquet files with FineWeb-Edu's columns, written here; open_fineweb with and without a hub."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from transformer.config import DataConfig
from transformer.dataset import PackedBatches, open_dataset
from transformer.fineweb_dataset import FineWebSource, open_fineweb
from transformer.text import is_validation, load_tokenizer

BYTE = load_tokenizer("byte")
END = BYTE.eot_id
TEXTS = [f"Page {n}: " + "word " * (n % 13) for n in range(100)]
Texts = Sequence[str | None]


def write(path: Path, texts: Texts, row_group_size: int, padding: int = 20) -> str:
    """Writes a file as FineWeb-Edu has them; every url is `padding` characters that do not compress."""
    rows = len(texts)
    noise = np.random.default_rng(0).integers(33, 127, (rows, padding), dtype=np.uint8)
    columns = {
        "text": pa.array(texts, pa.string()),
        "id": pa.array([f"<urn:uuid:{row}>" for row in range(rows)], pa.string()),
        "dump": pa.array(["CC-MAIN-2013-20"] * rows, pa.string()),
        "url": pa.array([bytes(line).decode() for line in noise], pa.string()),
        "file_path": pa.array(["s3://commoncrawl/x.warc.gz"] * rows, pa.string()),
        "language": pa.array(["en"] * rows, pa.string()),
        "language_score": pa.array([0.9] * rows, pa.float64()),
        "token_count": pa.array([7] * rows, pa.int64()),
        "score": pa.array([3.1] * rows, pa.float64()),
        "int_score": pa.array([3] * rows, pa.int64()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return str(path)


def source_of(paths: Sequence[str], fraction: float = 0.1, files: Any = None, **settings: Any) -> FineWebSource:
    return FineWebSource(files or LocalFileSystem(), paths, BYTE, fraction, **settings)


def texts_in(tokens: Sequence[int] | np.ndarray) -> list[str]:
    """The documents in a stream, each of which must end with end-of-text."""
    ids = [int(token) for token in tokens]
    ends = [-1, *(place for place, token in enumerate(ids) if token == END)]
    assert ends[-1] == len(ids) - 1, "the last document is not ended"
    return [bytes(ids[start + 1 : end]).decode() for start, end in pairwise(ends)]


def all_train(source: FineWebSource) -> list[str]:
    return [text for unit in range(len(source)) for text in texts_in(source[unit])]


def all_held_out(source: FineWebSource) -> list[str]:
    return [text for tokens in source.held_out() for text in texts_in(tokens)]


@pytest.mark.parametrize("size", [1, 7, 30, 1000])
def test_a_unit_is_a_row_group_and_units_count_through_the_files(tmp_path: Path, size: int) -> None:
    parts = [TEXTS[:40], TEXTS[40:]]
    source = source_of([write(tmp_path / f"{n}.parquet", part, size) for n, part in enumerate(parts)])
    groups = [part[start : start + size] for part in parts for start in range(0, len(part), size)]
    assert len(source) == len(groups)
    for unit in reversed(range(len(groups))):  # in any order
        wanted = [text for text in groups[unit] if not is_validation(text)]
        assert texts_in(source[unit]) == wanted


@pytest.mark.parametrize("size", [1, 7, 30, 1000])
def test_each_document_comes_once_in_order_on_its_side_of_the_split(tmp_path: Path, size: int) -> None:
    source = source_of([write(tmp_path / "a.parquet", TEXTS, size)])
    train = [text for text in TEXTS if not is_validation(text)]
    held_out = [text for text in TEXTS if is_validation(text)]
    assert held_out  # else this test says nothing
    assert all_train(source) == train
    assert all_held_out(source) == held_out


@given(
    texts=st.lists(st.one_of(st.none(), st.text(max_size=8)), min_size=1, max_size=30),
    size=st.integers(1, 12),
    fraction=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
)
def test_any_texts_in_any_row_groups_are_split_without_loss_or_leak(
    tmp_path_factory: pytest.TempPathFactory, texts: Texts, size: int, fraction: float
) -> None:
    source = source_of([write(tmp_path_factory.getbasetemp() / "any.parquet", texts, size)], fraction)
    train, held_out = all_train(source), all_held_out(source)
    assert sorted(train + held_out) == sorted(filter(None, texts))  # empty and missing texts are no documents
    assert not set(train) & set(held_out)  # copies of a text stay together


def test_a_page_that_spells_the_end_of_text_marker_does_not_end_there(tmp_path: Path) -> None:
    source = source_of([write(tmp_path / "a.parquet", ["one<|endoftext|>two"], 1)], fraction=0.0)
    assert texts_in(source[0]) == ["one<|endoftext|>two"]


def test_a_unit_without_documents_is_empty(tmp_path: Path) -> None:
    source = source_of([write(tmp_path / "a.parquet", [None, "", "text"], 2)], fraction=0.0)
    assert [source[unit].tolist() for unit in range(2)] == [[], [*b"text", END]]
    assert source[0].dtype == np.uint32


def test_a_missing_column_is_an_error_that_names_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["x"], 1)
    with pytest.raises(ValueError, match=r"a\.parquet has no column 'body'; its columns: text, id, dump, url, .*score"):
        source_of([path], text_field="body")
    assert texts_in(source_of([path], fraction=0.0, text_field="dump")[0]) == ["CC-MAIN-2013-20"]


class CountedFiles:
    """Local files that count what is opened and read."""

    def __init__(self) -> None:
        self.bytes_read = self.opened = 0

    def open(self, path: str, mode: str, **settings: object) -> io.FileIO:
        assert settings == {"cache_type": "none"}  # a cache that reads ahead fetches what nobody wants
        self.opened += 1
        files = self

        class Counted(io.FileIO):
            def read(self, size: int | None = -1) -> bytes:
                data = super().read(-1 if size is None else size) or b""
                files.bytes_read += len(data)
                return data

        return Counted(path, mode)


def test_only_the_text_of_the_wanted_row_group_is_read(tmp_path: Path) -> None:
    texts = [f"{n} " * 2_000 for n in range(400)]
    path = write(tmp_path / "a.parquet", texts, 100, padding=10_000)
    size = Path(path).stat().st_size
    footer = pq.ParquetFile(path).metadata
    tail = max(footer.serialized_size, 64 * 1024)  # parquet guesses the footer's size and reads so much at once
    files = CountedFiles()
    source = source_of([path], files=files)
    assert files.bytes_read <= tail + 8  # opening reads the footer
    files.bytes_read = 0
    assert len(texts_in(source[2])) > 80
    text_bytes = footer.row_group(2).column(0).total_compressed_size
    assert text_bytes <= files.bytes_read <= text_bytes + tail + 8
    assert files.bytes_read < size / 10


def test_the_last_units_read_stay_in_memory(tmp_path: Path) -> None:
    files = CountedFiles()
    source = source_of([write(tmp_path / "a.parquet", TEXTS, 10)], files=files)
    for unit in (3, 4, 5, 6):
        source[unit]
    opened = files.opened
    for unit in (6, 5, 4, 3):
        source[unit]
    assert files.opened == opened


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
@pytest.mark.parametrize("size", [3, 200])
def test_packed_batches_go_on_at_any_batch(tmp_path: Path, size: int, rank: int, world_size: int) -> None:
    source = source_of([write(tmp_path / f"{n}.parquet", TEXTS[n::2], size) for n in range(2)])
    settings: dict[str, Any] = {"window_rows": 8, "rank": rank, "world_size": world_size}
    uninterrupted = list(islice(PackedBatches(source, 32, 4, seed=3, **settings), 32))
    states = [state for _, _, state in uninterrupted]
    assert states[-1].epoch > 0  # past the end of the text, into a new order
    for state, (inputs, targets, following) in zip(states, uninterrupted[1:], strict=False):
        resumed = next(iter(PackedBatches(source, 32, 4, seed=3, state=state, **settings)))
        torch.testing.assert_close(resumed[0], inputs, rtol=0, atol=0)
        torch.testing.assert_close(resumed[1], targets, rtol=0, atol=0)
        assert resumed[2] == following


def test_an_epoch_of_packed_batches_shows_every_training_token_once(tmp_path: Path) -> None:
    source = source_of([write(tmp_path / "a.parquet", TEXTS, 9)])
    tokens = np.concatenate([source[unit] for unit in range(len(source))])
    batches = PackedBatches(source, seq_length=5, batch_size=1, seed=0, window_rows=1)
    rows = [inputs[0] for inputs, _, _ in islice(batches, -(-len(tokens) // 5))]
    assert sorted(torch.cat(rows)[: len(tokens)].tolist()) == sorted(tokens.tolist())


Hub = Callable[[Texts], None]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """hub(texts) makes a folder stand for the hub, with the texts in two files in row groups of 20."""

    def make(texts: Texts) -> None:
        folder = tmp_path / "datasets/HuggingFaceFW/fineweb-edu/sample/10BT"
        folder.mkdir(parents=True)
        half = len(texts) // 2
        for name, part in (("001_00000", texts[half:]), ("000_00000", texts[:half])):
            write(folder / f"{name}.parquet", part, 20)
        files = DirFileSystem(str(tmp_path), LocalFileSystem())
        monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: files)

    return make


def test_the_dataset_named_fineweb_is_read_from_the_hub(hub: Hub) -> None:
    hub(TEXTS)
    data = open_dataset(DataConfig("fineweb", "byte", seq_length=32, tokens_per_epoch=4_000))
    held_out = [text for text in TEXTS if is_validation(text)]
    assert isinstance(data.train, FineWebSource)
    assert all_train(data.train) == [text for text in TEXTS if not is_validation(text)]
    assert data.tokens_per_epoch == 4_000
    inputs, targets = data.validation
    counted = targets[targets >= 0]
    assert texts_in(counted) == held_out  # less than validation_tokens: all of it
    assert inputs.shape == targets.shape == (-(-len(counted) // 32), 32)
    assert data.validation_bytes == sum(len(text.encode()) for text in held_out)


def test_validation_is_the_first_held_out_tokens_every_time(hub: Hub) -> None:
    hub(TEXTS)
    config = DataConfig("fineweb", "byte", seq_length=16, validation_tokens=100)
    first, again = (open_fineweb(config, BYTE).validation[1] for _ in range(2))
    held_out = "".join(text + "\0" for text in TEXTS if is_validation(text))
    assert torch.equal(first, again)
    assert bytes(token if token != END else 0 for token in first[first >= 0].tolist()).decode() == held_out[:100]


def test_without_a_network_the_error_is_one_line_that_names_the_way_on(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = partial(huggingface_hub.HfFileSystem, endpoint="http://127.0.0.1:9", skip_instance_cache=True)
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", closed)
    with pytest.raises(ValueError, match=r"^FineWeb-Edu cannot be reached") as caught:
        open_fineweb(DataConfig("fineweb", "byte"), BYTE)
    assert "--dataset shakespeare" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_without_the_files_is_told_apart_from_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = DirFileSystem(str(tmp_path), LocalFileSystem())
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: empty)
    with pytest.raises(ValueError, match="not on the hub as expected: no file matches") as caught:
        open_fineweb(DataConfig("fineweb", "byte"), BYTE)
    assert "--dataset shakespeare" in str(caught.value)
