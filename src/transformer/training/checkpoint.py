"""Checkpoints: a trained model on disk, with everything needed to use it or to resume its training.

`model_epoch_N_ENCODING.pt` holds the weights, the whole config, the tokenizer (a trained vocabulary included) and the
model's score. `training_state_ENCODING.pt` also holds the optimizer state, the random state and the position in the
text; it is a folder if the model is sharded (distributed/sharded_checkpoint.py). A crash while a file is written leaves
the old one intact (files.py). Files are read with weights_only=True, so that no file can run code.
"""

from __future__ import annotations

import contextlib
import math
import platform
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from transformer.config import TrainConfig
from transformer.kernels.float16 import Float16Linear
from transformer.kernels.int8 import Int8Linear
from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer, tokenizer_from_state
from transformer.training.checkpoint_contents import brief, check_weights, is_checkpoint, is_finite, wrong_kind
from transformer.training.files import replacing
from transformer.training.filling import model_of

FORMAT = 2
"""1 had sinusoidal positions that were not scaled; otherwise it is the same."""
_EPOCH_FILE = re.compile(r"model_epoch_(\d+)_(.+)\.pt")


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or not of this project; the message says which, and what to do."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to use, with the tokenizer it was trained with."""

    path: Path
    config: TrainConfig
    model: DecoderOnlyTransformer
    tokenizer: Tokenizer
    contents: Mapping[str, Any]

    @property
    def description(self) -> str:
        """One line: file, encoding, size, and how long it was trained."""
        weights = {tensor.data_ptr(): tensor.numel() for tensor in self.contents["model"].values()}  # tied ones once
        rounded = {" in int8": Int8Linear, " in float16": Float16Linear}
        parts = {type(part) for part in self.model.modules()}
        weights_in = next((name for name, kind in rounded.items() if kind in parts), "")
        origin = f"; initialised from {before['path']}" if (before := self.contents.get("init_from")) else ""
        seen = f"step {self.contents['step']}, {self.contents['tokens']:,} tokens seen{origin}"
        if imported := self.contents.get("imported"):
            seen = f"imported from {imported.get('source')}"
        return f"{self.path} ({self.tokenizer.name}, {sum(weights.values()):,} parameters{weights_in}, {seen})"


def trained_on(contents: Mapping[str, Any]) -> str:
    """Returns the dataset that a loaded checkpoint was trained on; for an imported model, its source."""
    imported = contents.get("imported")
    return str(imported.get("source") if imported else contents["config"]["data"]["dataset"])


def epoch_path(directory: Path, epoch: int, encoding: str) -> Path:
    """Returns the path of an epoch's checkpoint; `encoding` is the tokenizer's short name."""
    return directory / f"model_epoch_{epoch}_{encoding}.pt"


def state_path(directory: Path, encoding: str) -> Path:
    """Returns the path of the training state."""
    return directory / f"training_state_{encoding}.pt"


def states(directory: Path) -> list[Path]:
    """Returns the training states in a folder: files, and folders of sharded runs."""
    return [path for path in directory.glob("training_state_*") if path.suffix in (".pt", "")]  # not .damaged


def model_contents(model: DecoderOnlyTransformer, config: TrainConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the contents of every checkpoint, plain values and tensors only; callers add to them."""
    return {
        "format": FORMAT,
        "config": config.to_dict(),
        "tokenizer": tokenizer.state(),
        "model": model.state_dict(),
        "versions": {"torch": torch.__version__.split("+")[0], "python": platform.python_version()},
    }


def previous_path(path: Path) -> Path:
    """Returns the path at which the state before the one at `path` is kept."""
    return path.with_name(f"{path.stem}_previous{path.suffix}")


def save(path: Path, contents: Mapping[str, Any], keep_previous: bool = False) -> None:
    """Writes a checkpoint: at every moment there is either the old file or the complete new one.

    With `keep_previous` the old file is kept, at previous_path(path).
    """
    with replacing(path, previous_path(path) if keep_previous else None) as file:
        _write(contents, file)


def _write(contents: Mapping[str, Any], file: BinaryIO) -> None:
    """Writes a file in PyTorch's format. Raises OSError if the disk is full, which PyTorch may hide."""
    try:
        torch.save(dict(contents), file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Returns a checkpoint's contents. Raises CheckpointError if it is missing, damaged or of another program."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}{_suggestion(path)}")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("it unpacks to more than its size")
            # PyTorch writes checksums but does not check them.
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} has another checksum")
        contents = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a damaged file can raise nearly anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise CheckpointError(f"{path} is damaged or not a checkpoint: {reason}") from error
    if not is_checkpoint(contents):
        raise CheckpointError(f"{path} is a file of PyTorch's, but not a checkpoint of this project")
    found = contents.get("format")
    if type(found) is not int or found not in (1, FORMAT):
        raise CheckpointError(f"{path} has format {brief(found)}, this version reads format {FORMAT}")
    if found == 1 and contents["config"]["model"].get("position") == "sinusoidal":
        raise CheckpointError(f"{path} is too old: its sinusoidal positions were not scaled; train the model again")
    if problem := wrong_kind(contents):
        raise CheckpointError(f"{path} does not fit this version: {problem}")
    return contents


def entries(path: Path) -> int:
    """Returns the number of entries in a checkpoint's archive; load() checks the checksum of each."""
    with zipfile.ZipFile(path) as archive:
        return len(archive.infolist())


def peek(path: Path) -> dict[str, Any]:
    """Returns a checkpoint's contents, unchecked and with its tensors still on disk. Raises CheckpointError."""
    try:
        is_unicode = not any("\ud800" <= letter <= "\udfff" for letter in str(path))  # PyTorch maps no other name
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=is_unicode)
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint") from error
    return contents if isinstance(contents, dict) else {}


def load_model(path: Path | str, device: torch.device | str = "cpu") -> LoadedModel:
    """Returns the model of a checkpoint, in eval mode on `device`, with its tokenizer and config."""
    path = Path(path)
    contents = load(path, device)
    config, tokenizer = checked(contents, path)
    return LoadedModel(path, config, model_of(config.model, contents["model"], device).eval(), tokenizer, contents)


def checked(contents: Mapping[str, Any], path: Path) -> tuple[TrainConfig, Tokenizer]:
    """Returns settings and encoding of a loaded checkpoint. Raises CheckpointError if its weights do not fit them.

    The tensors of a sharded state are not in its file: they are not checked here.
    """
    try:
        config = TrainConfig.from_dict(contents["config"])
        tokenizer = tokenizer_from_state(contents["tokenizer"])
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit this version: {brief(error)}") from error
    try:
        if tokenizer.vocab_size != config.model.vocab_size:
            raise ValueError(f"the encoding has {tokenizer.vocab_size:,} ids, the model {config.model.vocab_size:,}")
        if path.is_file():
            check_weights(config.model, contents["model"], path.stat().st_size)
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid: {error}") from error
    return config, tokenizer


def epochs(directory: Path) -> list[Path]:
    """Returns the folder's epoch checkpoints, ordered by epoch number: 9 before 10."""
    found = [(int(match[1]), path) for path in directory.glob("*.pt") if (match := _EPOCH_FILE.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def runs(folder: Path) -> list[Path]:
    """Returns the folders with epoch checkpoints, among the given one and its children; the newest last."""
    inside = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted((path for path in (folder, *inside) if epochs(path)), key=_last_written)


def folders(root: Path) -> list[Path]:
    """Returns the runs in the folders checkpoints* under `root`, including those of a sweep; the newest last."""
    return sorted((run for folder in root.glob("checkpoints*") for run in runs(folder)), key=_last_written)


def _last_written(run: Path) -> float:
    return max(path.stat().st_mtime for path in epochs(run))


def latest(root: Path) -> Path:
    """Returns the newest checkpoint: of `root` if it holds any, else of the newest run in it.

    In the current folder only runs in folders checkpoints* count. Within a run, the highest epoch of the encoding that
    was written last is the newest. Raises CheckpointError if there is none.
    """
    found = epochs(runs_at(root)[-1])
    newest = max(found, key=lambda path: path.stat().st_mtime)
    encoding = _EPOCH_FILE.fullmatch(newest.name)
    assert encoding is not None
    return [path for path in found if path.name.endswith(f"_{encoding[2]}.pt")][-1]


def best(root: Path) -> Path:
    """Returns the checkpoint with the lowest validation loss of all runs_at() `root`.

    The loss is read from the files themselves: in bits per byte, which encodings with different tokens share, if all
    have it, else in nats per token. Raises CheckpointError if no file has a loss.
    """
    scores = {path: score for run in runs_at(root) for path in epochs(run) if (score := _validation_score(path))}
    if not scores:
        raise CheckpointError(f"no checkpoint in {root} has a validation loss: name one, or omit it for the latest")
    shared = min(map(len, scores.values()))
    return min(scores, key=lambda path: scores[path][shared - 1])


def named(path: Path) -> Path:
    """Returns the path; for the name "best", alone or in a folder, the best checkpoint there."""
    return best(path.parent) if path.name == "best" and not path.exists() else path


def remove_epochs(directory: Path, encoding: str, saved: Sequence[tuple[int, float]], keep_last: int) -> None:
    """Removes a run's epoch checkpoints except the last `keep_last` and the best one; 0 keeps all.

    `saved` lists the run's epochs with their validation losses, in order. Other files in the folder stay.
    """
    if not keep_last:
        return
    lowest = min(saved, key=lambda pair: math.inf if math.isnan(pair[1]) else pair[1])
    for pair in saved[:-keep_last]:
        if pair != lowest:
            with contextlib.suppress(OSError):  # in use on Windows: the next epoch tries again
                epoch_path(directory, pair[0], encoding).unlink(missing_ok=True)


def runs_at(root: Path) -> list[Path]:
    """Returns the folder itself if it holds epoch checkpoints, else the runs in it; the newest last.

    In the current folder only runs in folders checkpoints* count. Raises CheckpointError if there is none.
    """
    inside = [root] if epochs(root) else folders(root) or (runs(root) if root != Path() else [])
    if not inside:
        where = "" if root == Path() else f" in {root}"
        raise CheckpointError(
            f"no checkpoint found{where}: train one first, with `make demo` or `uv run python main.py train`"
        )
    return inside


def _validation_score(path: Path) -> tuple[float, ...]:
    """Returns the validation loss stored in a checkpoint, in nats per token and, if it is there, in bits per byte.

    The weights are not read. Empty if there is no loss.
    """
    try:
        metrics = peek(path).get("metrics")
    except CheckpointError:
        return ()
    metrics = metrics if isinstance(metrics, dict) else {}
    loss, bits = (metrics.get(name) for name in ("validation_loss", "bits_per_byte"))
    if not is_finite(loss):
        return ()
    return (loss, bits) if is_finite(bits) else (loss,)


def _suggestion(path: Path) -> str:
    if path.is_dir():
        return f"; it is a folder: give {path / 'best'}, or a file in it"
    if len(path.parts) == 2 and path.suffix != ".pt" and not path.parent.exists():
        return f"; a model on the Hugging Face hub is hf:{path.as_posix()}"
    others = epochs(path.parent) if path.parent.is_dir() else []
    return f"; in that folder: {', '.join(other.name for other in others[-5:])}" if others else ""
