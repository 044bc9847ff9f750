"""What the documents tell people to type exists and is understood."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "commands").glob("*.py"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def typed_lines(start: str) -> list[str]:
    """Lines of the documents that begin with `start`, less what is said about them after two spaces."""
    found = []
    for document in DOCUMENTS:
        for line in document.read_text(encoding="utf-8").splitlines():
            if line.strip().startswith(start):
                found.append(re.split(r"\s{2,}", line.strip())[0])
    return sorted(set(found))


@pytest.mark.parametrize("line", typed_lines("uv run python main.py"))
def test_a_documented_command_line_is_understood(line: str) -> None:
    import main

    from transformer.cli.options import parse

    command, *arguments = shlex.split(line)[4:]
    if command == "COMMAND":
        return
    module = importlib.import_module(main.COMMANDS[command][0])
    options = [
        value
        for name, value in vars(module).items()
        if name.endswith("Options") and dataclasses.is_dataclass(value) and value.__module__ == module.__name__
    ]
    assert len(options) == 1
    parse(options[0], arguments, command)  # type: ignore[arg-type]


@pytest.mark.parametrize("line", typed_lines("make "))
def test_a_documented_make_target_exists(line: str) -> None:
    target = shlex.split(line)[1]
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_readmes_python_example_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        names: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), names)
        assert names["text"].shape == (1, 20)  # type: ignore[attr-defined]


def test_every_path_that_the_readme_links_to_exists() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def test_every_source_file_is_on_the_readmes_map() -> None:
    room = ROOT / "src" / "transformer"
    named = [path.name for path in room.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in named if name not in README] == []
