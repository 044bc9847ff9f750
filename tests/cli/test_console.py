"""The console: pipes whose reader has ended, full disks, missing streams, dumb and narrow terminals, and help texts."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from transformer.cli.app import COMMANDS
from transformer.cli.console import fitting_table, printable, varying_parts
from transformer.cli.options import given_values
from transformer.config import TrainConfig
from transformer.planning.cost import cost
from transformer.presets import PRESETS
from transformer.training.events import Progress, RunStarted

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., Any]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell, /dev/full")


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a line of the shell, in which P stands for main.py; its output is buffered, as in a user's pipe."""
    line = f'P() {{ {sys.executable} {ROOT / "main.py"} "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=BUFFERED, capture_output=True, text=True, timeout=120, check=False
    )


@needs_posix
@pytest.mark.parametrize("arguments", ["--help", "train --help"])
def test_a_reader_that_ends_early_is_no_error(arguments: str, tmp_path: Path) -> None:
    """Python's own flush at exit failed: "Exception ignored ...", status 120."""
    done = shell(f"P {arguments} | true; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.stdout, done.stderr) == ("0\n", "")


@needs_posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has /dev/full")
@pytest.mark.parametrize("arguments", ["--help", "train --help"])
def test_a_full_disk_is_one_line(arguments: str, tmp_path: Path) -> None:
    done = shell(f"P {arguments} > /dev/full", tmp_path)
    assert done.returncode == 2
    assert re.fullmatch("error: .*No space left on device\n", done.stderr)


@pytest.mark.slow
@needs_posix
def test_a_table_whose_reader_ends_early_is_no_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """rich ended the process with status 1 and no word."""
    done = shell("P inspect | true; echo ${PIPESTATUS[0]}", tmp_path)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.slow
@needs_posix
def test_missing_streams_become_the_null_device(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A daemon's standard output is None in Python: an AttributeError ended the command."""
    assert shell("P --help >&- 2>&-", tmp_path).returncode == 0
    assert shell("P xyzzy 2>&-", tmp_path).returncode == 2
    done = shell("P generate --prompt ab --max-new-tokens 3 <&- >&-", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 tokens" in done.stderr


def test_a_dumb_terminal_gets_lines(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Screen readers and serial consoles set TERM=dumb: a bar that is never drawn there, and no line for hours."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    outcome = command("train", "--preset", "tiny", "--max-steps", "4", "--log-every", "2", "--sample-tokens", "0")
    assert "step 2: loss " in outcome.out
    assert "\x1b" not in outcome.out


def test_control_characters_of_foreign_texts_are_shown_as_escapes() -> None:
    assert printable("a\x1b]0;title\x07\u202eb\r\n\x9b2J") == r"a\x1b]0;title\x07\u202eb\r\n\x9b2J"
    assert printable("déjà vu, 训练 🚂 [bold]") == "déjà vu, 训练 🚂 [bold]"


# Narrow terminals


def test_a_table_on_a_narrow_terminal_keeps_its_numbers_whole() -> None:
    """Names were cut to "learnin / g_rate=", and numbers lost their last digits."""
    names = [f"checkpoints_demo/learning_rate={rate},num_layers={n}" for rate in ("0.001", "0.003") for n in (2, 4)]
    columns = {"run": names} | {f"number {n}": [f"1,234,56{n}"] * 4 for n in range(6)}
    out = Console(file=io.StringIO(), width=80)
    out.print(fitting_table("runs", columns, 80, ["run"], ["number 0", "number 5", "number 1"]))
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, shown.splitlines())) <= 80
    for part in ("0.001,num_layers=2", "0.003,num_layers=4", "1,234,561", "1,234,564"):
        assert part in shown
    assert "1,234,560" not in shown
    assert "…" not in shown


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["learning_rate=1e-3", "learning_rate=3e-3"], ["1e-3", "3e-3"]),
        (["a/model_epoch_1_byte.pt", "a/model_epoch_12_byte.pt"], ["1", "12"]),
        (["demo", "demo_2"], ["demo", "demo_2"]),
        (["x", "x"], ["x", "x"]),
        (["one"], ["one"]),
        ([], []),
    ],
)
def test_the_varying_part_of_names_ends_at_separators(names: list[str], parts: list[str]) -> None:
    assert varying_parts(names) == parts


# Help, typos, and arguments that are read ahead

QUICK = """
import contextlib, io, json, sys, time
from transformer.cli.app import COMMANDS, main
for name in COMMANDS:
    for flag in ("--help", "--misspelt"):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                status = main([name, flag])
            except SystemExit as stop:
                status = stop.code
        print(name, flag, status, "usage:" in out.getvalue(), "there is no option --misspelt" in err.getvalue())
print(sorted({"torch", "matplotlib", "tiktoken", "pyarrow"} & set(sys.modules)))
"""


def test_help_and_typos_are_answered_without_pytorch() -> None:
    """`generate --help` and a misspelt flag took six seconds, all of them to import torch."""
    done = subprocess.run(
        [sys.executable, "-c", QUICK], env=BUFFERED, capture_output=True, text=True, timeout=60, check=True
    )
    *answers, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert len(answers) == 2 * len(COMMANDS)
    for answer in answers:
        assert answer.endswith("--help 0 True False" if "--help" in answer else "--misspelt 2 False True"), answer


def test_trains_help_begins_with_the_options_that_matter_first_and_ends_with_the_guide(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was 215 lines in frames, by "config.model options"."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        command("train", "--help")
    shown = capsys.readouterr().out
    start = shown.partition("start with these:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^  (--[a-z-]+)", start, re.MULTILINE) == [
        "--preset", "--dataset", "--checkpoint-dir", "--resume", "--dry-run",
    ]  # fmt: skip
    headings = re.findall(r"^([a-z].*):$", shown.lower(), re.MULTILINE)
    assert headings[0] == "start with these"
    assert "the shape of the model" in headings
    assert " ".join(shown.split()).endswith("commands/train.py says which settings matter most.")
    assert max(map(len, shown.splitlines())) <= 80
    assert not re.search("None}|[│╭]", shown)


def test_the_last_of_two_presets_counts_as_for_every_flag() -> None:
    """`--preset demo --preset tiny` trained the demo."""
    from transformer.cli.generate.options import read_options as generate_options
    from transformer.cli.train.options import read_options

    assert read_options(["--preset", "demo", "--preset", "tiny"]).config == PRESETS["tiny"]
    assert read_options(["--quick", "--no-quick", "--preset=tiny"]).config == PRESETS["tiny"]
    options = generate_options(["--preset", "creative", "--preset=greedy", "--prompt", "x"])
    assert (options.preset, options.sampling.strategy) == ("greedy", "greedy")


def test_a_value_that_begins_with_a_dash_is_told_its_spelling(command: Command) -> None:
    assert "a value that begins with - is written --device=VALUE" in command("generate", "--device", "-x").err
    from transformer.cli.generate.options import GenerateOptions

    assert given_values(GenerateOptions(), ["--prompt=-x", "--prompt", "- a b"], "generate")["prompt"] == [
        "-x",
        "- a b",
    ]


# How long a run takes


def test_the_first_forecast_counts_the_validation_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation of 60 s among the timed steps of 1 s made "1 h 4 min" of a run of minutes."""
    from transformer.cli.train import forecast

    clock = [0.0]
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: clock[0])
    config = PRESETS["demo"]
    follow = forecast.Forecast(config, RunStarted("run", 0, 600, 600, config.tokens_per_step, 1, "cpu"))
    lines = []
    for step in range(6):
        lines.append(follow.at(Progress(step, "training", 0, 1)))
        clock[0] += 1.0
        if step == 1:
            follow.at(Progress(step + 1, "saving"))
            clock[0] += 60.0
            follow.at(Progress(step + 1, "evaluating", 8, 8))
    (line,) = filter(None, lines)
    plan = cost(config, 600 * config.tokens_per_step)
    validation = plan.evaluations * config.data.validation_tokens / 3 / plan.tokens_per_step
    assert line == f"about {round((600 + validation) / 60)} min at 1 s per step, including 3 evaluations"


def test_a_run_of_days_is_announced_before_its_first_step_with_a_shorter_one() -> None:
    """The default run takes 18 days on two cores, and nothing said so."""
    from transformer.cli.train.forecast import slow_run

    said = slow_run(cost(TrainConfig()))
    assert said is not None
    assert re.match(r"this run takes \d+ (d|h) .* or more on this CPU; .*train --preset demo", said)
    assert slow_run(cost(PRESETS["demo"])) is None


# Folders that cannot be written


def test_a_table_is_printed_before_its_picture_cannot_be_written(command: Command, tmp_path: Path) -> None:
    """In a read-only folder the raw error came first, and the table never."""
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    outcome = command("demo-sampling", "--out", "file/x")
    assert outcome.status == 2
    assert "temperature 0.7" in outcome.out
    assert re.fullmatch(r"error: nothing can be written to .*; --out chooses another place\n", outcome.err)
