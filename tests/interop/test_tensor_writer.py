"""Weights written as safetensors: read back by the format's own library, in one file and in several."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from transformer.interop.tensor_writer import write_tensors

WEIGHTS = {
    "a.weight": torch.arange(6.0).view(2, 3),
    "b.weight": torch.arange(12.0).view(3, 4).t(),  # not contiguous
    "c": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "d": torch.tensor([0.1], dtype=torch.float16),
    "e": torch.tensor([0.1, 7.0], dtype=torch.float64),
}


def tensors() -> Iterator[tuple[str, Tensor]]:
    yield from WEIGHTS.items()


def assert_same(found: dict[str, Tensor]) -> None:
    assert found.keys() == WEIGHTS.keys()
    for name, tensor in WEIGHTS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_one_file_holds_every_tensor_as_it_was(tmp_path: Path) -> None:
    write_tensors(tmp_path, tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert_same(load_file(tmp_path / "model.safetensors"))
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_numbers_begin_at_a_multiple_of_eight_bytes(tmp_path: Path) -> None:
    write_tensors(tmp_path, tensors)
    content = (tmp_path / "model.safetensors").read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0
    assert content.endswith(WEIGHTS["e"].numpy().tobytes())


@pytest.mark.parametrize(("largest", "files"), [(1, 5), (50, 3), (72, 2)])
def test_a_model_above_the_limit_is_written_in_several_files_with_an_index(
    tmp_path: Path, largest: int, files: int
) -> None:
    write_tensors(tmp_path, tensors, largest)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    names = sorted({*index["weight_map"].values()})
    assert names == [f"model-{number:05}-of-{files:05}.safetensors" for number in range(1, files + 1)]
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == names
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in WEIGHTS.values())
    found = {name: load_file(tmp_path / file)[name] for name, file in index["weight_map"].items()}
    assert_same(found)
