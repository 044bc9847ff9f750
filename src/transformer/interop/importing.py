"""A foreign model becomes a checkpoint of this project, which every command takes.

The checkpoint has step 0 and no training text: evaluations read the bundled plays unless they name another text. Under
`imported` it records where the model comes from. A source given in place of a checkpoint is imported to a cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock

from transformer.config import DataConfig, TrainConfig
from transformer.data.contracts import Notify, silent
from transformer.interop.digests import Digests
from transformer.interop.errors import SourceError
from transformer.interop.families import read_model
from transformer.interop.sources import Location, Source, locate, opened
from transformer.training import checkpoint

Format = Literal["float32", "bfloat16", "float16"]
CACHE = Path("data/imported_models")
"""Where sources that were given in place of a checkpoint are imported to."""
ROW_TOKENS = 512
"""Row length of an imported model, at most its context: the default of evaluations, and of training from it."""


def import_checkpoint(source: Source, out: Path, dtype: Format | None = None) -> Path:
    """Writes the source as the only checkpoint in the folder `out`, and returns its path.

    dtype: the number format of the weights; None: the source's own. Raises SourceError for a model that cannot be
    imported, and for a folder that already holds one. After any error nothing is left behind.
    """
    check_free(out)
    kind = getattr(torch, dtype) if dtype else source.dtype
    model = read_model(source.settings, source.tensor, source.names, kind, source.max_seq_len)
    row = min(ROW_TOKENS, model.config.max_seq_len)
    config = TrainConfig(model.config, DataConfig("shakespeare", source.tokenizer.name, seq_length=row)).check()
    contents = checkpoint.model_contents(model, config, source.tokenizer)
    path = checkpoint.epoch_path(out, 0, source.tokenizer.short_name)
    with removed_if_empty(out):
        checkpoint.save(path, {**contents, "step": 0, "epoch": 0, "tokens": 0, "imported": source.provenance})
    return path


def check_free(out: Path) -> None:
    """Raises SourceError for a folder to which no model can be imported."""
    if out.exists() and not out.is_dir():
        raise SourceError(f"--out {out} is a file: name a folder")
    if checkpoint.epochs(out) or checkpoint.states(out):
        raise SourceError(f"{out} already holds a model: give another --out, or remove its checkpoints")


@contextlib.contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Removes a folder that the block made and left empty because of an error."""
    made = next((one for one in (*reversed(folder.parents), folder) if not one.exists()), None)
    try:
        yield
    except BaseException:
        while made is not None and folder.is_relative_to(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
            folder = folder.parent
        raise


def imported(text: str, notify: Notify = silent) -> Path:
    """Returns a checkpoint of a source, imported at its first use. Errors: as of open_source().

    Its folder in CACHE is named by a digest of the source's contents. Processes that need the same one wait for each
    other.
    """
    digests = Digests(CACHE / "digests.json")
    location = locate(text, notify=notify, digest=digests.sha256_of)
    folder = CACHE / f"{location.name}-{location.identity[:12]}-{checkpoint.FORMAT}"
    found = checkpoint.epochs(folder)
    path = found[-1] if found else _import_to_cache(location, folder, notify)
    digests.save()
    return path


def _import_to_cache(location: Location, folder: Path, notify: Notify) -> Path:
    source = opened(location, notify)
    with removed_if_empty(CACHE):
        CACHE.mkdir(parents=True, exist_ok=True)
        with FileLock(CACHE / f".{folder.name}.lock"):
            if found := checkpoint.epochs(folder):  # by another process
                return found[-1]
            notify(f"importing {location.source} into {folder}, once")
            return import_checkpoint(source, folder)
