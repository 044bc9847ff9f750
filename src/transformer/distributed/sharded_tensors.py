"""Sharded tensors on disk: each process writes its own part, and another number of processes may read them back.

PyTorch's distributed checkpoint does the work: a file a process, and `.metadata`, which says what is where. That one is
a pickle, which could run any code while it is read; here it may name only what it has to consist of.
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


def write(folder: Path, parts: Mapping[str, Tensor]) -> None:
    """Writes the tensors, of which every process gives its part. Raises OSError, on all, where one of them cannot."""
    try:
        save(dict(parts), storage_writer=FileSystemWriter(folder))
    except CheckpointException as error:  # which is no Exception
        rank, (cause, _) = next(iter(error.failures.items()))
        raise OSError(f"rank {rank}: {cause}") from error


def written_by(folder: Path, rank: int) -> list[Path]:
    """Returns the files that a process has written."""
    return sorted(folder.glob(f"__{rank}_*"))


def read(folder: Path, mesh: DeviceMesh | None) -> dict[str, Tensor]:
    """Returns the tensors: each process's rows of them where a mesh is given, else whole ones on the CPU."""
    reader = _Reader(folder)
    tensors: dict[str, Any] = {}
    for name, found in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(found, TensorStorageMetadata)
        dtype = found.properties.dtype
        if mesh is None:
            tensors[name] = torch.empty(found.size, dtype=dtype)
        else:
            tensors[name] = empty(found.size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
    with warnings.catch_warnings():  # it warns that it reads without the others, as it is asked to
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


class _Reader(FileSystemReader):
    """Reads the metadata without running what it may contain."""

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
        if module.split(".")[0] == "pathlib":  # where it was written, on whatever system
            return PurePosixPath
        if (module, name) in (("torch", "Size"), ("torch.serialization", "_get_layout")):
            return super().find_class(module, name)
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        raise ValueError(f"{METADATA} names {module}.{name}, which it has no need of")
