"""Without a command: a menu at a terminal, the help text elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from terminals import shown_at_terminal

ROOT = Path(__file__).resolve().parents[2]
DOWN, ENTER, CTRL_C = "\x1b[B", "\r", "\x03"
Command = Callable[..., Any]


@pytest.fixture
def at_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """at_terminal(DOWN, ENTER) is the outcome of main.py if these keys are pressed in its menu."""

    def press(*keys: str) -> Any:
        for stream in (sys.stdin, sys.stdout):
            monkeypatch.setattr(stream, "isatty", lambda: True)
        with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
            keyboard.send_text("".join(keys))
            return command()

    return press


def test_the_arrow_keys_choose_the_lesson_page(at_terminal: Command) -> None:
    outcome = at_terminal(*[DOWN] * 6, ENTER)
    assert outcome.status == 0
    assert (ROOT / "index.html").as_uri() in outcome.out


def test_ctrl_c_leaves_the_menu(at_terminal: Command) -> None:
    assert at_terminal(CTRL_C) == (130, "", "")


def test_without_a_terminal_the_help_text_is_printed(command: Command) -> None:
    outcome = command()
    assert outcome.status == 0
    assert outcome.out.startswith("usage: main.py COMMAND [OPTIONS]")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_chosen_command_is_shown_and_run(tmp_path: Path) -> None:
    """In a process of its own, at a terminal."""
    waiting = [*[DOWN] * 4, ENTER]

    def answer(shown: bytes) -> bytes:
        if not waiting or b"rank all checkpoints" not in shown:
            return b""
        time.sleep(0.1)  # keys of one sequence belong together
        return waiting.pop(0).encode()

    text, status = shown_at_terminal([], tmp_path, answer=answer)
    assert "uv run python main.py compare" in text
    assert "error: no checkpoint found in the folders checkpoints*" in text
    assert status == 2
