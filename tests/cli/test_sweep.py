"""`train --set NAME=VALUE,VALUE`: a run for every combination, compared at the end; failures, stopping, going on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transformer.config import TrainConfig
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.training import checkpoint
from transformer.training.events import RunEnded, RunStarted

pytestmark = pytest.mark.usefixtures("plain_pictures")

Command = Callable[..., Any]
TINY = ("train", "--preset", "tiny", "--dataset", "story.txt", "--seq-length", "16", "--batch-size", "4")
SHORT = (*TINY, "--max-steps", "4", "--eval-every", "2", "--log-every", "1")
HERE = Path("checkpoints_tiny")


@pytest.fixture(autouse=True)
def story(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("The cat sat on the mat, and then it sat on the hat.\n" * 90, encoding="utf-8")


def rows(out: str) -> list[list[str]]:
    """Returns the cells of the last table."""
    lines = [line for line in out.split("runs, best first")[-1].splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def settings_of(folder: Path) -> TrainConfig:
    return TrainConfig.from_dict(checkpoint.load(checkpoint.epochs(folder)[-1])["config"])


def test_every_combination_is_a_run_with_a_folder_of_its_own() -> None:
    from transformer.cli.sweep.grid import variants

    found = variants(TrainConfig(), ["learning-rate=1e-3,3e-3", "bias=true,False"])
    assert [variant.name for variant in found] == [
        f"learning_rate_{rate}_bias_{bias}" for rate in (0.001, 0.003) for bias in (True, False)
    ]
    for variant in found:
        config = variant.config
        assert f"learning_rate_{config.optimizer.learning_rate}_bias_{config.model.bias}" == variant.name
        assert Path(config.checkpoint_dir) == Path("checkpoints") / variant.name


def test_the_runs_are_ranked_in_a_table_and_drawn_in_one_picture(
    command: Command, tmp_path: Path, plain_pictures: pytest.MonkeyPatch
) -> None:
    plain_pictures.undo()
    outcome = command(*SHORT, "--set", "learning-rate=1e-5,3e-3")
    assert (outcome.status, outcome.err) == (0, "")
    names = ["learning_rate_1e-05", "learning_rate_0.003"]
    told = [line for line in outcome.out.splitlines() if line.startswith("run ")]
    assert told == [f"run {number} of 2: {name}" for number, name in enumerate(names, 1)]
    assert [settings_of(HERE / name).optimizer.learning_rate for name in names] == [1e-5, 3e-3]
    assert [row[0] for row in rows(outcome.out)] == names[::-1]  # after four steps the slow one has hardly moved
    assert outcome.out.splitlines()[-1] == f"all in one picture: {HERE / 'comparison.png'}"
    picture = (HERE / "comparison.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name}: train -->" in picture for name in names)


def test_a_run_that_diverges_is_noted_and_the_others_go_on(command: Command, tmp_path: Path) -> None:
    flags = ("--max-steps", "20", "--eval-every", "20", "--log-every", "5")
    outcome = command(*TINY, *flags, "--set", "learning_rate=1e30,1e-3")
    assert (outcome.status, outcome.err) == (0, "")
    table = rows(outcome.out)
    assert [(row[0], row[-1]) for row in table] == [("learning_rate_0.001", ""), ("learning_rate_1e+30", "failed")]
    said = "learning_rate_1e+30 failed: 14 steps in a row, up to step 15, had no finite gradient"
    assert outcome.out.count(said) == 2  # when it happened, and below the table
    outcome = command(*SHORT, "--set", "encoding=bpe90000")
    assert outcome.status == 2
    assert outcome.err.startswith("error: every run failed; encoding_bpe90000 failed: ")


def test_a_text_that_one_run_cannot_use_is_noted_too(command: Command, tmp_path: Path) -> None:
    outcome = command(*SHORT, "--set", "encoding=bpe90000,byte")
    assert (outcome.status, outcome.err) == (0, "")
    assert [(row[0], row[-1]) for row in rows(outcome.out)] == [("encoding_byte", ""), ("encoding_bpe90000", "failed")]
    assert not (HERE / "encoding_bpe90000").exists()


SLIPS = {
    "a name misspelt": (("learnin_rate=1",), "there is no setting 'learnin_rate'; did you mean 'learning_rate'?"),
    "no name": (("1e-3,3e-3",), "there is no setting '1e_3,3e_3'"),
    "no values": (("learning_rate",), "--set learning_rate has no values: --set learning_rate=A,B tries A and B"),
    "not a number": (("learning_rate=fast,1e-3",), "learning_rate='fast' is not a finite number"),
    "an empty value": (("num_layers=2,",), "num_layers='' is not a whole number"),
    "a choice misspelt": (("norm=rmsnom",), "norm='rmsnom' is not one of layernorm, rmsnorm; did you mean 'rmsnorm'?"),
    "not finite": (("learning_rate=inf",), "learning_rate=inf is not a finite number"),
    "twice": (("seed=1", "seed=2"), "--set seed is given twice: name all its values in one, seed=A,B"),
    "the vocabulary": (("vocab_size=300",), "vocab_size is determined by the encoding"),
    "the folder": (("checkpoint_dir=a,b",), "every run of a sweep has its own folder"),
    "several wrong names": (("nothing=1", "nobody=2"), "'nothing'; --set nobody=2"),
    "problems of several runs": (("dropout=0,2", "num_heads=2,3"), "dropout=2.0 must be from 0 to below 1; d_model=32"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_one_line_before_the_first_run(command: Command, tmp_path: Path, slip: str) -> None:
    given, said = SLIPS[slip]
    outcome = command(*SHORT, *(part for text in given for part in ("--set", text)))
    assert outcome.status == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert all(part in outcome.err for part in said.split("; "))
    assert outcome.out == ""
    assert not HERE.exists()


def test_a_sweep_may_set_what_alone_would_contradict_the_preset(command: Command, tmp_path: Path) -> None:
    """Rows of 48 tokens do not fit the preset's context of 32; with the context of 48 of each run they do."""
    outcome = command(*SHORT, "--seq-length", "48", "--set", "max_seq_len=48")
    assert (outcome.status, outcome.err) == (0, "")


def test_a_path_to_resume_from_and_torchrun_are_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = command(*SHORT, "--set", "seed=1,2", "--resume", "state.pt")
    assert outcome.status == 2
    assert "--set trains several runs: --resume continues all of them and takes no path" in outcome.err
    from transformer.cli.sweep.grid import variants

    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="start without torchrun"):
        variants(TrainConfig(), ["seed=1,2"])


def test_values_that_are_the_same_are_one_run_and_any_folder_can_be_made() -> None:
    from transformer.cli.sweep.grid import variants

    found = variants(TrainConfig(), ["learning_rate=1e-3,0.001", "num_kv_heads=none,2"])
    assert [variant.name for variant in found] == [
        "learning_rate_0.001_num_kv_heads_None",
        "learning_rate_0.001_num_kv_heads_2",
    ]
    found = variants(TrainConfig(), ["dataset=hf:a/b,notes/A.txt,notes/a.txt"])
    assert [variant.name for variant in found] == ["dataset_hf-a-b", "dataset_notes-A.txt", "dataset_notes-a.txt_2"]
    assert [variant.config.data.dataset for variant in found] == ["hf:a/b", "notes/A.txt", "notes/a.txt"]
    assert found[0].config.checkpoint_dir == str(Path("checkpoints") / "dataset_hf-a-b")


def test_a_sweep_of_an_earlier_version_keeps_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were called seed=1,num_layers=2: a name that shells treat specially."""
    from transformer.cli.sweep.grid import variants

    monkeypatch.chdir(tmp_path)
    Path("checkpoints/seed=1,num_layers=2").mkdir(parents=True)
    found = variants(TrainConfig(), ["seed=1,3", "num_layers=2"])
    assert [variant.name for variant in found] == ["seed=1,num_layers=2", "seed_3_num_layers_2"]


def test_a_dry_run_of_a_sweep_adds_up(command: Command, tmp_path: Path) -> None:
    outcome = command(*SHORT, "--set", "num_layers=1,2", "--set", "max_steps=4,8", "--dry-run", "--device", "cpu")
    assert (outcome.status, outcome.err) == (0, "")
    assert "4 runs, one after another" in outcome.out
    table = rows(outcome.out)
    assert [row[2] for row in table] == ["4", "8", "4", "8", "24"]
    assert table[-1][:2] == ["all", ""]
    assert table[-1][3] == f"{24 * 64:,}"
    assert not HERE.exists()


def test_resuming_a_sweep_skips_what_is_finished_and_does_the_rest(command: Command, tmp_path: Path) -> None:
    first = command(*SHORT, "--set", "seed=1")
    assert first.status == 0, first.err
    before = (HERE / "seed_1" / METRICS_FILE).read_bytes()
    outcome = command(*SHORT, "--set", "seed=1,2", "--resume")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.count("is finished and is skipped") == 1
    assert (HERE / "seed_1" / METRICS_FILE).read_bytes() == before
    assert sorted(row[0] for row in rows(outcome.out)) == ["seed_1", "seed_2"]
    outcome = command(*SHORT, "--max-steps", "6", "--set", "seed=1", "--resume")  # longer than it was
    assert "resuming from" in outcome.out
    assert rows(outcome.out)[0][:2] == ["seed_1", "6"]
    outcome = command(*SHORT, "--set", "seed=1,2", "--d-model", "64", "--resume")
    assert outcome.status == 2
    assert outcome.err.count("--d-model 64: the run has 32") == 2  # said of both, before either


def test_a_run_that_ended_by_epochs_is_finished_although_max_steps_allows_more(command: Command) -> None:
    """--resume asked for max_steps, so a run with fewer steps in its epochs never counted as finished."""
    sweep = (*SHORT, "--max-steps", "100000", "--tokens-per-epoch", "200", "--set", "seed=1")
    assert command(*sweep).status == 0
    assert command(*sweep, "--resume").out.count("is finished and is skipped") == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to a process")
def test_ctrl_c_stops_the_whole_sweep_with_its_table_and_resume_goes_on(command: Command, tmp_path: Path) -> None:
    sweep = (*TINY, "--epochs", "50", "--eval-every", "100", "--log-every", "1", "--set", "max_steps=300,3")
    metrics = HERE / "max_steps_300" / METRICS_FILE

    def stop_the_first() -> None:
        while not (metrics.exists() and '"step", ' in metrics.read_text(encoding="utf-8")):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=stop_the_first, daemon=True)
    stopper.start()
    with pytest.raises(SystemExit) as stop:
        command(*sweep)
    assert stop.value.code == 130
    stopper.join()
    events = read_metrics(metrics)
    assert isinstance(events[-1], RunEnded)
    assert events[-1].stopped
    assert not (HERE / "max_steps_3").exists()
    assert (HERE / "comparison.png").exists()
    outcome = command(*sweep, "--resume")
    assert (outcome.status, outcome.err) == (0, "")
    assert {row[0]: row[1] for row in rows(outcome.out)} == {f"max_steps_{n}": str(n) for n in (300, 3)}
    starts = [event.step for event in read_metrics(metrics) if isinstance(event, RunStarted)]
    assert starts == [0, events[-1].step]


def test_a_sweep_may_begin_with_a_trained_model(command: Command, tmp_path: Path) -> None:
    assert command(*SHORT, "--max-steps", "2").status == 0
    begin = ("train", "--preset", "tiny", "--init-from", str(checkpoint.epochs(HERE)[-1]), "--dataset", "story.txt")
    outcome = command(*begin, "--max-steps", "2", "--set", "learning_rate=1e-3,1e-4", "--dry-run")
    assert (outcome.status, outcome.err) == (0, "")
    assert [row[2] for row in rows(outcome.out)] == ["2", "2", "4"]
    outcome = command(*begin, "--max-steps", "2", "--set", "learning_rate=1e-3", "--set", "d_model=64")
    assert outcome.status == 2
    assert "--d-model 64: it has 32" in outcome.err
    outcome = command(*begin, "--max-steps", "2", "--set", "learning_rate=1e-3")
    assert (outcome.status, outcome.err) == (0, "")
    assert (Path("checkpoints_finetuned") / "learning_rate_0.001" / METRICS_FILE).exists()
