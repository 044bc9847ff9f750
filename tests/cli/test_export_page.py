"""`main.py export-page`: what it writes and what it refuses; tests/page opens what it wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


def test_the_latest_checkpoint_becomes_page_html_with_everything_inside(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    told = command("export-page")
    assert (told.status, told.err) == (0, "")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'src="page/' not in page
    assert 'rel="stylesheet"' not in page
    assert page.count("GPT.exported = {") == 1
    assert '"encoding": "byte"' in page
    beforehand, afterwards = map(float, re.findall(r"([\d.]+) MB", told.out))
    assert beforehand == pytest.approx(afterwards, abs=0.02)
    assert afterwards == pytest.approx(len(page) / 1e6, abs=0.006)


def test_a_name_that_ends_in_js_gets_the_model_alone(command: Command, tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert command("export-page", "--checkpoint", str(tiny_checkpoint), "--out", "model.js").status == 0
    assert (tmp_path / "model.js").read_text(encoding="utf-8").startswith("var GPT = GPT || {};\nGPT.exported = {")


def test_a_page_too_large_for_a_browser_is_refused_before_it_is_made(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer.cli.export_page import command as export_page

    monkeypatch.setattr(export_page, "LARGEST_MB", 0.001)
    told = command("export-page")
    assert told.status == 2
    assert told.err.startswith("error: the page would be ")
    assert len(told.err.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


def test_the_lesson_itself_is_never_overwritten(command: Command, tiny_checkpoint: Path) -> None:
    before = (ROOT / "index.html").read_bytes()
    told = command("export-page", "--out", str(ROOT / "index.html"))
    assert told.status == 2
    assert "is the lesson page itself" in told.err
    assert (ROOT / "index.html").read_bytes() == before


def test_a_checkpoint_that_is_not_there_is_one_line(command: Command) -> None:
    told = command("export-page", "--checkpoint", "nowhere.pt")
    assert (told.status, told.err) == (2, "error: there is no checkpoint nowhere.pt\n")


def test_a_script_that_would_end_itself_inside_a_page_is_refused(tmp_path: Path) -> None:
    from transformer.cli.export_page import command as export_page

    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "bad.js").write_text('const end = "</script>";', encoding="utf-8")
    lesson = tmp_path / "index.html"
    lesson.write_text('<script src="page/bad.js"></script>', encoding="utf-8")
    with pytest.raises(ValueError, match=r"page/bad\.js contains </script"):
        export_page.page("", lesson)


def test_what_rounding_costs_is_measured_as_evaluate_measures_and_travels_along(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    told = command("export-page", "--out", "model.js", "--measure")
    assert told.status == 0, told.err
    content = (tmp_path / "model.js").read_text(encoding="utf-8")
    (about,) = re.findall(r'^  "about": (.*),$', content, re.MULTILINE)
    before, after = (json.loads(about)["validation"][name]["loss"] for name in ("checkpoint", "rounded"))
    assert f"loss {before:.5f}" in told.out
    assert before != after == pytest.approx(before, rel=0.01)
    evaluated = json.loads(command("evaluate", "--json").out)
    assert before == pytest.approx(evaluated["loss"], rel=1e-6)
