"""A model of another program: where it is, and how to read its settings, weights and tokenizer.

A source is `hf:OWNER/NAME[@REVISION]` or `hf:OWNER/NAME/FILE.gguf[@REVISION]` on the Hugging Face hub, a folder in the
format of transformers (config.json, safetensors, tokenizer.json), or a .gguf file. Nothing in it is executed.
importing.py makes a checkpoint of it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformer.data.contracts import Notify, silent
from transformer.interop.digests import sha256_of
from transformer.interop.errors import SourceError
from transformer.interop.families import model_config
from transformer.interop.folders import file_in, refuse_pointer
from transformer.interop.hub_model import LICENCES, REPOSITORY, commit_of, fetch_gguf, fetch_model, is_wanted
from transformer.interop.json_files import read_json, read_text
from transformer.interop.spelling import spelled
from transformer.interop.tensor_files import TensorFolder
from transformer.text import Tokenizer
from transformer.text.hf_tokenizer import HuggingFaceTokenizer
from transformer.training import checkpoint

HALVES = {torch.bfloat16, torch.float16}
LONGEST_LICENCE = 100
"""Characters of a licence's name that are kept."""


@dataclass(frozen=True)
class Source:
    """A model of another program, open for reading."""

    settings: Mapping[str, Any]
    """Its config.json; of a .gguf file, what config.json would contain."""
    names: Collection[str]
    tensor: Callable[[str], Tensor]
    """Returns the tensor of a name, in the format in which it is stored."""
    tokenizer: Tokenizer
    provenance: dict[str, str]
    """source, revision (of the hub), licence (if it names one), sha256 of each file, imported_at (UTC)."""
    dtype: torch.dtype
    """The narrowest format that holds all its weights unchanged."""
    nbytes: int
    """Size of its weights as they are stored."""
    max_seq_len: int | None = None
    """Positions of its context that are kept, the first ones. None: all."""


@dataclass(frozen=True)
class Location:
    """Where a source is, before it is read."""

    source: str
    path: Path | None = None
    """A folder or a .gguf file. None: on the hub."""
    revision: str = ""
    """The commit, of a model on the hub."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Of each file by name; empty for a model on the hub, whose files the commit determines."""

    @property
    def identity(self) -> str:
        """A digest, the same for the same contents."""
        about = (self.source if self.path is None else "", self.revision, sorted(self.sha256.items()))
        return hashlib.sha256(repr(about).encode()).hexdigest()

    @property
    def name(self) -> str:
        """A name for the folder of its checkpoint: letters, digits, dots, dashes and underscores."""
        last = self.source.rpartition("/")[2] if self.path is None else self.path.resolve().name
        return re.sub(r"[^\w.-]+", "-", last.removesuffix(".gguf"), flags=re.ASCII).strip(".-")[:60] or "model"


def is_source(text: str) -> bool:
    """Whether a text names a source, rather than a checkpoint or a run's folder."""
    path = Path(text)
    if spelled(text).startswith("hf:") or path.suffix.lower() == ".gguf":
        return True
    return (path / "config.json").is_file() and not checkpoint.epochs(path)


def open_source(text: str, revision: str | None = None, notify: Notify = silent) -> Source:
    """Opens a source; what is on the hub is fetched first. Raises SourceError or HubError, one line each."""
    return opened(locate(text, revision, notify), notify)


def locate(
    text: str, revision: str | None = None, notify: Notify = silent, digest: Callable[[Path], str] = sha256_of
) -> Location:
    """Returns where a source is; of the hub it asks only for the commit of a revision. Errors: as of open_source().

    digest: returns the sha256 of a file.
    """
    if (text := spelled(text)).startswith("hf:"):
        return _on_hub(text, revision, notify)
    if revision is not None:
        raise SourceError(f"--revision {revision}: only a model on the hub has revisions, and {text} is a path")
    path = Path(text)
    if path.suffix.lower() == ".gguf" and path.is_file():
        files = [path]
    elif (path / "config.json").is_file():
        files = [file_in(path, file.name) for file in path.iterdir() if is_wanted(file.name)]
    else:
        is_name = REPOSITORY.fullmatch(f"hf:{text}") and not path.exists() and path.suffix != ".gguf"
        wanted = f"give a folder with config.json, a .gguf file, or {f'hf:{text}' if is_name else 'hf:OWNER/NAME'}"
        raise SourceError(f"{text} cannot be imported: {wanted}")
    for file in files:
        refuse_pointer(file)
    return Location(text, path, sha256={file.name: digest(file) for file in sorted(files)})


def opened(location: Location, notify: Notify = silent, max_seq_len: int | None = None) -> Source:
    """Opens a source that was located. Errors: as of open_source()."""
    path, sha256 = location.path, location.sha256
    if path is None:
        owner, name, *file = location.source.removeprefix("hf:").split("/", 2)
        fetch = partial(fetch_gguf, name=file[0]) if file else fetch_model
        path, sha256 = fetch(f"{owner}/{name}", commit=location.revision, notify=notify)
    return (_open_gguf if path.is_file() else _open_folder)(location, path, sha256, max_seq_len)


def _on_hub(text: str, revision: str | None, notify: Notify) -> Location:
    found = REPOSITORY.fullmatch(text)
    if found is None or ".." in f"{text} {revision}":
        forms = "hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME/FILE.gguf"
        raise SourceError(f"{text} is not {forms}, as in hf:openai-community/gpt2")
    repo, _, named = found.groups()
    if revision is not None and named not in (None, revision):
        raise SourceError(f"{text} and --revision {revision} name two revisions: give one of them")
    return Location(text.partition("@")[0], revision=commit_of(repo, revision or named or "main", notify))


def _open_folder(location: Location, folder: Path, sha256: Mapping[str, str], max_seq_len: int | None) -> Source:
    settings, tensors = read_json(folder / "config.json"), TensorFolder(folder)
    size = model_config(settings, max_seq_len).vocab_size
    if others := tensors.files - sha256.keys():  # whose contents the checkpoint would not record
        raise SourceError(f"{folder}: {min(others)} is not named as shards are: model-00001-of-00002.safetensors")
    provenance = _provenance(location, sha256, _licence(folder, sha256))
    formats = {tensors.tensor(name).dtype for name in tensors.names if name.endswith((".weight", ".bias"))}
    return Source(
        settings, tensors.names, tensors.tensor, _tokenizer(folder, settings, size), provenance,
        dtype=next(iter(formats)) if len(formats) == 1 and formats <= HALVES else torch.float32,
        nbytes=tensors.nbytes, max_seq_len=max_seq_len,
    )  # fmt: skip


def _open_gguf(location: Location, path: Path, sha256: Mapping[str, str], max_seq_len: int | None) -> Source:
    from transformer.interop.gguf_files import GgufFile  # only this needs the package gguf

    file = GgufFile(path, max_seq_len)
    provenance = _provenance(location, sha256, str(file.settings.get("license", "")))
    size = path.stat().st_size
    return Source(
        file.settings, file.names, file.tensor, file.tokenizer(), provenance,
        dtype=file.dtype, nbytes=size, max_seq_len=max_seq_len,
    )  # fmt: skip


def _tokenizer(folder: Path, settings: Mapping[str, Any], vocab_size: int) -> HuggingFaceTokenizer:
    """Returns the tokenizer of a folder. Raises SourceError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise SourceError(f"{folder} has no tokenizer.json: save_pretrained() of its fast tokenizer writes one")
    about, generation = (
        read_json(own) if (own := folder / f"{name}_config.json").is_file() else {}
        for name in ("tokenizer", "generation")
    )
    if (own := folder / "chat_template.jinja").is_file():
        about["chat_template"] = read_text(own)
    stops = _whole_numbers([generation.get("eos_token_id"), settings.get("eos_token_id")])
    try:
        return HuggingFaceTokenizer(read_text(path), about, vocab_size=vocab_size, stop_ids=stops)
    except SourceError:
        raise
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error


def _whole_numbers(value: Any) -> list[int]:
    """Returns the whole numbers in nested lists."""
    if isinstance(value, list):
        return [number for item in value for number in _whole_numbers(item)]
    return [value] if type(value) is int else []


def _provenance(location: Location, sha256: Mapping[str, str], licence: str) -> dict[str, str]:
    found = {
        "source": location.source,
        "revision": location.revision,
        "licence": " ".join(licence.split())[:LONGEST_LICENCE],
        "sha256": " ".join(f"{name}={digest}" for name, digest in sorted(sha256.items())),
        "imported_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return {name: value for name, value in found.items() if value}


def _licence(folder: Path, names: Collection[str]) -> str:
    """Returns the licence that the model card names, else the first line of a licence file, else ""."""
    card = (
        re.match(r"\s*---\n(.*?)\n---", _beginning(folder / "README.md"), re.DOTALL) if "README.md" in names else None
    )
    pairs = re.findall(r"^(license|license_name): *[\"']?([^\"'\n]+)", card[1] if card else "", re.MULTILINE)
    named: dict[str, str] = dict(pairs)
    if (licence := named.get("license", "other").strip()) != "other" or (licence := named.get("license_name", "")):
        return licence
    files = sorted(name for name in names if LICENCES.fullmatch(name))
    return next((line for name in files for line in _beginning(folder / name).splitlines() if line.strip()), "")


def _beginning(path: Path) -> str:
    """Returns the first 64 KiB of a text."""
    with path.open("rb") as file:
        return file.read(2**16).decode(errors="replace").replace("\r\n", "\n")
