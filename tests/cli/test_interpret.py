"""`main.py interpret`: its report, its page and its JSON contain what the library computes, and errors are one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from terminals import shown_at_terminal
from transformer.interop.pretrained import load_checkpoint
from transformer.interpret.heads import head_habits
from transformer.interpret.question import Question
from transformer.interpret.report import prompt_report
from transformer.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
TEXT = "A hen, a </script>\n"
Command = Callable[..., Any]


def report_in(page: Path) -> dict[str, Any]:
    """The report inside a page."""
    (text,) = re.findall(r"^GPT\.report = (.*);$", page.read_text(encoding="utf-8"), re.MULTILINE)
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_page_and_the_json_hold_the_report_of_the_library(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ("interpret", "--prompt", TEXT, "--versus", TEXT.upper(), "--head", "1.0", "--target", "x")
    outcome = command(*arguments, "--rather-than", "-")
    assert outcome.status == 0, outcome.err
    found = report_in(tmp_path / "interpret.html")
    loaded = load_checkpoint(tiny_checkpoint, "cpu")
    question = Question(list(TEXT.encode()), ord("x"), ord("-"), list(TEXT.upper().encode()), (1, 0))
    expected = prompt_report(loaded.model, loaded.tokenizer, question)
    assert {name: found[name] for name in expected} == json.loads(json.dumps(expected))
    assert found["about"][1:3] == ["step 7, 5,376 tokens seen", "8,976 parameters"]
    assert "patching takes 9 passes" in outcome.err
    printed = json.loads(command(*arguments, "--rather-than", "-", "--json").out)
    assert printed == {name: value for name, value in found.items() if name != "attention"}


def test_the_page_is_one_file_and_no_token_can_end_its_script(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    assert command("interpret", "--prompt", TEXT, "--out", "seen.html").status == 0
    page = (tmp_path / "seen.html").read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*', page) == []
    assert TEXT.strip() not in page
    assert "\\u003c" in page
    assert not (tmp_path / "interpret.html").exists()


def test_habits_on_a_text_are_those_of_its_rows_with_errors(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    text = "one hen, two hens, three hens. " * 5
    (tmp_path / "notes.txt").write_text(text, encoding="utf-8")
    found = json.loads(command("interpret", "--text-file", "notes.txt", "--json").out)["habits"]
    ids = [*text.encode(), 256][: 6 * 24]  # the context is 24 tokens; the last row is not full
    rows = torch.tensor(ids).view(6, 24)
    expected = head_habits(load_checkpoint(tiny_checkpoint, "cpu").model, rows)
    assert found["measured"] == "Measured on notes.txt: the first 144 tokens, in 6 rows of 24."
    for kind in found["kinds"]:
        habit = expected[kind["name"]]
        torch.testing.assert_close(torch.tensor(kind["scores"]), habit.score.float(), rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.tensor(kind["errors"]), habit.error.float(), rtol=0, atol=1e-5)
        assert kind["even"] == pytest.approx(habit.even, abs=1e-5)
    assert not (tmp_path / "interpret.html").exists()  # --json alone writes no page


def test_the_terminal_shows_the_prediction_by_block_the_heads_and_their_habits(
    command: Command, tiny_checkpoint: Path
) -> None:
    outcome = command("interpret", "--prompt", TEXT, "--versus", TEXT.upper(), "--target", "x", "--rather-than", "y")
    assert outcome.out.startswith("19 tokens; most likely next: ")
    assert re.search(r"│ block 1 +│ '.*%  .* │ +\d\.\d% │ +\d+ │", outcome.out)
    assert "Shares in the logit of 'x' minus that of 'y', " in outcome.out
    assert re.search(r"│ [01]\.[01] +│ [+−]0\.\d\d │ '.*' \d+% +│", outcome.out)
    assert re.search(r"│ feed-forward +│ [+−]\d\.\d\d │", outcome.out)  # what no head adds is named too
    assert re.search(r"one head +│ [01]\.[01]: [+−]?\d+%; ", outcome.out)
    assert re.search(r"induction +│ +\d+\.\d% │ [01]\.[01]: \d+\.\d% ± ", outcome.out)
    assert "2 layers of 2 heads over 19 tokens: " in outcome.err
    assert "open it in a browser" in outcome.out
    one = command("interpret", "--prompt", "ab", "--head", "0.1").out
    assert "Head 0.1, for each token" in one
    assert "Patching" not in one


REFUSED = {
    "an empty prompt": (["--prompt", ""], "--prompt is empty"),
    "an empty second prompt": (["--prompt", "x", "--versus", ""], "--versus is empty"),
    "unequal prompts": (
        ["--prompt", "ab", "--versus", "\x1b[2J"],
        "the prompts have 2 and 4 tokens, and patching needs equal numbers: |a|b| and |\\x1b|[|2|J|",
    ),
    "equal predictions": (["--prompt", "ab", "--versus", "ab"], "the model predicts the same token after both prompts"),
    "a target of two tokens": (["--prompt", "x", "--target", "no"], "'no' is 2 tokens for this model, |n|o|"),
    "a target without a prompt": (["--target", "x"], "--target is about a prompt: give --prompt TEXT"),
    "longer than the context": (["--prompt", "x" * 25], "the prompt has 25 tokens, and the model's context is 24"),
    "no such layer": (["--prompt", "x", "--head", "2.0"], "head 2.0: there is no layer 2, the last one is 1"),
    "no such head": (["--prompt", "x", "--head", "1.7"], "head 1.7: there is no head 7, the last one is 1"),
    "no head": (["--prompt", "x", "--head", "1"], "--head 1 is not a layer and a head, each from 0, such as 3.1"),
    "a negative head": (["--prompt", "x", "--head=-1.0"], "--head -1.0 is not a layer and a head"),
    "no such text": (["--text-file", "nowhere.txt"], "nowhere.txt does not exist"),
    "a text of one token": (["--text-file", "short.txt"], "short.txt has 2 tokens, too few to measure habits on"),
    "a folder as page": (["--prompt", "x", "--out", "checkpoints"], "--out checkpoints is a folder: name a file in it"),
    "no folder": (["--prompt", "x", "--out", "checkpoints/model_epoch_3_byte.pt/x"], "nothing can be written to"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_input_that_cannot_be_used_is_one_line(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "short.txt").write_text("x", encoding="utf-8")
    arguments, said = REFUSED[name]
    outcome = command("interpret", *arguments)
    assert outcome.status == 2
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert said in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.glob("*.html"))


def test_a_prompt_that_no_picture_can_show_is_refused(
    command: Command, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformer.interpret.question.MOST_TOKENS", 3)
    outcome = command("interpret", "--prompt", "abcd")
    assert outcome.status == 2
    assert "the prompt has 4 tokens, and the pictures show at most 3" in outcome.err


def test_a_context_too_short_for_repeated_tokens_is_one_line(command: Command, tiny_checkpoint: Path) -> None:
    from transformer.cli.interpret.rows import repeated

    loaded = load_checkpoint(tiny_checkpoint, "cpu")
    model = checkpoint.load_model(tiny_checkpoint).model
    object.__setattr__(model.config, "max_seq_len", 3)
    with pytest.raises(ValueError, match="habits need a context of 4 tokens, and this model's is 3"):
        repeated(model, loaded.tokenizer)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_at_a_terminal_it_shows_progress_and_the_report(tiny_checkpoint: Path, tmp_path: Path) -> None:
    text, status = shown_at_terminal(["interpret", "--prompt", "A hen"], tmp_path, columns=80)
    assert status == 0, text
    assert "5 tokens; most likely next" in text
    assert "interpret.html: written" in text
    assert all(len(row) <= 80 for row in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines() if "│" in row)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the shell's head")
def test_the_page_is_written_though_nobody_reads_the_report(tiny_checkpoint: Path, tmp_path: Path) -> None:
    line = f"'{sys.executable}' '{ROOT / 'main.py'}' interpret --prompt 'A hen' --head 0.0 | head -c 1"
    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "5"
    assert "Traceback" not in done.stderr
    assert report_in(tmp_path / "interpret.html")["head"]["rows"]
