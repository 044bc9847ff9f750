"""Files on the hub, read by range from a stand-in for the hub, through every fault that it can show."""

import contextlib
import io
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from socketserver import StreamRequestHandler, TCPServer
from typing import Any

import huggingface_hub
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from stand_in_hub import FINEWEB, Request, StandInHub, fineweb_files, taken_for_the_hub
from transformer.data.hub import client
from transformer.data.hub.client import Hub
from transformer.data.hub.errors import Changed, Closed, HubError, HubFile, Unreachable, wait_asked

REPO = "someone/texts"
DATA = random.Random(0).randbytes(200_000)
FIRST, SECOND = "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """A hub with REPO, which the hub library in this process takes for the real one."""
    with StandInHub() as server, taken_for_the_hub(server, monkeypatch):
        server.add(REPO, {FIRST: DATA, SECOND: DATA[::-1], "README.md": b"# Texts\n" * 100})
        yield server


def quick(notify: Any = lambda line: None, **settings: Any) -> Hub:
    return Hub(REPO, notify=notify, **{"patience": 20.0, "timeout": 5.0, "first_wait": 0.01, **settings})


def first_file(server: StandInHub, path: str = FIRST) -> tuple[str, HubFile]:
    """The commit and a file, as the hub lists them."""
    commit = server.commit(REPO)
    entry = commit.entry(path, expand=False)
    return commit.sha, HubFile(path, entry["size"], (entry.get("lfs") or entry)["oid"])


def contents_sent(server: StandInHub) -> list[Request]:
    return [seen for seen in server.requests if seen.file]


def test_a_revision_is_a_commit(server: StandInHub) -> None:
    sha = server.commit(REPO).sha
    assert quick().commit() == quick().commit("main") == sha
    server.reset_counts()
    assert quick().commit(sha) == sha
    assert server.requests == []


def test_files_are_listed_with_size_and_identity(server: StandInHub) -> None:
    commit, file = first_file(server)
    server.page_size = 2  # so that the list comes in pages
    files = quick().parquet_files(commit, None, "train")
    assert files == [file, first_file(server, SECOND)[1]]
    assert len(file.oid) == 64


def test_only_the_folder_that_the_card_names_is_listed(server: StandInHub) -> None:
    card = {"configs": [{"config_name": "sample-10BT", "data_files": [{"split": "train", "path": "sample/10BT/*"}]}]}
    commit = server.add(FINEWEB, {**fineweb_files(["a", "b", "c"], 2), "data/CC/0.parquet": b"x"}, card=card)
    files = Hub(FINEWEB).parquet_files(commit, "sample-10BT", "train")
    assert [file.path for file in files] == ["sample/10BT/000_00000.parquet", "sample/10BT/001_00000.parquet"]
    listed = [seen.path for seen in server.requests if "/tree/" in seen.path]
    assert len(listed) == 1
    assert "/tree/" + commit + "/sample/10BT?" in listed[0]


def test_a_folder_that_is_not_there_has_no_files(server: StandInHub) -> None:
    commit = server.add(REPO, {FIRST: DATA}, card={"configs": [{"data_files": "text/*"}]})
    with pytest.raises(HubError, match=f"dataset {REPO} has no parquet file"):
        quick().parquet_files(commit, None, "train")


def test_a_subset_that_is_not_there_is_said_with_the_dataset(server: StandInHub) -> None:
    with pytest.raises(HubError, match=f"dataset {REPO} has no subset 'fr'; its subsets: data$"):
        quick().parquet_files(server.commit(REPO).sha, "fr", "train")


def test_a_read_asks_for_exactly_its_bytes(server: StandInHub) -> None:
    hub = quick()
    commit, file = first_file(server)
    assert hub.read(commit, file, 1000, 500) == DATA[1000:1500]
    assert hub.read(commit, file, file.size - 1, 1) == DATA[-1:]
    assert [seen.range for seen in contents_sent(server)] == [(1000, 1499), (199_999, 199_999)]
    assert hub.bytes_fetched == server.bytes_sent() == 501


def test_a_file_that_git_keeps_can_be_read_too(server: StandInHub) -> None:
    commit, file = first_file(server, "README.md")
    assert quick().read(commit, file, 2, 5) == b"Texts"


def test_reading_nothing_asks_for_nothing(server: StandInHub) -> None:
    commit, file = first_file(server)
    assert quick().read(commit, file, file.size, 0) == b""
    assert server.requests == []


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, -1), (199_999, 2), (200_001, 0)])
def test_a_range_outside_the_file_is_refused(server: StandInHub, start: int, length: int) -> None:
    commit, file = first_file(server)
    with pytest.raises(ValueError, match="has 200000 bytes"):
        quick().read(commit, file, start, length)


def test_threads_read_at_once(server: StandInHub) -> None:
    hub = quick()
    commit, file = first_file(server)
    server.fail("status", "/cdn/", times=5, probability=0.5)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: hub.read(commit, file, start, 4000), range(0, file.size, 4000)))
    assert b"".join(parts) == DATA
    assert hub.bytes_fetched == file.size


@pytest.mark.parametrize("path", ["/resolve/", "/cdn/"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("status", {"status": 408}),
        ("status", {"status": 429}),
        ("status", {"status": 500}),
        ("status", {"status": 503}),
        ("status", {"status": 504}),
        ("reset", {}),
        ("hang", {"seconds": 1.0}),
        ("reset_body", {}),
        ("truncate", {}),
        ("short", {}),
    ],
)
def test_a_fault_that_passes_is_outlived(server: StandInHub, kind: str, settings: dict[str, Any], path: str) -> None:
    server.redirects = path == "/cdn/"
    lines: list[str] = []
    commit, file = first_file(server)
    server.fail(kind, path, times=2, **settings)
    hub = quick(lines.append, timeout=0.3 if kind == "hang" else 5.0)
    assert hub.read(commit, file, 10, 100_000) == DATA[10:100_010]
    assert len(lines) == 2
    assert f"for {FIRST}: trying again in 0.0" in lines[0]
    assert lines[1] == "the hub answers again"


@pytest.mark.parametrize("path", ["/revision/", "/tree/"])
@pytest.mark.parametrize("kind", ["status", "reset", "truncate", "hang"])
def test_listing_outlives_faults_too(server: StandInHub, kind: str, path: str) -> None:
    commit, file = first_file(server)
    server.fail(kind, path, times=2)
    hub = quick(timeout=0.3 if kind == "hang" else 5.0)
    assert hub.commit() == commit
    assert hub.parquet_files(commit, "data", "train")[0] == file


def test_reading_continues_after_the_received_bytes(server: StandInHub) -> None:
    commit, file = first_file(server)
    server.fail("truncate", "/cdn/", after_bytes=60_000)
    assert quick().read(commit, file, 0, 100_000) == DATA[:100_000]
    assert [seen.range for seen in contents_sent(server)] == [(0, 99_999), (60_000, 99_999)]


def test_bytes_that_arrive_renew_patience(server: StandInHub) -> None:
    commit, file = first_file(server)
    server.fail("truncate", "/cdn/", after_bytes=1000, times=12)
    begun = time.monotonic()
    assert quick(patience=0.1, first_wait=0.03).read(commit, file, 0, 20_000) == DATA[:20_000]
    assert time.monotonic() - begun > 0.2


def test_patience_ends_with_one_line_that_says_what_failed(server: StandInHub) -> None:
    commit, file = first_file(server)
    server.fail("status", status=502, times=1000)
    begun = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        quick(patience=0.3).read(commit, file, 0, 10)
    assert 0.3 <= time.monotonic() - begun < 2
    host = server.url.removeprefix("http://")
    assert str(caught.value) == (
        f"cannot read {FIRST} from {host} (the hub answered 502, for 0.3 s): check the network and try again"
    )
    assert caught.value.reason == "the hub answered 502, for 0.3 s"


def test_waits_grow(server: StandInHub) -> None:
    commit, file = first_file(server)
    server.fail("status", times=1000)
    with pytest.raises(Unreachable):
        quick(patience=0.5, first_wait=0.02).read(commit, file, 0, 10)
    assert 3 <= len(server.requests) <= 8  # after 0.02, 0.04, 0.08, 0.16 s and the rest


def test_a_network_that_is_gone_is_unreachable_and_one_that_returns_is_not(server: StandInHub) -> None:
    commit, file = first_file(server)
    server.stop_serving()
    with pytest.raises(Unreachable, match=r"the connection failed \(.*refused"):
        quick(patience=0.1).commit()
    with ThreadPoolExecutor(1) as pool:
        data = pool.submit(quick().read, commit, file, 0, 10)
        time.sleep(0.2)
        server.start_serving()
        assert data.result() == DATA[:10]


def test_offline_mode_is_unreachable_at_once(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit, file = first_file(server)
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE is set; unset it") as caught:
        quick().read(commit, file, 0, 10)
    assert caught.value.reason == "HF_HUB_OFFLINE is set"
    with pytest.raises(Unreachable):
        quick().commit()
    assert server.requests == []


def test_the_hub_says_how_long_to_wait(server: StandInHub) -> None:
    lines: list[str] = []
    commit, file = first_file(server)
    server.fail("status", status=429, retry_after=1)
    begun = time.monotonic()
    assert quick(lines.append).read(commit, file, 0, 10) == DATA[:10]
    assert time.monotonic() - begun >= 1
    assert lines[0] == f"the hub answered 429 for {FIRST}: trying again in 1 s"


def test_the_wait_asked_for_is_a_number_a_date_or_a_rate_limit() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert wait_asked({"Retry-After": "7"}) == 7
    assert 95 < wait_asked({"Retry-After": soon}) <= 100
    assert wait_asked({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert wait_asked({"Retry-After": "later"}) == 0
    assert wait_asked({"ratelimit": '"api";r=0;t=55'}) == 55
    assert wait_asked({"ratelimit": '"api";r=10;t=55'}) == 0
    assert wait_asked({}) == 0


def test_many_failing_threads_emit_one_message_per_second(server: StandInHub) -> None:
    lines: list[str] = []
    commit, file = first_file(server)
    hub = quick(lines.append)
    server.fail("status", "/cdn/", times=24)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda start: hub.read(commit, file, start, 10), range(8)))
    assert len(lines) == 2
    assert lines[1] == "the hub answers again"


def test_a_whole_file_in_answer_to_a_range_is_refused_unread(server: StandInHub) -> None:
    commit, file = first_file(server)
    server.fail("whole")
    hub = quick()
    with pytest.raises(HubError, match=rf"sends no part of {FIRST} alone \(status 200"):
        hub.read(commit, file, 0, 10)
    assert hub.bytes_fetched == 0


@pytest.mark.parametrize("redirects", [True, False])
@pytest.mark.parametrize("path", [FIRST, "README.md"])
@pytest.mark.parametrize("size", [1, 800, 200_000, 200_001])
def test_a_file_that_changed_is_noticed(server: StandInHub, path: str, size: int, redirects: bool) -> None:
    server.redirects = redirects
    commit, file = first_file(server, path)
    server.replace(REPO, path, bytes(size))
    hub = quick()
    with pytest.raises(Changed, match=f"{path} changed on the hub since it was listed: start a new run"):
        hub.read(commit, file, 700, 100)
    assert hub.bytes_fetched == 0


def test_a_range_that_the_hub_does_not_have_means_that_the_file_changed(server: StandInHub) -> None:
    commit, file = first_file(server)
    with pytest.raises(Changed):
        quick().read(commit, HubFile(FIRST, file.size + 10, file.oid), file.size, 5)


def test_the_token_goes_to_the_hub_and_to_no_other_host(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.page_size = 1
    commit, file = first_file(server)
    hub = quick()
    assert hub.parquet_files(hub.commit(), None, "train")[0] == file
    assert hub.read(commit, file, 0, 10) == DATA[:10]
    tokens = {seen.path.startswith("/cdn/"): seen.headers.get("authorization") for seen in server.requests}
    assert tokens == {False: "Bearer hf_secret", True: None}


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, f"no dataset {REPO} on .*, or it is private: .*HF_TOKEN"),
        ("hf_wrong", r"refuses .* \(401\): set HF_TOKEN"),
    ],
)
def test_a_private_dataset_needs_a_token(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, token: str | None, message: str
) -> None:
    server.token = "hf_secret"
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    commit, file = first_file(server)
    for ask in (quick().commit, lambda: quick().read(commit, file, 0, 10)):
        with pytest.raises(HubError, match=message):
            ask()
    assert len(server.requests) == 2  # never tried again


@pytest.mark.parametrize("token", [None, "hf_mine"])
def test_a_gated_dataset_is_said_to_be_gated(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    server.gated.add(REPO)
    commit, file = first_file(server)
    with pytest.raises(HubError, match=f"dataset {REPO} is gated: accept its terms"):
        quick().read(commit, file, 0, 10)


def test_what_is_not_on_the_hub_is_said_in_a_line(server: StandInHub) -> None:
    commit, file = first_file(server)
    with pytest.raises(HubError, match="there is no dataset someone/else on "):
        Hub("someone/else").commit()
    with pytest.raises(HubError, match=f"has no such revision: dataset {REPO} at v9"):
        quick().commit("v9")
    with pytest.raises(HubError, match=r"does not have gone.parquet"):
        quick().read(commit, HubFile("gone.parquet", 10, file.oid), 0, 10)
    with pytest.raises(HubError, match="cannot read dataset a/b/c"):
        Hub("a/b/c").commit()
    server.fail("status", status=451)
    with pytest.raises(HubError, match=r"refuses .* \(451\)"):
        quick().commit()


WRONG_ENDPOINTS = ["ftp://example.org", "http://127.0.0.1:port", "example.org", "http://", "http://me:SE/CRET@a:80"]


@pytest.mark.parametrize("endpoint", WRONG_ENDPOINTS)
def test_a_wrong_endpoint_is_not_tried_again_and_not_printed(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    commit, file = first_file(server)
    for ask in (quick().commit, lambda: quick().read(commit, file, 0, 10)):
        with pytest.raises(
            HubError, match=r"^HF_ENDPOINT is not an address such as https://huggingface\.co: "
        ) as caught:
            ask()
        assert not isinstance(caught.value, Unreachable)


def test_every_page_is_asked_for_at_the_endpoint(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever host the hub names for the next page: it would get the token."""
    server.page_size = 1
    monkeypatch.setattr(StandInHub, "url", "http://127.0.0.1:9")
    assert len(quick(patience=0.1).parquet_files(server.commit(REPO).sha, None, "train")) == 2


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The url of a server that answers every request with these bytes."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    with TCPServer(("127.0.0.1", 0), Handler) as listening:
        serving = threading.Thread(target=listening.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        serving.join()


def test_a_page_of_a_hotel_is_not_taken_for_the_hub(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, file = first_file(server)
    with answering(b"HTTP/1.0 200 OK\r\n\r\n<html>Room number?</html>") as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        with pytest.raises(Unreachable, match="something other than the hub answered"):
            quick(patience=0.1).commit()
        with pytest.raises(HubError, match="sends no part"):
            quick(patience=0.1).read(commit, file, 0, 10)


ODD_JSON = [b"[]", b"null", b"7", b'"x"', b"{}", b'{"id": 5}', b'{"id": "a/b", "sha": 7}', b"[" * 100_000]
ODD_JSON += [b'{"id": "a/b", "sha": null}', b'{"id": "a/b", "sha": "main", "cardData": [1]}', b'{"a": 1}', b"[1]"]
ODD_JSON += [b'[{"type": "file"}]', b'[{"type": "file", "path": 3, "size": "x", "oid": null}]', b'[{"path": "a"}]']
ODD_JSON += [b'[{"type": "file", "path": "a.parquet", "size": -1, "oid": "b", "lfs": [1]}]']


@pytest.mark.parametrize("answer", ODD_JSON, ids=lambda answer: str(answer[:60]))
def test_json_of_another_shape_is_one_line(server: StandInHub, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    with answering(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + answer) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        hub = quick(patience=0.1)
        with pytest.raises(Unreachable, match="something other than the hub answered"):
            hub.commit()
        with contextlib.suppress(HubError):
            assert list(hub._tree("a" * 40, "")) == []


@pytest.mark.parametrize("following", ["/tree?cursor=0", "/tree?cursor={}"], ids=["names itself", "never ends"])
def test_a_listing_without_an_end_is_one_line(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, following: str
) -> None:
    """The next page was requested for ever."""
    monkeypatch.setattr(client, "MAX_PAGES", 20)
    numbers = itertools.count()
    page = lambda hub, path: ([], following.format(next(numbers)))  # noqa: E731
    monkeypatch.setattr(Hub, "_page", page)
    with pytest.raises(HubError, match=f"lists the files of {REPO} without end: check HF_ENDPOINT"):
        quick().parquet_files(server.commit(REPO).sha, None, "train")
    assert next(numbers) <= 21


@pytest.mark.parametrize("password", ["SECRET", "SE/CRET", "SEC@RET", "SEC RET"])
def test_a_password_in_the_endpoint_is_never_printed(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    commit, file = first_file(server)
    lines: list[str] = []
    hub = quick(lines.append, patience=0.05)

    def fails(ask: Callable[[], object]) -> None:
        with pytest.raises(HubError) as caught:
            ask()
        lines.append(str(caught.value))

    monkeypatch.setattr(constants, "ENDPOINT", server.url.replace("://", f"://user:{password}@"))
    for status in (401, 403, 404, 451, 503):
        server.fail("status", status=status, times=1000)
        fails(hub.commit)
        fails(lambda: list(hub._tree(commit, "")))
        fails(lambda: hub.read(commit, file, 0, 10))
        server.faults.clear()
    server.fail("whole", times=1000)
    fails(lambda: hub.read(commit, file, 0, 10))
    server.stop_serving()
    fails(hub.commit)
    fails(lambda: hub.read(commit, file, 0, 10))
    assert not [line for line in lines if "SE" in line or "RET" in line]
    if password == "SECRET":
        assert any("127.0.0.1" in line for line in lines)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"Content-Range: bytes 5-14/200000", "sent bytes 5-14/200000 instead of bytes 0-9"),
        (b"Content-Range: bytes 0-9/200000", "sent more than bytes 0-9"),
        (b"Content-Type: text/plain", "sent an unnamed part instead of bytes 0-9"),
    ],
)
def test_other_bytes_than_those_asked_for_are_refused(
    server: StandInHub, monkeypatch: pytest.MonkeyPatch, header: bytes, message: str
) -> None:
    commit, file = first_file(server)
    with answering(b"HTTP/1.0 206 Partial Content\r\n" + header + b"\r\n\r\n" + bytes(20)) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        with pytest.raises(Unreachable, match=message):
            quick(patience=0.1).read(commit, file, 0, 10)


def test_close_ends_a_wait_at_once(server: StandInHub) -> None:
    commit, file = first_file(server)
    server.fail("status", times=1000)
    waiting = threading.Event()
    hub = quick(lambda line: waiting.set(), first_wait=30.0, patience=300.0)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(hub.read, commit, file, 0, 10)
        assert waiting.wait(5)
        begun = time.monotonic()
        hub.close()
        with pytest.raises(Closed):
            read.result()
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("fault", [{"kind": "slow", "bytes_per_second": 20_000}, {"kind": "hang"}])
def test_close_ends_a_transfer_soon(server: StandInHub, fault: dict[str, Any]) -> None:
    commit, file = first_file(server)
    server.fail(path="/cdn/", **fault)
    hub = quick(timeout=0.5)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(hub.read, commit, file, 0, file.size)
        time.sleep(0.2)
        begun = time.monotonic()
        hub.close()
        with pytest.raises(Closed):
            read.result()
    assert time.monotonic() - begun < 2
    with pytest.raises(Closed):
        hub.read(commit, file, 0, 10)


def test_the_library_may_drop_its_client_meanwhile(server: StandInHub) -> None:
    """It closes the client of all threads when one of its own requests fails, perhaps just before ours begins."""
    lines: list[str] = []

    def notify(line: str) -> None:
        lines.append(line)
        huggingface_hub.close_session()

    commit, file = first_file(server)
    huggingface_hub.get_session().close()
    assert quick(notify).read(commit, file, 0, 10) == DATA[:10]
    assert lines[0].startswith("the connection failed (Cannot send a request, as the client has been closed.)")


def test_a_remote_file_seeks_and_reads_like_a_file(server: StandInHub) -> None:
    commit, file = first_file(server)
    with quick().open(commit, file) as remote:
        assert remote.readable()
        assert remote.seekable()
        assert not remote.writable()
        assert remote.seek(-10, io.SEEK_END) == 199_990
        assert remote.seek(-90, io.SEEK_CUR) == remote.tell() == 199_900
        assert remote.read(10) == DATA[-100:-90]
        assert remote.read() == DATA[-90:]
        assert remote.read(5) == b""
        remote.seek(-1)
        with pytest.raises(ValueError, match="has 200000 bytes: wanted bytes -1"):
            remote.read(1)


def test_one_column_of_one_row_group_sends_its_bytes_alone(server: StandInHub) -> None:
    documents = [f"{number} " * 500 for number in range(300)]
    commit = server.add(FINEWEB, fineweb_files(documents, files=1, row_group_size=100), card={"license": "odc-by"})
    hub = Hub(FINEWEB)
    [file] = hub.parquet_files(commit, "sample-10BT", "train")
    with hub.open(commit, file) as remote:
        footer = pq.read_metadata(remote)
    before = hub.bytes_fetched
    server.reset_counts()
    with hub.open(commit, file) as remote:
        table = pq.ParquetFile(remote, metadata=footer).read_row_group(1, columns=["text"], use_threads=False)
    assert table["text"].to_pylist() == documents[100:200]
    chunk = footer.row_group(1).column(0)
    assert chunk.path_in_schema == "text"
    assert hub.bytes_fetched - before == server.bytes_sent() == chunk.total_compressed_size
    assert len(contents_sent(server)) == 1


def test_errors_come_through_pyarrow_as_they_are(server: StandInHub) -> None:
    commit = server.add(REPO, fineweb_files(["text"] * 10, files=1))
    path = "sample/10BT/000_00000.parquet"
    commit, file = first_file(server, path)
    server.replace(REPO, path, bytes(file.size))
    hub = quick()
    with hub.open(commit, file) as remote, pytest.raises(Changed):
        pq.read_metadata(remote)
    hub.close()
    with hub.open(commit, file) as remote, pytest.raises(Closed):
        pq.read_metadata(remote)
