"""Without a command: a menu at a terminal, the help text elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOWN, ENTER, CTRL_C = b"\x1b[B", b"\r", b"\x03"


def at_terminal(folder: Path, *keys: bytes) -> tuple[int, str]:
    """Runs main.py in a pseudo-terminal and presses the keys once the menu is shown; returns status and output."""
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, str(ROOT / "main.py")]
    shown = b""
    with subprocess.Popen(line, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment) as running:
        os.close(theirs)
        waiting = list(keys)
        while True:
            try:
                read = os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
            if not read:
                break
            shown += read
            if waiting and b"rank all checkpoints" in shown:
                time.sleep(0.1)  # keys of one sequence belong together
                os.write(ours, waiting.pop(0))
        status = running.wait(timeout=60)
    os.close(ours)
    return status, shown.decode(errors="replace")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_the_arrow_keys_choose_the_lesson_page(tmp_path: Path) -> None:
    status, shown = at_terminal(tmp_path, *[DOWN] * 5, ENTER)
    assert (ROOT / "index.html").as_uri() in shown
    assert status == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_chosen_command_is_shown_and_run(tmp_path: Path) -> None:
    status, shown = at_terminal(tmp_path, *[DOWN] * 4, ENTER)
    assert "uv run python main.py compare" in shown
    assert "error: no checkpoint found in the folders checkpoints*" in shown
    assert status == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_ctrl_c_leaves_the_menu(tmp_path: Path) -> None:
    status, shown = at_terminal(tmp_path, CTRL_C)
    assert status == 130
    assert "Traceback" not in shown


def test_without_a_terminal_the_help_text_is_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py")], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: main.py COMMAND [OPTIONS]")
