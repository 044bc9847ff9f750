"""A dataset repository on the Hugging Face hub, read by byte range, with patience.

Hub lists the parquet files of a subset and reads exact ranges of them: what it returns is part of the file that was
listed, or it raises. A network that fails is tried again, with growing waits, for `patience` seconds. Endpoint, token,
proxies and offline mode are the hub library's own: HF_ENDPOINT, HF_TOKEN, HF_HOME, HTTPS_PROXY, HF_HUB_OFFLINE.

The library's tree listing and downloads are not used: they have no time-out, and nobody can interrupt their waits. Its
HTTP client is httpx or httpx2, by its version; neither is named here, since the bases of HfHubHTTPError cover both.
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from transformer.remote.subsets import NoSuchSubset, choose, folders

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")
Tell = Callable[[str], None]  # gets one line for a person: a retry, a notice

LONGEST_WAIT = 30.0  # seconds, unless the hub asks for more
PERMANENT = {"InvalidURL", "LocalProtocolError", "TooManyRedirects", "UnsupportedProtocol"}  # the HTTP client's own


class HubError(ValueError):
    """One line: what was wanted, what went wrong, what to do."""


class Unreachable(HubError):  # noqa: N818
    """The network failed for as long as patience lasts, or HF_HUB_OFFLINE is set; `reason` is a few words."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Changed(HubError):  # noqa: N818
    """The file on the hub is not the one that was listed."""


class Closed(Exception):  # noqa: N818
    """The Hub was closed, perhaps by another thread."""


class _Fault(Exception):  # noqa: N818
    """A failure that may pass; `wait`: the seconds that the hub asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class HubFile:
    """A file of one commit."""

    path: str
    size: int
    """Bytes."""
    oid: str
    """Identity of the contents: the LFS sha256 where there is one, else the git blob id."""


class Hub:
    """One dataset repository. All methods may be called from several threads at once."""

    def __init__(
        self,
        repo: str,
        *,
        patience: float = 300.0,
        timeout: float = 10.0,
        tell: Tell = lambda line: None,
        first_wait: float = 0.5,
    ) -> None:
        """Connects to nothing yet.

        patience: seconds for which a request that keeps failing is tried again; bytes that arrive start them anew.
        timeout: seconds without a byte after which a request has failed.
        tell: gets a line about retries, from any thread, one at a time and about one a second at most.
        first_wait: seconds before the first retry; each further wait is twice as long, up to 30.
        """
        self.repo, self.patience, self.timeout, self.first_wait = repo, patience, timeout, first_wait
        self.bytes_fetched = 0
        """File contents received, by all threads."""
        self._notices, self._lock, self._closed = _Notices(tell), threading.Lock(), threading.Event()
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
            api = HfApi(endpoint=_endpoint())
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
        response = library.get_session().get(_endpoint() + place, headers=headers, timeout=self.timeout)
        if response.headers.get("X-Error-Code") == "EntryNotFound":
            return [], ""
        library.hf_raise_for_status(response)
        following = urlsplit(response.links.get("next", {}).get("url", ""))  # its host is not asked: it gets no token
        path = following.path.removeprefix(urlsplit(_endpoint()).path)
        return response.json(), f"{path}?{following.query}" if path else ""

    def _fetch(self, commit: str, file: HubFile, start: int, stop: int, arrived: bytearray) -> None:
        """Adds to `arrived` what is still missing of the range."""
        had = len(arrived)
        if start + had == stop:
            return
        library = _library()
        wanted = f"bytes {start + had}-{stop - 1}"
        headers = library.build_hf_headers(headers={"Range": wanted.replace(" ", "="), "Accept-Encoding": "identity"})
        url = f"{_endpoint()}/datasets/{self.repo}/resolve/{commit}/{quote(file.path)}"
        options = {"headers": headers, "timeout": self.timeout, "follow_redirects": True}
        with library.get_session().stream("GET", url, **options) as response:
            _check_identity(response, file)
            library.hf_raise_for_status(response)
            if response.status_code != 206:
                raise HubError(
                    f"{_host()} sends no part of {file.path} alone (status {response.status_code} for a range of "
                    "bytes): check HF_ENDPOINT and proxies"
                )
            given = response.headers.get("Content-Range", "")
            if given.rpartition("/")[0] != wanted:
                raise _Fault(f"the hub sent {given or 'an unnamed part'} instead of {wanted}")
            for chunk in response.iter_raw():
                self._check_open()
                with self._lock:
                    self.bytes_fetched += len(chunk)
                arrived += chunk
                if start + len(arrived) > stop:
                    del arrived[had:]
                    raise _Fault(f"the hub sent more than {wanted}")
        if start + len(arrived) < stop:
            raise _Fault(f"the hub sent {len(arrived) - had} of {stop - start - had} bytes")

    def _patiently(self, what: str, attempt: Callable[[], T], arrived: Sized = ()) -> T:
        """What `attempt` returns, as soon as it succeeds; while `arrived` grows there is progress."""
        troubled, well = False, False
        failures, since = 0, 0.0
        try:
            while True:
                self._check_open()
                had = len(arrived)
                try:
                    with _explained(what, self.repo):
                        result = attempt()
                    well = True
                    return result
                except _Fault as fault:
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

    def _wait(self, what: str, fault: _Fault, failures: int, since: float) -> None:
        """Waits before the next attempt, or until closed. Raises Unreachable where patience has ended."""
        left = since + self.patience - time.monotonic()
        if left <= 0:
            reason = f"{fault}, for {self.patience:g} s"
            message = f"cannot read {what} from {_host()} ({reason}): check the network and try again"
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

    def __init__(self, tell: Tell) -> None:
        self.tell, self.lock = tell, threading.Lock()
        self.failing, self.told, self.told_at = 0, False, -float("inf")

    def begin(self) -> None:
        """A request is in trouble."""
        with self.lock:
            self.failing += 1

    def retry(self, line: str) -> None:
        with self.lock:
            if time.monotonic() >= self.told_at + 1:
                self.told, self.told_at = True, time.monotonic()
                self.tell(line)

    def end(self, well: bool) -> None:
        """The request is no longer in trouble, or has been given up."""
        with self.lock:
            self.failing -= 1
            if self.failing == 0 and self.told:
                self.told = False
                if well:
                    self.tell("the hub answers again")


@contextmanager
def _explained(what: str, repo: str) -> Iterator[None]:
    """Turns what the hub library and its HTTP client raise into a _Fault, which may pass, or a HubError."""
    from huggingface_hub import errors

    try:
        yield
    except (HubError, _Fault, Closed):
        raise
    except errors.OfflineModeIsEnabled as error:
        reason = "HF_HUB_OFFLINE is set"
        raise Unreachable(
            f"cannot read {what} from {_host()}: {reason}; unset it to use the network", reason
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refusal(error, what, repo) from error
    except Exception as error:
        line = next(iter(str(error).strip().splitlines()), "")[:100] or type(error).__name__
        if isinstance(error, errors.HFValidationError) or type(error).__name__ in PERMANENT:
            message = f"cannot read {what} from {_host()}: {line}; check the name, HF_ENDPOINT and HF_TOKEN"
            raise HubError(message) from error
        client_closed = isinstance(error, RuntimeError) and "closed" in line  # by the library, in some other thread
        if client_closed or isinstance(error, errors.HfHubHTTPError.__bases__):
            raise _Fault(f"the connection failed ({line})") from error
        if isinstance(error, json.JSONDecodeError):
            raise _Fault("something other than the hub answered") from error
        raise


def _refusal(error: Any, what: str, repo: str) -> Exception:
    """What an answer of 400 and above means."""
    from huggingface_hub import errors

    status, host = error.response.status_code, _host()
    if status in (408, 429) or status >= 500:
        return _Fault(f"the hub answered {status}", _wait_asked(error.response.headers))
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"dataset {repo} is gated: accept its terms on {host}, then set HF_TOKEN to a token of yours")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(f"there is no dataset {repo} on {host}, or it is private: check the name, or set HF_TOKEN")
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{host} has no such revision: {what}; check the branch, tag or commit")
    if status in (401, 403):
        return HubError(f"{host} refuses {what} ({status}): set HF_TOKEN to a token that may read it")
    if status == 404:
        return HubError(f"{host} does not have {what}: dataset {repo} may have been renamed or rewritten")
    return HubError(f"{host} refuses {what} ({status}): check HF_ENDPOINT and proxies")


def _wait_asked(headers: Mapping[str, str]) -> float:
    """The seconds to wait by Retry-After, a number or a date, or else by the hub's ratelimit header; 0: not said."""
    after = headers.get("Retry-After", "").strip()
    if after.isdigit():
        return float(after)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    limit = re.search(r"\br=0;\s*t=(\d+)", headers.get("ratelimit", ""))
    return float(limit[1]) if limit else 0.0


def _check_identity(response: Any, file: HubFile) -> None:
    """Raises Changed where the answer, or a redirect on the way to it, is about other contents than the file's."""
    answers = [*response.history, response]
    oids = [_oid(answer.headers["X-Linked-Etag"]) for answer in answers if "X-Linked-Etag" in answer.headers]
    if not oids and response.is_success and urlsplit(str(response.url)).netloc == _host():
        oids = [oid for oid in [_oid(response.headers.get("ETag", ""))] if len(oid) == len(file.oid)]
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    other_size = response.status_code == 416 or (total.isdigit() and int(total) != file.size)
    if other_size or any(oid != file.oid for oid in oids):
        raise Changed(
            f"{file.path} changed on the hub since it was listed: start a new run, or choose a commit that still has it"
        )


def _oid(tag: str) -> str:
    return tag.strip().removeprefix("W/").strip('"')


def _library() -> Any:
    from huggingface_hub import utils

    return utils


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _host() -> str:
    return urlsplit(_endpoint()).netloc or _endpoint()
