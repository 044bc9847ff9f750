"""A stand-in for the part of the Hugging Face hub that receives a model, on this machine's loopback address.

Small files come inside a commit, large ones (here: safetensors) through Git LFS before it.

    with taken_for_uploads(monkeypatch, tmp_path) as hub:
        ...
        assert hub.files["ann/model"]["config.json"].startswith(b"{")
"""

from __future__ import annotations

import base64
import gc
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants


class UploadHub:
    """The repositories that were made, and their files. It wants the token "secret"."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}  # by sha256
        self.refuses: tuple[str, int] | None = None  # a part of a path, and the status of its answer
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> UploadHub:
        self._loop = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._loop.join()


@contextmanager
def taken_for_uploads(monkeypatch: pytest.MonkeyPatch, empty: Path) -> Iterator[UploadHub]:
    """This process's hub library takes it for the real one, and has its token. `empty` is a folder without one."""
    with UploadHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(empty / "no token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "secret")
        yield hub
        close_session()
        gc.collect()  # connections of threads that have finished


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.hub: UploadHub = self.server.hub  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, parts = self.path, self.path.split("/")
        if self.hub.refuses and self.hub.refuses[0] in path:
            self._answer({"error": "refused"}, self.hub.refuses[1])
        elif self.headers.get("Authorization") != "Bearer secret" and not path.startswith("/large/"):
            self._answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            self.hub.made.append(json.loads(body))
            self._answer({"url": f"{self.hub.url}/{self._owner(json.loads(body))}"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            self._answer({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._answer({"transfer": "basic", "objects": [self._place(file) for file in json.loads(body)["objects"]]})
        elif path.startswith("/large/"):
            self.hub.large[parts[-1]] = body
            self._answer({})
        elif "/commit/" in path:
            self._commit("/".join(parts[3:5]), [json.loads(line) for line in body.splitlines()])
        else:
            self._answer({"error": f"no such page: {path}"}, 404)

    do_PUT = do_GET = do_POST  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass

    def _owner(self, made: dict[str, Any]) -> str:
        return f"{made['organization']}/{made['name']}" if made.get("organization") else str(made["name"])

    def _place(self, file: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.hub.url}/large/{file['oid']}"
        return {"oid": file["oid"], "size": file["size"], "actions": {"upload": {"href": href}}}

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        found = self.hub.files.setdefault(repo, {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                found[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found[value["path"]] = self.hub.large[value["oid"]]
        self._answer({"commitUrl": f"{self.hub.url}/{repo}/commit/{'a' * 40}", "commitOid": "a" * 40})

    def _answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
