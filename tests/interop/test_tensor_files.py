"""safetensors files: the same tensors as the library's, and every way in which a file can lie is refused."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from transformer.interop.errors import SourceError
from transformer.interop.folders import file_in
from transformer.interop.tensor_files import DTYPES, INDEX, LARGEST_HEADER, TensorFolder, read_header

needs_links = pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")


def write(folder: Path, header: Any, data: bytes = bytes(16), length: int | None = None) -> Path:
    """Writes a safetensors file with any header, and any claim of its length."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    claimed = (len(content) if length is None else length).to_bytes(8, "little")
    path = folder / "model.safetensors"
    path.write_bytes(claimed + content + data)
    return path


def part(start: int, end: int, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


def test_every_kind_of_number_is_read_as_the_library_wrote_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kinds = [kind for kind in DTYPES.values() if kind.is_floating_point or kind.itemsize == 8] + [torch.bool]
    tensors = {str(kind): (torch.randn(3, 5) * 4).abs().to(kind) for kind in kinds}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    folder = TensorFolder(tmp_path)
    assert folder.names == tensors.keys()
    assert folder.nbytes == sum(tensor.nbytes for tensor in tensors.values())
    for name, tensor in tensors.items():
        found = folder.tensor(name)
        assert (found.dtype, found.shape, folder.shape(name)) == (tensor.dtype, tensor.shape, tensor.shape)
        assert torch.equal(found.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_a_tensor_outlives_its_folder_and_can_be_written_without_changing_the_file(tmp_path: Path) -> None:
    save_file({"a": torch.arange(6.0)}, tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    tensor = TensorFolder(tmp_path).tensor("a")
    gc.collect()
    tensor[2] = 7.0
    assert tensor.tolist() == [0, 1, 7, 3, 4, 5]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_numbers_that_begin_at_an_odd_byte_are_read(tmp_path: Path) -> None:
    header = {"a": part(0, 1, [1], "U8"), "b": part(1, 9, [2], "F32")}
    write(tmp_path, header, b"\x07" + torch.tensor([1.5, -2.0]).numpy().tobytes())
    assert TensorFolder(tmp_path).tensor("b").tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"a": part(0, 12)}, "its tensors end at byte"),
        ({"a": part(4, 16)}, "'a' begins at byte"),
        ({"a": part(0, 12), "b": part(8, 16)}, "'b' begins at byte"),
        ({"a": part(0, 8), "b": part(0, 8), "c": part(8, 16)}, "begins at byte"),
        ({"a": part(0, 8), "b": part(12, 16)}, "'b' begins at byte"),
        ({"a": part(0, 20)}, "its tensors end at byte"),
        ({"a": part(0, 2**62)}, "its tensors end at byte"),
        ({"a": part(0, 16, [5])}, "not those of"),
        ({"a": part(0, 16, dtype="F16")}, "not those of"),
        ({"a": part(0, 16, [2**62, 2**62, 2**62])}, "not those of"),
        ({"a": part(0, 16, [2**62, 0])}, "not those of"),
        ({"a": part(16, 0, [-4])}, "is not a tensor"),
        ({"a": part(0, 16, [4.0])}, "is not a tensor"),
        ({"a": part(0, 16, [True] * 4)}, "is not a tensor"),
        ({"a": part(0, 16, [1] * 9 + [4])}, "is not a tensor"),
        ({"a": part(0, 16, dtype="F4")}, "is not a tensor"),
        ({"a": part(0, 16, dtype=["F32"])}, "is not a tensor"),
        ({"a": part(0, 16) | {"data_offsets": [0]}}, "is not a tensor"),
        ({"a": part(0, 16) | {"data_offsets": [0, "16"]}}, "is not a tensor"),
        ({"a\nb\x1b[2J": part(0, 16)}, "is not a tensor"),
        ({"a": None}, "is not a tensor"),
        ({"a": [1] * 1000}, "is not a tensor"),
        ({"x" * 10_000: 3}, "is not a tensor"),
        ([1], "holds a list"),
        (b"\x80\x02}q\x00.", "not a JSON file"),
        (b"[" * 100_000, "nested more than 50 levels deep"),
        ({}, "its tensors end at byte"),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused_with_one_line(header: Any, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, header)
    with pytest.raises(SourceError, match=reason) as error:
        TensorFolder(tmp_path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400


@pytest.mark.parametrize("length", [17, 2**32, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_is_not_read(length: int, tmp_path: Path) -> None:
    write(tmp_path, b"{}", b"", length)
    with pytest.raises(SourceError, match="not a safetensors file, or cut off"):
        TensorFolder(tmp_path)


def test_an_absurd_header_is_not_read_from_a_file_that_has_as_many_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, b"{}", b"", LARGEST_HEADER + 1)
    with path.open("ab") as file:
        file.truncate(LARGEST_HEADER + 100)  # sparse: no disk is used
    with pytest.raises(SourceError, match="a header of 8,388,609 bytes"):
        TensorFolder(tmp_path)


@pytest.mark.parametrize("size", [0, 7, 8, 20, -10, -1])
def test_a_file_that_was_cut_off_is_refused(size: int, tmp_path: Path) -> None:
    save_file({"a": torch.arange(6.0)}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:size])
    with pytest.raises(SourceError, match=r"model\.safetensors"):
        TensorFolder(tmp_path)


def test_a_file_that_was_cut_off_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(100_000)}, tmp_path / "model.safetensors")
    folder = TensorFolder(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(SourceError, match="'a' cannot be mapped"):
        folder.tensor("a")


def shard(folder: Path, weight_map: Any) -> None:
    for name, start in (("one.safetensors", 0.0), ("two.safetensors", 1.0)):
        save_file({f"{name[:3]}.weight": torch.full((2,), start)}, folder / name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")


def test_shards_are_one_folder_of_tensors(tmp_path: Path) -> None:
    shard(tmp_path, {"one.weight": "one.safetensors", "two.weight": "two.safetensors"})
    folder = TensorFolder(tmp_path)
    assert {name: folder.tensor(name).tolist() for name in folder.names} == {"one.weight": [0, 0], "two.weight": [1, 1]}


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"one.weight": "../one.safetensors"}, "is not the name of a file in this folder"),
        ({"one.weight": "/etc/passwd"}, "is not the name of a file in this folder"),
        ({"one.weight": "C:\\one.safetensors"}, "is not the name of a file in this folder"),
        ({"one.weight": "a/../one.safetensors"}, "is not the name of a file in this folder"),
        ({"one.weight": "one\n.safetensors"}, "is not the name of a file in this folder"),
        ({"one.weight": ".."}, "is not the name of a file in this folder"),
        ({"one.weight": ""}, "is not the name of a file in this folder"),
        ({"one.weight": "three.safetensors"}, "No such file"),
        ({"one.weight": "x" * 5000}, "three|long"),
        ({"one.weight": "two.safetensors"}, "has no tensor 'one.weight'"),
        ({"three.weight": "one.safetensors"}, "has no tensor 'three.weight'"),
        ({"one.weight": 1}, "weight_map"),
        ([], "weight_map"),
        (None, "weight_map"),
        ({}, "weight_map"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(weight_map: Any, reason: str, tmp_path: Path) -> None:
    shard(tmp_path, weight_map)
    with pytest.raises(SourceError, match=reason) as error:
        TensorFolder(tmp_path)
    assert "\n" not in str(error.value)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    shard(tmp_path, {"one.weight": "one.safetensors", "two.weight": "two.safetensors"})
    save_file({"one.weight": torch.zeros(2), "two.weight": torch.zeros(2)}, tmp_path / "two.safetensors")
    with pytest.raises(SourceError, match=r"'one\.weight' is in another file too"):
        TensorFolder(tmp_path)


@needs_links
def test_links_out_of_the_folder_are_refused_and_those_of_the_hubs_cache_followed(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    save_file({"a": torch.zeros(2)}, tmp_path / "models--a--b" / "blobs" / "hash")
    save_file({"a": torch.zeros(2)}, tmp_path / "secret.safetensors")
    link = folder / "model.safetensors"
    link.symlink_to("../../blobs/hash")
    assert TensorFolder(folder).names == {"a"}
    link.unlink()
    link.symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(SourceError, match="is a link to a file outside"):
        TensorFolder(folder)
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(SourceError, match=r"model\.safetensors"):
        file_in(folder, "model.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on Windows")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(SourceError, match="is not a regular file"):
        TensorFolder(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(SourceError, match=r"as a pickle \(.*save_pretrained"):
        TensorFolder(tmp_path)


def test_a_folder_without_weights_or_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"model\.safetensors: No such file"):
        TensorFolder(tmp_path)
    with pytest.raises(SourceError, match="is not a folder"):
        TensorFolder(tmp_path / "nothing")


def test_a_files_header_is_read_without_its_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": part(0, 2**40, [2**38])}, b"")
    with path.open("ab") as file:
        try:
            file.truncate(path.stat().st_size + 2**40)
        except OSError:
            pytest.skip("this disk cannot hold a sparse file of a terabyte")
    assert read_header(path)["a"].shape == (2**38,)
