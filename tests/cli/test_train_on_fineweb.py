"""`main.py train` on text from the hub: what it leaves, how it goes on, what it shows, what it says without the hub."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from stand_in_hub import FINEWEB, StandInHub, fineweb_files, taken_for_the_hub
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.events import EvalMetrics, StepMetrics

pytestmark = pytest.mark.slow  # whole runs, several of them in processes of their own

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., Any]
PATIENCE = 90.0
"""Seconds after which something that should happen has not."""


def documents(seed: int = 0) -> list[str]:
    """360 texts of some 100 letters."""
    chance = Random(seed)
    words = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 7))) for _ in range(300)]
    return [f"Page {n}: " + " ".join(chance.choices(words, k=18)) + "." for n in range(360)]


# 36,000 letters in 3 files, each of 24 row groups, in 3 shards: 4,000 letters a shard.
FILES = fineweb_files(documents(), 3, 5)
SHARD_MB = len(FILES["sample/10BT/000_00000.parquet"]) / 3e6
QUICK = ("train", "--quick", "--shard-mb", f"{SHARD_MB}", "--num-workers", "2", "--log-every", "1")
QUICK += ("--seq-length", "32", "--batch-size", "4", "--accumulation-steps", "2", "--validation-tokens", "300")
SMALL = (*QUICK, "--encoding", "byte", "--d-model", "32", "--d-ff", "64", "--num-layers", "1", "--shuffle-rows", "16")
"""256 tokens a step, so some 14 steps a shard."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with StandInHub() as server, taken_for_the_hub(server, monkeypatch):
        server.add(FINEWEB, FILES)
        yield server


def process(hub: StandInHub, folder: Path, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
    """`main.py` with these arguments, in a process of its own."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "none"), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(ROOT / "main.py"), *arguments]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8", **settings}
    return subprocess.Popen(line, cwd=folder, env=environment, **settings)


def finish(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    with running:
        try:
            out, err = running.communicate(timeout=PATIENCE)
        finally:
            running.kill()
    return running.returncode, out, err


def story(folder: Path) -> list[tuple[Any, ...]]:
    """All that a run's metrics say, except of time."""
    return [
        (type(event), event.step, event.loss, event.perplexity, getattr(event, "grad_norm", None))
        for event in read_metrics(folder / METRICS_FILE)
        if isinstance(event, StepMetrics | EvalMetrics)
    ]


def steps(folder: Path) -> int:
    """Steps that a run, perhaps still running, has told of."""
    file = folder / METRICS_FILE
    return sum(isinstance(event, StepMetrics) for event in read_metrics(file)) if file.exists() else 0


def wait_for(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


def unwrapped(out: str) -> str:
    return " ".join(out.split())


# A run


def test_train_quick_leaves_a_model_that_generate_reads(command: Command, hub: StandInHub, tmp_path: Path) -> None:
    """What `make train-quick` and `make generate` do, on 128 tokens."""
    running = process(hub, tmp_path, *QUICK, "--batch-size", "1", "--tokens-per-epoch", "128", "--epochs", "1")
    status, out, err = finish(running)
    assert (status, err) == (0, "")
    assert "4 layers, width 128, 4 heads, vocabulary 100,277" in out
    assert "fineweb: 2 steps of 64 tokens, 2 per epoch" in out
    path = tmp_path / "checkpoints_quick" / "model_epoch_1_cl100k.pt"
    assert str(path.relative_to(tmp_path)) in unwrapped(out)
    stored = checkpoint.load(path)["config"]["data"]
    assert re.fullmatch("[0-9a-f]{40}", stored["revision"])
    assert stored["revision"] == hub.commit(FINEWEB).sha
    written = command("generate", "--prompt", "Page 7", "--max-new-tokens", "3", "--seed", "1")
    assert written.status == 0, written.err
    assert written.err.startswith(f"{path.relative_to(tmp_path)} (cl100k_base, ")
    assert written.out.startswith("Page 7")


def test_the_cache_holds_the_five_shards_used_last_under_their_documented_names(
    command: Command, hub: StandInHub, tmp_path: Path
) -> None:
    """The first window is wider than the whole text, so that all nine shards pass through the cache."""
    outcome = command(*SMALL, "--max-steps", "2", "--shuffle-rows", "2000")
    assert (outcome.status, outcome.err) == (0, "")
    cache = tmp_path / "data" / "fineweb_cache"
    names = {path.name for path in cache.iterdir() if not path.name.startswith(".")}
    shards = {name for name in names if name.startswith("shard_")}
    assert all(re.fullmatch(r"shard_0000[0-8]\.(parquet|parts|byte)", name) for name in shards)
    assert len({name.partition(".")[0] for name in shards}) in (4, 5)  # 4: a fifth has room, and is about to come
    assert sum(name.endswith(".parquet") for name in shards) >= 3
    [validation] = [name for name in names if re.fullmatch(r"validation_[0-9a-f]{12}\.parquet", name)]
    assert names - shards == {"cache_metadata.json", "cache.lock", validation}
    assert json.loads((cache / "cache_metadata.json").read_text(encoding="utf-8"))["listings"]


def test_p50k_base_and_32_accumulation_steps(command: Command, hub: StandInHub, tmp_path: Path) -> None:
    flags = ("--encoding", "p50k_base", "--accumulation-steps", "32", "--batch-size", "1", "--seq-length", "8")
    small = ("--d-model", "16", "--d-ff", "16", "--num-layers", "1", "--tokens-per-epoch", "512", "--epochs", "1")
    outcome = command(*QUICK, *flags, *small)
    assert (outcome.status, outcome.err) == (0, "")
    assert "vocabulary 50,281" in outcome.out
    assert "fineweb: 2 steps of 256 tokens, 2 per epoch" in outcome.out
    stored = checkpoint.load(tmp_path / "checkpoints_quick" / "model_epoch_1_p50k.pt")["config"]
    assert stored["accumulation_steps"] == 32
    assert stored["model"]["vocab_size"] == 50_281
    assert list((tmp_path / "data" / "fineweb_cache").glob("shard_*.p50k_base/*.npz"))


def test_a_first_step_waits_for_little_of_the_text(command: Command, hub: StandInHub, tmp_path: Path) -> None:
    """Of nine shards only the one it reads, the next one at most, and the one that the validation text is from."""
    outcome = command(*SMALL, "--max-steps", "1")
    assert (outcome.status, outcome.err) == (0, "")
    shards = (tmp_path / "data" / "fineweb_cache").glob("shard_*")
    assert len({path.name.partition(".")[0] for path in shards if path.is_file() or any(path.iterdir())}) <= 3


# Stopping and going on


def interrupted_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """From now on, a run is interrupted, as by Ctrl-C, when it is about to take this step."""
    take = Trainer.train_step

    def train_step(self: Trainer) -> None:
        if self.step == step:
            signal.raise_signal(signal.SIGINT)
        take(self)

    patch.setattr(Trainer, "train_step", train_step)


def test_a_run_that_was_stopped_goes_on_with_its_commit_whatever_was_uploaded_since(
    command: Command, hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its cache is gone, and with another number of workers."""
    line = (*SMALL, "--max-steps", "40", "--eval-every", "10")
    whole = command(*line, "--checkpoint-dir", "whole", "--cache-dir", "another_cache")
    assert (whole.status, whole.err) == (0, "")
    with monkeypatch.context() as patch:
        interrupted_at(patch, 23)
        try:
            status = command(*line, "--checkpoint-dir", "stopped").status
        except SystemExit as stop:
            status = stop.code
        assert status == 130
    began_with = hub.commit(FINEWEB).sha
    newest = hub.add(FINEWEB, fineweb_files(documents(seed=1), 3, 5))
    (tmp_path / "data" / "fineweb_cache").rename(tmp_path / "gone")
    hub.reset_counts()
    outcome = command(*line, "--resume", "--checkpoint-dir", "stopped", "--num-workers", "3")
    assert (outcome.status, outcome.err) == (0, "")
    assert "resuming from stopped" in outcome.out
    assert hub.bytes_sent(".parquet") > 0
    assert not [request for request in hub.requests if "/main" in request.path]
    assert story(tmp_path / "stopped") == story(tmp_path / "whole")
    assert len(story(tmp_path / "stopped")) == 40 + 4
    stored = checkpoint.load(tmp_path / "stopped" / "model_epoch_1_byte.pt")
    assert stored["config"]["data"]["revision"] == began_with

    fresh = command(*line, "--max-steps", "2", "--checkpoint-dir", "fresh")
    assert (fresh.status, fresh.err) == (0, "")
    stored = checkpoint.load(tmp_path / "fresh" / "model_epoch_1_byte.pt")
    assert stored["config"]["data"]["revision"] == newest
    assert story(tmp_path / "fresh")[0] != story(tmp_path / "whole")[0]


def test_a_run_whose_hub_goes_away_keeps_its_state_and_goes_on_when_it_is_back(
    command: Command, hub: StandInHub, tmp_path: Path
) -> None:
    line = (*SMALL, "--max-steps", "80", "--eval-every", "1000", "--network-patience", "1")
    running = process(hub, tmp_path, *line)
    wait_for(lambda: steps(tmp_path / "checkpoints_quick") >= 3 or running.poll() is not None)
    hub.stop_serving()
    status, out, err = finish(running)
    assert status == 2
    address = hub.url.removeprefix("http://")
    assert re.fullmatch(rf"error: cannot read sample/10BT/\S+ from {address} \(.*\): check the network .*\n", err), err
    stopped = re.search(r"stopped at step (\d+) because text is missing; --resume continues from (\S+)\n?$", out)
    assert stopped is not None, out
    assert 3 <= int(stopped[1]) < 80
    assert Path(stopped[2]) == Path("checkpoints_quick/training_state_byte.pt")
    assert checkpoint.load(tmp_path / stopped[2])["step"] == int(stopped[1])

    still_away = command("train", "--quick", "--resume")
    assert still_away.status == 2
    assert still_away.err.count("\n") == 1
    assert checkpoint.load(tmp_path / stopped[2])["step"] == int(stopped[1])

    hub.start_serving()
    resumed = command("train", "--quick", "--resume")
    assert (resumed.status, resumed.err) == (0, "")
    assert f"step {stopped[1]}" in resumed.out
    whole = command(*line, "--checkpoint-dir", "whole", "--cache-dir", "another_cache")
    assert (whole.status, whole.err) == (0, "")
    assert story(tmp_path / "checkpoints_quick") == story(tmp_path / "whole")
    assert len(story(tmp_path / "whole")) == 80 + 1


def test_answers_that_stay_damaged_end_a_run_with_its_state_saved_and_the_row_group_named(
    command: Command, hub: StandInHub, tmp_path: Path
) -> None:
    """One answer of the right length with wrong bytes cost 640 steps: no second try, and no state."""
    folder = tmp_path / "checkpoints_quick"

    def damage() -> None:
        wait_for(lambda: steps(folder) >= 3)
        hub.fail("corrupt", path="/cdn/", times=1e6)

    hub.latency = 0.05
    line = (*SMALL, "--max-steps", "400", "--eval-every", "1000", "--network-patience", "1")
    with ThreadPoolExecutor(1) as pool:
        damaging = pool.submit(damage)
        outcome = command(*line)
        damaging.result()
    assert outcome.status == 2
    named = (
        r"error: cannot read (the footer of )?sample/10BT/\S+(, row group \d+)? from \S+ \(its bytes are damaged: .*\n"
    )
    assert re.fullmatch(named, outcome.err), outcome.err
    stopped = re.search(r"stopped at step (\d+) because text is missing; --resume continues from (\S+)", outcome.out)
    assert stopped is not None, outcome.out
    assert checkpoint.load(tmp_path / stopped[2])["step"] == int(stopped[1]) >= 3


def test_without_a_network_or_a_cache_a_run_does_not_begin(command: Command, hub: StandInHub, tmp_path: Path) -> None:
    hub.stop_serving()
    outcome = command(*SMALL, "--network-patience", "0.3")
    assert outcome.status == 2
    assert re.fullmatch(r"error: HuggingFaceFW/fineweb-edu cannot be reached .*--dataset shakespeare.*\n", outcome.err)
    assert not list(tmp_path.glob("checkpoints*"))


# The terminal


def test_the_live_display_shows_what_is_fetched_in_80_columns(hub: StandInHub, tmp_path: Path) -> None:
    pytest.importorskip("termios")
    import fcntl
    import termios

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    ends = {"stdin": slave, "stdout": slave, "stderr": slave, "start_new_session": True}
    shown, interrupted = "", False

    def lines() -> list[str]:
        """What was printed, without colours and movements of the cursor."""
        return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))

    def of_the_run(pattern: str) -> bool:
        begun = next((number for number, line in enumerate(lines()) if "per epoch" in line), len(lines()))
        return any(re.search(pattern, line) for line in lines()[begun:])

    fetching = r"\d+/\d+ .* shard \d  \d+\.\d MB/s  cache \d+\.\d\d GB"
    training = r"\d+/2000 .* loss \d\.\d+  lr \S+  [\d,]+ tok/s +left"
    with process(hub, tmp_path, *SMALL, "--max-steps", "2000", "--network-patience", "5", **ends) as running:
        os.close(slave)
        end = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < end and select.select([master], [], [], PATIENCE)[0]:
                try:
                    shown += os.read(master, 65_536).decode("utf-8", "replace")
                except OSError:  # the process has ended
                    break
                if of_the_run("per epoch"):
                    hub.latency = 0.2  # so that fetching can be seen
                if of_the_run(fetching) and of_the_run(training) and not interrupted:
                    interrupted = True
                    running.send_signal(signal.SIGINT)
        finally:
            running.kill()
            os.close(master)
    assert of_the_run(fetching), shown[-2_000:]
    assert of_the_run(training), shown[-2_000:]
    assert [line for line in lines() if "━" in line and len(line) > 80] == []
    assert "stopped" in shown[-200:]
    assert running.returncode == 130
