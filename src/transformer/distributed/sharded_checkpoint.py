"""The training state of a run whose model is sharded across processes: a folder instead of a file.

    training_state_ENCODING/    __0_0.distcp, __1_0.distcp, ...    each process's rows of weights and optimizer state
                                .metadata                          where each tensor is (sharded_tensors.py)
                                rest.pt                            everything else, as in a state of one file
                                manifest.json                      size and CRC-32 of every file

The folder is written under a temporary name and renamed once every process has written its part, so that a crash or a
full disk leaves the previous state intact. Both kinds of state hold the same contents, and any number of processes can
resume either kind, sharded or not. All machines must share the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from transformer.distributed.processes import Dist, is_sharded
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError
from transformer.training.files import flush_folder

REST, MANIFEST = "rest.pt", "manifest.json"
TENSORS = ("model", "optimizers")
"""Keys of the contents whose tensors have the shapes of the model's weights."""
Checksums = dict[str, list[int]]
"""Size and CRC-32 by file name."""


def save(path: Path, contents: Mapping[str, Any], dist: Dist) -> Path:
    """Writes a state to `path`, or to a folder if it has sharded tensors; keeps the previous one. Returns its path.

    All processes call it with the same contents except for their shards. If one cannot write its shards, all raise
    CheckpointError and the previous state stays.
    """
    shards: dict[int, tuple[str, Tensor]] = {}
    rest = {**contents, **{key: _with_names(contents[key], shards, key) for key in TENSORS}}
    if not shards:
        if dist.is_main:
            checkpoint.save(path, contents, keep_previous=True)
        return path
    from transformer.distributed import sharded_tensors

    folder = path.with_suffix("")
    temporary = folder.with_name(f".{folder.name}.tmp")
    on_all = partial(_on_all_processes, dist=dist, folder=folder, temporary=temporary)
    on_all(lambda: _make_empty(temporary) if dist.is_main else None)
    on_all(lambda: sharded_tensors.write(temporary, dict(shards.values())))
    checksums = on_all(lambda: _checksums(sharded_tensors.written_by(temporary, dist.rank)))
    merged = {name: values for own in checksums for name, values in own.items()}
    on_all(lambda: _finish(temporary, folder, rest, merged) if dist.is_main else None)
    return folder


def load(path: Path) -> dict[str, Any]:
    """Returns the contents of a state of either kind; complete() adds the tensors of a sharded one.

    Raises CheckpointError if it is missing, damaged or not a state of this project.
    """
    if not is_sharded_state(path):
        return checkpoint.load(path)
    try:
        listed: Checksums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name, (size, checksum) in listed.items():
            if (path / name).stat().st_size != size:
                raise ValueError(f"{name} has another size")
            if _checksum(path / name) != checksum:
                raise ValueError(f"{name} has another checksum")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged or not a training state: {error}") from error
    return {**checkpoint.load(path / REST), "folder": str(path)}


def is_sharded_state(path: Path) -> bool:
    """Whether the folder is itself a state, complete or damaged, and not a folder of checkpoints."""
    return any((path / name).exists() for name in (MANIFEST, REST))


def complete(contents: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Returns the contents that load() returned, with their tensors: if the model is sharded, this process's rows."""
    mesh = None
    if is_sharded(model):
        from transformer.distributed import fsdp

        mesh = fsdp.mesh_of(model)
        shard: Callable[[Tensor], Tensor] = partial(fsdp.shard_tensor, mesh=mesh)
    if "folder" in contents:
        from transformer.distributed import sharded_tensors

        tensors = sharded_tensors.read(Path(contents["folder"]), mesh)
        return {**contents, **{key: _map(contents[key], str, lambda name: tensors[name]) for key in TENSORS}}
    if mesh is None:
        return contents
    present = [key for key in TENSORS if key in contents]  # an epoch's checkpoint has no optimizers
    return {**contents, **{key: _map(contents[key], Tensor, lambda t: shard(t) if t.ndim else t) for key in present}}


def newest_first(directory: Path) -> list[Path]:
    """Returns the states in a folder in the order in which to try them.

    Of the two kinds, the one with the higher step comes first; within a kind, the current state before the previous.
    """

    def rank(path: Path) -> tuple[int, bool]:
        current = path.with_name(path.name.replace("_previous", ""))
        return max(_step(current), _step(checkpoint.previous_path(current))), path == current

    return sorted(checkpoint.states(directory), key=rank, reverse=True)


def _step(path: Path) -> int:
    """Returns the step of a state without reading its tensors; -1 if it cannot be read."""
    try:
        contents = checkpoint.peek(path / REST if path.is_dir() else path)
        return int(contents["step"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        return -1


def _map(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Returns nested dicts and lists with `change` applied to every value of the kind."""
    if isinstance(tree, dict):
        return {key: _map(value, kind, change) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_map(value, kind, change) for value in tree]
    return change(tree) if isinstance(tree, kind) else tree


def _with_names(tree: Any, shards: dict[int, tuple[str, Tensor]], name: str) -> Any:
    """Returns nested dicts and lists with every sharded tensor moved to `shards` and replaced by its name.

    Tied weights occur twice but share their memory: they get one name.
    """
    if isinstance(tree, dict):
        return {key: _with_names(value, shards, f"{name}/{key}") for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_names(value, shards, f"{name}/{number}") for number, value in enumerate(tree)]
    if not hasattr(tree, "to_local"):
        return tree
    return shards.setdefault(tree.to_local().untyped_storage()._cdata, (name, tree))[0]


def _on_all_processes(job: Callable[[], Any], dist: Dist, folder: Path, temporary: Path) -> list[Any]:
    """Runs a job on all processes and returns all results; if it fails on one, all raise."""
    done, failure = None, None
    try:
        done = job()
    except Exception as error:
        failure = error
    results = dist.gather((done, None if failure is None else f"{type(failure).__name__}: {failure}"))
    failures = [f"process {rank}: {error}" for rank, (_, error) in enumerate(results) if error is not None]
    if failures:
        if dist.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        why = f"({failures[0]}); the previous state, if any, is kept"
        raise CheckpointError(f"the state could not be written to {folder} {why}") from failure
    return [result for result, _ in results]


def _make_empty(temporary: Path) -> None:
    """Creates an empty folder, replacing one that a crash left."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def _finish(temporary: Path, folder: Path, rest: Mapping[str, Any], checksums: Checksums) -> None:
    """Writes the remaining files and renames the folder: at every moment there is a complete state."""
    from transformer.distributed.sharded_tensors import METADATA

    for name, (size, _) in checksums.items():
        if not (temporary / name).exists() or (temporary / name).stat().st_size != size:
            raise OSError(f"{name} is missing: all machines must share the checkpoint folder")
    checkpoint.save(temporary / REST, rest)
    manifest = {**checksums, **_checksums([temporary / METADATA, temporary / REST])}
    with (temporary / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    flush_folder(temporary)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        previous = checkpoint.previous_path(folder)
        with contextlib.suppress(FileNotFoundError):
            previous.rename(old)  # a folder cannot replace another
        folder.rename(previous)
    temporary.rename(folder)
    flush_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _checksums(paths: list[Path]) -> Checksums:
    return {path.name: [path.stat().st_size, _checksum(path)] for path in paths}


def _checksum(path: Path) -> int:
    """Returns a file's CRC-32, the checksum that PyTorch's own files carry."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum
