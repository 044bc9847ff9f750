"""The import law of the house, enforced on the source: who may know whom, who may speak, nothing at import."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "transformer"

# A room is a module or a folder directly under src/transformer. LAW: room -> the rooms it may import.
CONCEPTS = {
    "linear", "quantisation", "dropout", "embeddings", "attention", "kv_cache", "feedforward", "block", "loss",
    "sampling",
}  # fmt: skip
BELOW_MODEL = {"config", "generation"} | CONCEPTS
TEACHING = {"optimizer", "scheduler"}
DATA = {"dataset", "documents", "fineweb_dataset", "remote", "shard_cache"}
PLANNING = {"cost", "verdict"}
ABOVE_MODEL = {
    "perplexity", "compiled", "document_scores", "ranking", "writing", "training_utils", "trainer", "looking",
    "run_state", "checkpoint", "sharded_state", "inspection", "interop", "interpret", "page_export",
}  # fmt: skip
LIBRARY = BELOW_MODEL | {"model", "text", "runtime"} | TEACHING | DATA | PLANNING | ABOVE_MODEL

LAW: dict[str, set[str]] = {
    "settings": set(),
    "config": {"settings"},
    **{room: {"config"} | (CONCEPTS - {room}) for room in CONCEPTS},
    "generation": {"config", "kv_cache", "sampling"},
    "model": BELOW_MODEL,
    **{room: BELOW_MODEL | (TEACHING - {room}) for room in TEACHING},
    "verdict": set(),
    "cost": {"config", "loss"},
    "text": set(),
    **{room: {"config", "text"} | (DATA - {room}) for room in DATA},
    "shard_cache": {"config", "text"},
    "runtime": set(),
    "history": {"runtime.metrics"},
    "plots": {"history", "runtime.metrics"},
    "ranking_plot": {"plots", "ranking"},
    "sampling_plots": {"sampling"},
    "tracking": {"runtime.metrics"},
    **{room: LIBRARY - {room} for room in ABOVE_MODEL},
    "playground": LIBRARY | {"history", "plots", "sampling_plots", "tracking"},
    "__init__": LIBRARY,
}

# Rooms that may import only these from outside the standard library. The others are free, short of PRESENTATION.
OUTSIDE: dict[str, set[str]] = {
    **{room: set() for room in ("settings", "config")},
    **{room: {"torch"} for room in CONCEPTS | {"generation", "model", "runtime", "cost"} | TEACHING},
    "verdict": {"numpy"},
}
PRESENTATION = {"rich", "argparse", "tyro"}  # for commands/ and playground/

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """src/transformer/text/bpe.py -> text; src/transformer/loss.py -> loss."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path, tree: ast.AST) -> list[str]:
    """Full dotted names of everything imported anywhere in the file: `transformer.text.bpe`, `torch.nn.functional`."""
    package = ["transformer", *path.relative_to(PACKAGE).parent.parts]
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names += [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
    return names


def is_allowed(name: str, room: str) -> bool:
    head, *rest = name.split(".")
    if head != "transformer":
        if head in sys.stdlib_module_names:
            return head not in PRESENTATION or room == "playground"
        return head in OUTSIDE[room] if room in OUTSIDE else head not in PRESENTATION or room == "playground"
    own = {room} if (PACKAGE / room).is_dir() else set()
    return any(".".join(rest[: law.count(".") + 1]) == law for law in LAW[room] | own)


def speech(node: ast.AST) -> str | None:
    """The name of what only a command may do, where this node does it."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "input", "exit"}:
        return f"{node.func.id}()"
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
        return f"sys.{node.attr}" if node.attr in {"argv", "exit", "stdout", "stderr", "stdin"} else None
    if isinstance(node, ast.Name) and node.id == "SystemExit":
        return node.id
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_what_the_law_allows(path: Path) -> None:
    room = room_of(path)
    assert room in LAW, f"{room} is a new room: give it a line in LAW and in DESIGN"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [name for name in imports(path, tree) if not is_allowed(name, room)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_commands_and_the_playground_speak(path: Path) -> None:
    if room_of(path) == "playground":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = [f"line {node.lineno}: {found}" for node in ast.walk(tree) if (found := speech(node))]  # type: ignore[attr-defined]
    assert said == []


@pytest.mark.parametrize(
    ("room", "name", "allowed"),
    [
        ("attention", "transformer.config.ModelConfig", True),
        ("attention", "transformer.model.DecoderOnlyTransformer", False),
        ("generation", "transformer.model", False),
        ("generation", "transformer.block", False),
        ("model", "tokenizers", False),
        ("model", "numpy", False),
        ("model", "torch.nn", True),
        ("model", "transformer.DecoderOnlyTransformer", False),
        ("dataset", "transformer.text.Tokenizer", True),
        ("dataset", "transformer.model", False),
        ("dataset", "pyarrow.parquet", True),
        ("trainer", "rich.table", False),
        ("trainer", "argparse", False),
        ("text", "transformer.text.bpe", True),
        ("text", "transformer.config", False),
        ("runtime", "transformer.training.device", True),
        ("runtime", "numpy", False),
        ("plots", "transformer.reporting.metrics_log.read", True),
        ("plots", "transformer.training.device", False),
        ("playground", "rich", True),
    ],
)
def test_the_law_reads_as_it_is_meant(
    room: str, name: str, allowed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ["text", "runtime"]:
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    assert is_allowed(name, room) == allowed


def test_imports_are_found_wherever_they_stand() -> None:
    source = (
        "import torch.nn as nn\ndef f():\n    from ..config import A\n    from . import bpe\n    from .bpe import B\n"
    )
    found = imports(PACKAGE / "text" / "corpus.py", ast.parse(source))
    names = {"torch.nn", "transformer.config.A", "transformer.text.bpe", "transformer.text.bpe.B"}
    assert set(found) == names


QUIET = """
import json, os, random, sys, threading
import torch
before = (dict(os.environ), random.getstate(), torch.get_rng_state().tolist(), torch.get_default_dtype(),
          torch.get_num_threads(), torch.is_grad_enabled())
import transformer
after = (dict(os.environ), random.getstate(), torch.get_rng_state().tolist(), torch.get_default_dtype(),
         torch.get_num_threads(), torch.is_grad_enabled())
heavy = {"tokenizers", "tiktoken", "matplotlib", "pyarrow", "huggingface_hub", "transformers", "rich", "tyro",
         "tensorboard"}
print(json.dumps({"heavy": sorted(heavy & set(sys.modules)), "threads": threading.active_count(),
                  "changed": before != after}))
"""


Imported = tuple[subprocess.CompletedProcess[str], Path]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """A process, and its folder, that imports the package, then every module, and says what is different then."""
    modules = [".".join(["transformer", *path.relative_to(PACKAGE).with_suffix("").parts]) for path in FILES]
    names = [name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")]
    every = "\n".join(f"import {name}" for name in names)
    last = 'print(json.dumps(sorted({"huggingface_hub", "transformers", "rich"} & set(sys.modules))))'
    folder = tmp_path_factory.mktemp("empty")
    code = f"{QUIET}\n{every}\n{last}"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120), folder


def test_importing_the_package_changes_nothing_and_loads_only_torch(imported: Imported) -> None:
    done, _ = imported
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[0]) == {"heavy": [], "threads": 1, "changed": False}


def test_importing_any_module_prints_nothing_leaves_no_file_and_loads_no_library_that_few_need(
    imported: Imported,
) -> None:
    done, folder = imported
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads("".join(done.stdout.splitlines()[1:])) == []
    assert list(folder.iterdir()) == []
