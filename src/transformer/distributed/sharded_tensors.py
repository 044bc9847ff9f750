"""Sharded tensors on disk: each process writes its rows, and any number of processes can read them back.

PyTorch's distributed checkpoint does the work: one file per process, and `.metadata`, which says where each tensor is.
`.metadata` is a pickle, which could run any code when it is read, so the reader here accepts only the classes that
such a file consists of.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, empty

METADATA = ".metadata"
_CLASSES = {
    "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "TensorStorageMetadata",
    "_MEM_FORMAT_ENCODING", "_StorageInfo",
}  # fmt: skip


def write(folder: Path, shards: Mapping[str, Tensor]) -> None:
    """Writes the tensors, every process its shards. Raises OSError on all processes if one of them cannot write."""
    try:
        save(dict(shards), storage_writer=FileSystemWriter(folder))
    except CheckpointException as error:  # a BaseException, not an Exception
        rank, (cause, _) = next(iter(error.failures.items()))
        raise OSError(f"rank {rank}: {cause}") from error


def written_by(folder: Path, rank: int) -> list[Path]:
    """Returns the files written by a process."""
    return sorted(folder.glob(f"__{rank}_*"))


def read(folder: Path, mesh: DeviceMesh | None) -> dict[str, Tensor]:
    """Returns the tensors: this process's rows if a mesh is given, else full tensors on the CPU."""
    reader = _Reader(folder)
    tensors: dict[str, Any] = {}
    for name, found in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(found, TensorStorageMetadata)
        dtype = found.properties.dtype
        if mesh is None:
            tensors[name] = torch.empty(found.size, dtype=dtype)
        else:
            tensors[name] = empty(found.size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
    with warnings.catch_warnings():  # it warns about no_dist, which is intended here
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


class _Reader(FileSystemReader):
    """Reads the metadata without running code that it may contain."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / METADATA).open("rb") as file:
            metadata = _Unpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise ValueError(f"{METADATA} holds a {type(metadata).__name__}")
        metadata.storage_meta = StorageMeta(load_id=self.load_id)
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("torch.distributed.checkpoint.") and name in _CLASSES:
            return super().find_class(module, name)
        if module.split(".")[0] == "pathlib":  # the path it was written to, on any system
            return PurePosixPath
        if (module, name) in (("torch", "Size"), ("torch.serialization", "_get_layout")):
            return super().find_class(module, name)
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        raise ValueError(f"{METADATA} names {module}.{name}, which such a file never needs")
