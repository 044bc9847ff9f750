"""The wheel works without the repository: built, installed into a fresh environment, and used in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*line: str | Path, folder: Path, status: int = 0) -> str:
    """Runs a command without the checkout on its path; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, line)), cwd=folder, env={**environment, "PYTHONIOENCODING": "utf-8"}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of executables of an environment with the wheel; the other packages are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=ROOT)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "environment", with_pip=True)
    names = sysconfig.get_paths("venv", {"base": str(folder / "environment")})
    # A .pth file adds the packages, but not the checkout: .pth files in an added folder are not read.
    (Path(names["purelib"]) / "packages.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    run(Path(names["scripts"]) / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel, folder=folder)
    return Path(names["scripts"])


@pytest.mark.slow
def test_the_installed_command_runs_the_demo_and_exports_the_page_in_an_empty_folder(
    scripts: Path, tmp_path: Path
) -> None:
    transformer = scripts / "transformer"
    assert run(transformer, "--help", folder=tmp_path).startswith("usage: transformer COMMAND")
    out = run(transformer, "demo", "--max-steps", "3", folder=tmp_path)
    assert "3. Generate" in out
    assert (tmp_path / "checkpoints_demo" / "loss_curve.png").exists()
    assert 'transformer generate --prompt "JULIET:"' in out
    run(transformer, "export-page", folder=tmp_path)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "GPT.exported" in page
    assert 'src="page/' not in page
    run(transformer, "interpret", "--prompt", "ROMEO:", folder=tmp_path)
    assert "GPT.report" in (tmp_path / "interpret.html").read_text(encoding="utf-8")
    where = run(scripts / "python", "-c", "import transformer; print(transformer.__file__)", folder=tmp_path)
    assert str(scripts.parent) in where


@pytest.mark.slow
def test_the_installed_command_reports_errors_under_its_own_name(scripts: Path, tmp_path: Path) -> None:
    out = run(scripts / "transformer", "train", "--bacth-size", "4", folder=tmp_path, status=2)
    assert out.endswith("did you mean --batch-size? (see transformer train --help)\n")
