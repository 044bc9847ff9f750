"""The catalogue: which shards the cache holds, when they were used, who has pinned them, and what is to go.

It is kept in cache_metadata.json, {"format": 1, "shards": {"12": entry, ...}, "listings": {...}}, and changed under
cache.lock only. The files on disk are asked again for whatever it does not know.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files
from .files import PARTS, TEXT, Shard, shard_path
from .locked_directory import SharedFolder

FORMAT = 1
UNFINISHED = {"complete": False, "bytes": None, "mtime_ns": None, "sha256": None}
_KINDS: dict[str, tuple[type, ...]] = {
    "source": (str,),
    "column": (str,),
    "first_group": (int,),
    "units": (int,),
    "expected_bytes": (int,),
    "last_use": (int,),
    "complete": (bool,),
    "bytes": (int, type(None)),
    "mtime_ns": (int, type(None)),
    "sha256": (str, type(None)),
}

Entry = dict[str, Any]
Metadata = dict[str, Any]


@dataclass(frozen=True)
class ShardEntry:
    """What the cache holds of a shard."""

    number: int
    source: str
    row_groups: int
    row_groups_present: int
    """Units whose text is here."""
    text_bytes: int
    token_bytes: dict[str, int]
    """Encoding to bytes of token files."""
    last_use: int
    """As time.time_ns() counts."""
    pinned: bool


class InUseError(ValueError):
    """Another user of the cache has pinned another text under the same shard number."""


class Catalogue:
    """What `folder` holds. Methods that take `data` are called inside `opened`, with what it yields."""

    def __init__(self, folder: SharedFolder, tell: Callable[[str], None]) -> None:
        self.folder, self.root, self.tell = folder, folder.root, tell
        self.path = self.root / "cache_metadata.json"
        self._quiet = False

    @contextlib.contextmanager
    def opened(self) -> Iterator[Metadata]:
        """The metadata, under cache.lock; a change is stored at the end."""
        with self.folder.alone():
            text, data = self._load()
            yield data
            changed = json.dumps(data)
            if changed != text:
                try:
                    self.folder.store(self.path, lambda file: file.write(changed.encode()))
                except OSError as error:
                    self.cannot_store(self.path, error)

    def cannot_store(self, path: Path, error: OSError | None) -> None:
        """Tells it once, until it is called with None for something that was stored."""
        if error is not None and not self._quiet:
            self.tell(f"{path} cannot be stored ({error.strerror or error}): going on without")
        self._quiet = error is not None

    def claim(self, data: Metadata, shard: Shard) -> Entry:
        """The shard's entry. What else lies under its number goes, or InUseError is raised."""
        entries, key = data["shards"], str(shard.number)
        entry: Entry | None = entries.get(key) or identify(self.root, shard.number)
        if entry is None or shard_of(shard.number, entry) != shard:
            name = shard_path(self.root, shard.number, TEXT)
            if any(_number(pin) == shard.number and pin != _pin(shard) for pin in self.folder.pins()):
                raise InUseError(f"{name} is in use with another text: give this run another cache directory")
            kinds = files.stock(self.root).get(shard.number, {})
            files.remove(self.root, shard.number, kinds)
            if any(kinds.values()):  # else it is a folder that somebody was about to remove
                self.tell(f"{name} or what belongs to it holds another text, or none: removed")
            entry = entry_of(shard, _now(data))
        entries[key] = entry
        return entry

    def pin(self, data: Metadata, shard: Shard, step: int) -> None:
        """Counts a pin up or down; both are a use."""
        self.claim(data, shard)
        self.folder.pin(_pin(shard), step)
        self.touch(data, shard)

    def pinned(self) -> set[int]:
        """The numbers of the shards that anybody has pinned."""
        return {number for pin in self.folder.pins() if (number := _number(pin)) is not None}

    def touch(self, data: Metadata, shard: Shard) -> None:
        """Records a use, if the shard is known."""
        if (entry := data["shards"].get(str(shard.number))) is not None:
            entry["last_use"] = _now(data)

    def evict(
        self, data: Metadata, shard: Shard, max_shards: int, max_bytes: int, expected_bytes: int, full: bool = False
    ) -> None:
        """Evicts others than `shard` until expected_bytes more are within bounds; on a full disk, until they are free.

        An unfinished shard counts, while it is pinned, with the bytes that are expected of it.
        """
        entries, pinned = data["shards"], self.pinned() | {shard.number}
        stock = self._adopt(data)
        for number in stock.keys() - pinned - set(map(int, entries)):
            kinds = stock.pop(number)
            files.remove(self.root, number, kinds)
            if any(kinds.values()):
                self.tell(f"{shard_path(self.root, number, TEXT)} or what belongs to it is no shard's: removed")
        for number in pinned & set(map(int, entries)):
            kinds = stock.setdefault(number, {})
            if TEXT not in kinds:
                kinds[PARTS] = max(kinds.get(PARTS, 0), entries[str(number)]["expected_bytes"])
        limit = min(max_bytes, _total(stock)) if full else max_bytes
        oldest = sorted(stock.keys() - pinned, key=lambda number: entries[str(number)]["last_use"])
        for number, kind in evictions(stock, oldest, max_shards, limit - expected_bytes):
            files.remove(self.root, number, [kind])
            del stock[number][kind]
        for key in [key for key in entries if not stock.get(int(key)) and int(key) not in pinned]:
            del entries[key]

    def shown(self, data: Metadata) -> list[ShardEntry]:
        """What is recorded and on disk, by number."""
        stock, pinned = files.stock(self.root), self.pinned()
        found = []
        for number in sorted(map(int, data["shards"])):
            entry = data["shards"][str(number)]
            tokens = stock.get(number, {})
            whole, parts = tokens.pop(TEXT, None), tokens.pop(PARTS, 0)
            present = entry["units"] if whole is not None else len(files.units_in(shard_path(self.root, number, PARTS)))
            known = (number, entry["source"], entry["units"], present)
            found.append(ShardEntry(*known, (whole or 0) + parts, tokens, entry["last_use"], number in pinned))
        return found

    def _load(self) -> tuple[str, Metadata]:
        try:
            text = self.path.read_text(encoding="utf-8")
            return text, parse(text)
        except (OSError, ValueError, RecursionError) as error:
            missing = isinstance(error, FileNotFoundError)
        data: Metadata = {"format": FORMAT, "shards": {}, "listings": {}}
        self._adopt(data)
        if data["shards"] or not missing:
            problem = "is missing" if missing else "is damaged, or not this cache's"
            self.tell(f"{self.path} {problem}: made again from the files, shards found: {len(data['shards'])}")
        return "", data

    def _adopt(self, data: Metadata) -> dict[int, dict[str, int]]:
        """Records the shards on disk that the metadata does not know; returns the stock."""
        stock = files.stock(self.root)
        for number in stock:
            if str(number) not in data["shards"] and (entry := identify(self.root, number)):
                data["shards"][str(number)] = entry
        return stock


def parse(text: str) -> Metadata:
    """The metadata that `text` spells. Raises ValueError or RecursionError where it spells none."""
    data: Metadata = json.loads(text)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError("another format")
    if not isinstance(data.get("shards"), dict) or not isinstance(data.get("listings"), dict):
        raise ValueError("no shards or listings")
    for key, entry in data["shards"].items():
        if not key.isdecimal() or str(int(key)) != key or not isinstance(entry, dict):
            raise ValueError(f"{key!r} is no shard")
        if any(type(entry.get(name)) not in kinds for name, kinds in _KINDS.items()):
            raise ValueError(f"shard {key} has no sound entry")
    return data


def entry_of(shard: Shard, last_use: int) -> Entry:
    """A new entry for a shard of which nothing is here."""
    return {**shard.identity(), "expected_bytes": 0, "last_use": last_use, **UNFINISHED}


def shard_of(number: int, entry: Entry) -> Shard:
    """The shard that an entry describes."""
    return Shard(number, entry["source"], entry["column"], entry["first_group"], entry["units"])


def identify(root: Path, number: int) -> Entry | None:
    """An entry for what lies under a number, from what the files say; None where they say nothing."""
    whole = shard_path(root, number, TEXT)
    for path in [whole, *files.units_in(shard_path(root, number, PARTS)).values()]:
        with contextlib.suppress(ValueError, OSError):
            entry = entry_of(files.read_identity(path, number), last_use=path.stat().st_mtime_ns)
            return entry | {"complete": path == whole}
    return None


def evictions(
    stock: Mapping[int, Mapping[str, int]], oldest: Sequence[int], max_shards: int, max_bytes: int
) -> list[tuple[int, str]]:
    """What is to go, as shard numbers and kinds. `oldest` are the shards that may, the one used longest ago first.

    Shards that are too many go whole. While there are too many bytes, the tokens of the others go, and then their text.

    >>> stock = {1: {"parquet": 4, "byte": 6}, 2: {"parquet": 4, "byte": 6}, 3: {"parts": 4}}
    >>> evictions(stock, [2, 1], max_shards=3, max_bytes=11)
    [(2, 'byte'), (1, 'byte'), (2, 'parquet')]
    """
    surplus = max(0, len(stock) - max_shards)
    going = [(number, kind) for number in oldest[:surplus] for kind in stock[number]]
    rest = [(number, kind) for number in oldest[surplus:] for kind in stock[number]]
    excess = _total(stock) - sum(stock[number][kind] for number, kind in going) - max_bytes
    for number, kind in sorted(rest, key=lambda place: place[1] in (TEXT, PARTS)):  # stable: still oldest first
        if excess <= 0:
            break
        going.append((number, kind))
        excess -= stock[number][kind]
    return going


def _total(stock: Mapping[int, Mapping[str, int]]) -> int:
    return sum(sum(kinds.values()) for kinds in stock.values())


def _now(data: Metadata) -> int:
    """Now, and later than every use so far, even where the clock was set back."""
    return max([time.time_ns(), *(1 + int(entry["last_use"]) for entry in data["shards"].values())])


def _pin(shard: Shard) -> str:
    return f"{shard.number}-{shard.label().hex()}"


def _number(pin: str) -> int | None:
    """The shard number of a pin's name; None for the other files of a process folder."""
    number, _, label = pin.partition("-")
    return int(number) if label and number.isdecimal() else None
