"""A prompt is the bytes that were typed, in UTF-8, whatever encoding the locale has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transformer.cli import typed_texts


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are not bytes on Windows")
def test_a_prompt_keeps_its_letters_in_the_locale_c() -> None:
    """Python reads arguments there as ASCII and keeps other bytes as half characters, which became U+FFFD."""
    run = f"runpy.run_path({str(Path(typed_texts.__file__))!r})"
    code = f"import runpy, sys; print(ascii({run}['with_texts'](sys.argv[1:])))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    line = [sys.executable, "-S", "-c", code, "--prompt", "café".encode(), "--out", "é".encode()]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == r"['--prompt=caf\xe9', '--out', '\udcc3\udca9']" + "\n", done.stderr  # a path stays as it was


@pytest.mark.parametrize("word", ["- milk", "-x", "---", "--- a line", "", "-1"])
def test_a_text_may_start_with_a_dash(word: str) -> None:
    assert typed_texts.with_texts(["--prompt", word, "--stop", word]) == [f"--prompt={word}", f"--stop={word}"]


def test_a_flag_after_a_text_that_was_forgotten_is_a_flag() -> None:
    assert typed_texts.with_texts(["--prompt", "--json", "--stop"]) == ["--prompt", "--json", "--stop"]
