"""The worked examples of the lessons are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "transformer"
CONCEPTS = (
    "embeddings", "attention", "kv_cache", "feedforward", "block", "model", "loss", "sampling", "generation",
    "perplexity", "scheduler", "training_utils", "dataset", "fineweb_dataset", "trainer", "planning.cost",
    "training.diagnosis",
)  # fmt: skip


def modules() -> list[str]:
    files = [file.relative_to(PACKAGE.parent).with_suffix("") for file in sorted(PACKAGE.rglob("*.py"))]
    return [".".join(file.parts).removesuffix(".__init__") for file in files]


def examples(module: str) -> int:
    finder = doctest.DocTestFinder(exclude_empty=True)
    return sum(len(test.examples) for test in finder.find(importlib.import_module(module)))


@pytest.mark.parametrize("module", modules())
def test_examples_are_true(module: str) -> None:
    if not examples(module):
        return
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert failed == 0
    assert tried > 0


@pytest.mark.parametrize("concept", CONCEPTS)
def test_every_concept_has_a_worked_example(concept: str) -> None:
    assert examples(f"transformer.{concept}") > 0
