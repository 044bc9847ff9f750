"""The exercises command, as a reader uses it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exercises.test_checking import ATTENTION, MASK
from terminals import shown_at_terminal

pytestmark = pytest.mark.usefixtures("plain_pictures")

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., Any]


def failing(command: Command, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status and the output of a command that ends with SystemExit."""
    with pytest.raises(SystemExit) as stop:
        command(*words)
    return int(stop.value.code or 0), capsys.readouterr().out


def test_the_folder_is_made_and_the_next_exercise_named(command: Command, tmp_path: Path) -> None:
    outcome = command("exercises")
    assert (outcome.status, outcome.err) == (0, "")
    assert "exercises: 12 files made" in outcome.out
    assert f"next:   edit {Path('exercises', '01_causal_mask.py')}, after reading" in outcome.out
    assert "check:  uv run python main.py exercises check causal_mask" in outcome.out
    assert "0 of 12 done" in outcome.out
    assert len(list((tmp_path / "exercises").iterdir())) == 12
    assert "files made" not in command("exercises").out


def test_a_check_reports_each_kind_of_result(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one process: the cheap one of the tests that start some."""
    command("exercises")
    folder = tmp_path / "exercises"
    (folder / "01_causal_mask.py").write_text(f"print('from the reader')\n{MASK}", encoding="utf-8")
    (folder / "02_attention.py").write_text(ATTENTION.replace(" / math.sqrt(q.shape[-1])", ""), encoding="utf-8")
    (folder / "03_heads.py").write_text("def split_heads(x n): pass\n", encoding="utf-8")
    (folder / "04_cache.py").unlink()
    status, out = failing(command, "exercises", "check", capsys=capsys)
    assert status == 1
    lines = out.splitlines()
    assert lines[0] == "causal_mask  passes, all 3 properties hold"
    assert lines[1] == "attention    4 of 9 properties hold; this one does not:"
    assert lines[2] == "  The scores are divided by the square root of D, the width of a head."
    assert lines[3].startswith("  For example: D = 4, ")
    assert lines[3].endswith(", as without a division")
    assert lines[4] == "  a hint: uv run python main.py exercises hint attention"
    assert lines[5] == "heads        stops with an error"
    assert lines[6].startswith("cache        there is no file ")
    assert lines[7] == "positions    rotate is not written yet"
    assert lines[-1] == "1 of 12 pass"
    progress = command("exercises").out
    assert "exercises: 1 file made" in progress
    assert "1 of 12 done" in progress
    assert "train --preset demo --position rotary --with-exercises" in progress


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["chekc"], "there is no action 'chekc'; did you mean 'check'?"),
        (["check", "atention"], "there is no exercise 'atention'; did you mean 'attention'?"),
        (["hint", "loss", "block"], "hint takes one name, not 'loss block'"),
        (["check", "--folder", "nowhere"], "there is no folder nowhere: uv run python main.py exercises --folder"),
        (["--seconds", "0"], "--seconds 0 must be above 0"),
        (["--folder", "file"], "file"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(words: list[str], says: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    if words[-1] == "atention":
        command("exercises")
    outcome = command("exercises", *words)
    assert outcome.status == 2
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert says in outcome.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--with-exercises"],
            "--with-exercises: there is no folder exercises: uv run python main.py exercises makes it",
        ),
        (["--with-exercises", "--dry-run"], "--with-exercises is for one run: give it without --set and --dry-run"),
        (["--with-exercises", "--set", "seed=1,2"], "--with-exercises is for one run"),
    ],
)
def test_training_with_exercises_refuses_what_cannot_work(words: list[str], says: str, command: Command) -> None:
    outcome = command("train", "--preset", "tiny", *words)
    assert outcome.status == 2
    assert says in outcome.err


@pytest.mark.slow
def test_loops_crashes_and_exits_cost_one_line_each(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("exercises")
    folder = tmp_path / "exercises"
    endless = "def causal_mask(queries, keys):\n    while True:\n        pass\n"
    (folder / "01_causal_mask.py").write_text(endless, encoding="utf-8")
    (folder / "02_attention.py").write_text("import os\nos._exit(3)\n", encoding="utf-8")
    crash = "import ctypes\n\n\ndef split_heads(x, n):\n    ctypes.string_at(0)\n\n\nmerge_heads = split_heads\n"
    (folder / "03_heads.py").write_text(crash, encoding="utf-8")
    (folder / "07_loss.py").write_text("while True: pass\n", encoding="utf-8")
    thread = "import threading\n\nthreading.Thread(target=threading.Event().wait).start()\nprint('started')\n"
    (folder / "11_schedule.py").write_text(thread, encoding="utf-8")
    (folder / "08_sampling.py").write_text("input('a question')\n", encoding="utf-8")
    names = ("causal_mask", "attention", "heads", "loss", "sampling", "schedule")
    status, out = failing(command, "exercises", "check", *names, "--seconds", "1.5", capsys=capsys)
    assert status == 1
    assert "it was still running after 1.5 seconds\n  line" in out
    assert "while True: pass" in out
    assert "the code ended the whole process, with status 3" in out
    assert "line 5: ctypes.string_at(0)" in out
    assert "EOFError" in out
    assert "the file does not define lr_scale any more" in out


@pytest.mark.slow
def test_finished_parts_train_and_the_ordinary_commands_read_the_checkpoint(command: Command, tmp_path: Path) -> None:
    command("exercises")
    folder = tmp_path / "exercises"
    line = ["train", "--preset", "tiny", "--dataset", "shakespeare", "--encoding", "byte", "--max-steps", "3",
            "--checkpoint-dir", "run", "--trackers", "--device", "cpu"]  # fmt: skip
    refused = command(*line, "--with-exercises")
    assert refused.status == 2
    assert "no exercise in exercises passes; uv run python main.py exercises check says why" in refused.err
    (folder / "09_perplexity.py").write_text(
        "import math\n\nimport torch\n\n\ndef perplexity(batches):\n"
        "    logits, targets = (torch.cat(part) for part in zip(*batches))\n"
        "    return math.exp(torch.nn.functional.cross_entropy(logits, targets))\n\n\n"
        "def bits_per_byte(nats, size):\n    return nats / math.log(2) / size\n",
        encoding="utf-8",
    )
    refused = command(*line, "--with-exercises")
    assert "none of the exercises that pass (perplexity) is a part of training" in refused.err
    assert not (tmp_path / "run").exists()
    (folder / "01_causal_mask.py").write_text(MASK, encoding="utf-8")
    (folder / "02_attention.py").write_text(ATTENTION, encoding="utf-8")
    outcome = command(*line, "--with-exercises")
    assert (outcome.status, outcome.err) == (0, "")
    assert "your parts in this run: attention, causal_mask" in outcome.out
    assert "not used: perplexity (not a part of training)" in outcome.out
    assert command("inspect", "run").status == 0
    assert command("generate", "--checkpoint", "run", "--prompt", "To be", "--max-new-tokens", "4").status == 0
    assert command("train", "--resume", "--checkpoint-dir", "run", "--max-steps", "4").status == 0


@pytest.mark.slow
def test_an_error_in_a_part_during_training_is_one_line(command: Command, tmp_path: Path) -> None:
    command("exercises")
    fails_later = MASK.replace("):\n", "):\n    if keys > 20:\n        raise KeyError('too long')\n")
    (tmp_path / "exercises" / "01_causal_mask.py").write_text(fails_later, encoding="utf-8")
    outcome = command(
        "train", "--preset", "tiny", "--dataset", "shakespeare", "--encoding", "byte", "--max-steps", "3",
        "--checkpoint-dir", "run", "--trackers", "--device", "cpu", "--with-exercises",
    )  # fmt: skip
    assert outcome.status == 2
    where = Path("exercises", "01_causal_mask.py")
    assert outcome.err == f"error: {where}, line 6: raise KeyError('too long'); KeyError: 'too long'\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ([], 0, "0 of 12 done"),
        (["check", "attention"], 1, "attention is not written yet"),
        (["hint", "attention"], 0, "hint: Write the shape behind each line"),
        (["check"], 1, "0 of 12 pass"),
    ],
)
def test_each_action_at_a_terminal(words: list[str], status: int, says: str, tmp_path: Path) -> None:
    run = [sys.executable, str(ROOT / "main.py"), "exercises"]
    subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    shown, found = shown_at_terminal(["exercises", *words], tmp_path, seconds=120)
    assert says in shown
    assert found == status
