"""`main.py download`: fetched once, continued after a kill, and enough for a run without a network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from stand_in_hub import FINEWEB, StandInHub, fineweb_files, taken_for_the_hub
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training.events import EvalMetrics, StepMetrics

pytestmark = pytest.mark.usefixtures("plain_pictures")

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., Any]
# 6,000 documents of some 160 letters, in 3 files of 20 row groups; each file makes 4 shards.
TEXTS = [f"Document {n} has {Random(n).randbytes(72).hex()}" for n in range(6_000)]
GROUP = 100
FOOTER = 64 * 1024
"""Bytes at a file's end that are read to find its table of contents: once by each process."""
SHAPE = ("--encoding", "byte", "--shuffle-rows", "200", "--seq-length", "32", "--validation-tokens", "500")
SHAPE += ("--num-workers", "2", "--network-patience", "0.3")


@pytest.fixture(scope="module")
def served() -> Iterator[StandInHub]:
    with StandInHub() as server:
        server.add(FINEWEB, fineweb_files(TEXTS, 3, GROUP))
        yield server


@pytest.fixture
def hub(served: StandInHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with taken_for_the_hub(served, monkeypatch) as server:
        yield server


@pytest.fixture
def flags(served: StandInHub) -> tuple[str, ...]:
    """Settings that a download and a run share."""
    size = served.commit(FINEWEB).files["sample/10BT/000_00000.parquet"].size
    return (*SHAPE, "--shard-mb", str(size / 4e6))


def downloaded(out: str) -> int:
    """The tokens that the last line says are there."""
    found = re.search(r"^([\d,]+) tokens of training text \(byte\) are in \S+, which holds ", out, re.M)
    assert found is not None, out
    return int(found[1].replace(",", ""))


def losses(folder: Path) -> list[tuple[Any, ...]]:
    events = read_metrics(folder / METRICS_FILE)
    return [
        (type(event), event.step, event.loss, event.perplexity)
        for event in events
        if isinstance(event, StepMetrics | EvalMetrics)
    ]


def error_line(outcome: Any) -> str:
    """What follows "error: " on the only line of standard error."""
    assert outcome.status == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    return str(outcome.err)


def test_a_second_call_fetches_nothing(command: Command, hub: StandInHub, flags: tuple[str, ...]) -> None:
    first = command("download", "--tokens", "50k", "--seed", "5", *flags)
    assert (first.status, first.err) == (0, "")
    assert downloaded(first.out) >= 50_000 + 200 * 32
    assert "all there is" not in first.out
    assert "main.py train --seed 5 with the same settings" in " ".join(first.out.split())
    assert 0 < hub.bytes_sent(".parquet") < 3 * FOOTER + 100_000  # a letter takes half a byte
    hub.reset_counts()
    second = command("download", "--tokens", "50k", "--seed", "5", *flags)
    assert (second.status, downloaded(second.out)) == (0, downloaded(first.out))
    assert hub.bytes_sent() == 0


def test_a_run_trains_on_what_was_downloaded_as_it_does_with_the_hub(
    command: Command, hub: StandInHub, flags: tuple[str, ...], tmp_path: Path
) -> None:
    """A run of a seed of its own, and of as many tokens as were asked for."""
    outcome = command("download", "--tokens", "50k", "--seed", "5", *flags)
    assert (outcome.status, outcome.err) == (0, "")
    training = ("train", "--preset", "tiny", "--dataset", "fineweb", *flags, "--seed", "5", "--batch-size", "50")
    training += ("--max-steps", "31", "--log-every", "3", "--eval-every", "10")  # 31 * 50 * 32 = 49,600 tokens
    hub.stop_serving()
    offline = command(*training, "--checkpoint-dir", "offline")
    assert (offline.status, offline.err) == (0, "")
    assert "the hub cannot be reached: continuing with the text in" in offline.out
    hub.start_serving()
    hub.reset_counts()
    online = command(*training, "--checkpoint-dir", "online", "--cache-dir", "another_cache")
    assert (online.status, online.err) == (0, "")
    assert hub.bytes_sent() > 0
    assert losses(tmp_path / "offline") == losses(tmp_path / "online")
    assert len(losses(tmp_path / "offline")) == 10 + 3 + 4  # a step is told every 3, at 10, 20, 31; evaluated there


def process(hub: StandInHub, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """`main.py` with these arguments, in a process of its own."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "none"), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(ROOT / "main.py"), *arguments]
    return subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing is killed here")
def test_a_download_that_was_killed_goes_on_where_it_was(
    command: Command, hub: StandInHub, flags: tuple[str, ...], tmp_path: Path
) -> None:
    line = ("download", "--tokens", "300k", "--cache-shards", "9", *flags)
    assert command(*line, "--cache-dir", "undisturbed").status == 0
    whole = hub.bytes_sent(".parquet")
    hub.reset_counts()
    hub.bytes_per_second = whole / 4  # a connection; two are used
    with process(hub, tmp_path, *line) as killed:
        end = time.monotonic() + 60
        while hub.bytes_sent(".parquet") < 0.75 * whole:  # half of it may be footers
            assert killed.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    hub.bytes_per_second = float("inf")
    outcome = command(*line)
    assert (outcome.status, outcome.err) == (0, "")
    assert downloaded(outcome.out) >= 300_000 + 200 * 32
    fetched = hub.bytes_sent(".parquet")
    in_flight = 5 * 0.6 * GROUP * 160  # row groups, half a byte a letter: two at the kill, and two at either's end
    assert whole - in_flight <= fetched <= whole + 3 * FOOTER + in_flight
    assert not list((tmp_path / "data").rglob("*.tmp"))


def test_what_was_downloaded_is_in_the_documented_files(
    command: Command, hub: StandInHub, flags: tuple[str, ...], tmp_path: Path
) -> None:
    assert command("download", "--tokens", "1k", *flags).status == 0
    cache = tmp_path / "data" / "fineweb_cache"
    assert (cache / "cache_metadata.json").is_file()
    assert all(re.fullmatch(r"shard_\d{5}\.(parquet|parts|byte)", path.name) for path in cache.glob("shard_*"))
    assert list(cache.glob("shard_*.byte/*"))


def test_a_terminal_shows_how_far_it_is(
    command: Command, hub: StandInHub, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    hub.latency = 0.05
    outcome = command("download", "--tokens", "100k", *flags)
    assert (outcome.status, outcome.err) == (0, "")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", outcome.out)
    assert re.search(r"[\d,]+ tokens  shard \d+  \d+\.\d MB/s  cache \d+\.\d\d GB", shown), shown


def test_more_than_there_is_is_one_pass_and_no_error(
    command: Command, hub: StandInHub, flags: tuple[str, ...], tmp_path: Path
) -> None:
    outcome = command("download", "--tokens", "5M", "--cache-shards", "20", *flags)
    assert (outcome.status, outcome.err) == (0, "")
    letters = sum(len(text) + 1 for text in TEXTS)
    assert 0.85 * letters < downloaded(outcome.out) < 0.95 * letters
    assert f"fineweb has {downloaded(outcome.out):,} tokens of training text, not 5,000,000: that is all there is" in (
        " ".join(outcome.out.split())
    )
    hub.stop_serving()
    assert command("download", "--tokens", "5M", "--cache-shards", "20", *flags).status == 0


def test_more_than_the_cache_may_hold_is_refused_in_one_line(
    command: Command, hub: StandInHub, flags: tuple[str, ...]
) -> None:
    said = error_line(command("download", "--tokens", "500k", "--cache-shards", "2", *flags))
    assert re.search(r"tokens exceed the cache limit \(2 shards, .*--cache-shards", said)


def test_more_bytes_than_the_cache_may_hold_are_refused_in_one_line(
    command: Command, hub: StandInHub, flags: tuple[str, ...]
) -> None:
    """What is evicted while it is fetched is not there for a run without a network."""
    line = ("download", "--tokens", "500k", "--cache-shards", "20", "--cache-gb", "0.0005", *flags)
    assert "--cache-gb" in error_line(command(*line))


REFUSED = {
    "text for a number of tokens": (("--tokens", "many"), "tokens='many' is not a number of tokens such as 500k"),
    "no tokens": (("--tokens", "0"), "tokens='0' is not a number of tokens"),
    "tokens below zero": (("--tokens=-5",), "tokens='-5' is not a number of tokens"),
    "bundled text": (("--dataset", "shakespeare"), "dataset=shakespeare is not on the hub"),
    "a file": (("--dataset", "notes.txt"), "dataset=notes.txt is not on the hub"),
    "half a name": (("--dataset", "hf:wikitext"), "is not hf:OWNER/NAME"),
    "a seed below 0": (("--seed", "-1"), "seed=-1"),
    "several": (("--tokens", "x", "--cache-shards", "0"), "cache_shards=0 must be above 0; tokens='x'"),
    "a flag of train": (("--epochs", "2"), "--epochs"),
}


@pytest.mark.parametrize("slip", REFUSED)
def test_a_slip_is_one_line_before_anything_is_asked_of_the_hub(
    command: Command, hub: StandInHub, tmp_path: Path, slip: str
) -> None:
    arguments, said = REFUSED[slip]
    assert said in error_line(command("download", *arguments))
    assert hub.requests == []
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_it_says_so_in_one_line(command: Command, hub: StandInHub, flags: tuple[str, ...]) -> None:
    hub.stop_serving()
    said = error_line(command("download", "--tokens", "1k", *flags))
    assert said.startswith("error: HuggingFaceFW/fineweb-edu cannot be reached")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("100", 100),
        ("100k", 100_000),
        ("1.5M", 1_500_000),
        ("2B", 2_000_000_000),
        ("0.5k", 500),
        (".5k", 500),
        ("2_000", 2_000),
        ("2,000", 2_000),
        (" 7m ", 7_000_000),
        ("0", None),
        ("0.4", None),
        ("-5", None),
        ("", None),
        ("k", None),
        ("1e6", None),
        ("1.5.5M", None),
        ("5 0", None),
        ("100T", None),
        ("many", None),
    ],
)
def test_a_count_of_tokens_is_a_number_and_a_letter(text: str, count: int | None) -> None:
    from transformer.cli.download.options import token_count

    assert token_count(text) == count


def test_a_fault_at_the_border_of_two_files_loses_no_row_group(
    command: Command, hub: StandInHub, flags: tuple[str, ...]
) -> None:
    """When the footer of the next file failed once, the row groups already chosen were once forgotten, not fetched."""
    everything = ("--tokens", "100M", "--cache-shards", "20", *flags)
    whole = downloaded(command("download", *everything, "--cache-dir", "undisturbed").out)
    for file in sorted(hub.commit(FINEWEB).files):
        hub.fail("status", path=file, status=503, times=1)  # the first request for a file is the one for its footer
    assert downloaded(command("download", *everything).out) == whole
