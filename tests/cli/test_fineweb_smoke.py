"""commands/test_fineweb.py: what it shows where the hub answers, what it keeps, and its line where nothing answers."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from stand_in_hub import FINEWEB, StandInHub, fineweb_files, taken_for_the_hub
from transformer.text import is_validation

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., Any]
FILES, DOCUMENTS, GROUP = 2, 60, 10
TEXTS = [f"Document {n} has {Random(n).randbytes(2_000).hex()}" for n in range(FILES * DOCUMENTS)]
# Each file is one shard of six row groups. --network-patience is for the tests in which nothing answers.
FLAGS = ("--encoding", "byte", "--sample-tokens", "30", "--network-patience", "0.3", "--validation-tokens", "500")


@pytest.fixture(scope="module")
def served() -> Iterator[StandInHub]:
    with StandInHub() as server:
        server.add(FINEWEB, fineweb_files(TEXTS, FILES, GROUP))
        yield server


@pytest.fixture
def hub(served: StandInHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with taken_for_the_hub(served, monkeypatch) as server:
        yield server


def units_read(seed: int = 1) -> list[list[str]]:
    """The documents of the two row groups that a look with this seed reads after its first batch's two."""
    shard = int(np.random.default_rng([seed, 0, 0, 1]).permutation(FILES)[0])
    groups = np.random.default_rng([seed, 0, shard]).permutation(DOCUMENTS // GROUP)[2:4]
    starts = [shard * DOCUMENTS + int(group) * GROUP for group in groups]
    return [TEXTS[start : start + GROUP] for start in starts]


def numbers(out: str, row: str) -> list[str]:
    """What stands in the cells after the one that begins so."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines()]
    [found] = [cells for cells in rows if cells[0].startswith(row) and len(cells) > 1]
    return found[1:]


def assert_complete(out: str, hub: StandInHub) -> None:
    """What every look shows, however much of it came from the cache."""
    commit = hub.commit(FINEWEB)
    assert f"{FINEWEB} at {commit.sha[:12]}" in out
    for number in range(FILES):
        name = f"sample/10BT/{number:03}_00000.parquet"
        assert numbers(out, name) == [f"{commit.files[name].size / 1e6:.1f}", "1"]
    assert numbers(out, f"{FILES} files")[1] == str(FILES)
    for row in ("open: find the files", "first batch", "2 row groups"):
        assert all(re.fullmatch(r"\d+\.\d\d", seconds) for seconds in numbers(out, row)), row
    units = units_read()
    train, held_out = ([t for unit in units for t in unit if is_validation(t) == side] for side in (False, True))
    for side, texts in (("train", train), ("validation", held_out)):
        tokens = sum(len(text) + 1 for text in texts)
        assert numbers(out, side) == [str(len(texts)), f"{len(texts) / (2 * GROUP):.1%}", f"{tokens:,}"]
    assert numbers(out, "all")[-1] == "at most 5 shards, 2.5 GB"
    shard = int(np.random.default_rng([1, 0, 0, 1]).permutation(FILES)[0])
    present, text, ids, used = numbers(out, f"{shard:05d}")
    assert re.fullmatch(r"[4-6] of 6", present)
    assert float(text) > 0
    assert float(ids) > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", used)
    first = next(text for text in units[0] if not is_validation(text))
    assert out.splitlines()[-1] == first[:30]


def test_a_first_look_fetches_a_little_and_the_next_ones_nothing(command: Command, hub: StandInHub) -> None:
    first = command("test-fineweb", *FLAGS)
    assert (first.status, first.err) == (0, "")
    assert_complete(first.out, hub)
    fetched = hub.bytes_sent(".parquet")
    assert numbers(first.out, "fetched from the hub, MB") == [f"{fetched / 1e6:.2f}", "0.00"]
    assert fetched > 0
    hub.reset_counts()
    second = command("test-fineweb", *FLAGS)
    assert (second.status, second.err) == (0, "")
    assert_complete(second.out, hub)
    assert numbers(second.out, "fetched from the hub, MB") == ["0.00", "0.00"]
    assert hub.bytes_sent() == 0
    assert 1 <= len(hub.requests) <= 4  # which commit is the newest, and its files


def test_a_terminal_shows_what_is_waited_for(
    command: Command, hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    hub.latency = 0.1
    outcome = command("test-fineweb", *FLAGS)
    assert (outcome.status, outcome.err) == (0, "")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", outcome.out)
    assert "opening fineweb" in shown
    assert re.search(r"fetching shard \d+  \d+\.\d MB/s  cache \d+\.\d\d GB", shown), shown


def test_without_a_network_it_shows_what_an_earlier_call_has_fetched(command: Command, hub: StandInHub) -> None:
    assert command("test-fineweb", *FLAGS).status == 0
    hub.stop_serving()
    outcome = command("test-fineweb", *FLAGS)
    assert (outcome.status, outcome.err) == (0, "")
    assert_complete(outcome.out, hub)
    assert f"the hub cannot be reached: continuing with the text in {Path('data/fineweb_cache')}" in outcome.out
    assert numbers(outcome.out, "fetched from the hub, MB") == ["0.00", "0.00"]


def test_without_a_network_or_a_cache_it_says_so_in_one_line(command: Command, hub: StandInHub) -> None:
    hub.stop_serving()
    outcome = command("test-fineweb", *FLAGS)
    assert outcome.status == 2
    assert re.fullmatch(r"error: HuggingFaceFW/fineweb-edu cannot be reached .*\n", outcome.err)
    assert "--dataset shakespeare" in outcome.err
    assert "┃" not in outcome.out


@pytest.mark.parametrize("dataset", ["shakespeare", "notes.txt"])
def test_what_is_not_on_the_hub_is_refused_in_one_line(
    command: Command, hub: StandInHub, tmp_path: Path, dataset: str
) -> None:
    (tmp_path / "notes.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    outcome = command("test-fineweb", *FLAGS, "--dataset", dataset)
    assert outcome.status == 2
    assert re.fullmatch(
        rf"error: {dataset} is not on the hub: this command checks only fineweb and hf:OWNER/NAME\n", outcome.err
    )
    assert hub.requests == []
    assert outcome.out == ""


def test_another_dataset_of_the_hub_is_shown_the_same_way(command: Command, hub: StandInHub, tmp_path: Path) -> None:
    files = {path: data for path, data in fineweb_files(TEXTS, FILES, GROUP).items() if path.endswith(".parquet")}
    hub.add("someone/texts", {f"data/train-{n}.parquet": data for n, data in enumerate(files.values())})
    outcome = command("test-fineweb", *FLAGS, "--dataset", "hf:someone/texts")
    assert (outcome.status, outcome.err) == (0, "")
    assert "someone/texts at " in outcome.out
    assert numbers(outcome.out, "data/train-1.parquet")[1] == "1"
    assert (tmp_path / "data" / "someone_texts_cache" / "cache_metadata.json").is_file()


def test_the_script_itself_runs_as_a_user_calls_it(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = str(ROOT / "commands" / "test_fineweb.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *FLAGS])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    assert_complete(out, hub)
    assert (tmp_path / "data" / "fineweb_cache" / "cache_metadata.json").is_file()


def test_pytest_finds_nothing_to_run_in_it() -> None:
    source = (ROOT / "commands" / "test_fineweb.py").read_text(encoding="utf-8")
    assert "def test_" not in source
    assert "class Test" not in source
