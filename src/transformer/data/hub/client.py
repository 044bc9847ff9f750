"""A dataset repository on the Hugging Face hub, read by byte range, with patience.

Hub lists the parquet files of a subset and reads exact ranges of them: what it returns is part of the file that was
listed, or it raises. A network that fails is tried again, with growing waits, for `patience` seconds. Endpoint, token,
proxies and offline mode are the hub library's own: HF_ENDPOINT, HF_TOKEN, HF_HOME, HTTPS_PROXY, HF_HUB_OFFLINE.

The library's tree listing and downloads are not used: they have no time-out, and nobody can interrupt their waits.
answers.py says what the hub's answers mean.
"""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
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

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")
Notify = Callable[[str], None]  # gets one line for a person: a retry, a notice

LONGEST_WAIT = 30.0  # seconds, unless the hub asks for more


class Hub:
    """One dataset repository. All methods may be called from several threads at once."""

    def __init__(
        self,
        repo: str,
        *,
        patience: float = 300.0,
        timeout: float = 10.0,
        notify: Notify = lambda line: None,
        first_wait: float = 0.5,
    ) -> None:
        """Connects to nothing yet.

        patience: seconds for which a request that keeps failing is tried again; bytes that arrive start them anew.
        timeout: seconds without a byte after which a request has failed.
        notify: gets a line about retries, from any thread, one at a time and about one a second at most.
        first_wait: seconds before the first retry; each further wait is twice as long, up to 30.
        """
        self.repo, self.patience, self.timeout, self.first_wait = repo, patience, timeout, first_wait
        self.bytes_fetched = 0
        """File contents received, by all threads."""
        self._notices, self._lock, self._closed = _Notices(notify), threading.Lock(), threading.Event()
        self._random = Random()  # spreads the retries of many; its own, so that no seeded one is disturbed

    def close(self) -> None:
        """Ends all requests with Closed: waiting ones at once, others at their next bytes or after `timeout`."""
        self._closed.set()

    def commit(self, revision: str = "main") -> str:
        """The 40-digit hash of the revision; such a hash is returned as it is."""
        return revision if re.fullmatch("[0-9a-f]{40}", revision) else self._info(revision)[0]

    def parquet_files(self, commit: str, subset: str | None, split: str) -> list[HubFile]:
        """The files of the subset and split, by path; see `choose`."""
        _, configs = self._info(commit)
        try:
            places = folders(configs, subset, split)
            files = {file.path: file for folder in places for file in self._tree(commit, folder)}
            return [files[path] for path in choose(files, configs, subset, split)]
        except NoSuchSubset as error:
            raise HubError(f"dataset {self.repo} has {error}") from None

    def read(self, commit: str, file: HubFile, start: int, length: int) -> bytes:
        """The `length` bytes of the file from `start` on.

        Raises Changed, Unreachable, HubError, Closed, and ValueError for a range that the file does not have.
        """
        if not 0 <= start <= start + length <= file.size:
            raise ValueError(f"{file.path} has {file.size} bytes: wanted bytes {start} to {start + length}")
        arrived = bytearray()
        self._patiently(file.path, lambda: self._fetch(commit, file, start, start + length, arrived), arrived)
        return bytes(arrived)

    def open(self, commit: str, file: HubFile) -> RangeFile:
        """The file as a binary file to read and seek in."""
        return RangeFile(self, commit, file)

    def _info(self, revision: str) -> tuple[str, list[Mapping[str, Any]]]:
        """The commit, and the subsets that the dataset's card describes."""

        def ask() -> Any:
            from huggingface_hub import HfApi

            wanted: Any = ["sha", "cardData"]
            api = HfApi(endpoint=endpoint())
            return api.dataset_info(self.repo, revision=revision, timeout=self.timeout, expand=wanted)

        info = self._patiently(f"dataset {self.repo} at {revision}", ask)
        configs = info.card_data.get("configs") if info.card_data else None
        return info.sha, [entry for entry in configs if isinstance(entry, Mapping)] if isinstance(configs, list) else []

    def _tree(self, commit: str, folder: str) -> Iterator[HubFile]:
        """The files in the folder and below; none where there is no such folder."""
        below = f"/{quote(folder, safe='')}" if folder else ""
        place = f"/api/datasets/{self.repo}/tree/{commit}{below}?recursive=True"
        while place:
            entries, place = self._patiently(f"the files of {self.repo}", partial(self._page, place))
            for entry in entries:
                if entry["type"] == "file":
                    yield HubFile(entry["path"], entry["size"], (entry.get("lfs") or entry)["oid"])

    def _page(self, place: str) -> tuple[list[Any], str]:
        """The entries of one page, and where on the endpoint the next one is: "" after the last."""
        library = _library()
        headers = library.build_hf_headers()
        response = library.get_session().get(endpoint() + place, headers=headers, timeout=self.timeout)
        if response.headers.get("X-Error-Code") == "EntryNotFound":
            return [], ""
        library.hf_raise_for_status(response)
        following = urlsplit(response.links.get("next", {}).get("url", ""))  # its host is not asked: it gets no token
        path = following.path.removeprefix(urlsplit(endpoint()).path)
        return response.json(), f"{path}?{following.query}" if path else ""

    def _fetch(self, commit: str, file: HubFile, start: int, stop: int, arrived: bytearray) -> None:
        """Adds to `arrived` what is still missing of the range."""
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

    def _patiently(self, what: str, attempt: Callable[[], T], arrived: Sized = ()) -> T:
        """What `attempt` returns, as soon as it succeeds; while `arrived` grows there is progress."""
        troubled, well = False, False
        failures, since = 0, 0.0
        try:
            while True:
                self._check_open()
                had = len(arrived)
                try:
                    with explained(what, self.repo):
                        result = attempt()
                    well = True
                    return result
                except Fault as fault:
                    if not troubled or len(arrived) > had:
                        failures, since = 0, time.monotonic()
                    if not troubled:
                        troubled = True
                        self._notices.begin()
                    self._wait(what, fault, failures, since)
                    failures += 1
        finally:
            if troubled:
                self._notices.end(well)

    def _wait(self, what: str, fault: Fault, failures: int, since: float) -> None:
        """Waits before the next attempt, or until closed. Raises Unreachable where patience has ended."""
        left = since + self.patience - time.monotonic()
        if left <= 0:
            reason = f"{fault}, for {self.patience:g} s"
            message = f"cannot read {what} from {host()} ({reason}): check the network and try again"
            raise Unreachable(message, reason) from fault
        growing = min(LONGEST_WAIT, self.first_wait * 2 ** min(failures, 30)) * self._random.uniform(0.75, 1.25)
        seconds = min(left, max(growing, fault.wait))
        self._notices.retry(f"{fault} for {what}: trying again in {seconds:.2g} s")
        self._closed.wait(seconds)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Closed(f"dataset {self.repo} is closed")


class RangeFile(io.RawIOBase):
    """A file on the hub as a binary file; each read is one range request, of exactly what is asked for."""

    def __init__(self, hub: Hub, commit: str, file: HubFile) -> None:
        self.hub, self.commit, self.file, self.place = hub, commit, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check()
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check()
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"whence={whence} is not 0, 1 or 2")
        place = (0, self.place, self.file.size)[whence] + offset
        if place < 0:
            raise ValueError(f"{self.file.path} has no byte {place}")
        self.place = place
        return place

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, fewer only at the end of the file; None or a negative size: all that follow."""
        self._check()
        left = max(0, self.file.size - self.place)
        length = left if size is None or size < 0 else min(size, left)
        data = self.hub.read(self.commit, self.file, self.place, length) if length else b""
        self.place += length
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _check(self) -> None:
        if self.closed:
            raise ValueError(f"{self.file.path} is closed")


class _Notices:
    """Lines about trouble, about one a second at most from all threads, and one when it is over."""

    def __init__(self, notify: Notify) -> None:
        self.notify, self.lock = notify, threading.Lock()
        self.failing, self.told, self.told_at = 0, False, -float("inf")

    def begin(self) -> None:
        """A request is in trouble."""
        with self.lock:
            self.failing += 1

    def retry(self, line: str) -> None:
        with self.lock:
            if time.monotonic() >= self.told_at + 1:
                self.told, self.told_at = True, time.monotonic()
                self.notify(line)

    def end(self, well: bool) -> None:
        """The request is no longer in trouble, or has been given up."""
        with self.lock:
            self.failing -= 1
            if self.failing == 0 and self.told:
                self.told = False
                if well:
                    self.notify("the hub answers again")


def _library() -> Any:
    from huggingface_hub import utils

    return utils
