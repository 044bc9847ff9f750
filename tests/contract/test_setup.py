"""Set-up and make (SURFACE M0, M1, M2, M6): promised targets, known-good versions, what a clone may contain."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
CONSTRAINTS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]

# target -> the line it runs, after `uv`
LINES = {
    "demo": "run python main.py demo",
    "train": "run python main.py train",
    "train-quick": "run python main.py train --quick",
    "generate": "run python main.py generate",
    "generate-prompt": "run python main.py generate --prompt 'The cat sat'",
    "evaluate": "run python main.py evaluate",
    "compare": "run python main.py compare",
    "plot": "run python main.py plot",
    "demo-sampling": "run python main.py demo-sampling",
    "benchmark": "run python main.py benchmark",
    "test": "run pytest",
    "test-cov": "run pytest --cov=src/transformer",
    "test-slow": "run pytest -m slow",
    "test-firefox": "run pytest -m slow -n 2 -k firefox tests/page",
    "test-smollm": "run pytest -m slow tests/interop/test_smollm2.py",
    "test-lens": "run pytest -m slow tests/parity/test_transformer_lens.py",
    "check": "run ruff check",
    "format": "run ruff format",
    "bench-kernels": "run python benchmarks/bench_kernels.py",
    "gpu-check": "run python benchmarks/gpu_check.py",
    "mascot": "run python scripts/mascot.py",
    "screenshots": "run python scripts/screenshots.py",
    "hooks": "run pre-commit install",
}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str, folder: Path = ROOT, **environment: str) -> str:
    """Standard output of make, which must succeed. Nothing of a make that runs these tests is passed on."""
    outer = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "TORCH"}}
    done = subprocess.run(
        ["make", *arguments], cwd=folder, env=outer | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_make
def test_help_is_the_default_and_lists_every_target() -> None:
    listed = make("help")
    assert make() == listed
    for target in [*LINES, "help", "install", "clean"]:
        assert re.search(rf"^  {target} +\w", listed, re.MULTILINE), f"`make help` does not explain {target}"


@needs_make
@pytest.mark.parametrize("target", LINES)
def test_each_target_prepares_the_environment_and_runs_its_line(target: str, tmp_path: Path) -> None:
    for name in ["Makefile", "pyproject.toml"]:
        shutil.copy(ROOT / name, tmp_path)
    printed = make("-n", target, folder=tmp_path)
    assert LINES[target] in printed
    assert printed.index(" sync") < printed.index(LINES[target])


@needs_make
def test_make_test_checks_before_it_tests() -> None:
    printed = make("-n", "test", "ARGS=-k cache")
    positions = [printed.index(part) for part in ["ruff format --check", "ruff check", "run mypy", "pytest -k cache"]]
    assert positions == sorted(positions)


@needs_make
def test_a_prompt_reaches_the_command_as_typed() -> None:
    printed = make("-n", "generate-prompt", """PROMPT=it's "$5" `date`""")
    line = next(line for line in printed.splitlines() if "--prompt" in line)
    quoted = line.partition("--prompt ")[2]
    shown = subprocess.run(["sh", "-c", f"printf %s {quoted}"], capture_output=True, text=True, check=True)
    assert shown.stdout == """it's "$5" `date`"""


@needs_make
def test_clean_leaves_what_was_trained_or_downloaded(tmp_path: Path) -> None:
    assert not re.search(r"checkpoint|data|runs|\.venv", make("-n", "clean"))
    shutil.copy(ROOT / "Makefile", tmp_path)
    kept = [
        "checkpoints/model_epoch_1_cl100k.pt",
        "checkpoints_quick/model_epoch_1_cl100k.pt",
        "data/fineweb_cache/shard_00000.parquet",
        "runs/metrics.jsonl",
        "src/transformer/text/data/ranks",
        ".venv/pyvenv.cfg",
    ]
    removed = [".pytest_cache/x", ".mypy_cache/x", ".coverage", "build/x", "src/transformer/__pycache__/x.pyc"]
    for name in kept + removed:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    make("clean", folder=tmp_path)
    assert [name for name in kept if not (tmp_path / name).exists()] == []
    assert [name for name in removed if (tmp_path / name).exists()] == []


FAKE_PYTHON = """\
#!/bin/sh
case "$*" in
"-c "*) exit {too_old} ;;
"--version") echo "Python 3.9.6" ;;
"-m pip --version") ;;
"-m pip install --quiet uv") test -z "{refuses}" && cp fake_uv bin/uv ;;
"-m pip install --quiet --target .uv uv") mkdir -p .uv/bin && cp fake_uv .uv/bin/uv ;;
*) exit 1 ;;
esac
"""
FAKE_UV = """\
#!/bin/sh
test "$1" = --version || echo "$0 $*" >> calls
test "$1" = sync && mkdir -p .venv
exit 0
"""


def bare_clone(folder: Path, *, too_old: int = 0, refuses: str = "") -> dict[str, str]:
    """A folder with the Makefile and a PATH on which there is make, a stand-in for Python, and no uv."""
    for name in ["Makefile", "pyproject.toml"]:
        shutil.copy(ROOT / name, folder)
    (folder / "bin").mkdir()
    for tool in ["sh", "make", "cat", "cp", "mkdir", "rm", "grep", "awk"]:
        found = shutil.which(tool)
        assert found is not None
        (folder / "bin" / tool).symlink_to(found)
    for name, text in {
        "bin/python3": FAKE_PYTHON.format(too_old=too_old, refuses=refuses),
        "fake_uv": FAKE_UV,
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder / "bin"), "HOME": str(folder)}


@needs_make
@pytest.mark.parametrize("refuses", ["", "as an operating system's Python does"])
def test_install_brings_uv_with_pip_and_then_fills_the_environment(refuses: str, tmp_path: Path) -> None:
    environment = bare_clone(tmp_path, refuses=refuses)
    make("install", folder=tmp_path, **environment)
    make("check", folder=tmp_path, **environment)
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert [call.partition(" ")[2] for call in calls[:2]] == ["sync", "run ruff format --check"]
    assert calls[0].endswith(".uv/bin/uv sync") == bool(refuses)


@needs_make
def test_the_chosen_build_of_torch_is_remembered(tmp_path: Path) -> None:
    environment = bare_clone(tmp_path)
    (tmp_path / ".venv").mkdir()
    make("install", "TORCH=cpu", folder=tmp_path, **environment)
    (tmp_path / "pyproject.toml").touch()
    os.utime(tmp_path / ".venv" / ".ready", (0, 0))
    make("check", folder=tmp_path, **environment)
    calls = (tmp_path / "calls").read_text(encoding="utf-8")
    assert calls.count("--torch-backend=cpu") == 2
    assert "sync" not in calls


@needs_make
def test_an_old_python_is_named_in_one_line(tmp_path: Path) -> None:
    environment = bare_clone(tmp_path, too_old=1)
    done = subprocess.run(["make", "install"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed; found: Python 3.9.6" in done.stderr


def test_python_3_11_to_3_14_are_supported() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    for minor in range(11, 15):
        assert f"3.{minor}" in supported
        assert f"Programming Language :: Python :: 3.{minor}" in PROJECT["classifiers"]
    assert "3.10" not in supported


def test_known_good_versions_satisfy_every_range() -> None:
    pins = {
        requirement.name: [pin.specifier for pin in CONSTRAINTS if pin.name == requirement.name]
        for requirement in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
    }
    for requirement in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]):
        versions = [str(pin).removeprefix("==") for pin in pins[requirement.name]]
        assert versions, f"{requirement.name} has no known-good version; run `make constraints`"
        for version in versions:
            assert version in requirement.specifier, f"{requirement} does not allow its known-good {version}"


def test_pip_and_uv_are_held_to_the_same_versions() -> None:
    for_uv = {str(Requirement(line)) for line in PYPROJECT["tool"]["uv"]["constraint-dependencies"]}
    assert for_uv == {str(pin) for pin in CONSTRAINTS}
    assert "torch==2.13.0" in for_uv


def test_pytest_never_collects_the_fineweb_command_and_takes_warnings_for_errors() -> None:
    options = PYPROJECT["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    assert options["filterwarnings"][0] == "error"


def kept_files() -> list[Path]:
    """What a commit of the working tree would hold."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_kept_file_is_a_lock_file_or_names_a_registry_or_a_path_of_one_machine() -> None:
    # Put together from parts, so that this file passes its own test.
    registries = ["pypi" + ".org", "python" + "hosted.org", "download.py" + "torch.org", "ana" + "conda.org"]
    machine = rb"/(?:home|Users)/[A-Za-z][\w.-]*/|[A-Z]:\\+Users\\+\w|(?<![\w.])/roo[t]/"
    here = [str(path).encode() for path in (ROOT, Path.home()) if len(path.parts) > 2]
    found = []
    for path in kept_files():
        assert path.name != "uv.lock"
        content = path.read_bytes()
        found += [f"{path.relative_to(ROOT)}: {host}" for host in registries if host.encode() in content]
        found += [f"{path.relative_to(ROOT)}: {private!r}" for private in here if private in content]
        found += [f"{path.relative_to(ROOT)}: {hit!r}" for hit in re.findall(machine, content)]
    assert found == []
