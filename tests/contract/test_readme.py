"""The documentation matches the code: command lines parse, make targets and links exist, the example runs."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import count_reading
import pytest
from torch.distributed.run import get_args_parser

from transformer.cli.app import COMMANDS as COMMAND_TABLE
from transformer.cli.sweep.grid import variants

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "transformer"
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted((ROOT / "commands").glob("*.py"))
LINKED = [*GUIDES, ROOT / "benchmarks" / "README.md", ROOT / "page" / "README.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.compile(r"#|(export )?\w+=(\$\(.*|\S*$)|for |done$|pip install uv$|make |llama-|curl ")
"""The beginnings of lines in code blocks that no parser of ours or of torchrun's reads."""


def shown_lines(document: Path) -> list[str]:
    """The lines of a document's code blocks, of a command's docstring those that start uv; continued lines joined."""
    text = document.read_text(encoding="utf-8")
    if document.suffix == ".md":
        text = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
        for name, value in re.findall(r'^(\w+)="([^"]*)"', text, re.MULTILINE):
            text = text.replace(f"${name} ", f"{' '.join(value.split())} ")
        text = re.sub(r'^\w+="[^"]*"$', "", text, flags=re.MULTILINE)
    lines = [line.strip() for line in re.sub(r" *\\\n *", " ", text).splitlines()]
    return [line for line in lines if line and (document.suffix == ".md" or re.match(r"(echo .* \| )?uv run ", line))]


def typed_lines() -> list[str]:
    """Every documented line that runs a program, without the explanation after two spaces."""
    lines = [line for document in [*LINKED, *COMMANDS] for line in shown_lines(document) if not SHELL.match(line)]
    return sorted({re.split(r"\s{2,}", line)[0] for line in lines})


def program_of(line: str) -> tuple[str, list[str]]:
    """main.py's command, or the path or name of another program, and its arguments; torchrun's are parsed here."""
    words = shlex.split(line.rpartition(" | ")[2])
    assert "uv" in words, f"a line of another kind: {line}"
    words = words[words.index("run") + 1 :]
    if words[0] == "--extra":
        words = words[2:]
    if words[0] == "torchrun":
        parsed = get_args_parser().parse_args(words[1:])
        words = ["python", parsed.training_script, *parsed.training_script_args]
    if words[0] != "python":
        return words[0], words[1:]
    program, arguments = words[1], words[2:]
    if program == "main.py":
        return arguments[0], arguments[1:]
    found = re.search(r'main\(\["([\w-]+)"', (ROOT / program).read_text(encoding="utf-8"))
    return (found[1] if found and program.startswith("commands/") else program), arguments


def make_lines() -> list[str]:
    typed = {line for document in LINKED for line in shown_lines(document) if line.startswith("make ")}
    inline = {found for document in GUIDES for found in re.findall(r"`(make [^`]+)`", document.read_text("utf-8"))}
    return sorted(typed | inline)


@pytest.mark.parametrize("line", typed_lines())
def test_a_documented_command_line_is_understood(line: str) -> None:
    """By the command's own parser, with all checks that need no files."""
    command, arguments = program_of(line)
    if command not in COMMAND_TABLE:
        assert command in ("pytest", "hf") or (ROOT / command).is_file()
        return
    options = importlib.import_module(f"{COMMAND_TABLE[command][0]}.options").read_options(arguments)
    if getattr(options, "set", ()):
        assert variants(options.config, options.set)
    if hasattr(options, "check"):
        options.check()


@pytest.mark.parametrize("line", make_lines())
def test_a_documented_make_target_exists(line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_guides_are_searched_for_command_lines() -> None:
    found = [program_of(line) for line in typed_lines()]
    assert ("train", ["--shard", "--resume"]) in found  # after torchrun
    assert ("test-fineweb", ["--encoding", "p50k_base"]) in found  # a file in commands/
    assert ("generate", ["--json"]) in found  # after a pipe
    assert ("evaluate", ["--text-file", "notes.md", "--stride", "1"]) in found
    assert {command for command, _ in found} >= {"demo", "download", "inspect", "compare", "plot", "export-page"}
    assert any(line.startswith("make test ARGS=") for line in make_lines())


def test_the_readmes_python_examples_run(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_checkpoint.parent.rename(tiny_checkpoint.parent.with_name("checkpoints_demo")).parent)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    assert isinstance(names["text"], str)
    assert names["generated"].shape == (1, 20)


@pytest.mark.parametrize("document", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_of_a_guide_leads_to_a_file_and_a_heading(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    missing = []
    for target in re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', re.sub(r"```.*?```", "", text)):
        path, _, anchor = target.partition("#")
        if "://" in path or "…" in path:
            continue
        file = document.parent / path if path else document
        headings = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE) if file.suffix == ".md" else []
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        if not file.exists() or (anchor and anchor not in anchors):
            missing.append(target)
    assert missing == []


def test_every_source_file_and_package_is_on_the_readmes_map() -> None:
    files = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    packages = [f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")]
    assert [name for name in files + packages if name not in README] == []


def test_every_source_file_and_package_is_in_the_layout_table_of_contributing() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Layout")[2].partition("\n## ")[0]
    named = set(re.findall(r"\w+/?", table))
    files = [path.stem for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    packages = [f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")]
    assert [name for name in files + packages if name not in named] == []


def test_code_lines_are_counted_without_comments_docstrings_and_blank_lines() -> None:
    source = '"""A lesson\nof two lines."""\n\nx = [1,  # one\n\n     2]\n"""Of x."""\n# a comment\n'
    assert count_reading.count(source) == (2, 13)


def test_the_hour_has_the_length_that_the_readme_states() -> None:
    stated = re.search(r"about ([\d,]+) lines of code and ([\d,]+) words", README)
    assert stated is not None
    for number, counted in zip(stated.groups(), count_reading.total(count_reading.HOUR), strict=True):
        assert int(number.replace(",", "")) == pytest.approx(counted, rel=0.1)
    path = README.partition("## Learning path")[2].partition("**The rest")[0]
    assert tuple(re.findall(r"\d\. `(\w+)\.py`", path)) == count_reading.HOUR


def test_the_readme_stays_under_200_lines() -> None:
    assert len(README.splitlines()) < 200
