"""commands/test_fineweb.py: what it shows where the hub answers, and its one line where nothing does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from transformer.text import split_documents

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [f"Document {n} says that {n} is a number, and goes on to prove it. " * 3 for n in range(120)]


def test_without_a_network_it_says_so_in_one_line_and_exits_with_2(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT / "src")}
    script = [sys.executable, str(ROOT / "commands" / "test_fineweb.py"), "--encoding", "byte"]
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: FineWeb-Edu cannot be reached")
    assert "--dataset shakespeare" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the hub: two files of 60 documents, in row groups of 20."""
    folder = tmp_path / "datasets/HuggingFaceFW/fineweb-edu/sample/10BT"
    folder.mkdir(parents=True)
    for number in range(2):
        table = pa.table({"text": TEXTS[60 * number : 60 * (number + 1)], "id": [str(n) for n in range(60)]})
        pq.write_table(table, folder / f"00{number}_00000.parquet", row_group_size=20)
    local = DirFileSystem(str(tmp_path), LocalFileSystem())
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: local)
    return folder


@pytest.mark.usefixtures("hub")
def test_it_shows_files_timing_split_and_a_sample(capsys: pytest.CaptureFixture[str]) -> None:
    from test_fineweb import main

    main(["--encoding", "byte", "--sample-tokens", "30"])
    out = capsys.readouterr().out
    assert out.count("sample/10BT/00") == 2
    assert re.search(r"2 files .* 6 ", out)
    assert "6 units" in out
    train, held_out = split_documents(TEXTS[:40])
    assert re.search(rf"train .* {len(train)} .* {len(train) / 40:.1%} ", out)
    assert re.search(rf"validation .* {len(held_out)} .* {len(held_out) / 40:.1%} ", out)
    assert "Document 2" in out.splitlines()[-1]  # unit 1 begins with document 20 to 29
    assert len(out.splitlines()[-1]) == 30


def test_pytest_finds_nothing_to_run_in_it() -> None:
    source = (ROOT / "commands" / "test_fineweb.py").read_text(encoding="utf-8")
    assert "def test_" not in source
    assert "class Test" not in source
