"""A dataset repository on the Hugging Face hub, read by byte range, with retries.

Hub lists the parquet files of a subset and reads exact ranges of them. It returns bytes of the file that was listed, or
raises. A failing request is retried, with growing pauses, for `patience` seconds. The endpoint, token, proxies and
offline mode are those of the hub library: HF_ENDPOINT, HF_TOKEN, HF_HOME, HTTPS_PROXY, HF_HUB_OFFLINE.

Requests use the library's HTTP session. Its file system and downloads are not used: their retries cannot be
interrupted, and they do not notice that a file was replaced between two reads. errors.py interprets the hub's answers.
"""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from functools import partial
from random import Random
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from transformer.data.hub.errors import (
    Closed,
    Fault,
    HubError,
    HubFile,
    Unreachable,
    check_identity,
    endpoint,
    explained,
    host,
)
from transformer.data.hub.files import NoSuchSubset, choose, folders

T = TypeVar("T")

OPENING_PATIENCE = 6.0
"""Seconds of retries when a dataset is opened: a network that fails then is most likely absent."""
LONGEST_WAIT = 30.0
"""Longest pause between retries in seconds, unless the hub asks for more."""

MAX_PAGES = 1_000
"""Pages of a listing, a thousand files each: more than any dataset has."""


class Hub:
    """One dataset repository. All methods may be called from several threads at once."""

    def __init__(
        self,
        repo: str,
        *,
        patience: float = 300.0,
        timeout: float = 10.0,
        notify: Callable[[str], None] = lambda line: None,
        first_wait: float = 0.5,
        kind: str = "dataset",
    ) -> None:
        """Does not connect yet.

        patience: seconds for which a failing request is retried; each byte that arrives starts them again.
        timeout: seconds without a byte after which a request has failed.
        notify: receives a line about retries, from any thread, about once a second at most.
        first_wait: seconds before the first retry; each later pause is twice as long, up to LONGEST_WAIT.
        kind: dataset, or model, of which only retry() is used (interop/hub_model.py).
        """
        self.repo, self.kind = repo, kind
        self.patience, self.timeout, self.first_wait = patience, timeout, first_wait
        self.bytes_fetched = 0
        """Bytes of file contents received, by all threads."""
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._notify, self._notified, self._failing = notify, -float("inf"), False
        self._random = Random()  # varies the pauses; a generator of its own, so that no seeded one is disturbed

    def close(self) -> None:
        """Ends all requests with Closed: pauses at once, transfers at their next bytes or after `timeout`."""
        self._closed.set()

    def commit(self, revision: str = "main") -> str:
        """Returns the 40-digit hash of a revision. Such a hash is returned unchanged."""
        return revision if re.fullmatch("[0-9a-f]{40}", revision) else self._info(revision)[0]

    def parquet_files(self, commit: str, subset: str | None, split: str) -> list[HubFile]:
        """Returns the files of a subset and split, by path; see files.choose."""
        _, configs = self._info(commit)
        try:
            places = folders(configs, subset, split)
            files = {file.path: file for folder in places for file in self._tree(commit, folder)}
            return [files[path] for path in choose(files, configs, subset, split)]
        except NoSuchSubset as error:
            raise HubError(f"dataset {self.repo} has {error}") from None

    def read(self, commit: str, file: HubFile, start: int, length: int) -> bytes:
        """Returns the `length` bytes of the file from `start` on.

        Raises Changed, Unreachable, HubError, Closed, and ValueError for a range that the file does not have.
        """
        if not 0 <= start <= start + length <= file.size:
            raise ValueError(f"{file.path} has {file.size} bytes: wanted bytes {start} to {start + length}")
        arrived = bytearray()
        self.retry(file.path, lambda: self._fetch(commit, file, start, start + length, arrived), arrived)
        return bytes(arrived)

    def open(self, commit: str, file: HubFile) -> RangeFile:
        """Returns the file as a binary file object."""
        return RangeFile(self, commit, file)

    def retry(self, wanted: str, attempt: Callable[[], T], arrived: Sized = (), patience: float | None = None) -> T:
        """Returns the result of `attempt`, retried after each Fault for `patience` seconds, at most the Hub's.

        Growth of `arrived` restarts the patience. A retry library would need this loop's parts (stop, pause,
        interruption, messages) written for it as well.
        """
        patience = self.patience if patience is None else min(patience, self.patience)
        failures, since = 0, 0.0
        while True:
            self._check_open()
            had = len(arrived)
            try:
                with explained(wanted, self.repo, self.kind):
                    result = attempt()
                if failures:
                    self._say("the hub answers again", recovered=True)
                return result
            except Fault as fault:
                if failures == 0 or len(arrived) > had:
                    failures, since = 0, time.monotonic()
                left = since + patience - time.monotonic()
                self._check_open()
                if left <= 0:
                    reason = f"{fault}, for {patience:g} s" if patience else str(fault)
                    message = f"cannot read {wanted} from {host()} ({reason}): check the network and try again"
                    raise Unreachable(message, reason) from fault
                pause = min(LONGEST_WAIT, self.first_wait * 2**failures) * self._random.uniform(0.5, 1.0)
                seconds = min(left, max(pause, fault.wait))
                self._say(f"{fault} for {wanted}: trying again in {seconds:.2g} s")
                self._closed.wait(seconds)
                failures += 1

    def _say(self, line: str, recovered: bool = False) -> None:
        """Emits a message about retries of all threads: one per second at most, and one when the hub answers again."""
        with self._lock:
            now = time.monotonic()
            if self._failing if recovered else now >= self._notified + 1:
                self._notified, self._failing = now, not recovered
                self._notify(line)

    def _info(self, revision: str) -> tuple[str, list[Mapping[str, Any]]]:
        """Returns the commit, and the subsets that the dataset's card describes."""

        def ask() -> tuple[str, list[Mapping[str, Any]]]:
            address = endpoint()  # before the import, which prints parts of a wrong address
            from huggingface_hub import HfApi

            api = HfApi(endpoint=address)
            info = api.dataset_info(self.repo, revision=revision, timeout=self.timeout, expand=["sha", "cardData"])
            if not re.fullmatch("[0-9a-f]{40}", info.sha or ""):
                raise ValueError("an answer without a commit")
            configs = info.card_data.get("configs") if info.card_data else None
            return info.sha or "", [c for c in configs if isinstance(c, Mapping)] if isinstance(configs, list) else []

        return self.retry(f"dataset {self.repo} at {revision}", ask)

    def _tree(self, commit: str, folder: str) -> Iterator[HubFile]:
        """Yields the files in a folder and its subfolders; none if there is no such folder."""
        below = f"/{quote(folder, safe='')}" if folder else ""
        page = f"/api/datasets/{self.repo}/tree/{commit}{below}?recursive=True"
        pages = set[str]()
        while page:
            if page in pages or len(pages) == MAX_PAGES:
                raise HubError(f"{host()} lists the files of {self.repo} without end: check HF_ENDPOINT and proxies")
            pages.add(page)
            files, page = self.retry(f"the files of {self.repo}", partial(self._page, page))
            yield from files

    def _page(self, page: str) -> tuple[list[HubFile], str]:
        """Returns the files of one page, and the path of the next one; "" after the last."""
        library = _library()
        headers = library.build_hf_headers()
        response = library.get_session().get(endpoint() + page, headers=headers, timeout=self.timeout)
        if response.headers.get("X-Error-Code") == "EntryNotFound":
            return [], ""
        library.hf_raise_for_status(response)
        entries = [entry for entry in response.json() if entry["type"] == "file"]
        files = [HubFile(entry["path"], entry["size"], (entry.get("lfs") or entry)["oid"]) for entry in entries]
        following = urlsplit(response.links.get("next", {}).get("url", ""))  # only its path: no other host gets a token
        path = following.path.removeprefix(urlsplit(endpoint()).path)
        return files, f"{path}?{following.query}" if path else ""

    def _fetch(self, commit: str, file: HubFile, start: int, stop: int, arrived: bytearray) -> None:
        """Requests the rest of the range and appends it to `arrived`."""
        had = len(arrived)
        if start + had == stop:
            return
        library = _library()
        wanted = f"bytes {start + had}-{stop - 1}"
        headers = library.build_hf_headers(headers={"Range": wanted.replace(" ", "="), "Accept-Encoding": "identity"})
        url = f"{endpoint()}/datasets/{self.repo}/resolve/{commit}/{quote(file.path)}"
        options = {"headers": headers, "timeout": self.timeout, "follow_redirects": True}
        with library.get_session().stream("GET", url, **options) as response:
            check_identity(response, file)
            library.hf_raise_for_status(response)
            if response.status_code != 206:
                raise HubError(
                    f"{host()} sends no part of {file.path} alone (status {response.status_code} for a range of "
                    "bytes): check HF_ENDPOINT and proxies"
                )
            given = response.headers.get("Content-Range", "")
            if given.rpartition("/")[0] != wanted:
                raise Fault(f"the hub sent {given or 'an unnamed part'} instead of {wanted}")
            for chunk in response.iter_raw():
                self._check_open()
                with self._lock:
                    self.bytes_fetched += len(chunk)
                arrived += chunk
                if start + len(arrived) > stop:
                    del arrived[had:]
                    raise Fault(f"the hub sent more than {wanted}")
        if start + len(arrived) < stop:
            raise Fault(f"the hub sent {len(arrived) - had} of {stop - start - had} bytes")

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Closed(f"{self.kind} {self.repo} is closed")


class RangeFile(io.RawIOBase):
    """A file on the hub, as pyarrow reads one. Each read is one request for exactly the bytes wanted."""

    def __init__(self, hub: Hub, commit: str, file: HubFile) -> None:
        self.hub, self.commit, self.file, self.position = hub, commit, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = (0, self.position, self.file.size)[whence] + offset
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        """Returns the next `size` bytes, fewer only at the end of the file. None or a negative size: all the rest."""
        left = max(0, self.file.size - self.position)
        length = left if size is None or size < 0 else min(size, left)
        data = self.hub.read(self.commit, self.file, self.position, length) if length else b""
        self.position += length
        return data


def _library() -> Any:
    from huggingface_hub import utils

    return utils
