"""Odd answers of the hub, and damaged files of its cache: the text is right, or the reason is one line."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fuzzing import HOSTILE, altered, damaged, odd_value, run_cases
from stand_in_hub import FINEWEB, StandInHub, fineweb_files, taken_for_the_hub
from transformer.config import DataConfig
from transformer.data.open import open_dataset
from transformer.dataset import PackedBatches
from transformer.fineweb_dataset import HubSource

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TEXTS = [f"Document {n} has {Random(n).randbytes(60).hex()}" for n in range(60)]
DATA = DataConfig(
    encoding="byte", seq_length=16, validation_tokens=300, num_workers=1, network_patience=0.05, cache_dir="cache"
)


@pytest.fixture(scope="module")
def served() -> Iterator[StandInHub]:
    with StandInHub() as server:
        server.add(FINEWEB, fineweb_files(TEXTS, files=2, row_group_size=10), card={"license": "odc-by"})
        yield server


@pytest.fixture
def hub(served: StandInHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with taken_for_the_hub(served, monkeypatch) as server:
        yield server
        server.change = None


def read() -> tuple[list[Any], list[str]]:
    """Returns the validation rows and the first training rows, and the messages."""
    messages: list[str] = []
    notify = lambda message: messages.append(message) if isinstance(message, str) else None  # noqa: E731
    with contextlib.closing(open_dataset(DATA, notify=notify)) as data:
        assert isinstance(data.train, HubSource)
        data.train.fetches_ahead = False
        with contextlib.closing(iter(PackedBatches(data.train, 16, 8, seed=1, window_rows=8))) as batches:
            first = next(batches)
        return [part.tolist() for part in (*data.validation, first[0], first[1])], messages


def check_reading(right: list[Any] | None) -> None:
    """Reads the text; it is the right one (None: any), or an error says in one line why it cannot be read."""
    try:
        found, messages = read()
    except ValueError as error:
        messages = [str(error)]
    else:
        assert right is None or found == right, "another text was read"
    for message in messages:
        assert "\n" not in message, message
        assert len(message) < 2_000, message[:2_000]


@pytest.fixture
def right(hub: StandInHub, tmp_path: Path) -> list[Any]:
    """What an undamaged hub and cache give; the cache is in whole/."""
    with contextlib.chdir(tmp_path):
        found, _ = read()
        shutil.copytree("cache", "whole")
    return found


def odd_answer(answer: Any, chance: Random) -> Any:
    for _ in range(chance.choice([1, 1, 2])):
        answer = altered(answer, chance, odd_value)
    return answer


def test_an_odd_answer_of_the_hub_is_one_line(hub: StandInHub, right: list[Any], tmp_path: Path) -> None:
    kinds = ("status", "reset", "reset_body", "truncate", "short", "whole")

    def case(chance: Random) -> None:
        shutil.rmtree("cache", ignore_errors=True)
        hub.faults, hub.change = [], None
        hub.page_size = chance.choice([1, 2, 1_000])
        if chance.random() < 0.7:
            hub.change = lambda answer: odd_answer(answer, chance) if chance.random() < 0.5 else answer
            check_reading(None)  # a listing without a file is a listing of another text
        else:
            status = chance.choice([200, 204, 301, 302, 400, 401, 403, 404, 416, 429, 500, 503])
            path = chance.choice(["", "/tree/", "/cdn/", "/resolve/", "revision"])
            hub.fail(chance.choice(kinds), path, times=chance.choice([1, 1_000]), status=status)
            check_reading(right)

    def plain() -> None:
        shutil.rmtree("cache", ignore_errors=True)
        check_reading(right)

    run_cases(tmp_path, 200, case, plain)


def test_damaged_contents_on_the_hub_are_one_line(hub: StandInHub, right: list[Any], tmp_path: Path) -> None:
    """The file's hash on the hub is that of its damaged bytes, as after a faulty upload."""
    whole = {path: file.read(0, file.size) for path, file in hub.commit(FINEWEB).files.items()}

    def case(chance: Random) -> None:
        shutil.rmtree("cache", ignore_errors=True)
        path = chance.choice(sorted(path for path in whole if path.endswith(".parquet")))
        hub.replace(FINEWEB, path, damaged(whole[path], chance))
        try:
            check_reading(None)  # parquet does not notice all damage
        finally:
            hub.replace(FINEWEB, path, whole[path])

    run_cases(tmp_path, 200, case, lambda: check_reading(right))


def test_a_damaged_cache_is_noticed_and_the_text_stays_right(hub: StandInHub, right: list[Any], tmp_path: Path) -> None:
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]

    def case(chance: Random) -> None:
        shutil.rmtree("cache", ignore_errors=True)
        shutil.copytree("whole", "cache")
        is_altered = chance.random() < 0.5
        if is_altered:
            path = Path("cache", "cache_metadata.json")
            changed = odd_answer(json.loads(path.read_text(encoding="utf-8")), chance)
            path.write_text(json.dumps(changed, default=str), encoding="utf-8", errors="surrogatepass")
        else:
            path = Path("cache", chance.choice(files))
            path.write_bytes(damaged(path.read_bytes(), chance))
        if chance.random() < 0.1:
            Path("cache", chance.choice([f"shard_{HOSTILE}.parquet", "shard_00000.byte", "x"])).mkdir(exist_ok=True)
        if chance.random() < 0.5:
            hub.stop_serving()
        try:
            check_reading(None if is_altered else right)
        finally:
            hub.start_serving()

    run_cases(tmp_path, 200, case, lambda: check_reading(right))
