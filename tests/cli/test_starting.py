"""Where a run begins: --init-from, with a checkpoint's weights on other text; and jobs that torchrun has restarted."""

from __future__ import annotations

import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer.data.open import open_dataset
from transformer.perplexity import evaluate_perplexity
from transformer.presets import PRESETS
from transformer.reporting.metrics_log import METRICS_FILE, read_metrics
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.events import StepMetrics

pytestmark = pytest.mark.usefixtures("plain_pictures")

Command = Callable[..., Any]
CADENCE = ("--eval-every", "4", "--log-every", "1")
FIRST = ("train", "--preset", "tiny", "--dataset", "first.txt", "--encoding", "bpe270", "--max-steps", "8", *CADENCE)
SECOND = ("train", "--preset", "tiny", "--dataset", "second.txt", "--max-steps", "8", *CADENCE)
ORIGIN = Path("checkpoints_tiny") / "model_epoch_1_bpe270.pt"


def story(words: str, seed: int) -> str:
    chance = random.Random(seed)
    return "".join(" ".join(chance.choices(words.split(), k=9)).capitalize() + ".\n" for _ in range(150))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two texts, and a run on the first one with a vocabulary of its own and no dropout."""
    folder = tmp_path_factory.mktemp("origin")
    (folder / "first.txt").write_text(story("the cat sat on a mat and saw two red hens", 0), encoding="utf-8")
    (folder / "second.txt").write_text(story("my dog ran to her old house by that hill", 1), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("THP_MEM_ALLOC_ENABLE", "1")
        patch.setattr(sys, "path", list(sys.path))
        from main import main

        assert main([*FIRST, "--dropout", "0"]) == 0
    return folder


@pytest.fixture
def here(origin: Path, tmp_path: Path) -> Path:
    """tmp_path with a copy of that folder in it."""
    shutil.copytree(origin, tmp_path, dirs_exist_ok=True)
    return tmp_path


def stopped_at(command: Command, step: int, *arguments: str) -> None:
    """Runs a command whose training stops after this step."""
    with pytest.MonkeyPatch.context() as patch:
        take = Trainer.train_step
        patch.setattr(Trainer, "train_step", lambda self: (take(self), self.stop() if self.step == step else None))
        with pytest.raises(SystemExit):
            command(*arguments)


def losses(folder: Path) -> list[float]:
    return [event.loss for event in read_metrics(folder / METRICS_FILE) if isinstance(event, StepMetrics)]


def test_the_first_losses_are_those_of_the_checkpoint_on_the_new_text(command: Command, here: Path) -> None:
    before = (here / ORIGIN).read_bytes()
    outcome = command(*SECOND, "--init-from", str(ORIGIN), "--precision", "float32")
    assert outcome.status == 0, outcome.err
    folder = here / "checkpoints_finetuned"
    run = checkpoint.load_model(folder / "model_epoch_1_bpe270.pt")
    loaded = checkpoint.load_model(here / ORIGIN)

    data = open_dataset(run.config.data, loaded.tokenizer)
    on_new_text = evaluate_perplexity(loaded.model, *data.validation).loss
    told = f"starting from the weights of {ORIGIN}, step 8, in checkpoints_finetuned; its validation loss on this text"
    assert f"{told} is {on_new_text:.4f}" in outcome.out
    trainer = Trainer(run.config, data)
    inputs, targets, _ = next(trainer.batches)
    with torch.no_grad():
        nats, count = loaded.model.loss(inputs, targets)
    assert losses(folder)[0] == pytest.approx(float(nats / count), rel=1e-6)
    assert losses(folder)[-1] < losses(folder)[0]
    assert (here / ORIGIN).read_bytes() == before
    assert run.tokenizer.state() == loaded.tokenizer.state()


def test_the_new_run_has_its_own_schedule_and_says_what_it_came_from(command: Command, here: Path) -> None:
    outcome = command(*SECOND, "--init-from", "best", "--learning-rate", "1e-4")
    assert outcome.status == 0, outcome.err
    contents = checkpoint.load(here / "checkpoints_finetuned" / "model_epoch_1_bpe270.pt")
    before = checkpoint.load(here / ORIGIN)
    assert contents["init_from"] == {
        "path": str(ORIGIN), "dataset": "first.txt", "step": 8, "tokens": before["tokens"], "init_from": None
    }  # fmt: skip
    assert contents["config"]["init_from"] == str(ORIGIN)
    assert contents["config"]["optimizer"]["learning_rate"] == 1e-4
    assert (contents["step"], contents["config"]["data"]["encoding"]) == (8, "bpe270")
    assert contents["config"]["model"] == before["config"]["model"]  # its dropout too
    outcome = command("generate", "--prompt", "a", "--max-new-tokens", "1")
    assert f"; initialised from {ORIGIN})" in outcome.err


def test_a_training_state_will_do_too_and_a_stopped_run_goes_on(command: Command, here: Path) -> None:
    state = str(Path("checkpoints_tiny") / "training_state_bpe270.pt")
    init = (*SECOND, "--init-from", state, "--dropout", "0.2")
    assert command(*init, "--checkpoint-dir", "whole").status == 0
    stopped_at(command, 5, *init, "--checkpoint-dir", "stopped")
    (here / state).unlink()  # no longer needed
    outcome = command("train", "--resume", "--checkpoint-dir", "stopped")
    assert outcome.status == 0, outcome.err
    whole, stopped = (checkpoint.load(here / name / "model_epoch_1_bpe270.pt") for name in ("whole", "stopped"))
    assert whole["init_from"] == stopped["init_from"]
    assert whole["config"]["model"]["dropout"] == 0.2
    assert all(torch.equal(value, stopped["model"][name]) for name, value in whole["model"].items())


def test_an_own_folder_is_chosen_and_a_named_one_is_set_aside_with_the_checkpoint_in_it(
    command: Command, here: Path
) -> None:
    before = (here / ORIGIN).read_bytes()
    init = ("--init-from", str(ORIGIN), "--max-steps", "1")
    assert command(*SECOND, *init).status == 0
    assert not list(here.rglob("earlier_*"))
    outcome = command(*SECOND, *init, "--checkpoint-dir", "checkpoints_tiny")
    assert outcome.status == 0, outcome.err
    aside = ORIGIN.parent / "earlier_1"
    assert f"checkpoints_tiny held an earlier run, now moved to {aside}" in outcome.out
    assert (here / aside / ORIGIN.name).read_bytes() == before
    assert checkpoint.load(here / ORIGIN)["init_from"]["step"] == 8


SLIPS = {
    "another shape": (
        ("--d-model", "64", "--no-bias", "--num-layers", "2"),
        f"{ORIGIN} keeps its shape and encoding (--d-model 64: it has 32; --bias False: it has True): leave these",
    ),
    "another encoding": (("--encoding", "byte"), "(--encoding byte: it has bpe270)"),
    "longer rows": (("--seq-length", "33"), "(--seq-length 33: its learned positions end at 32)"),
    "a longer context": (("--max-seq-len", "64"), "(--max-seq-len 64: it has 32)"),
    "a run to go on with": (("--resume",), "--init-from starts a new run and --resume continues one: give one of them"),
    "a state to go on from": (("--resume", "state.pt"), "give one of them"),
    "another shape, only planned": (("--d-model", "64", "--dry-run"), "(--d-model 64: it has 32)"),
    "no batch": (("--batch-size", "0"), "batch_size=0 must be above 0"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_flags_that_contradict_the_checkpoint_are_one_line(command: Command, here: Path, slip: str) -> None:
    flags, said = SLIPS[slip]
    outcome = command(*SECOND, "--init-from", str(ORIGIN), *flags)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert outcome.err.startswith("error: ")
    assert said in outcome.err
    assert not (here / "checkpoints_finetuned").exists()


def test_the_folder_of_a_run_stands_for_its_latest_checkpoint(command: Command, here: Path) -> None:
    outcome = command(*SECOND, "--init-from", str(ORIGIN.parent), "--max-steps", "1")
    assert outcome.status == 0, outcome.err
    saved = checkpoint.load(here / "checkpoints_finetuned" / ORIGIN.name)
    assert saved["init_from"]["path"] == str(ORIGIN)


@pytest.mark.parametrize("name", ["nowhere.pt", "second.txt", "", "elsewhere/best"])
def test_a_checkpoint_that_is_missing_or_none_is_one_line(command: Command, here: Path, name: str) -> None:
    outcome = command(*SECOND, "--init-from", name)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert re.match("error: (there is no|no) checkpoint|error: second.txt is damaged or not a", outcome.err)


def test_positions_that_are_not_learned_may_reach_further(command: Command, here: Path) -> None:
    run = ("train", "--preset", "tiny", "--dataset", "first.txt", "--max-steps", "1")
    assert command(*run, "--position", "alibi", "--checkpoint-dir", "checkpoints_alibi").status == 0
    best = str(Path("checkpoints_alibi") / "best")
    assert "set max_seq_len to 48 as well" in command(*run, "--init-from", best, "--seq-length", "48").err
    outcome = command(*run, "--init-from", best, "--seq-length", "48", "--max-seq-len", "64")
    assert outcome.status == 0, outcome.err
    model = checkpoint.load_model(here / "checkpoints_finetuned" / "model_epoch_1_byte.pt").config.model
    assert (model.max_seq_len, model.position) == (64, "alibi")


def test_a_dry_run_shows_the_checkpoints_size_whatever_the_preset(command: Command, here: Path) -> None:
    outcome = command("train", "--dataset", "second.txt", "--init-from", str(ORIGIN), "--dry-run")
    assert outcome.status == 0, outcome.err
    parameters = sum(checkpoint.load_model(here / ORIGIN).model.parameter_counts().values())
    assert f"{parameters / 1e6:.2f}M" in outcome.out
    assert f"{PRESETS['default'].batch_size * PRESETS['default'].accumulation_steps * 32:,} per step" in outcome.out
    assert not (here / "checkpoints_finetuned").exists()


# Restarted by torchrun, with the same command line


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """job("a", 1) lets the following commands be of the job a, restarted once."""

    def be(name: str, restarts: int) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))

    return be


def test_a_restarted_job_goes_on_from_its_own_state(command: Command, here: Path, job: Callable[..., None]) -> None:
    line = (*SECOND, "--init-from", str(ORIGIN), "--revision", "main")
    job("a", 0)
    stopped_at(command, 5, *line)
    (here / ORIGIN).unlink()  # a restart needs it no more
    job("a", 1)
    outcome = command(*line)
    assert outcome.status == 0, outcome.err
    state = Path("checkpoints_finetuned") / "training_state_bpe270.pt"
    assert f"torchrun restarted this job, restart 1: it resumes from {state}\n" in outcome.out
    assert f"resuming from {state}, step 5," in outcome.out
    assert [event.step for event in read_metrics(state.parent / METRICS_FILE) if isinstance(event, StepMetrics)] == [
        1, 2, 3, 4, 5, 6, 7, 8
    ]  # fmt: skip


def test_a_job_restarted_before_it_had_saved_a_state_begins_anew(
    command: Command, here: Path, job: Callable[..., None]
) -> None:
    """The state in the folder is an earlier job's, which is over."""
    job("b", 1)
    outcome = command(*SECOND)
    assert outcome.status == 0, outcome.err
    assert "restart 1: it had saved no state yet" in outcome.out
    aside = ORIGIN.parent / "earlier_1"
    assert f"checkpoints_tiny held an earlier run, now moved to {aside}" in outcome.out
    assert (here / aside / ORIGIN.name).exists()


def test_a_restarted_job_that_was_resumed_does_not_take_its_first_steps_again(
    command: Command, here: Path, job: Callable[..., None]
) -> None:
    shutil.copy(here / "checkpoints_tiny" / "training_state_bpe270.pt", here / "kept.pt")
    line = ("train", "--resume", "kept.pt", "--max-steps", "16", "--epochs", "3")
    job("c", 0)
    stopped_at(command, 11, *line)
    job("c", 2)
    outcome = command(*line)
    assert outcome.status == 0, outcome.err
    assert f"resuming from {Path('checkpoints_tiny') / 'training_state_bpe270.pt'}, step 11," in outcome.out
    assert checkpoint.load(here / "checkpoints_tiny" / "training_state_bpe270.pt")["step"] == 16
