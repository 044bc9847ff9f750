"""A model's repository on the Hugging Face hub: its commit and its files, through the hub library's own cache.

Only the files that an import reads are fetched: settings, tokenizer, model card and licence, safetensors; or one .gguf
file, where a repository holds several, each a model of its own. They stay in
the cache of the hub library (HF_HOME), which other programs share: a later import needs no network, and a download that
was interrupted is resumed. data/hub/ turns the hub's errors into one line, with retries.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer.data.contracts import Notify, silent
from transformer.data.hub.client import OPENING_PATIENCE, Hub
from transformer.data.hub.errors import Fault, HubError, Unreachable, endpoint, first_line
from transformer.interop.digests import sha256_of
from transformer.interop.errors import SourceError
from transformer.training.checkpoint_contents import brief
from transformer.training.files import NO_ROOM

REPOSITORY = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:/([\w./+-]+\.gguf))?(?:@([\w./-]+))?", re.ASCII)
"""hf:OWNER/NAME, /FILE.gguf, @REVISION."""
COMMIT = re.compile("[0-9a-f]{40}")
SMALL_FILES = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "README.md",
}  # fmt: skip
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json")
LICENCES = re.compile(r"LICEN[CS]E(\.\w+)?")
MARKS = ("config.json", "README.md", ".gitattributes")
"""Small files, one of which nearly every repository has: one that is fetched under the name of a revision makes the hub
library remember the commit of the revision."""
MOST_LISTED = 30
"""Files that a message lists; the others are counted."""
DOWNLOAD_PATIENCE = 60.0
"""Seconds of retries after the hub library has given up, each with retries of its own."""


def is_wanted(name: str) -> bool:
    """Whether an import reads the file of this name in a repository or a folder."""
    return name in SMALL_FILES or bool(WEIGHTS.fullmatch(name) or LICENCES.fullmatch(name))


def commit_of(repo: str, revision: str, notify: Notify = silent) -> str:
    """Returns the 40-digit hash of a revision. Without a network: of the one that was fetched last.

    Raises HubError if there is no such model or revision, or if it cannot be reached and was never fetched.
    """
    if COMMIT.fullmatch(revision):
        return revision
    try:
        commit, names = _described(repo, revision, notify, OPENING_PATIENCE)
        if mark := next((name for name in MARKS if name in names), None):
            _downloaded(repo, revision, mark, notify)
        return commit
    except Unreachable as error:
        known = next((at for mark in MARKS if (at := _cached(repo, revision, mark))), None)
        if known is None:
            raise HubError(
                f"model {repo} cannot be reached ({error.reason}), and it was never fetched: connect once, or import "
                "a folder or a .gguf file"
            ) from error
        commit = known.parent.name
        notify(f"the hub cannot be reached: continuing with commit {commit[:12]} of {repo}, fetched before")
        return commit


def fetch_model(repo: str, commit: str, notify: Notify = silent) -> tuple[Path, dict[str, str]]:
    """Returns the folder of a commit's files, which are fetched if necessary, and the sha256 of each by name.

    Raises HubError for a network that fails, SourceError for a repository without weights that can be read.
    """
    known = _cached(repo, commit, "config.json")
    try:
        listed = _described(repo, commit, notify, 0.0 if known else OPENING_PATIENCE)[1]
    except Unreachable:
        listed = [path.name for path in known.parent.iterdir()] if known else []
        if not any(WEIGHTS.fullmatch(name) for name in listed):  # nor were all files fetched before
            raise
    names = [name for name in listed if is_wanted(name)]
    is_complete = {"config.json", "tokenizer.json"} <= {*names} and any(map(WEIGHTS.fullmatch, names))
    if not is_complete and any(name.endswith(".gguf") for name in listed):
        raise SourceError(f"hf:{repo} needs the name of a file, hf:{repo}/FILE.gguf; it has {_gguf_files(listed)}")
    for name in ("config.json", "tokenizer.json"):
        if name not in names:
            raise SourceError(f"hf:{repo} has no {name}: only models in the format of transformers can be imported")
    if not any(WEIGHTS.fullmatch(name) for name in names):
        raise SourceError(f"hf:{repo} has no model.safetensors: other formats of weights are not imported from the hub")
    fetched = {name: _downloaded(repo, commit, name, notify) for name in sorted(names)}
    return fetched["config.json"][0].parent, {name: digest for name, (_, digest) in fetched.items()}


def fetch_gguf(repo: str, name: str, commit: str, notify: Notify = silent) -> tuple[Path, dict[str, str]]:
    """Returns a .gguf file of a commit, which is fetched if necessary, and its sha256 by its name.

    Raises HubError for a network that fails, SourceError for a file that is not there.
    """
    if not _cached(repo, commit, name):
        listed = _described(repo, commit, notify, OPENING_PATIENCE)[1]
        if name not in listed:
            raise SourceError(f"hf:{repo} has no file {name}; it has {_gguf_files(listed)}")
    path, digest = _downloaded(repo, commit, name, notify)
    return path, {path.name: digest}


def _gguf_files(names: list[str]) -> str:
    """Returns the .gguf files among the names, for a message; the parts of split models cannot be imported."""
    found = [name for name in names if name.endswith(".gguf") and not re.search(r"-\d+-of-\d+\.gguf", name)]
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return ", ".join(map(brief, found[:MOST_LISTED])) + more or "no .gguf file that can be imported"


def _cached(repo: str, revision: str, name: str) -> Path | None:
    """Returns a file in the library's cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _described(repo: str, revision: str, notify: Notify, patience: float) -> tuple[str, list[str]]:
    """Returns the commit of a revision and the names of its files."""
    hub = Hub(repo, kind="model", patience=patience, notify=notify)

    def ask() -> tuple[str, list[str]]:
        address = endpoint()  # before the import, which prints parts of a wrong address
        from huggingface_hub import HfApi

        wanted: Any = ["sha", "siblings"]
        info = HfApi(endpoint=address).model_info(repo, revision=revision, timeout=hub.timeout, expand=wanted)
        if not COMMIT.fullmatch(info.sha or ""):
            raise ValueError("an answer without a commit")
        return info.sha or "", [file.rfilename for file in info.siblings or ()]

    return hub.retry(f"model {repo} at {revision}", ask)


def _downloaded(repo: str, revision: str, name: str, notify: Notify) -> tuple[Path, str]:
    """Returns a file in the library's cache, where it is brought if it is not there, and its sha256."""
    hub = Hub(repo, kind="model", patience=DOWNLOAD_PATIENCE, notify=notify)
    return hub.retry(name, lambda: _attempt(repo, revision, name))


def _attempt(repo: str, revision: str, name: str) -> tuple[Path, str]:
    """Downloads a file once. Raises Fault for a failure that another attempt may repair."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        if not _cached(repo, revision, name):
            # Without this, the download of a file that cannot be reached would be retried for half a minute.
            get_hf_file_metadata(hf_hub_url(repo, name, revision=revision, endpoint=endpoint()))
        with silenced():
            path = Path(hf_hub_download(repo, name, revision=revision, endpoint=endpoint()))
        digest = sha256_of(path)
    except errors.LocalEntryNotFoundError as error:  # the reason is what it was raised from
        raise (error.__cause__ or error) from None
    except RuntimeError as error:  # of the library's second way of downloading
        raise Fault(f"the download failed ({first_line(error)})") from error
    except OSError as error:
        if error.errno in NO_ROOM or isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            where = f"{name} of {repo} cannot be stored in the hub library's cache"
            raise HubError(f"{where} ({error.strerror}): free some space, or set HF_HOME to another folder") from error
        raise
    stored = path.readlink().name if path.is_symlink() else ""  # large files are stored under their sha256
    if re.fullmatch("[0-9a-f]{64}", stored) and stored != digest:
        path.resolve().unlink()
        raise Fault("its bytes are damaged")
    return path, digest


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silences the library's messages about retries and about a disk that may become full: errors say both."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(before)
