"""Readers of one cache, killed at any moment or working side by side: the text is right, and nothing is left over.

Readers are forked from a process that is this file, called as a script (forks.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from forks import Forks, command, serve, wait_for
from stand_in_hub import FINEWEB, StandInHub, fineweb_files
from transformer.config import DataConfig
from transformer.data.contracts import DataState
from transformer.data.open import open_dataset
from transformer.dataset import PackedBatches
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training.events import StepMetrics

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="readers are forked")]

ROOT = Path(__file__).resolve().parents[1]
BATCHES = 1_000
"""Batches of the undisturbed streams: more than one pass over the text."""
SHARDS = 3
"""Shards that the cache may hold, of 9."""


# What is forked


def read(job: dict[str, Any]) -> None:
    """Appends a digest and the state after each batch to job["out"], and messages to job["out"].messages."""
    out, messages = (os.open(job["out"] + end, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for end in ("", ".messages"))
    config = DataConfig(**job["config"]).check()
    with contextlib.closing(open_dataset(config, notify=lambda line: os.write(messages, f"{line}\n".encode()))) as data:
        batches = PackedBatches(data.train, 32, 8, job["seed"], DataState.from_dict(job["state"]), window_rows=64)
        with contextlib.closing(iter(batches)) as iterator:
            for inputs, targets, state in itertools.islice(iterator, job["batches"]):
                digest = hashlib.sha256(inputs.numpy().tobytes() + targets.numpy().tobytes()).hexdigest()
                os.write(out, f"{digest} {json.dumps(state.to_dict())}\n".encode())  # in one piece, whatever happens


# What is read


@pytest.fixture(scope="module")
def hub() -> Iterator[StandInHub]:
    """600 documents of random words in 3 files, in row groups of 8."""
    chance = Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(2_000)]
    with StandInHub() as server:
        server.add(FINEWEB, fineweb_files([" ".join(chance.choices(words, k=60)) for _ in range(600)], 3, 8))
        yield server


@pytest.fixture(scope="module")
def forks(hub: StandInHub) -> Iterator[Forks]:
    with contextlib.closing(Forks(__file__, hub.url)) as process:
        yield process


Job = Callable[..., dict[str, Any]]


@pytest.fixture
def job(hub: StandInHub, tmp_path: Path) -> Job:
    """job(cache_dir=..., seed=...): what a reader is to do. Each has an output of its own, job["out"]."""
    shard_mb = hub.commit(FINEWEB).files["sample/10BT/000_00000.parquet"].size / 3e6
    numbers = itertools.count()

    def make(seed: int = 1, batches: int | None = None, state: Any = None, delay: float = 0, **changes: Any) -> Any:
        config = {"encoding": "byte", "shard_mb": shard_mb, "cache_shards": SHARDS, "num_workers": 1, **changes}
        config |= {"validation_tokens": 500, "cache_dir": str(config.get("cache_dir", tmp_path / "cache"))}
        out = tmp_path / f"reader_{next(numbers)}"
        out.touch()
        job = {"config": config, "seed": seed, "batches": batches, "state": state or {}}
        return {**job, "delay": delay, "out": str(out)}

    return make


def lines(job: dict[str, Any]) -> list[str]:
    """What the reader has read so far."""
    return Path(job["out"]).read_text().splitlines()


def messages(job: dict[str, Any]) -> str:
    return Path(job["out"] + ".messages").read_text() if Path(job["out"] + ".messages").exists() else ""


def shards_on_disk(cache: Path) -> set[str]:
    files = [path.relative_to(cache).parts[0] for path in cache.rglob("*") if path.is_file()]
    return {name.partition(".")[0] for name in files if name.startswith("shard_")}


DOCUMENTED = re.compile(
    r"cache_metadata\.json|cache\.lock|\.locks/\w+|validation_[0-9a-f]{12}\.parquet"
    r"|shard_\d{5}\.(parquet|parts/\d{5}\.parquet|byte/\d{5}\.npz)"
)


def assert_sound(cache: Path) -> None:
    """Within its bounds, valid metadata, and no file but those that belong there."""
    files = [path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()]
    assert [name for name in files if not DOCUMENTED.fullmatch(name)] == []
    assert list((cache / ".processes").iterdir()) == []
    assert 0 < len(shards_on_disk(cache)) <= SHARDS
    assert json.loads((cache / "cache_metadata.json").read_text())["listings"]


# Kills


@pytest.mark.parametrize("kills", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_readers_killed_at_random_moments_leave_the_text_right_and_nothing_else(
    kills: int, forks: Forks, job: Job, tmp_path: Path
) -> None:
    """Each starts anew or resumes from a position of the stream, as --resume does, with the cache of the one before."""
    undisturbed = job(batches=BATCHES, cache_dir=tmp_path / "undisturbed")
    forks.run(undisturbed)
    whole = lines(undisturbed)
    assert len(set(whole)) == BATCHES
    cache, chance, drawn = tmp_path / "cache", Random(kills), 0
    for number in range(kills):
        start = chance.choice([0, chance.randrange(1, BATCHES // 2)])
        reader = job(state=json.loads(whole[start - 1].partition(" ")[2]) if start else None)
        [pid] = forks.start(reader)
        count = chance.choice([0, 1, chance.randrange(100), chance.randrange(400)])
        wait_for(lambda reader=reader, count=count: len(lines(reader)) >= count)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.25))
        forks.kill([pid])
        found = lines(reader)[: BATCHES - start]
        assert found == whole[start : start + len(found)], f"kill {number}"
        assert "damaged" not in messages(reader)
        assert "another text" not in messages(reader)
        assert not cache.exists() or len(shards_on_disk(cache)) <= SHARDS
        drawn += len(found)
    assert drawn > kills
    last = job(batches=BATCHES)
    forks.run(last)
    assert lines(last) == whole
    assert "damaged" not in messages(last)
    assert_sound(cache)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_reader_is_not_disturbed_by_others_that_are_killed_beside_it(
    kills: int, forks: Forks, job: Job, tmp_path: Path
) -> None:
    """Of other seeds, so that they want other shards in a cache that holds three."""
    batches = 400 + 50 * kills
    undisturbed = job(batches=batches, cache_dir=tmp_path / "undisturbed")
    forks.run(undisturbed)
    chance = Random(kills)
    reader = job(batches=batches)
    others = [job(seed=2 + number, delay=0.2 * number) for number in range(kills)]
    _, *pids = forks.start(reader, *others)
    for number, pid in enumerate(pids):
        wait_for(lambda number=number: lines(others[number]) != [])  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
    assert forks.statuses() == [0] + [-signal.SIGKILL] * kills, Path(reader["out"] + ".err").read_text()
    assert lines(reader) == lines(undisturbed)
    for one in (reader, *others):
        assert "damaged" not in messages(one)
    last = job(batches=100)
    forks.run(last)
    assert lines(last) == lines(undisturbed)[:100]
    assert_sound(tmp_path / "cache")


# Side by side


def losses(folder: Path) -> list[tuple[int, float, float]]:
    events = read_metrics(folder / "checkpoints_tiny" / METRICS_FILE)
    return [(event.step, event.loss, event.grad_norm) for event in events if isinstance(event, StepMetrics)]


def test_two_processes_train_on_one_cache_at_once(forks: Forks, hub: StandInHub, tmp_path: Path) -> None:
    """Different seeds and encodings; each trains as it does alone."""
    shard_mb = hub.commit(FINEWEB).files["sample/10BT/000_00000.parquet"].size / 3e6

    def training(where: str, cache: str, encoding: str, seed: int) -> dict[str, Any]:
        folder = tmp_path / f"{where}_{encoding}"
        folder.mkdir()
        settings = {"dataset": "fineweb", "encoding": encoding, "seed": seed, "cache-dir": tmp_path / cache}
        settings |= {"cache-shards": SHARDS, "shard-mb": shard_mb, "shuffle-rows": 6_000, "seq-length": 16}
        settings |= {"max-steps": 12, "log-every": 2, "batch-size": 4, "validation-tokens": 200, "num-workers": 2}
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        return {"arguments": ["train", "--preset=tiny", *arguments], "folder": str(folder), "out": str(folder / "out")}

    runs = [("byte", 1), ("p50k_base", 2)]
    forks.run(*(training("alone", f"cache_{encoding}", encoding, seed) for encoding, seed in runs))
    forks.run(*(training("together", "cache", encoding, seed) for encoding, seed in runs))
    for encoding, _ in runs:
        alone, together = (losses(tmp_path / f"{where}_{encoding}") for where in ("alone", "together"))
        assert len(alone) == 6
        assert together == alone
        assert (tmp_path / f"together_{encoding}" / "out.err").read_text() == ""


if __name__ == "__main__":
    serve(lambda job: command(job) if "arguments" in job else read(job))
