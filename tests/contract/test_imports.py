"""The import rules: no cycles; the core imports only the core; only the command line prints; importing does nothing."""

import ast
import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "transformer"
FILES = sorted(PACKAGE.rglob("*.py"))

MODEL = {
    "config", "embeddings", "attention", "feedforward", "block", "loss", "model", "sampling", "categorical",
    "generation", "generation_inputs", "kv_cache", "perplexity",
}  # fmt: skip
"""The core of the model: these files import torch and one another."""
CORE = MODEL | {"optimizer", "scheduler", "training_utils"}
SETTINGS = {"config", "config_base", "config_checks", "presets"}
TRAINING = {"training", "distributed", "trainer"}
DATA = {"data", "dataset", "fineweb_dataset", "text"}
EVALUATING = {"processor", "kernels", "inference", "evaluation"}
LIBRARY = CORE | SETTINGS | TRAINING | DATA | {
    "activations", "processor", "kernels", "inference", "evaluation", "interpret", "reporting", "planning", "interop",
    "exercises",
}  # fmt: skip

# A part is a module or a package directly under src/transformer. RULES: part -> the parts it may import.
RULES: dict[str, set[str]] = {
    "config_base": set(),
    "config_checks": {"config_base"},
    "config": {"config_base", "config_checks"},
    "presets": {"config"},
    "processor": set(),
    **{part: MODEL - {part, "model", "generation", "perplexity"} for part in MODEL - {"config"}},
    "generation": {"config", "sampling", "generation_inputs"},
    "generation_inputs": {"config", "kv_cache"},
    "categorical": {"loss"},
    "model": MODEL - {"model", "perplexity"} | {"activations"},
    "activations": {"attention", "block", "kv_cache"},
    "perplexity": MODEL - {"perplexity"} | {"data"},
    "scheduler": {"config"},
    "optimizer": {"config"},
    "training_utils": MODEL | {"data"},
    "kernels": CORE | SETTINGS | {"activations", "processor"},
    "inference": CORE | SETTINGS | {"activations", "processor", "kernels", "text"},
    "text": set(),
    "data": SETTINGS | {"text", "dataset", "fineweb_dataset"},
    "dataset": SETTINGS | {"data", "text"},
    "fineweb_dataset": SETTINGS | {"data", "dataset", "text"},
    "distributed": CORE | SETTINGS | {"kernels", "training"},
    "training": CORE | SETTINGS | DATA | EVALUATING | {"distributed", "interpret", "planning"},
    "trainer": LIBRARY - {"trainer", "interop", "exercises"},
    "evaluation": CORE | SETTINGS | DATA | {"kernels", "inference", "training"},
    "reporting": CORE | SETTINGS | {"training", "evaluation"},
    "planning": CORE | SETTINGS | {"processor", "kernels"},
    "interpret": CORE | SETTINGS | {"activations", "text"},
    "interop": LIBRARY - {"trainer", "exercises"},
    "exercises": CORE | SETTINGS | {"trainer"},
    "cli": LIBRARY | {"__init__"},
    "__init__": MODEL | {"interop"},
}
OUTSIDE: dict[str, set[str]] = {
    **{part: set() for part in SETTINGS},
    **{part: {"torch"} for part in CORE - SETTINGS | {"activations"}},
    "kernels": {"torch", "numpy"},
}
"""Parts that may import only these packages from outside the standard library."""
PRESENTATION = {"rich", "argparse", "tyro", "prompt_toolkit"}
"""Packages for the command line only."""


def module_of(path: Path) -> str:
    """src/transformer/text/bpe.py -> text.bpe; src/transformer/text/__init__.py -> text."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def part_of(path: Path) -> str:
    """src/transformer/text/bpe.py -> text; src/transformer/loss.py -> loss."""
    return module_of(path).split(".")[0]


def imports(path: Path, tree: ast.AST) -> list[str]:
    """Full dotted names of everything imported anywhere in the file: `transformer.text.bpe`, `torch.nn.functional`.

    Imports inside functions and under TYPE_CHECKING count.
    """
    package = ["transformer", *path.relative_to(PACKAGE).parent.parts]
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names += [".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names]
    return names


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def import_graph() -> dict[str, set[str]]:
    """Returns each module's imports among our modules."""
    modules = {module_of(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        found = set()
        for name in imports(path, parsed(path)):
            if not name.startswith("transformer."):
                continue
            tail = name.removeprefix("transformer.")
            # `transformer.text.bpe.train_bpe` names a function in a module; `transformer.text.bpe` the module itself.
            found.add(next(known for known in (tail, tail.rpartition(".")[0], "__init__") if known in modules))
        # A package's own __init__ gathers its modules' names, and runs before each of them.
        graph[module] = found - {module}
    return graph


def cycle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Returns the modules of one cycle, in order, or an empty list.

    >>> cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    ['a', 'b', 'c', 'a']
    >>> cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    []
    """
    finished: set[str] = set()

    def search(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in finished:
            return []
        for other in sorted(graph.get(module, ())):
            if found := search(other, [*trail, module]):
                return found
        finished.add(module)
        return []

    return next((found for module in sorted(graph) if (found := search(module, []))), [])


def is_allowed(name: str, part: str) -> bool:
    head, *rest = name.split(".")
    if head != "transformer":
        if head in PRESENTATION:
            return part == "cli"
        return head in sys.stdlib_module_names or part not in OUTSIDE or head in OUTSIDE[part]
    own = {part} if (PACKAGE / part).is_dir() else set()
    imported = rest[0] if rest and rest[0] in RULES else "__init__"  # `from transformer import DecoderOnlyTransformer`
    return imported in RULES[part] | own


def speech(node: ast.AST) -> str | None:
    """The name of an action reserved for the command line, if this node is one."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "input", "exit"}:
        return f"{node.func.id}()"
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
        return f"sys.{node.attr}" if node.attr in {"argv", "exit", "stdout", "stderr", "stdin"} else None
    if isinstance(node, ast.Name) and node.id == "SystemExit":
        return "SystemExit"
    return None


def test_no_import_cycle_exists() -> None:
    assert cycle_in(import_graph()) == []


def test_the_graph_search_finds_a_cycle_and_only_a_cycle() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert cycle_in({"a": {"a"}}) == ["a", "a"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_part_has_a_rule() -> None:
    assert {part_of(path) for path in FILES} == set(RULES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_part_imports_only_what_its_rule_allows(path: Path) -> None:
    part = part_of(path)
    assert [name for name in imports(path, parsed(path)) if not is_allowed(name, part)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_command_line_prints_reads_arguments_or_exits(path: Path) -> None:
    if part_of(path) == "cli":
        return
    found = [f"line {node.lineno}: {name}" for node in ast.walk(parsed(path)) if (name := speech(node))]  # type: ignore[attr-defined]
    assert found == []


@pytest.mark.parametrize(
    ("part", "name", "allowed"),
    [
        ("attention", "transformer.config.ModelConfig", True),
        ("attention", "transformer.model.DecoderOnlyTransformer", False),
        ("attention", "transformer.kernels.accelerate", False),
        ("generation", "transformer.inference.batch", False),
        ("model", "transformer.trainer", False),
        ("model", "tokenizers", False),
        ("model", "numpy", False),
        ("model", "torch.nn", True),
        ("model", "transformer.DecoderOnlyTransformer", False),
        ("generation", "transformer.model", False),
        ("kernels", "transformer.model", True),
        ("kernels", "transformer.inference.batch", False),
        ("dataset", "transformer.text.Tokenizer", True),
        ("dataset", "transformer.model", False),
        ("data", "transformer.model", False),
        ("data", "pyarrow.parquet", True),
        ("trainer", "rich.table", False),
        ("trainer", "argparse", False),
        ("training", "transformer.trainer", False),
        ("text", "transformer.text.bpe", True),
        ("text", "transformer.config", False),
        ("reporting", "transformer.trainer", False),
        ("cli", "rich", True),
    ],
)
def test_the_rules_read_as_they_are_meant(part: str, name: str, allowed: bool) -> None:
    assert is_allowed(name, part) == allowed


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
    names = [f"transformer.{module_of(path)}".removesuffix(".__init__") for path in FILES if part_of(path) != "cli"]
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
