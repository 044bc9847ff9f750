"""Checkpoints: a trained model on disk, with all that is needed to use it or to go on training it.

`model_epoch_N_ENCODING.pt` holds the weights, the whole config, the encoding (a trained vocabulary included) and what
the model scored; `training_state_ENCODING.pt` holds the optimizer, the random state and the position in the data as
well (a folder, if the model is spread over processes: sharded_state.py). Files are written beside their place and
renamed into it, so that a crash leaves the old one whole, and are read with weights_only=True, so that no file can run
code.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import platform
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from transformer.config import TrainConfig
from transformer.kernels.int8 import Int8Linear
from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer, tokenizer_from_state

FORMAT = 2
"""1 had sinusoidal positions that were not scaled; otherwise it is the same."""
_REQUIRED = {"config": dict, "tokenizer": dict, "model": dict, "step": int, "tokens": int}
_EPOCH_FILE = re.compile(r"model_epoch_(\d+)_(.+)\.pt")


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not one of this project's; the message says which and what to do."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to use, with the encoding it was trained with."""

    path: Path
    config: TrainConfig
    model: DecoderOnlyTransformer
    tokenizer: Tokenizer
    contents: Mapping[str, Any]

    @property
    def description(self) -> str:
        """One line: which file, encoding, size, and how far it was trained."""
        weights = {tensor.data_ptr(): tensor.numel() for tensor in self.contents["model"].values()}  # tied ones once
        int8 = " in int8" if any(isinstance(part, Int8Linear) for part in self.model.modules()) else ""
        begun = f"; begun from {before['path']}" if (before := self.contents.get("init_from")) else ""
        return (
            f"{self.path} ({self.tokenizer.name}, {sum(weights.values()):,} parameters{int8}, "
            f"step {self.contents['step']}, {self.contents['tokens']:,} tokens seen{begun})"
        )


def epoch_path(directory: Path, epoch: int, encoding: str) -> Path:
    """Returns where the checkpoint after an epoch goes; `encoding` is the tokenizer's short name."""
    return directory / f"model_epoch_{epoch}_{encoding}.pt"


def state_path(directory: Path, encoding: str) -> Path:
    """Returns where the state for resuming goes."""
    return directory / f"training_state_{encoding}.pt"


def states(directory: Path) -> list[Path]:
    """Returns what was left in a folder to resume from: files, and the folders of sharded runs."""
    return [path for path in directory.glob("training_state_*") if path.suffix in (".pt", "")]  # not .damaged


def model_contents(model: DecoderOnlyTransformer, config: TrainConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns what every checkpoint holds, for the caller to add to: plain values and tensors only."""
    return {
        "format": FORMAT,
        "config": config.to_dict(),
        "tokenizer": tokenizer.state(),
        "model": model.state_dict(),
        "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
    }


def previous_path(path: Path) -> Path:
    """Returns where the state before the one at `path` is kept."""
    return path.with_name(f"{path.stem}_previous{path.suffix}")


def save(path: Path, contents: Mapping[str, Any], keep_previous: bool = False) -> None:
    """Writes a checkpoint so that at every moment there is either the old file or the whole new one.

    With `keep_previous` the old file stays too, at previous_path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a process that was killed while it saved
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            _write(contents, file)
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and path.exists():
            path.replace(previous_path(path))
        temporary.replace(path)
        flush_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _write(contents: Mapping[str, Any], file: BinaryIO) -> None:
    """Writes a file of PyTorch's. Raises OSError where the disk is full, which PyTorch may hide."""
    try:
        torch.save(dict(contents), file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def flush_folder(folder: Path) -> None:
    """Makes the renaming last through a power cut, where the system has a way to."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Returns a checkpoint's contents. Raises CheckpointError where it is missing, damaged or foreign."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}{_suggestion(path)}")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("it unpacks to more than its size")
            # PyTorch writes checksums, and does not look at them.
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} has another checksum")
        contents = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file can raise nearly anything
        message = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path} is damaged or not a checkpoint: {type(error).__name__}: {message}") from error
    if not isinstance(contents, dict) or not all(
        isinstance(contents.get(name), kind) for name, kind in _REQUIRED.items()
    ):
        raise CheckpointError(f"{path} is a file of PyTorch's, but not a checkpoint of this project")
    if contents.get("format") not in (1, FORMAT):
        raise CheckpointError(f"{path} has format {contents.get('format')}, this version reads format {FORMAT}")
    if contents["format"] == 1 and contents["config"].get("model", {}).get("position") == "sinusoidal":
        raise CheckpointError(f"{path} is too old: its sinusoidal positions were not scaled; train the model again")
    return contents


def entries(path: Path) -> int:
    """Returns how many entries a checkpoint's archive has; load() compares the checksum of each."""
    with zipfile.ZipFile(path) as archive:
        return len(archive.infolist())


def glance(path: Path) -> dict[str, Any]:
    """Returns a checkpoint's contents with its tensors still on the disk, and nothing checked. Raises as load()."""
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint") from error
    return contents if isinstance(contents, dict) else {}


def load_model(path: Path, device: torch.device | str = "cpu") -> LoadedModel:
    """Returns the model of a checkpoint in eval mode on `device`, with its own encoding and config."""
    contents = load(path, device)
    try:
        config = TrainConfig.from_dict(contents["config"])
        tokenizer = tokenizer_from_state(contents["tokenizer"])
        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn and thrown away
            model = DecoderOnlyTransformer(config.model)
        model.load_state_dict(contents["model"])
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit this version: {str(error).splitlines()[0]}") from error
    return LoadedModel(path, config, model.to(device).eval(), tokenizer, contents)


def set_aside(directory: Path) -> Path | None:
    """Renames a folder that holds an earlier run, so that a new one can have its name; returns the new path."""
    if not epochs(directory) and not states(directory):
        return None
    names = (directory.with_name(f"{directory.name}_earlier_{number}") for number in itertools.count(1))
    aside = next(path for path in names if not path.exists())
    return directory.rename(aside)


def epochs(directory: Path) -> list[Path]:
    """Returns the folder's epoch checkpoints, earliest epoch first, by number: 9 comes before 10."""
    found = [(int(match[1]), path) for path in directory.glob("*.pt") if (match := _EPOCH_FILE.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def runs(folder: Path) -> list[Path]:
    """Returns the folders that hold an epoch checkpoint, the one given and those in it, last written one last."""
    inside = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted((path for path in (folder, *inside) if epochs(path)), key=_last_written)


def folders(root: Path) -> list[Path]:
    """Returns the runs in the folders named checkpoints* under `root`, those of a sweep too, last written one last."""
    return sorted((run for folder in root.glob("checkpoints*") for run in runs(folder)), key=_last_written)


def _last_written(run: Path) -> float:
    return max(path.stat().st_mtime for path in epochs(run))


def latest(root: Path) -> Path:
    """Returns the newest checkpoint: of `root` itself if it holds any, else of the run in it that was written last.

    In the current folder only those in folders named checkpoints* count. Within a run the highest epoch of the encoding
    last written wins. Raises CheckpointError where there is none.
    """
    return _last_run(root)[-1]


def best(root: Path) -> Path:
    """Returns the checkpoint of the lowest validation loss among those that latest() chooses from.

    What each scored is read from the file itself. Raises CheckpointError where none says.
    """
    found = [(loss, path) for path in _last_run(root) if (loss := _validation_loss(path)) is not None]
    if not found:
        raise CheckpointError(f"no checkpoint in {root} says what it scored: name one, or leave it out for the latest")
    return min(found, key=lambda pair: pair[0])[1]


def named(path: Path) -> Path:
    """Returns the path itself, and for the name "best", alone or in a folder, the best checkpoint there."""
    return best(path.parent) if path.name == "best" and not path.exists() else path


def remove_epochs(directory: Path, encoding: str, saved: Sequence[tuple[int, float]], keep_last: int) -> None:
    """Removes a run's epoch checkpoints but for the last `keep_last` and the best one; 0 keeps all.

    `saved` are the run's epochs with their validation losses, in order. Whatever else is in the folder stays.
    """
    if not keep_last:
        return
    lowest = min(saved, key=lambda pair: math.inf if math.isnan(pair[1]) else pair[1])
    for pair in saved[:-keep_last]:
        if pair != lowest:
            with contextlib.suppress(OSError):  # in use, on Windows: the next epoch tries again
                epoch_path(directory, pair[0], encoding).unlink(missing_ok=True)


def _last_run(root: Path) -> list[Path]:
    """The epoch checkpoints, earliest first, of the folder and the encoding last written."""
    found_in = folders(root) if root == Path() else folders(root) or runs(root)
    directory = root if epochs(root) else next(reversed(found_in), None)
    if directory is None:
        raise CheckpointError("no checkpoint found: train one first, with `make demo` or `uv run python main.py train`")
    found = epochs(directory)
    newest = max(found, key=lambda path: path.stat().st_mtime)
    encoding = _EPOCH_FILE.fullmatch(newest.name)
    assert encoding is not None
    return [path for path in found if path.name.endswith(f"_{encoding[2]}.pt")]


def _validation_loss(path: Path) -> float | None:
    """What the checkpoint says that it scored, without reading its weights; None where it does not."""
    try:
        loss = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["metrics"]["validation_loss"]
    except Exception:  # a damaged file can raise nearly anything
        return None
    return loss if isinstance(loss, float) and math.isfinite(loss) else None


def _suggestion(path: Path) -> str:
    beside = epochs(path.parent) if path.parent.is_dir() else []
    return f"; in that folder: {', '.join(other.name for other in beside[-5:])}" if beside else ""
