"""The check of a reader's file: the first thing that is wrong, with the reader's own line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from transformer.exercises.catalogue import EXERCISES, exercise_called
from transformer.exercises.checking import Result, check

Checked = Callable[[str, str], Result]
MASK = """\
import torch


def causal_mask(queries, keys):
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
"""
ATTENTION = """\
import math


def attention(q, k, v, mask):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ v
"""


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    """checked("attention", source) is the result for a file with this source."""

    def call(name: str, source: str) -> Result:
        one = exercise_called(name)
        file = tmp_path / one.file_name
        file.write_text(source, encoding="utf-8")
        return check(one, file)

    return call


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: one.name)
def test_a_stub_is_unfinished_and_has_the_functions_that_are_checked(exercise: object, checked: Checked) -> None:
    result = checked(exercise.name, exercise.stub.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    assert result.status == "unfinished"
    assert result.message == f"{exercise.functions[0]} is not written yet"  # type: ignore[attr-defined]
    assert result.hint


@pytest.mark.parametrize(("name", "source"), [("causal_mask", MASK), ("attention", ATTENTION)])
def test_correct_code_passes(name: str, source: str, checked: Checked) -> None:
    result = checked(name, source)
    assert (result.status, result.held) == ("passed", len(exercise_called(name).properties))


def test_the_first_broken_property_is_named_with_its_example(checked: Checked) -> None:
    result = checked("attention", ATTENTION.replace("-math.inf", "0.0"))
    assert (result.status, result.held) == ("broken", 2)
    assert result.message == "with 2 tokens, position 0 changed when token 1 changed"
    assert "hides" in result.statement


def test_an_error_has_the_readers_line_and_the_shapes_there(checked: Checked) -> None:
    result = checked("attention", ATTENTION.replace(".transpose(-2, -1)", ""))
    assert result.status == "failed"
    line, error, shapes = result.message.splitlines()
    assert line == "line 5: scores = q @ k / math.sqrt(q.shape[-1])"
    assert error.startswith("RuntimeError: ")
    assert shapes == "shapes there: q (2, 3, 4, 6), k (2, 3, 5, 6), v (2, 3, 5, 6), mask (4, 5)"


def test_a_syntax_error_has_the_readers_line(checked: Checked) -> None:
    result = checked("causal_mask", MASK.replace("keys):", "keys)"))
    assert result.status == "failed"
    assert result.message.startswith("line 4: def causal_mask(queries, keys)\nSyntaxError: expected ':'")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "the file does not define causal_mask any more"),
        ("x = 1 / 0\n", "line 1: x = 1 / 0\nZeroDivisionError: division by zero"),
        (MASK.replace("queries, keys):", "queries):"), "are its arguments still those of the stub?"),
        (MASK.replace("torch.ones", "torch.onse"), "line 5: return torch.onse("),
        ("def causal_mask(queries, keys):\n    return causal_mask(queries, keys)\n", "line 2: return causal_mask"),
        ("\0", "null bytes"),
        ("def causal_mask(queries, keys):\n    raise ValueError\n", "ValueError: no message"),
    ],
)
def test_code_that_does_not_run_gives_the_error(source: str, says: str, checked: Checked) -> None:
    result = checked("causal_mask", source)
    assert result.status == "failed"
    assert says in result.message


def test_a_part_that_is_not_written_yet_is_named(checked: Checked) -> None:
    heads = "def split_heads(x, n):\n    return x.unflatten(-1, (n, -1)).transpose(1, 2)\n\n\n"
    result = checked("heads", heads + "def merge_heads(x):\n    raise NotImplementedError\n")
    assert (result.status, result.held, result.message) == ("unfinished", 2, "merge_heads is not written yet")


def test_one_kind_of_position_is_enough(checked: Checked) -> None:
    source = exercise_called("positions").stub.read_text(encoding="utf-8")
    written = source.replace(
        "    raise NotImplementedError\n\n\ndef sinusoidal",
        "    a, b = x.chunk(2, dim=-1)\n"
        "    powers = torch.arange(a.shape[-1]) * 2 / x.shape[-1]\n"
        "    angles = positions[:, None] / theta ** powers\n"
        "    cos, sin = angles.cos(), angles.sin()\n"
        "    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)\n\n\ndef sinusoidal",
    ).replace("from torch import Tensor", "import torch\nfrom torch import Tensor")
    result = checked("positions", written)
    assert (result.status, result.functions) == ("passed", ("rotate",))


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    assert check(EXERCISES[0], tmp_path / "01_causal_mask.py").status == "missing"


def test_an_exercise_is_found_by_name_number_and_file() -> None:
    for word in ("loss", "7", "07", "07_loss.py", "exercises/07_loss.py"):
        assert exercise_called(word).name == "loss"
    with pytest.raises(ValueError, match="there is no exercise 'atention'; did you mean 'attention'"):
        exercise_called("atention")
