"""Open a dataset on the hub: its commit, its files, and the folder of its cache."""

from __future__ import annotations

import re
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformer.config import DataConfig
from transformer.data.cache import ShardCache
from transformer.data.contracts import Notify, silent
from transformer.data.hub.client import OPENING_PATIENCE, Hub
from transformer.data.hub.errors import HubError, HubFile, Unreachable
from transformer.data.hub.text import HubText

FINEWEB, SAMPLE = "HuggingFaceFW/fineweb-edu", "sample-10BT"
OFFLINE = "without a network, train on the bundled text with --dataset shakespeare, or on your own with --dataset PATH"


def open_hub_text(config: DataConfig, notify: Notify = silent) -> HubText:
    """Opens the text of the configured hub dataset. Without a network, the cache's listing of its files is used.

    Raises HubError, in one line, if the dataset cannot be found or reached.
    """
    repo, subset = config.dataset.removeprefix("hf:"), config.subset
    if config.dataset == "fineweb":
        repo, subset = FINEWEB, config.subset or SAMPLE
    directory = Path(config.cache_dir or default_cache(repo, subset, config.split, config.text_column))
    cache = ShardCache(directory, config.cache_shards, int(config.cache_gb * 1e9), notify)
    try:
        hub = Hub(repo, patience=min(config.network_patience, OPENING_PATIENCE), notify=notify)
        commit, files = find_files(hub, cache, subset, config.split, config.revision, notify)
        hub.patience = config.network_patience
        return HubText(hub, commit, files, cache, config.text_column, round(config.shard_mb * 1e6), notify)
    except BaseException:
        cache.close()
        raise


def default_cache(repo: str, subset: str | None = None, split: str = "train", column: str = "text") -> str:
    """Returns the folder: data/fineweb_cache, data/OWNER_NAME_cache, or a longer name for a part of a dataset.

    Each subset, split and column has its own folder, since each numbers its shards from 0. A hash keeps apart the
    folders whose names could be equal: those of hf:a/b --subset c and hf:a/b_c, or of hf:a_b/c and hf:a/b_c.
    """
    text = repo, subset, split, column
    if text == (FINEWEB, SAMPLE, "train", "text"):
        return "data/fineweb_cache"
    name = repo.replace("/", "_")
    if text != (repo, None, "train", "text") or "_" in repo.partition("/")[0]:
        words = re.sub(r"[^\w.]+", "-", f"{name} {subset or ''} {split}", flags=re.ASCII)
        name = f"{words}-{sha256(repr(text).encode()).hexdigest()[:12]}"
    return f"data/{name}_cache"


def find_files(
    hub: Hub, cache: ShardCache, subset: str | None, split: str, revision: str, notify: Notify
) -> tuple[str, list[HubFile]]:
    """Returns the commit of a revision, and its files. Without a network, those that the cache remembers."""
    name = f"{hub.repo} {subset} {split}"
    try:
        commit = hub.commit(revision)
        found = cache.recall(f"{name} {commit}", _listing)
        if found is None:  # a commit never changes: its files are listed once
            found = commit, hub.parquet_files(commit, subset, split)
        for key in {commit, revision}:
            cache.record(f"{name} {key}", {"commit": commit, "files": [asdict(file) for file in found[1]]})
    except Unreachable as error:
        found = cache.recall(f"{name} {revision}", _listing)
        if found is None:
            raise HubError(f"{hub.repo} cannot be reached ({error.reason}); {OFFLINE}") from error
        known = found[0][:12]
        notify(f"the hub cannot be reached: continuing with the text in {cache.directory}, of commit {known}")
    return found


def _listing(values: Any) -> tuple[str, list[HubFile]]:
    """Returns a commit and its files from what find_files recorded. Raises ValueError and others for other values."""
    commit, files = values["commit"], [HubFile(**file) for file in values["files"]]
    if not files or not re.fullmatch("[0-9a-f]{40}", commit):
        raise ValueError("not a commit with files")
    return commit, files
