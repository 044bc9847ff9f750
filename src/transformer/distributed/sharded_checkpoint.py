"""The state to resume from, of a run whose model is spread over several processes: a folder instead of a file.

    training_state_ENCODING/    __0_0.distcp, __1_0.distcp, ...    a process's part of weights and averages each
                                .metadata                          what is where in them (runtime/part_files.py)
                                rest.pt                            all else, as in a state of one file
                                manifest.json                      size and CRC-32 of every file

It is written beside its place and renamed into it once every process has written its part, so that a crash or a full
disk leaves the one before whole. Both kinds of state hold the same, and each can be resumed by any number of processes,
sharded or not. All machines must share the folder.
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

REST, MANIFEST = "rest.pt", "manifest.json"
TENSORS = ("model", "optimizers")
"""The contents that hold tensors of the model's shapes."""
Sums = dict[str, list[int]]


def save(path: Path, contents: Mapping[str, Any], dist: Dist) -> Path:
    """Writes a state to `path`, the one before beside it; with sharded tensors in it, to a folder. Returns where.

    All processes call it with the same contents but for their parts. Raises CheckpointError on all of them where one
    cannot write its part; the state before is then still in its place.
    """
    parts: dict[int, tuple[str, Tensor]] = {}
    rest = {**contents, **{key: _named(contents[key], parts, key) for key in TENSORS}}
    if not parts:
        if dist.is_main:
            checkpoint.save(path, contents, keep_previous=True)
        return path
    from transformer.distributed import sharded_tensors as part_files

    folder = path.with_suffix("")
    temporary = folder.with_name(f".{folder.name}.tmp")
    together = partial(_together, dist=dist, folder=folder, temporary=temporary)
    together(lambda: _empty(temporary) if dist.is_main else None)
    together(lambda: part_files.write(temporary, dict(parts.values())))
    sums = together(lambda: _sums(part_files.written_by(temporary, dist.rank)))
    if dist.is_main:
        of_all = {name: values for own in sums for name, values in own.items()}
    together(lambda: _finish(temporary, folder, rest, of_all) if dist.is_main else None)
    return folder


def load(path: Path) -> dict[str, Any]:
    """Returns the contents of a state of either kind, for complete() to finish.

    Raises CheckpointError where it is missing, damaged or foreign.
    """
    if not is_sharded_state(path):
        return checkpoint.load(path)
    try:
        listed: Sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name, (size, checksum) in listed.items():
            if (path / name).stat().st_size != size:
                raise ValueError(f"{name} has another size")
            if _checksum(path / name) != checksum:
                raise ValueError(f"{name} has another checksum")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged or not a training state: {error}") from error
    return {**checkpoint.load(path / REST), "folder": str(path)}


def is_sharded_state(path: Path) -> bool:
    """Whether the folder is a state, whole or damaged, rather than a folder of checkpoints."""
    return any((path / name).exists() for name in (MANIFEST, REST))


def complete(contents: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Returns what load() returned with its tensors: this process's part of them where the model is sharded."""
    mesh = None
    if is_sharded(model):
        from transformer.distributed import fsdp as sharding

        mesh = sharding.mesh_of(model)
        place: Callable[[Tensor], Tensor] = partial(sharding.own_part, mesh=mesh)
    if "folder" in contents:
        from transformer.distributed import sharded_tensors as part_files

        tensors = part_files.read(Path(contents["folder"]), mesh)
        return {**contents, **{key: _map(contents[key], str, lambda name: tensors[name]) for key in TENSORS}}
    if mesh is None:
        return contents
    there = [key for key in TENSORS if key in contents]  # an epoch's checkpoint has no optimizers
    return {**contents, **{key: _map(contents[key], Tensor, lambda t: place(t) if t.ndim else t) for key in there}}


def newest_first(directory: Path) -> list[Path]:
    """Returns the states in a folder, in the order in which to try them.

    Of the two kinds the one with the higher step comes first; of one kind, the state before after the state itself.
    """

    def place(path: Path) -> tuple[int, bool]:
        current = path.with_name(path.name.replace("_previous", ""))
        return max(_step(current), _step(checkpoint.previous_path(current))), path == current

    return sorted(checkpoint.states(directory), key=place, reverse=True)


def _step(path: Path) -> int:
    """Returns the step of a state without reading its tensors; -1 where that cannot be told."""
    try:
        contents = checkpoint.glance(path / REST if path.is_dir() else path)
        return int(contents["step"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        return -1


def _map(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Returns nested dicts and lists with every value of the kind changed."""
    if isinstance(tree, dict):
        return {key: _map(value, kind, change) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_map(value, kind, change) for value in tree]
    return change(tree) if isinstance(tree, kind) else tree


def _named(tree: Any, parts: dict[int, tuple[str, Tensor]], name: str) -> Any:
    """Returns nested dicts and lists with a name for every sharded tensor, which goes to `parts`.

    A tied table stands there twice, in the same memory: it gets one name.
    """
    if isinstance(tree, dict):
        return {key: _named(value, parts, f"{name}/{key}") for key, value in tree.items()}
    if isinstance(tree, list):
        return [_named(value, parts, f"{name}/{number}") for number, value in enumerate(tree)]
    if not hasattr(tree, "to_local"):
        return tree
    return parts.setdefault(tree.to_local().untyped_storage()._cdata, (name, tree))[0]


def _together(job: Callable[[], Any], dist: Dist, folder: Path, temporary: Path) -> list[Any]:
    """Does a job on all processes and returns what each has to say; where it fails on one, all raise."""
    done, failure = None, None
    try:
        done = job()
    except Exception as error:
        failure = error
    told = dist.gather((done, None if failure is None else f"{type(failure).__name__}: {failure}"))
    failures = [f"process {rank}: {error}" for rank, (_, error) in enumerate(told) if error is not None]
    if failures:
        if dist.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        why = f"({failures[0]}); the one before stays, if there is one"
        raise CheckpointError(f"the state could not be written to {folder} {why}") from failure
    return [result for result, _ in told]


def _empty(temporary: Path) -> None:
    """Makes an empty folder, in place of what a crash has left."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def _finish(temporary: Path, folder: Path, rest: Mapping[str, Any], sums: Sums) -> None:
    """Adds what one process writes, and puts all in its place: at every moment there is a whole state."""
    from transformer.distributed.sharded_tensors import METADATA

    for name, (size, _) in sums.items():
        if not (temporary / name).exists() or (temporary / name).stat().st_size != size:
            raise OSError(f"{name} has not come: all machines must share the checkpoint folder")
    checkpoint.save(temporary / REST, rest)
    manifest = {**sums, **_sums([temporary / METADATA, temporary / REST])}
    with (temporary / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    checkpoint.flush_folder(temporary)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        previous = checkpoint.previous_path(folder)
        with contextlib.suppress(FileNotFoundError):
            previous.rename(old)  # a folder cannot replace another
        folder.rename(previous)
    temporary.rename(folder)
    checkpoint.flush_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sums(paths: list[Path]) -> Sums:
    return {path.name: [path.stat().st_size, _checksum(path)] for path in paths}


def _checksum(path: Path) -> int:
    """Returns a file's CRC-32, which is what PyTorch's own files carry."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum
