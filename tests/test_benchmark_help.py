"""Every benchmark script imports, and its --help prints the module's docstring and exits with status 0."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if "ArgumentParser" in path.read_text(encoding="utf-8"))
HELPERS = sorted(set(BENCHMARKS.glob("*.py")) - set(SCRIPTS))


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Imports a script under a name of its own; its imports of other scripts work as from the command line."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")  # some scripts set it if it is unset
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_help_describes_the_script(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(path, monkeypatch)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 0
    assert module.__doc__ is not None
    assert module.__doc__.splitlines()[0] in capsys.readouterr().out


@pytest.mark.parametrize("path", HELPERS, ids=[path.name for path in HELPERS])
def test_helper_modules_import(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(path, monkeypatch).__doc__
