"""Stopping and going on, as a user does: signals, flags that contradict the run, states that cannot be read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from same_runs import assert_same_run
from transformer.config import ConfigError, ModelConfig, TrainConfig
from transformer.processor import TABLE
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training import checkpoint
from transformer.training.events import RunEnded, StepMetrics

pytestmark = pytest.mark.usefixtures("plain_pictures")

ROOT = Path(__file__).resolve().parents[2]
RUN = ("train", "--preset", "tiny", "--max-steps", "120", "--eval-every", "50", "--log-every", "5")
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 120 steps that nobody stopped, in whole/ of some folder."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("THP_MEM_ALLOC_ENABLE", "1")
        patch.setattr(sys, "path", list(sys.path))
        from main import main

        assert main([*RUN, "--checkpoint-dir", "whole"]) == 0
    return folder / "whole"


@pytest.fixture
def whole(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run in tmp_path/whole, to read or to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "whole"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to a process")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_after_its_step_and_it_goes_on_exactly_there(
    command: Command, interrupted: Command, whole: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    # So many steps that it cannot end before it is asked to; --resume says how many there shall be in the end.
    ended, out, err = interrupted(number, "stopped", [*RUN, "--checkpoint-dir", "stopped"])
    assert (ended, err) == (status, "")
    assert "stopping after this step" in out
    events = read_metrics(tmp_path / "stopped" / METRICS_FILE)
    assert isinstance(events[-1], RunEnded)
    assert events[-1].stopped
    assert f"stopped at step {events[-1].step}; --resume continues from exactly there" in out
    assert events[-1].step < 120
    outcome = command("train", "--resume", "--checkpoint-dir", "stopped")
    assert outcome.status == 0, outcome.err
    assert f"resuming from stopped{os.sep}training_state_byte.pt, step {events[-1].step}," in outcome.out
    assert_same_run(tmp_path / "stopped", whole)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to a process")
def test_a_process_that_was_asked_to_end_has_the_signals_status(signalled: Command) -> None:
    ended, out, err = signalled(
        [sys.executable, str(ROOT / "main.py"), *RUN, "--checkpoint-dir", "stopped"], "stopped", signal.SIGTERM
    )
    assert (ended, err) == (143, "")
    assert "--resume continues from exactly there" in out


def test_flags_that_contradict_the_run_are_listed_all_at_once(command: Command, whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    outcome = command("train", "--resume", "--checkpoint-dir", "whole", "--seed", "9", "--d-model", "64")
    assert outcome.status == 2
    assert outcome.err == (
        "error: a resumed run keeps its settings (--d-model 64: the run has 32; --seed 9: the run has 1): "
        "leave these flags out\n"
    )
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


SPELLINGS = {
    ("--learning-rate", "1e-3"): {"learning_rate"},
    ("--learning_rate=1e-3", "--d-model", "-1"): {"learning_rate", "d_model"},
    ("--checkpoint-dir=--seed", "--cache-dir", "epochs"): {"checkpoint_dir", "cache_dir"},
    ("--no-bias", "--mask-documents"): {"bias", "mask_documents"},
    ("--no_bias", "--bias"): {"bias"},
}


@pytest.mark.parametrize("arguments", SPELLINGS)
def test_every_spelling_of_a_flag_says_which_setting_was_typed(arguments: tuple[str, ...]) -> None:
    from transformer.cli.options import given_values
    from transformer.cli.train.options import TrainOptions

    assert set(given_values(TrainOptions(), arguments, "train")) == SPELLINGS[arguments]


def test_mps_counts_as_a_typed_device() -> None:
    from transformer.cli.train.options import read_options

    assert read_options(["--mps", "--resume", "--preset", "tiny"]).typed == {"mps", "device", "resume", "preset"}


def test_a_typed_default_counts_as_much_as_any_other_value() -> None:
    from transformer.cli.train.resume import merged

    default = TrainConfig()
    run = replace(default, epochs=3, model=ModelConfig(dropout=0.2, bias=False))
    contents = {"config": run.to_dict(), "world_size": 1}
    assert merged(contents, default, set()) == run
    assert merged(contents, default, {"epochs"}) == replace(run, epochs=default.epochs)
    with pytest.raises(ConfigError) as caught:
        merged(contents, default, {"dropout", "bias", "seed"})
    assert str(caught.value) == (
        "a resumed run keeps its settings (--dropout 0.1: the run has 0.2; --bias True: the run has False): "
        "leave these flags out"
    )


def test_with_another_number_of_processes_the_share_of_each_may_change() -> None:
    from transformer.cli.train.resume import merged

    default = TrainConfig()
    contents = {"config": replace(default, batch_size=4, accumulation_steps=32).to_dict(), "world_size": 2}
    typed = {"batch_size", "accumulation_steps"}
    assert merged(contents, default, typed, world_size=1) == default
    with pytest.raises(ConfigError, match="--batch-size 8: the run has 4; --accumulation-steps 16: the run has 32"):
        merged(contents, default, typed, world_size=2)


def test_a_flag_with_the_presets_own_value_contradicts_a_run_with_another(command: Command, tmp_path: Path) -> None:
    assert command(*RUN, "--max-steps", "2", "--dropout", "0.2").status == 0
    outcome = command("train", "--preset", "tiny", "--resume", "--dropout", "0.1")
    assert outcome.status == 2
    assert "--dropout 0.1: the run has 0.2" in outcome.err
    outcome = command("train", "--preset", "tiny", "--resume", "--max-steps", "3", "--patience", "4", "--dropout=0.2")
    assert (outcome.status, outcome.err) == (0, "")
    stored = checkpoint.load(tmp_path / "checkpoints_tiny" / "training_state_byte.pt")["config"]
    assert (stored["patience"], stored["model"]["dropout"], stored["max_steps"]) == (4, 0.2, 3)


def test_a_run_goes_on_on_another_processor_with_a_line_and_in_its_own_format_if_asked(
    command: Command, tmp_path: Path, on_processor: Callable[[str], None]
) -> None:
    before, now = (
        next(kind for kind, row in TABLE.items() if row.training == wanted) for wanted in ("bfloat16", "float32")
    )
    on_processor(before)
    outcome = command(*RUN, "--device", "cpu", "--max-steps", "2")
    assert f"; on cpu, bfloat16, kernels {before}\n" in outcome.out
    on_processor(now)
    line = f"trained so far in bfloat16 on {before}; continues in"
    again = ("train", "--preset", "tiny", "--resume", "--device", "cpu", "--max-steps")
    outcome = command(*again, "3", "--precision", "bfloat16")
    assert outcome.status == 0, outcome.err
    assert f"{line} bfloat16 on {now}: losses agree, but not bit for bit\n" in outcome.out
    outcome = command(*again, "4", "--kernels", before)
    assert f"in bfloat16 on {now}; continues in bfloat16 on {now}, {before} kernels: losses agree" in outcome.out
    state = tmp_path / "checkpoints_tiny" / "training_state_byte.pt"
    stored = checkpoint.load(state)
    assert (stored["config"]["precision"], stored["machine"]["kernels"]) == ("bfloat16", before)
    assert f"trained     in bfloat16 on {now}, {before} kernels (the {now})\n" in command("inspect", str(state)).out
    found = json.loads(command("inspect", str(state), "--json").out)
    assert found["provenance"]["machine"] == stored["machine"]
    outcome = command(*again, "5", "--precision", "bf16")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "'bf16' is not one of auto, float32, bfloat16, float16" in outcome.err


def test_a_run_may_go_on_for_longer(command: Command, whole: Path, tmp_path: Path) -> None:
    flags = ("--max-steps", "124", "--log-every", "2", "--d-model", "32")  # the last one is what the run has
    outcome = command("train", "--resume", "--checkpoint-dir", "whole", *flags)
    assert outcome.status == 0, outcome.err
    steps = [event.step for event in read_metrics(whole / METRICS_FILE) if isinstance(event, StepMetrics)]
    assert steps[-2:] == [122, 124]
    assert checkpoint.load(whole / "training_state_byte.pt")["step"] == 124


def test_a_damaged_state_is_named_and_the_one_before_it_used(command: Command, whole: Path, tmp_path: Path) -> None:
    state = whole / "training_state_byte.pt"
    contents = bytearray(state.read_bytes())
    contents[len(contents) // 2] ^= 1
    state.write_bytes(contents)
    outcome = command("train", "--resume", "--checkpoint-dir", "whole")
    assert outcome.status == 0, outcome.err
    text = " ".join(outcome.out.split())
    assert f"whole{os.sep}training_state_byte.pt is damaged or not a checkpoint" in text
    assert "trying the previous state" in text
    assert f"resuming from whole{os.sep}training_state_byte_previous.pt, step 120," in text
    for path in whole.glob("training_state_*"):
        path.write_bytes(b"nothing")
    outcome = command("train", "--resume", "--checkpoint-dir", "whole")
    assert outcome.status == 2
    assert outcome.err.startswith("error: ")
    assert "is damaged" in outcome.err


def test_a_state_can_be_named(command: Command, whole: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.pt"
    (whole / "training_state_byte.pt").rename(kept)
    (whole / "training_state_byte_previous.pt").unlink()
    outcome = command("train", "--resume", "kept.pt", "--checkpoint-dir", "other", "--max-steps", "122")
    assert outcome.status == 0, outcome.err
    assert "resuming from kept.pt, step 120," in outcome.out
    assert (tmp_path / "other" / "model_epoch_1_byte.pt").exists()
    outcome = command("train", "--resume", "kept.pt", "--preset", "tiny", "--max-steps", "124")
    assert outcome.status == 0, outcome.err
    assert checkpoint.load(whole / "training_state_byte.pt")["step"] == 124  # it goes on in its own folder
    assert not (tmp_path / "checkpoints_tiny").exists()
    outcome = command("train", "--resume", "nowhere.pt", "--preset", "tiny")
    assert outcome.status == 2
    assert outcome.err.startswith("error: there is no checkpoint nowhere.pt")
