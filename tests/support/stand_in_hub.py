"""A stand-in for the Hugging Face hub on this machine's own loopback address, for tests and benchmarks.

It answers what huggingface_hub asks about data sets (information, tree, paths-info, resolve) and models (information,
resolve) as the hub does, counts what it sent, and fails in the ways a network fails on request:

    with fineweb_hub(load_shakespeare()) as hub:             # HF_ENDPOINT=hub.url
        hub.fail("status", "/cdn/", status=503, times=2)     # the next two requests for contents
        ...
        assert hub.bytes_sent(".parquet") < 100_000

As on the hub, contents of parquet, safetensors and gguf files come from another origin (`cdn_url`, a second port) by a
redirect, and what the CDN calls ETag is not the X-Linked-Etag of the hub. `python tests/stand_in_hub.py` serves in a
process of its own.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import json
import math
import re
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import pytest

FINEWEB = "HuggingFaceFW/fineweb-edu"
DATE = "2025-01-31T15:56:54.000Z"
FIXED = {"lastModified": DATE, "private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0}
BEFORE = {"status", "reset", "hang"}  # instead of an answer
DURING = {"reset_body", "truncate", "short", "slow", "corrupt"}  # while the body of a GET is sent


@dataclass
class Request:
    """A request and its answer. `file` is the path in the repo where contents were sent; bytes_sent counts the body."""

    method: str
    path: str  # with the query, unquoted
    range: tuple[int | None, int | None] | None  # as asked: bytes=10-19 is (10, 19), bytes=10- is (10, None)
    headers: dict[str, str]  # names in small letters
    status: int = 0  # 0: no answer
    bytes_sent: int = 0
    file: str = ""


@dataclass(eq=False)
class Fault:
    """What goes wrong with requests whose path contains `path`, `times` times, each time with this probability.

    status      answers `status`, with Retry-After where `retry_after` seconds are given
    reset       the connection is reset before the answer
    hang        no answer for `seconds`; without end it stays so until the hub closes
    reset_body  the connection is reset after `after_bytes` of the body (without: half of it)
    truncate    the connection is closed in order there, short of Content-Length
    short       the body ends there and Content-Length agrees, though more was asked for
    slow        the body comes at `bytes_per_second`
    whole       a request for a range gets 200 and the whole file
    corrupt     the body has the right length and wrong bytes
    """

    kind: str
    path: str = ""
    method: str | None = None  # None: any
    times: float = 1
    probability: float = 1.0
    random: Random = field(default_factory=lambda: Random(0))
    status: int = 503
    retry_after: int | None = None
    seconds: float = math.inf
    after_bytes: int | None = None
    bytes_per_second: float = math.inf

    def __post_init__(self) -> None:
        if self.kind not in BEFORE | DURING | {"whole"}:
            raise ValueError(f"no fault is called {self.kind!r}: {', '.join(sorted(BEFORE | DURING))}, whole")


@dataclass
class Contents:
    """The bytes of a file, in memory or on disk, and their names."""

    data: bytes | Path

    @cached_property
    def size(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    @cached_property
    def sha256(self) -> str:
        return self._digest(hashlib.sha256())

    @cached_property
    def git_oid(self) -> str:
        return self._digest(hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False))

    def read(self, start: int, stop: int) -> bytes:
        if isinstance(self.data, bytes):
            return self.data[start:stop]
        with self.data.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def _digest(self, digest: Any) -> str:
        for start in range(0, self.size, 1 << 24):
            digest.update(self.read(start, start + (1 << 24)))
        return str(digest.hexdigest())


@dataclass
class Commit:
    """A state of a repo, as the hub's API describes it."""

    repo: str
    sha: str
    files: dict[str, Contents]
    card: dict[str, Any] | None

    def info(self, blobs: bool, expand: Sequence[str]) -> dict[str, Any]:
        info: dict[str, Any] = {"id": self.repo, "author": self.repo.split("/")[0], "sha": self.sha, **FIXED}
        info["siblings"] = [{"rfilename": path, **(self._blob(path) if blobs else {})} for path in sorted(self.files)]
        if self.card is not None:
            info["cardData"] = self.card
        return {name: value for name, value in info.items() if not expand or name in {"id", *expand}}

    def _blob(self, path: str) -> dict[str, Any]:
        entry = self.entry(path, expand=False)
        lfs = {"lfs": {**entry["lfs"], "sha256": entry["lfs"]["oid"]}} if "lfs" in entry else {}
        return {"size": entry["size"], "blobId": entry["oid"], **lfs}

    def entry(self, path: str, expand: bool) -> dict[str, Any]:
        """A file or a directory, as tree and paths-info list it."""
        commit = {"lastCommit": {"id": self.sha, "title": "Upload", "date": DATE}} if expand else {}
        if path not in self.files:
            oid = hashlib.sha1(f"{self.sha} {path}".encode(), usedforsecurity=False).hexdigest()
            return {"type": "directory", "oid": oid, "size": 0, "path": path, **commit}
        file = self.files[path]
        entry = {"type": "file", "oid": file.git_oid, "size": file.size, "path": path, **commit}
        if is_lfs(path):
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
        return entry

    def below(self, folder: str, recursive: bool) -> list[str]:
        """Files and directories in `folder`, sorted; "" is the root."""
        folders = {parent.as_posix() for path in self.files for parent in Path(path).parents} - {"."}
        prefix = f"{folder}/" if folder else ""
        if folder and folder not in folders:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist on {self.sha}")
        inside = [path for path in folders | set(self.files) if path.startswith(prefix)]
        return sorted(path for path in inside if recursive or "/" not in path.removeprefix(prefix))


def is_lfs(path: str) -> bool:
    return path.endswith((".parquet", ".safetensors", ".gguf"))


class HubError(Exception):
    """An answer that is an error: status, the hub's X-Error-Code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class StandInHub:
    """Data sets with their history, served while the context lasts. Settings and faults take effect at once."""

    def __init__(self) -> None:
        self.token: str | None = None  # what the hub wants as Authorization: Bearer
        self.gated: set[str] = set()  # repos whose files nobody may read
        self.redirects = True  # False: contents straight from /resolve/
        self.page_size = 1000
        self.latency = 0.0  # seconds before each answer
        self.bytes_per_second = math.inf  # of each connection
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.change: Callable[[Any], Any] | None = None  # what an answer in JSON becomes
        self.lock = threading.RLock()
        self._commits: dict[str, list[Commit]] = {}
        self._blobs: dict[str, Contents] = {}  # by sha256
        self._servers: list[_Server] = []
        self._ports = [0, 0]
        self._kept: list[socket.socket] = []  # the ports while nobody serves, so that no other server takes them

    def __enter__(self) -> StandInHub:
        self.start_serving()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_serving()
        self._let_go()

    @property
    def url(self) -> str:
        """The endpoint, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def cdn_url(self) -> str:
        return f"http://127.0.0.1:{self._ports[1]}"

    def start_serving(self) -> None:
        """Begins to serve, on the ports of the last time if there was one."""
        if not self._servers:
            self._let_go()
            self._servers = [_Server(self, port) for port in self._ports]
            self._ports = [server.server_port for server in self._servers]

    def stop_serving(self) -> None:
        """The network goes away: open connections end, new ones are refused."""
        for server in self._servers:
            server.close()
        if self._servers:
            self._kept = [_kept(port) for port in self._ports]
        self._servers = []

    def _let_go(self) -> None:
        for kept in self._kept:
            kept.close()
        self._kept = []

    def add(self, repo: str, files: Mapping[str, bytes | Path], *, card: dict[str, Any] | None = None) -> str:
        """Publishes a commit that holds these files and no others. Returns its hash, which the contents decide."""
        contents = {path: self._keep(data) for path, data in files.items()}
        state = json.dumps([repo, card, sorted((path, file.sha256) for path, file in contents.items())])
        sha = hashlib.sha1(state.encode(), usedforsecurity=False).hexdigest()
        with self.lock:
            self._commits.setdefault(repo, []).append(Commit(repo, sha, contents, card))
        return sha

    def replace(self, repo: str, path: str, contents: bytes | Path) -> None:
        """Gives the file of the newest commit other contents, under the same commit hash."""
        self.commit(repo).files[path] = self._keep(contents)

    def commit(self, repo: str, revision: str = "main") -> Commit:
        with self.lock:
            commits = self._commits.get(repo)
            if commits is None:
                raise HubError(404, "RepoNotFound", "Repository not found")
            for commit in reversed(commits):
                if revision in {"main", commit.sha}:
                    return commit
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def blob(self, sha256: str) -> Contents:
        with self.lock:
            if sha256 not in self._blobs:
                raise HubError(403, "", "AccessDenied")
            return self._blobs[sha256]

    def fail(self, kind: str, path: str = "", **settings: Any) -> Fault:
        """Adds a Fault; those added first come first. Remove it from `faults` to end it early."""
        fault = Fault(kind, path, **settings)
        with self.lock:
            self.faults.append(fault)
        return fault

    def strike(self, kinds: set[str], request: Request) -> Fault | None:
        """The first fault of these kinds that hits the request; it has then been used once more."""
        with self.lock:
            for fault in self.faults:
                fits = fault.kind in kinds and fault.path in request.path and fault.method in {None, request.method}
                if fits and fault.times > 0 and fault.random.random() < fault.probability:
                    fault.times -= 1
                    return fault
        return None

    def bytes_sent(self, path_suffix: str = "") -> int:
        """Bytes of file contents sent, for files whose path in the repo ends so."""
        with self.lock:
            return sum(seen.bytes_sent for seen in self.requests if seen.file and seen.file.endswith(path_suffix))

    def reset_counts(self) -> None:
        with self.lock:
            self.requests.clear()

    def _keep(self, data: bytes | Path) -> Contents:
        file = Contents(data)
        with self.lock:
            self._blobs[file.sha256] = file
        return file


def _kept(port: int) -> socket.socket:
    """A socket that holds the port and refuses connections, since it never listens."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    return taken


class _Server(ThreadingHTTPServer):
    """One port: hub and CDN have one each, and answer alike."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: StandInHub, port: int) -> None:
        self.hub, self.stopping = hub, threading.Event()
        self.connections: set[Any] = set()
        self.finished = threading.Condition()
        super().__init__(("127.0.0.1", port), _Handler)
        self.loop = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self.loop.start()

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks the name service who 127.0.0.1 is
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def close(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        self.loop.join()
        with self.finished:
            for connection in self.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.finished.wait_for(lambda: not self.connections, timeout=5)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.finished:
            self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.finished:
            self.connections.discard(request)
            self.finished.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a closed connection is not an error here
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    routes = (
        (r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", "info"),
        (r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", "info"),
        (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
        (r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", "tree"),
        (r"/api/datasets/([^/]+/[^/]+)/paths-info/([^/]+)", "paths_info"),
        (r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
        (r"/cdn/([0-9a-f]{64})", "cdn"),
        (r"/counts", "counts"),
    )

    def do_GET(self) -> None:
        self.hub = self.server.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen = Request(self.command, unquote(self.path), self._range(), headers)
        with self.hub.lock:
            self.hub.requests.append(self.seen)
        self.server.stopping.wait(self.hub.latency)
        fault = self.hub.strike(BEFORE, self.seen)
        try:
            if fault is None or self._outlive(fault):
                self._route()
        except HubError as refusal:
            self._refuse(refusal)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass

    def _range(self) -> tuple[int | None, int | None] | None:
        found = re.fullmatch(r"bytes=(?=-?\d)(\d*)-(\d*)", self.headers.get("Range", "").strip())
        return (int(found[1]) if found[1] else None, int(found[2]) if found[2] else None) if found else None

    def _outlive(self, fault: Fault) -> bool:
        """Suffers a fault that comes instead of the answer; True where the answer follows after all."""
        if fault.kind == "hang":
            self.server.stopping.wait(None if math.isinf(fault.seconds) else fault.seconds)
            self.close_connection = self.server.stopping.is_set()
            return not self.close_connection
        if fault.kind == "reset":
            self._reset()
            return False
        after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        self._json({"error": f"fault {fault.status}"}, fault.status, after)
        return False

    def _reset(self) -> None:
        """Closes at once with RST instead of FIN."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # it shares the socket, which would stay open
        self.connection.close()

    def _route(self) -> None:
        split = urlsplit(self.path)
        self.query = parse_qs(split.query)
        for pattern, name in self.routes:
            if found := re.fullmatch(pattern, split.path):
                if name not in {"cdn", "counts"}:
                    self._check_token()
                getattr(self, f"_{name}")(*(part and unquote(part) for part in found.groups()))
                return
        raise HubError(404, "", "Sorry, we can't find the page you are looking for.")

    def _check_token(self) -> None:
        given = self.headers.get("Authorization")
        if self.hub.token is not None and given is None:
            raise HubError(401, "RepoNotFound", "Invalid username or password.")
        if self.hub.token is not None and given != f"Bearer {self.hub.token}":
            raise HubError(401, "", "Invalid credentials in Authorization header")

    def _flag(self, name: str) -> bool:
        return self.query.get(name, [""])[0].lower() in {"1", "true"}

    def _info(self, repo: str, revision: str | None) -> None:
        expand = self.query.get("expand", []) + self.query.get("expand[]", [])
        self._json(self.hub.commit(repo, revision or "main").info(self._flag("blobs"), expand))

    def _tree(self, repo: str, revision: str, folder: str | None) -> None:
        commit, expand = self.hub.commit(repo, revision), self._flag("expand")
        paths = commit.below((folder or "").strip("/"), self._flag("recursive"))
        limit = min(int(self.query.get("limit", ["1000"])[0]), self.hub.page_size, 50 if expand else 1000)
        start = int(self.query.get("cursor", ["0"])[0])
        link = {}
        if start + limit < len(paths):
            query = urlencode({**self.query, "limit": [limit], "cursor": [start + limit]}, doseq=True)
            link = {"Link": f'<{self.hub.url}{urlsplit(self.path).path}?{query}>; rel="next"'}
        self._json([commit.entry(path, expand) for path in paths[start : start + limit]], headers=link)

    def _paths_info(self, repo: str, revision: str) -> None:
        commit, asked = self.hub.commit(repo, revision), parse_qs(self.body.decode())
        known = commit.below("", recursive=True)
        expand = asked.get("expand", [""])[0].lower() == "true"
        self._json([commit.entry(path, expand) for path in asked.get("paths", []) if path in known])

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self.hub.commit(repo, revision)
        if repo in self.hub.gated:
            status = 403 if "Authorization" in self.headers else 401
            raise HubError(status, "GatedRepo", f"Access to dataset {repo} is restricted.")
        if path not in commit.files:
            raise HubError(404, "EntryNotFound", "Entry not found")
        file, lfs = commit.files[path], is_lfs(path)
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.sha256 if lfs else file.git_oid}"'}
        if lfs:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size), "Accept-Ranges": "bytes"}
        if lfs and self.hub.redirects:
            del headers["ETag"]
            where = f"{self.hub.cdn_url}/cdn/{file.sha256}?file={quote(path)}&Expires=1767225600&Signature=stand-in"
            text = Contents(f"Found. Redirecting to {where}".encode())
            self._send(302, {**headers, "Location": where, "Content-Type": "text/plain"}, text, 0, text.size)
        else:
            self._contents(file, path, headers)

    def _cdn(self, sha256: str) -> None:
        file = self.hub.blob(sha256)
        self._contents(file, self.query.get("file", [sha256])[0], {"ETag": f'"{file.git_oid[:32]}"'})

    def _counts(self) -> None:
        """For a hub in another process, whose counts its caller cannot read."""
        with self.hub.lock:
            self._json({"requests": len(self.hub.requests) - 1, "bytes_sent": self.hub.bytes_sent()})

    def _contents(self, file: Contents, path: str, headers: dict[str, str]) -> None:
        """The file or the range asked for; a range that depends on another ETag counts as none."""
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        if self.headers.get("If-Match", headers["ETag"]) != headers["ETag"]:
            raise HubError(412, "", "Precondition Failed")
        self.seen.file = path
        span = self._span(file.size)
        if self.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
            span = None
        if span is None or self.hub.strike({"whole"}, self.seen):
            self._send(200, headers, file, 0, file.size)
        elif span[0] >= span[1]:
            none = Contents(b"")
            self._send(416, {**headers, "Content-Range": f"bytes */{file.size}"}, none, 0, 0)
        else:
            headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{file.size}"
            self._send(206, headers, file, *span)

    def _span(self, size: int) -> tuple[int, int] | None:
        """The range asked for as start and stop; empty where the file has none of it."""
        if self.seen.range is None:
            return None
        first, last = self.seen.range
        if first is None:
            return max(size - (last or 0), 0), size  # bytes=-10: the last ten
        return first, size if last is None else min(last + 1, size)

    def _refuse(self, refusal: HubError) -> None:
        codes = {"X-Error-Code": refusal.code} if refusal.code else {}
        self._json({"error": str(refusal)}, refusal.status, {"X-Error-Message": str(refusal), **codes})

    def _json(self, answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        answer = answer if self.hub.change is None else self.hub.change(answer)
        body = Contents(json.dumps(answer).encode())
        self._send(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body, 0, body.size)

    def _send(self, status: int, headers: dict[str, str], body: Contents, start: int, stop: int) -> None:
        """The answer, with the fault that strikes its body."""
        has_body = self.command != "HEAD" and status < 300
        fault = self.hub.strike(DURING, self.seen) if has_body else None
        kind, rate, end = "", self.hub.bytes_per_second, stop
        if fault is not None:
            kind, rate = fault.kind, min(rate, fault.bytes_per_second)
            cut = (stop - start) // 2 if fault.after_bytes is None else fault.after_bytes
            end = stop if kind in ("slow", "corrupt") else min(stop, start + cut)
        self.seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str((end if kind == "short" else stop) - start))
        self.end_headers()
        if self.command != "HEAD":
            wrong = Contents(bytes(byte ^ 0x55 for byte in body.read(0, end))) if kind == "corrupt" else body
            self._send_bytes(wrong, start, end, rate)
        if kind == "reset_body":
            self._reset()
        self.close_connection = self.close_connection or kind == "truncate"

    def _send_bytes(self, body: Contents, start: int, stop: int, rate: float) -> None:
        step = 1 << 18 if math.isinf(rate) else max(1, min(1 << 16, int(rate / 20)))
        for offset in range(start, stop, step):
            data = body.read(offset, min(offset + step, stop))
            self.seen.bytes_sent += len(data)  # before it is sent: who has received it may ask for the count
            self.wfile.write(data)
            if not math.isinf(rate):
                self.server.stopping.wait(len(data) / rate)


def fineweb_rows(documents: Sequence[str]) -> pa.Table:
    """The documents in FineWeb-Edu's columns; the other columns follow from a hash of the text."""
    names = [hashlib.sha256(text.encode()).hexdigest() for text in documents]
    scores = [2.5 + 2 * int(name[:4], 16) / 2**16 for name in names]
    columns: dict[str, tuple[pa.DataType, Sequence[Any]]] = {
        "text": (pa.string(), documents),
        "id": (pa.string(), [f"<urn:uuid:{name[:32]}>" for name in names]),
        "dump": (pa.string(), ["CC-MAIN-2013-20"] * len(names)),
        "url": (pa.string(), [f"http://example.org/{name[:12]}.html" for name in names]),
        "file_path": (pa.string(), [f"s3://commoncrawl/{name[12:40]}.warc.gz" for name in names]),
        "language": (pa.string(), ["en"] * len(names)),
        "language_score": (pa.float64(), [0.9 + int(name[4:8], 16) / 2**20 for name in names]),
        "token_count": (pa.int64(), [len(text) // 4 for text in documents]),
        "score": (pa.float64(), scores),
        "int_score": (pa.int64(), [round(score) for score in scores]),
    }
    return pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})


def parquet_bytes(table: pa.Table, row_group_size: int, compression: str = "zstd") -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=row_group_size, compression=compression)
    return file.getvalue()


def fineweb_files(documents: Sequence[str], files: int = 3, row_group_size: int = 100) -> dict[str, bytes]:
    """The documents in this many parquet files, in their order, as FineWeb-Edu's sample-10BT names them."""
    found = {"README.md": b"---\nlicense: odc-by\n---\n# FineWeb-Edu, a stand-in\n"}
    for number in range(files):
        part = documents[number * len(documents) // files : (number + 1) * len(documents) // files]
        found[f"sample/10BT/{number:03}_00000.parquet"] = parquet_bytes(fineweb_rows(part), row_group_size)
    return found


def fineweb_hub(
    documents: Sequence[str], files: int = 3, row_group_size: int = 100, hub: StandInHub | None = None
) -> StandInHub:
    """A hub, or the one given, with the documents as HuggingFaceFW/fineweb-edu."""
    hub = hub or StandInHub()
    hub.add(FINEWEB, fineweb_files(documents, files, row_group_size), card={"license": "odc-by", "language": ["en"]})
    return hub


@contextmanager
def taken_for_the_hub(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """This process's hub library takes it for the real one: without a token, fast, faultless, its counts at 0."""
    from huggingface_hub import close_session, constants  # here, since the hub's own process needs no client

    hub.start_serving()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(Path(__file__).with_name("no token")))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hub.faults, hub.latency, hub.bytes_per_second = [], 0.0, math.inf
    hub.reset_counts()
    gc.freeze()  # so that the collection below visits the objects of the test alone: PyTorch's alone take 0.2 s
    yield hub
    close_session()
    gc.collect()  # connections of threads that have finished
    gc.unfreeze()


@contextmanager
def spawn_hub(*arguments: str) -> Iterator[str]:
    """The url of a hub in a process of its own, which ends with the context. The arguments are those of `main`."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the stand-in hub did not start: exit status {process.wait()}")
            yield url
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a stand-in for the Hugging Face hub until stdin closes.")
    parser.add_argument("--files", type=Path, help="serve the files of this folder; without: made of the bundled text")
    parser.add_argument("--file-count", type=int, default=3)
    parser.add_argument("--row-group-size", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=1, help="times the text, each copy a little different")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--bytes-per-second", type=float, default=math.inf, help="of each connection")
    options = parser.parse_args()
    hub = StandInHub()
    if options.files:
        paths = sorted(path for path in options.files.rglob("*") if path.is_file())
        hub.add(FINEWEB, {path.relative_to(options.files).as_posix(): path for path in paths})
    else:
        from transformer.text import load_shakespeare

        copies = [f"Copy {copy}.\n\n" if copy else "" for copy in range(options.repeat)]
        documents = [mark + text for mark in copies for text in load_shakespeare()]
        fineweb_hub(documents, options.file_count, options.row_group_size, hub)
    hub.latency, hub.bytes_per_second = options.latency, options.bytes_per_second
    with hub:
        print(hub.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
