"""Text streamed from a stand-in for the hub: every document once, the order of the seed, exact resuming, any fault."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stand_in_hub import FINEWEB, StandInHub, fineweb_files, fineweb_rows, parquet_bytes, taken_for_the_hub
from transformer.config import DataConfig, ModelConfig, TrainConfig
from transformer.data.contracts import DataState, FetchProgress, TextData
from transformer.data.hub import ahead, opening
from transformer.data.hub import client as hub
from transformer.data.hub.errors import HubError
from transformer.data.hub.validation_cache import ValidationText
from transformer.data.open import open_dataset
from transformer.dataset import Batch, PackedBatches
from transformer.fineweb_dataset import MAX_AHEAD, HubSource, encode_row_group, encoding_id
from transformer.text import ByteTokenizer, is_validation, load_tokenizer, train_bpe
from transformer.trainer import Trainer

BYTE = ByteTokenizer()
FILES, GROUP = 3, 7
# 240 short documents in 3 files of 80, in row groups of 7; some of them twice.
TEXTS = [f"Page {n % 230}: " + f"word{n % 230} " * (n % 13) for n in range(240)]


@pytest.fixture(scope="module")
def served() -> Iterator[StandInHub]:
    with StandInHub() as server:
        server.add(FINEWEB, fineweb_files(TEXTS, FILES, GROUP))
        yield server


@pytest.fixture
def server(served: StandInHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    monkeypatch.setattr(ahead, "PAUSE_SECONDS", (0.05, 0.2))
    monkeypatch.setattr(hub, "LONGEST_WAIT", 0.1)
    with taken_for_the_hub(served, monkeypatch) as server:
        yield server


def config(folder: Path, **changes: Any) -> DataConfig:
    """Small shards, several to a file; a cache that holds all of them."""
    values = {"dataset": "fineweb", "encoding": "byte", "seq_length": 16, "tokens_per_epoch": 4_000}
    values |= {"cache_dir": str(folder), "cache_shards": 50, "shard_mb": 0.004, "network_patience": 20.0}
    values |= {"validation_tokens": 300, "shuffle_rows": 24}
    return DataConfig(**{**values, **changes}).check()


@contextlib.contextmanager
def opened(
    settings_: DataConfig, notify: Callable[[Any], None] = lambda message: None
) -> Iterator[tuple[TextData, HubSource]]:
    with contextlib.closing(open_dataset(settings_, notify=notify)) as data:
        assert isinstance(data.train, HubSource)
        yield data, data.train


def first(
    source: HubSource, count: int, state: DataState | None = None, into: list[Batch] | None = None, **changes: Any
) -> list[Batch]:
    """The first batches from a state on; those before an error are in `into`."""
    values = {"seq_length": 16, "batch_size": 4, "seed": 3, "window_rows": 24, **changes}
    drawn = [] if into is None else into
    with contextlib.closing(iter(PackedBatches(source, state=state, **values))) as batches:
        for batch in itertools.islice(batches, count):
            drawn.append(batch)
    return drawn


def assert_same(ours: Sequence[Batch], theirs: Sequence[Batch]) -> None:
    for (inputs, targets, state), (other_inputs, other_targets, other_state) in zip(ours, theirs, strict=True):
        assert torch.equal(inputs, other_inputs)
        assert torch.equal(targets, other_targets)
        assert state == other_state


def texts_in(tokens: Sequence[int] | np.ndarray) -> list[str]:
    """The documents in a stream, each of which must end with end-of-text."""
    ids = [int(token) for token in tokens]
    ends = [-1, *(place for place, token in enumerate(ids) if token == BYTE.eot_id)]
    assert ends[-1] == len(ids) - 1, "the last document has no end-of-text"
    return [bytes(ids[start + 1 : end]).decode() for start, end in itertools.pairwise(ends)]


def one_pass(source: HubSource, seed: int = 3) -> list[str]:
    """The training documents of the first pass, in its order."""
    places = sum(source.row_groups(shard) for shard in range(len(source)))
    with contextlib.closing(source.stream(seed, DataState())) as stream:
        return [text for _, tokens in itertools.islice(stream, places) for text in texts_in(tokens)]


def reference_rows(source: HubSource, seed: int, seq_length: int, window_rows: int, windows: int) -> np.ndarray:
    """The rows of the first windows, from the texts alone: (rows, T + 1)."""
    part = len(TEXTS) // FILES
    groups = [TEXTS[f * part : (f + 1) * part][g : g + GROUP] for f in range(FILES) for g in range(0, part, GROUP)]
    counts = [source.row_groups(shard) for shard in range(len(source))]
    stream: list[int] = []
    for epoch in range(windows * window_rows * seq_length // 1_000 + 2):  # a pass has more than 1,000 tokens
        for shard in np.random.default_rng([seed, epoch, 0, 1]).permutation(len(counts)):
            for row_group in np.random.default_rng([seed, epoch, shard]).permutation(counts[shard]):
                for text in groups[sum(counts[:shard]) + row_group]:
                    stream += [] if is_validation(text) else [*text.encode(), 256]
    return np.array(
        [stream[at : at + seq_length + 1] for at in range(0, windows * window_rows * seq_length, seq_length)]
    )


@given(
    seed=st.integers(0, 2**40),
    seq_length=st.integers(1, 40),
    batch_size=st.integers(1, 5),
    window_rows=st.integers(1, 60),
    workers=st.integers(1, 5),
    world_size=st.sampled_from([1, 2, 3]),
    shard_mb=st.sampled_from([0.002, 0.004, 0.02, 1.0]),
)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_stream_equals_a_plain_reference(
    server: StandInHub, tmp_path_factory: pytest.TempPathFactory, seed: int, seq_length: int, batch_size: int,
    window_rows: int, workers: int, world_size: int, shard_mb: float,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("cache")
    windows = 3
    steps = windows * window_rows // (batch_size * world_size)
    drawn = []
    for rank in range(world_size):
        with opened(config(folder, shard_mb=shard_mb, num_workers=workers)) as (_, source):
            shape = {"seq_length": seq_length, "batch_size": batch_size, "window_rows": window_rows, "seed": seed}
            drawn.append(first(source, steps, **shape, rank=rank, world_size=world_size))
            expected = reference_rows(source, seed, seq_length, window_rows, windows)
    rows: list[tuple[int, ...]] = []
    for step in range(steps):  # the ranks take the rows of a global batch in turn: (B, W, T) -> (B * W, T)
        inputs, targets = (torch.stack([ours[step][side] for ours in drawn], 1).flatten(0, 1) for side in (0, 1))
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        rows += map(tuple, torch.cat([inputs, targets[:, -1:]], 1).tolist())
    for start in range(0, len(rows), window_rows):  # rows are shuffled in their window, and only there
        found = Counter(rows[start : start + window_rows])
        wanted = Counter(map(tuple, expected[start : start + window_rows].tolist()))
        assert found == wanted if found.total() == window_rows else found <= wanted


@pytest.mark.parametrize("shard_mb", [0.002, 0.004, 1.0])
def test_every_document_comes_once_a_pass_on_its_side_of_the_split(
    server: StandInHub, tmp_path: Path, shard_mb: float
) -> None:
    with opened(config(tmp_path, shard_mb=shard_mb, validation_tokens=10**6)) as (data, source):
        assert (len(source) > 3) == (shard_mb < 1)
        train = one_pass(source)
        held_out = texts_in(data.validation[1][data.validation[1] >= 0])
    assert sorted(train) == sorted(text for text in TEXTS if not is_validation(text))
    assert held_out == [text for text in TEXTS if is_validation(text)]
    assert train != [text for text in TEXTS if not is_validation(text)]  # shuffled
    assert not set(train) & set(held_out)  # duplicates too


def test_shards_are_runs_of_whole_row_groups_that_make_up_the_files(server: StandInHub, tmp_path: Path) -> None:
    with opened(config(tmp_path)) as (_, source):
        shards = [source.text.shard(number) for number in range(len(source))]
    by_file: dict[str, list[int]] = {}
    for shard in shards:
        path = re.search(r"(sample/10BT/\d+_00000\.parquet)@[0-9a-f]{64} part", shard.source)
        assert path is not None
        by_file.setdefault(path[1], []).extend(range(shard.first_group, shard.first_group + shard.row_groups))
    assert by_file == {f"sample/10BT/{n:03}_00000.parquet": list(range(12)) for n in range(FILES)}
    counts = [shard.row_groups for shard in shards]
    assert len(counts) > FILES
    assert max(counts) <= 2 * min(counts)


@given(done=st.integers(0, 40), workers=st.tuples(st.integers(1, 4), st.integers(1, 4)), fresh=st.booleans())
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_state_gives_exactly_the_remaining_batches(
    server: StandInHub, tmp_path_factory: pytest.TempPathFactory, done: int, workers: tuple[int, int], fresh: bool
) -> None:
    """Across another number of workers too, and whether or not the cache is still there."""
    folders = [tmp_path_factory.mktemp("cache") for _ in range(2)]
    with opened(config(folders[0], num_workers=workers[0])) as (_, source):
        whole = first(source, done + 6)
    state = whole[done - 1][2] if done else None
    with opened(config(folders[fresh], num_workers=workers[1])) as (_, source):
        assert_same(first(source, 6, state), whole[done:])


def test_workers_cache_and_observers_do_not_change_a_runs_weights(server: StandInHub, tmp_path: Path) -> None:
    found = []
    for number, (stream, cadence) in enumerate([
        ({"num_workers": 1}, {"eval_every": 1000, "log_every": 1000}),
        ({"num_workers": 3, "cache_shards": 2}, {"eval_every": 2, "log_every": 1, "save_every_minutes": 1e-9}),
    ]):  # fmt: skip
        run = TrainConfig(
            ModelConfig(257, 8, 1, 1, 16, 16, dropout=0.2), config(tmp_path / f"cache_{number}", **stream),
            batch_size=4, accumulation_steps=2, max_steps=9, device="cpu", checkpoint_dir=str(tmp_path / f"{number}"),
            **cadence,
        )  # fmt: skip
        with contextlib.closing(open_dataset(run.data)) as data:
            trainer = Trainer(run, data)
            trainer.fit()
            found.append(trainer.model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_validation_is_the_same_for_every_seed_epoch_and_run(server: StandInHub, tmp_path: Path) -> None:
    found = []
    for folder, changes in (("a", {}), ("a", {}), ("b", {"shard_mb": 0.002, "num_workers": 3})):
        with opened(config(tmp_path / folder, **changes)) as (data, source):
            found.append(data.validation)
            first(source, 3)
    assert all(torch.equal(one, found[0][side]) for pair in found for side, one in enumerate(pair))
    text = "".join(text + "\0" for text in TEXTS if is_validation(text))
    counted = found[0][1][found[0][1] >= 0].tolist()
    assert bytes(token if token < 256 else 0 for token in counted).decode() == text[:300]


def test_validation_text_is_fetched_once_and_again_only_if_damaged(server: StandInHub, tmp_path: Path) -> None:
    with opened(config(tmp_path)) as (data, _):
        wanted, commit = data.validation[1], data.revision
    server.reset_counts()
    with opened(config(tmp_path, revision=commit)) as (data, _):
        assert torch.equal(data.validation[1], wanted)
    assert server.requests == []
    file = next(tmp_path.glob("validation_*.parquet"))
    sound = file.read_bytes()
    noticed = 0
    for place in range(4, len(sound), len(sound) // 8):
        file.write_bytes(sound[:place] + bytes([sound[place] ^ 255]) + sound[place + 1 :])
        messages: list[Any] = []
        with opened(config(tmp_path, revision=commit), messages.append) as (data, _):
            assert torch.equal(data.validation[1], wanted)
        noticed += any(f"{file} is damaged" in line for line in messages if isinstance(line, str))
    assert noticed >= 4  # a byte that says nothing about the text may change unseen


def test_a_validation_file_of_an_earlier_version_is_replaced_with_a_message(server: StandInHub, tmp_path: Path) -> None:
    with opened(config(tmp_path)) as (data, _):
        wanted = data.validation[1]
    file = next(tmp_path.glob("validation_*.parquet"))
    pq.write_table(pa.table({"text": ["another text"]}).replace_schema_metadata({"units": "40"}), file)
    messages: list[Any] = []
    with opened(config(tmp_path), messages.append) as (data, _):
        assert torch.equal(data.validation[1], wanted)
    assert [line for line in messages if isinstance(line, str)] == [
        f"{file} is damaged (it holds another text): removed, to be stored again"
    ]


def test_a_flipped_bit_never_makes_other_validation_documents(server: StandInHub, tmp_path: Path) -> None:
    """26 of 10,064 flipped bits once gave other validation documents, silently: all bits of page headers and footer."""
    settings_ = config(tmp_path, revision=server.commit(FINEWEB).sha)
    with contextlib.closing(opening.open_hub_text(settings_)) as text:
        validation = ValidationText(text, 0.1)
        wanted = list(itertools.islice(validation.texts(), 3))
        columns = text.cache.documents(validation.name, validation.identity)
        file = tmp_path / validation.name
        sound = file.read_bytes()
        for position in range(0, 8 * len(sound), 7):
            damaged = bytearray(sound)
            damaged[position // 8] ^= 1 << position % 8
            file.write_bytes(damaged)
            assert text.cache.documents(validation.name, validation.identity) in ([], columns)
    assert columns[0].to_pylist() == wanted[: len(columns[0])]


def test_more_validation_text_is_fetched_if_the_file_has_too_little(server: StandInHub, tmp_path: Path) -> None:
    for tokens in (100, 10**6, 100):
        with opened(config(tmp_path, validation_tokens=tokens)) as (data, _):
            assert int((data.validation[1] >= 0).sum()) == min(
                tokens, sum(len(t) + 1 for t in TEXTS if is_validation(t))
            )
    assert len(list(tmp_path.glob("validation_*"))) == 1


def test_a_second_run_reads_everything_from_the_cache_without_a_request(server: StandInHub, tmp_path: Path) -> None:
    with opened(config(tmp_path)) as (data, source):
        whole = one_pass(source)
        commit = data.revision
    server.reset_counts()
    server.stop_serving()
    with opened(config(tmp_path, revision=commit)) as (_, source):
        assert one_pass(source) == whole
    assert server.requests == []


def test_without_a_network_a_run_continues_from_the_cache_and_says_so(server: StandInHub, tmp_path: Path) -> None:
    with opened(config(tmp_path)) as (_, source):
        whole = one_pass(source)
    server.stop_serving()
    messages: list[Any] = []
    with opened(config(tmp_path, network_patience=0.3), messages.append) as (data, source):
        assert one_pass(source) == whole
        assert data.revision == server.commit(FINEWEB).sha
    assert any("cannot be reached: continuing with the text in" in line for line in messages if isinstance(line, str))


def test_without_a_network_or_a_cache_one_line_says_what_to_do(server: StandInHub, tmp_path: Path) -> None:
    server.stop_serving()
    with pytest.raises(HubError, match=r"fineweb-edu cannot be reached .*--dataset shakespeare") as caught:
        open_dataset(config(tmp_path, network_patience=0.3))
    assert "\n" not in str(caught.value)


def test_text_missing_from_the_cache_stops_a_run_only_when_it_is_reached(server: StandInHub, tmp_path: Path) -> None:
    with opened(config(tmp_path)) as (_, source):
        whole = first(source, 200)
    with opened(config(tmp_path / "again")) as (_, source):
        source.fetches_ahead = False
        some = first(source, 20)
        commit = source.text.commit
    server.stop_serving()
    drawn: list[Batch] = []
    offline = opened(config(tmp_path / "again", revision=commit, network_patience=0.5))
    with offline as (_, source), pytest.raises(HubError, match=r"127\.0\.0\.1"):
        first(source, 200, into=drawn)
    assert len(drawn) >= len(some)
    assert_same(drawn, whole[: len(drawn)])
    server.start_serving()
    with opened(config(tmp_path / "again", revision=commit)) as (_, source):
        assert_same(first(source, 5, drawn[-1][2]), whole[len(drawn) : len(drawn) + 5])


def test_only_the_text_columns_of_the_row_groups_used_are_fetched(server: StandInHub, tmp_path: Path) -> None:
    texts = ["".join(map(chr, np.random.default_rng(n).integers(33, 127, 3_000))) for n in range(400)]
    table = fineweb_rows(texts)
    noise = pa.array([bytes(np.random.default_rng(n).integers(33, 127, 3_000, np.uint8)).decode() for n in range(400)])
    table = table.set_column(table.schema.names.index("url"), "url", noise)  # as large as the text
    contents = parquet_bytes(table, 50)
    commit = server.add("someone/wide", {"train.parquet": contents})
    changes = {"dataset": "hf:someone/wide", "revision": commit, "shard_mb": 100, "validation_tokens": 10}
    server.reset_counts()
    with opened(config(tmp_path, **changes)) as (_, source):
        one_pass(source)
        fetched = source.text.bytes_fetched
    assert server.bytes_sent("train.parquet") == fetched
    footer = pq.read_metadata(pa.BufferReader(contents))
    column = sum(footer.row_group(group).column(0).total_compressed_size for group in range(8))
    end = 64 * 1024 + 8  # parquet reads so much of a file's end to find the footer, then the footer
    assert column <= fetched <= 1.05 * column + end + footer.serialized_size
    assert column < 0.5 * len(contents)


def test_any_hub_dataset_of_parquet_files_is_read_by_subset_split_and_column(
    server: StandInHub, tmp_path: Path
) -> None:
    lines = [f"line {n}" for n in range(60)]
    table = pa.table({"id": list(range(60)), "body": lines})
    card = {"configs": [{"config_name": "wiki-raw", "data_files": [{"split": "train", "path": "wiki-raw/train-*"}]}]}
    files = {"wiki-raw/train-00000-of-00001.parquet": parquet_bytes(table, 13), "other/train.parquet": b"nothing"}
    server.add("someone/wikitext", files, card=card)
    changes = {
        "dataset": "hf:someone/wikitext",
        "subset": "wiki-raw",
        "text_column": "body",
        "validation_tokens": 10**5,
    }
    with opened(config(tmp_path, **changes)) as (data, source):
        assert sorted(one_pass(source) + texts_in(data.validation[1][data.validation[1] >= 0])) == sorted(lines)
    with pytest.raises(HubError, match="has no column 'text'; its columns: id, body"):
        open_dataset(config(tmp_path, **{**changes, "text_column": "text"}))
    with pytest.raises(HubError, match=r"column 'id' is int64, wanted string"):
        open_dataset(config(tmp_path, **{**changes, "text_column": "id"}))
    with pytest.raises(HubError, match=r"no split 'test'.*; its splits: train"):
        open_dataset(config(tmp_path, **{**changes, "split": "test"}))


def test_a_vocabulary_can_be_trained_on_the_text_itself(server: StandInHub, tmp_path: Path) -> None:
    with opened(config(tmp_path, encoding="bpe300")) as (data, source):
        assert data.tokenizer.vocab_size == 300
        with contextlib.closing(source.stream(3, DataState())) as stream:
            _, tokens = next(stream)
        assert data.tokenizer.decode(tokens.tolist()).startswith("Page ")
        assert re.fullmatch(r"bpe300-[0-9a-f]{12}", source.encoding)


def test_an_encoding_always_has_the_same_name() -> None:
    assert encoding_id(load_tokenizer("cl100k_base")) == "cl100k_base"
    first_, second = (train_bpe([text * 50], 260) for text in ("abc abd ", "xyz xyw "))
    assert encoding_id(first_) != encoding_id(second)
    assert encoding_id(first_) == encoding_id(train_bpe(["abc abd " * 50], 260))


def test_a_row_group_by_hand() -> None:
    row_group = encode_row_group(["ab", None, "", "c<|endoftext|>"], BYTE)
    assert texts_in(row_group.ids) == ["ab", "c<|endoftext|>"]
    assert row_group.lengths.tolist() == [3, 15]
    assert (row_group.digests < 0.1 * 2**64).tolist() == [is_validation("ab"), is_validation("c<|endoftext|>")]
    assert encode_row_group([None, ""], BYTE).ids.tolist() == []


FAULTS: dict[str, dict[str, Any]] = {
    "a busy hub": {"kind": "status", "status": 429, "retry_after": 1, "times": 2},
    "a hub that is down": {"kind": "status", "status": 503, "times": 3},
    "a reset connection": {"kind": "reset", "times": 3},
    "a reset in mid-body": {"kind": "reset_body", "times": 4},
    "a truncated body": {"kind": "truncate", "times": 4},
    "a short body": {"kind": "short", "times": 4},
    "faults at random": {"kind": "reset_body", "probability": 0.3, "times": 30},
    "wrong bytes of the right length": {"kind": "corrupt", "times": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_stream_is_the_same_through(fault: str, server: StandInHub, tmp_path: Path) -> None:
    with opened(config(tmp_path / "well")) as (_, source):
        whole = first(source, 60)
    server.fail(path="/cdn/", **FAULTS[fault])
    with opened(config(tmp_path / "faults")) as (_, source):
        assert_same(first(source, 60), whole)


@pytest.mark.parametrize("fetches_ahead", [True, False])
def test_bytes_that_stay_damaged_are_named_without_a_traceback(
    server: StandInHub, tmp_path: Path, fetches_ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One damaged answer ended a run with "Couldn't deserialize thrift", and a traceback in the threads that fetch."""
    crashed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", crashed.append)
    commit = server.commit(FINEWEB).sha
    with opened(config(tmp_path, revision=commit)):
        pass  # the listings and the validation text are in the cache
    server.fail("corrupt", path="/cdn/", times=10**6)
    message = (
        r"cannot read (the footer of )?sample/10BT/\d+_00000.parquet(, row group \d+)? from 127.*bytes are damaged"
    )
    with opened(config(tmp_path, revision=commit, network_patience=0.3)) as (_, source):
        source.fetches_ahead = fetches_ahead
        with pytest.raises(HubError, match=message) as caught:
            one_pass(source)
    assert "\n" not in str(caught.value)
    assert crashed == []


def test_a_document_that_is_not_utf8_is_reported_and_its_wrong_bytes_replaced(
    server: StandInHub, tmp_path: Path
) -> None:
    """Such a text could never be passed: "'utf-8' codec can't decode byte 0xff", without file or row group."""
    contents = [f"Page {n}".encode() + (b" caf\xe9" if n in (30, 31) else b"") for n in range(60)]
    table = pa.table({"text": pa.array(contents, pa.binary()).view(pa.string())})
    server.add("someone/latin", {"train.parquet": parquet_bytes(table, 10)})
    messages: list[Any] = []
    changes = {"dataset": "hf:someone/latin", "validation_tokens": 10**5, "validation_fraction": 0.3}
    with opened(config(tmp_path, **changes), messages.append) as (data, source):
        found = one_pass(source) + texts_in(data.validation[1][data.validation[1] >= 0])
    assert sorted(found) == sorted(text.decode(errors="replace") for text in contents)
    line = "train.parquet, row group 3: 2 of 10 documents are not UTF-8; U+FFFD replaces their wrong bytes"
    assert line in messages


ODD_LISTINGS: list[Any] = [7, None, [], {}, {"commit": 5, "files": []}, [["a", 1]], [[0, 10**12]], {"files": [{}]}]


@pytest.mark.slow
@pytest.mark.parametrize("odd", ODD_LISTINGS)
def test_odd_listings_in_the_metadata_are_asked_for_again(server: StandInHub, tmp_path: Path, odd: Any) -> None:
    """They were a traceback at every start."""
    with opened(config(tmp_path)) as (_, source):
        whole = one_pass(source)
    path = tmp_path / "cache_metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["checksum"]  # as earlier versions wrote it
    path.write_text(json.dumps({**metadata, "listings": dict.fromkeys(metadata["listings"], odd)}))
    messages: list[Any] = []
    with opened(config(tmp_path), messages.append) as (_, source):
        assert one_pass(source) == whole
    lines = [line for line in messages if isinstance(line, str)]
    assert lines
    assert all("cache_metadata.json has an unreadable entry for" in line for line in lines)


@pytest.mark.parametrize("validation", [True, False])
def test_a_dataset_whose_documents_are_all_on_one_side_is_one_line(
    server: StandInHub, tmp_path: Path, validation: bool
) -> None:
    """Its few documents were all training text, and the error was NumPy's about an empty list."""
    texts = [text for text in TEXTS if is_validation(text) == validation][:3]
    server.add("someone/few", {"train.parquet": parquet_bytes(fineweb_rows(texts), 1)})
    missing = "training" if validation else "validation"
    message = rf"no {missing} document.*--validation-fraction"
    with pytest.raises(ValueError, match=message) as caught, opened(config(tmp_path, dataset="hf:someone/few")) as few:
        first(few[1], 1)
    assert "\n" not in str(caught.value)


def test_a_file_replaced_on_the_hub_in_mid_run_is_an_error_never_wrong_text(server: StandInHub, tmp_path: Path) -> None:
    commit = server.add("someone/moving", {"train.parquet": parquet_bytes(fineweb_rows(TEXTS), GROUP)})
    changes = {"dataset": "hf:someone/moving", "revision": commit, "validation_tokens": 1}
    whole: list[Any] = []

    def read_on(source: HubSource) -> None:
        with contextlib.closing(source.stream(3, DataState())) as stream:
            for place, tokens in stream:
                whole.append((place, texts_in(tokens)))
                if len(whole) == 3:
                    server.replace("someone/moving", "train.parquet", parquet_bytes(fineweb_rows(TEXTS[::-1]), GROUP))

    with opened(config(tmp_path, **changes)) as (_, source):
        source.fetches_ahead = False
        with pytest.raises(HubError, match="changed on the hub"):
            read_on(source)
    assert 3 <= len(whole) < 35
    for place, texts in whole:
        group = source.text.shard(place.shard).first_group + place.row_group
        assert texts == [text for text in TEXTS[group * GROUP : (group + 1) * GROUP] if not is_validation(text)]


def test_a_new_upload_does_not_change_a_run_that_has_begun(server: StandInHub, tmp_path: Path) -> None:
    server.add("someone/growing", {"train.parquet": parquet_bytes(fineweb_rows(TEXTS), GROUP)})
    changes = {"dataset": "hf:someone/growing", "validation_tokens": 1}
    with opened(config(tmp_path, **changes)) as (data, source):
        whole = first(source, 40)
        commit = data.revision
    server.add("someone/growing", {"train.parquet": parquet_bytes(fineweb_rows(TEXTS[::-1]), GROUP)})
    with opened(config(tmp_path / "other", **changes, revision=commit)) as (_, source):
        assert_same(first(source, 20, whole[19][2]), whole[20:])
    with opened(config(tmp_path, **changes)) as (data, source):  # a new run takes the new text, not what is cached
        assert data.revision != commit
        assert first(source, 40)[0][0].tolist() != whole[0][0].tolist()


def test_the_cache_stays_within_its_bounds_and_the_stream_the_same(server: StandInHub, tmp_path: Path) -> None:
    # Shards of more row groups than are prepared in memory, so that at most two are leased at a time.
    files = fineweb_files(TEXTS, FILES, 2)
    commit = server.add("someone/many", files)
    sizes = [len(contents) for path, contents in files.items() if path.endswith(".parquet")]
    shards = {"dataset": "hf:someone/many", "revision": commit, "shard_mb": max(sizes) / 3e6}
    with opened(config(tmp_path / "large", **shards)) as (_, source):
        whole = first(source, 200)
        counts = [source.row_groups(shard) for shard in range(len(source))]
    assert len(counts) >= 8
    assert min(counts) > MAX_AHEAD
    messages: list[Any] = []
    with opened(config(tmp_path / "small", cache_shards=3, **shards), messages.append) as (_, source):
        batches = PackedBatches(source, 16, 4, seed=3, window_rows=24)
        drawn, most = [], 0
        with contextlib.closing(iter(batches)) as iterator:
            for batch in itertools.islice(iterator, 200):
                drawn.append(batch)
                stock = source.text.cache.stock()
                most = max(most, len({stored.number for stored in stock if stored.kind in ("parquet", "parts")}))
    assert_same(drawn, whole)
    assert most == 3
    assert any(isinstance(message, FetchProgress) for message in messages)


def test_two_runs_share_one_cache_and_fetch_little_twice(server: StandInHub, tmp_path: Path) -> None:
    with opened(config(tmp_path / "alone")) as (_, source):
        whole = first(source, 150)
        alone = source.text.bytes_fetched
    drawn: dict[int, list[Batch]] = {}

    def run(number: int) -> None:
        with opened(config(tmp_path / "shared")) as (_, source):
            drawn[number] = first(source, 150)

    server.reset_counts()
    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert_same(drawn[number], whole)
    footers = 2 * FILES * 64 * 1024
    assert server.bytes_sent(".parquet") <= 1.2 * alone + footers


def test_closing_ends_all_threads_at_once_even_in_a_stalled_fetch(server: StandInHub, tmp_path: Path) -> None:
    with opened(config(tmp_path)) as (_, source):
        first(source, 1)
    before = threading.active_count()
    with opened(config(tmp_path / "stalled")) as (_, source):
        server.fail("status", path="/cdn/", status=503, times=10**6)
        reader = threading.Thread(
            target=lambda: contextlib.suppress(Exception) or next(source.stream(3, DataState())), daemon=True
        )
        started = time.monotonic()
        reader.start()
        time.sleep(0.3)
    assert time.monotonic() - started < 5
    reader.join(5)
    assert threading.active_count() <= before + 1


def test_different_texts_have_different_default_caches() -> None:
    """hf:a/b_c and hf:a/b --subset c once shared data/a_b_c_cache and removed each other's shards."""
    names = ["a/b_c", "a_b/c", "a/b", "a_/b", "a/_b", FINEWEB]
    parts: list[dict[str, Any]] = [{}, {"subset": "c"}, {"subset": "validation"}, {"split": "validation"}]
    parts += [{"subset": "c/d"}, {"subset": "c-d"}, {"subset": "c", "split": "d"}, {"subset": "c_d"}]
    parts += [{"subset": "sample-10BT"}, {"column": "title"}]
    found = {opening.default_cache(name, **changes) for name in names for changes in parts}
    assert len(found) == len(names) * len(parts)
    assert all(re.fullmatch(r"data/[\w.-]+_cache", name) for name in found)
    assert opening.default_cache("a/b") == "data/a_b_cache"
    assert opening.default_cache(FINEWEB, "sample-10BT") == "data/fineweb_cache"
