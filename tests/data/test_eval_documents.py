"""Documents to evaluate on: the held-out documents of a run, without the training text, also without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stand_in_hub import FINEWEB, StandInHub, fineweb_files, taken_for_the_hub
from transformer.config import DataConfig
from transformer.data.eval_documents import encode_documents, held_out_documents
from transformer.data.hub import client as hub
from transformer.data.open import open_dataset
from transformer.text import ByteTokenizer, is_validation, load_tokenizer, train_bpe

BYTE = ByteTokenizer()
TEXTS = [f"Page {n}: " + f"word{n} " * (n % 13) for n in range(240)]
HELD_OUT = [text for text in TEXTS if is_validation(text)]


@pytest.fixture(scope="module")
def served() -> Iterator[StandInHub]:
    with StandInHub() as server:
        server.add(FINEWEB, fineweb_files(TEXTS, 3, 7))
        yield server


def on_hub(folder: Path, wanted: int = 300) -> DataConfig:
    return DataConfig(
        "fineweb", "byte", cache_dir=str(folder), shard_mb=0.004, network_patience=20.0, validation_tokens=wanted
    ).check()


def local(folder: Path, **settings: int) -> DataConfig:
    path = folder / "pages.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), encoding="utf-8")
    return DataConfig(str(path), "byte", **settings).check()  # type: ignore[arg-type]


def spelt(tokens: list[np.ndarray]) -> list[str]:
    return [BYTE.decode(part[:-1]) for part in tokens]


def test_texts_become_tokens_with_an_end_of_text_each() -> None:
    documents = encode_documents(["né", "", "a"], BYTE, "two")
    assert [tokens.tolist() for tokens in documents.tokens] == [[110, 195, 169, 256], [97, 256]]
    assert documents.text_bytes == [3, 1]
    assert documents.num_tokens == documents.counts.sum() == 6
    assert documents.counts[256] == 2
    assert len(documents.counts) == 257


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 6])
def test_a_limit_cuts_the_last_document_and_its_bytes(limit: int) -> None:
    documents = encode_documents(iter(["abc", "de"]), BYTE, "two", limit)
    assert documents.num_tokens == limit
    assert np.concatenate(documents.tokens).tolist() == [97, 98, 99, 256, 100, 101][:limit]
    assert sum(documents.text_bytes) == limit - (limit > 3)


def test_no_more_texts_are_read_than_the_limit_needs() -> None:
    texts = iter(["abc", "de", "f"])
    encode_documents(texts, BYTE, "three", 4)
    assert next(texts) == "de"


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="stdin has no text"):
        encode_documents(texts, BYTE, "stdin")


@pytest.mark.parametrize("name", ["byte", "bpe300", "p50k_base"])
@pytest.mark.parametrize("wanted", [100, 100_000])
def test_they_are_the_tokens_that_a_run_evaluates_on(tmp_path: Path, name: str, wanted: int) -> None:
    config = local(tmp_path, validation_tokens=wanted, seq_length=16)
    tokenizer = train_bpe(TEXTS, 300) if name == "bpe300" else load_tokenizer(name)
    documents = held_out_documents(config, tokenizer)
    looked_at = open_dataset(config, tokenizer)
    targets = looked_at.validation[1]
    assert np.concatenate(documents.tokens).tolist() == targets[targets >= 0].tolist()
    assert sum(documents.text_bytes) == looked_at.validation_bytes
    assert documents.name == f"held-out text of {config.dataset}"


def test_the_training_text_is_counted_apart(tmp_path: Path) -> None:
    documents = held_out_documents(local(tmp_path), BYTE, 1_000_000)
    assert spelt(documents.tokens) == HELD_OUT
    assert documents.known is not None
    assert documents.known.sum() == sum(len(text) + 1 for text in TEXTS if not is_validation(text))
    assert documents.known[256] == len(TEXTS) - len(HELD_OUT)


def test_the_bundled_scenes_are_held_out_whole(tmp_path: Path) -> None:
    documents = held_out_documents(DataConfig("shakespeare", "byte"), BYTE, 50_000)
    assert documents.num_tokens == 50_000
    assert len(documents.tokens) > 3


def test_a_dataset_on_the_hub_gives_its_validation_documents_and_fetches_no_training_text(
    served: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with taken_for_the_hub(served, monkeypatch):
        documents = held_out_documents(on_hub(tmp_path), BYTE)
    assert documents.num_tokens == 300
    texts = spelt(documents.tokens[:-1])
    assert texts == HELD_OUT[: len(texts)]
    assert documents.known is None
    assert len(list(tmp_path.glob("validation_*.parquet"))) == 1


def test_a_run_and_a_measurement_read_the_same_file_of_documents(
    served: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with taken_for_the_hub(served, monkeypatch):
        data = open_dataset(on_hub(tmp_path), BYTE)
        data.close()
        sent = served.bytes_sent(".parquet")
        documents = held_out_documents(on_hub(tmp_path), BYTE)
        assert served.bytes_sent(".parquet") == sent
        more = held_out_documents(on_hub(tmp_path), BYTE, 10_000)
    targets = data.validation[1]
    assert np.concatenate(documents.tokens).tolist() == targets[targets >= 0].tolist()
    assert spelt(more.tokens) == HELD_OUT


def test_without_a_network_the_file_of_documents_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LONGEST_WAIT", 0.1)
    with StandInHub() as server, taken_for_the_hub(server, monkeypatch):
        server.add(FINEWEB, fineweb_files(TEXTS, 3, 7))
        online = held_out_documents(on_hub(tmp_path), BYTE)
        server.fail("status", status=503, times=10_000)
        messages: list[object] = []
        config = DataConfig(**{**on_hub(tmp_path).to_dict(), "network_patience": 0.2})
        offline = held_out_documents(config, BYTE, notify=messages.append)
        assert any("cannot be reached" in str(line) for line in messages)
        with pytest.raises(ValueError, match="503"):
            held_out_documents(config, BYTE, 10_000)
    assert np.array_equal(np.concatenate(online.tokens), np.concatenate(offline.tokens))
