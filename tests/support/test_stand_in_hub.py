"""The stand-in for the hub serves huggingface_hub as the hub does, counts what it sends, and fails on request."""

from __future__ import annotations

import http.client
import io
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi, HfFileSystem, close_session, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from stand_in_hub import FINEWEB, StandInHub, fineweb_files, fineweb_hub, spawn_hub

TEXTS = [f"Page {page}. " + "word " * page for page in range(60)]
FILES = fineweb_files(TEXTS, files=3, row_group_size=7)
NAME = "sample/10BT/001_00000.parquet"
DATA = FILES[NAME]
RESOLVE = f"/datasets/{FINEWEB}/resolve/main/{NAME}"
INFO = f"/api/datasets/{FINEWEB}"


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    with StandInHub() as served:
        served.add(FINEWEB, FILES, card={"license": "odc-by"})
        yield served
        close_session()  # huggingface_hub keeps connections for the process


@pytest.fixture
def direct(hub: StandInHub) -> StandInHub:
    """The hub without its redirect, so that a request for contents is one request."""
    hub.redirects = False
    return hub


Answer = tuple[int, dict[str, str], bytes]


def ask(hub: StandInHub, path: str = RESOLVE, method: str = "GET", timeout: float = 5, **headers: str) -> Answer:
    """Status, headers in small letters, and body; if_match= is If-Match."""
    connection = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=timeout)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        with connection.getresponse() as answer:
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def files_of(hub: StandInHub, **settings: Any) -> HfFileSystem:
    return HfFileSystem(endpoint=hub.url, skip_instance_cache=True, **settings)


def link(hub: StandInHub, path: str = NAME, repo: str = FINEWEB, revision: str = "main") -> str:
    return str(hf_hub_url(repo, path, repo_type="dataset", revision=revision, endpoint=hub.url))


# --- what the hub says, in the words of its own client


def test_the_client_reads_a_repo_and_its_files(hub: StandInHub) -> None:
    info: Any = HfApi(endpoint=hub.url).dataset_info(FINEWEB, files_metadata=True)
    assert info.id == FINEWEB
    assert info.sha == hub.commit(FINEWEB).sha
    assert info.card_data.license == "odc-by"
    assert {file.rfilename: file.size for file in info.siblings} == {path: len(data) for path, data in FILES.items()}


@pytest.mark.parametrize("page_size", [1, 2, 1000])
def test_a_tree_is_whole_however_many_pages_it_has(hub: StandInHub, page_size: int) -> None:
    hub.page_size = page_size
    tree = HfApi(endpoint=hub.url).list_repo_tree(FINEWEB, repo_type="dataset", recursive=True, expand=True)
    assert {entry.path for entry in tree} == {*FILES, "sample", "sample/10BT"}
    assert len(hub.requests) == math.ceil(6 / page_size)
    folder = HfApi(endpoint=hub.url).list_repo_tree(FINEWEB, "sample", repo_type="dataset")
    assert [entry.path for entry in folder] == ["sample/10BT"]


def test_paths_info_leaves_out_what_is_not_there(hub: StandInHub) -> None:
    found: Any = HfApi(endpoint=hub.url).get_paths_info(FINEWEB, [NAME, "sample", "missing"], repo_type="dataset")
    assert [entry.path for entry in found] == [NAME, "sample"]
    assert found[0].lfs.sha256 == hub.commit(FINEWEB).files[NAME].sha256


@pytest.mark.parametrize("redirects", [True, False])
def test_metadata_name_the_commit_the_size_and_the_sha256(hub: StandInHub, redirects: bool) -> None:
    hub.redirects = redirects
    metadata = get_hf_file_metadata(link(hub))
    file = hub.commit(FINEWEB).files[NAME]
    assert (metadata.commit_hash, metadata.etag, metadata.size) == (hub.commit(FINEWEB).sha, file.sha256, len(DATA))
    assert metadata.location.startswith(hub.cdn_url if redirects else hub.url)
    assert get_hf_file_metadata(link(hub, "README.md")).etag == hub.commit(FINEWEB).files["README.md"].git_oid


@pytest.mark.parametrize("redirects", [True, False])
def test_the_file_system_globs_and_reads_the_ranges_asked_for(hub: StandInHub, redirects: bool) -> None:
    hub.redirects = redirects
    files = files_of(hub)
    paths = sorted(files.glob(f"datasets/{FINEWEB}/sample/10BT/*.parquet"))
    assert [path.removeprefix(f"datasets/{FINEWEB}/") for path in paths] == sorted(set(FILES) - {"README.md"})
    with files.open(paths[1], "rb", cache_type="none") as file:
        for start, length in [(0, 4), (100, 1000), (len(DATA) - 8, 8)]:
            hub.reset_counts()
            file.seek(start)
            assert file.read(length) == DATA[start : start + length]
            assert hub.bytes_sent() == hub.bytes_sent(NAME) == length
            assert [(seen.range, seen.status) for seen in hub.requests][-1] == ((start, start + length - 1), 206)
            assert len(hub.requests) == 1 + redirects


def test_pyarrow_reads_one_row_group_through_the_client(hub: StandInHub) -> None:
    with files_of(hub).open(f"datasets/{FINEWEB}/{NAME}", "rb", cache_type="none") as file:
        text = pq.ParquetFile(file).read_row_group(1, columns=["text"])["text"].to_pylist()
    assert text == TEXTS[27:34]  # the second file holds 20 to 40, by sevens


def test_older_commits_stay_where_they_are(hub: StandInHub) -> None:
    first = hub.commit(FINEWEB).sha
    second = hub.add(FINEWEB, {"README.md": b"other"})
    assert (len(first), first != second) == (40, True)
    api = HfApi(endpoint=hub.url)
    assert api.dataset_info(FINEWEB).sha == api.dataset_info(FINEWEB, revision=second).sha == second
    assert len(api.dataset_info(FINEWEB, revision=first).siblings or []) == len(FILES)
    assert ask(hub, f"/datasets/{FINEWEB}/resolve/{first}/README.md")[2] == FILES["README.md"]
    assert ask(hub, f"/datasets/{FINEWEB}/resolve/main/README.md")[2] == b"other"
    assert hub.add(FINEWEB, FILES, card={"license": "odc-by"}) == first  # the contents decide


def test_a_token_is_wanted_by_the_hub_and_never_sent_to_the_cdn(hub: StandInHub) -> None:
    hub.token = "hf_right"
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url, token=False).dataset_info(FINEWEB)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(endpoint=hub.url, token="hf_wrong").dataset_info(FINEWEB)
    hub.reset_counts()
    with files_of(hub, token="hf_right").open(f"datasets/{FINEWEB}/{NAME}", "rb", cache_type="none") as file:
        assert file.read(4) == b"PAR1"
    assert {seen.headers.get("authorization") for seen in hub.requests[:-1]} == {"Bearer hf_right"}
    assert hub.requests[-1].path.startswith("/cdn/")
    assert "authorization" not in hub.requests[-1].headers


@pytest.mark.parametrize(
    ("target", "error", "status"),
    [
        ({"repo": "no/such"}, RepositoryNotFoundError, 404),
        ({"revision": "0" * 40}, RevisionNotFoundError, 404),
        ({"path": "missing.parquet"}, RemoteEntryNotFoundError, 404),
        ({"repo": "some/gated"}, GatedRepoError, 401),
    ],
)
def test_the_client_raises_what_the_hub_means(
    hub: StandInHub, target: dict[str, str], error: type[HfHubHTTPError], status: int
) -> None:
    hub.add("some/gated", FILES)
    hub.gated.add("some/gated")
    with pytest.raises(error) as caught:
        get_hf_file_metadata(link(hub, **target), token=False)
    assert caught.value.response.status_code == status


# --- ranges


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=10-19", slice(10, 20)),
        ("bytes=10-", slice(10, None)),
        ("bytes=-10", slice(-10, None)),
        ("bytes=10-99999999", slice(10, None)),
    ],
)
@pytest.mark.parametrize("on_disk", [True, False])
def test_a_range_is_the_bytes_it_names(
    direct: StandInHub, tmp_path: Path, asked: str, span: slice, on_disk: bool
) -> None:
    if on_disk:
        (tmp_path / "file").write_bytes(DATA)
        direct.add(FINEWEB, {NAME: tmp_path / "file"})
    status, headers, body = ask(direct, range=asked)
    start, stop, _ = span.indices(len(DATA))
    assert (status, body) == (206, DATA[span])
    assert headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"


def test_a_range_past_the_end_is_416_and_no_range_is_the_whole_file(direct: StandInHub) -> None:
    status, headers, body = ask(direct, range=f"bytes={len(DATA)}-")
    assert (status, headers["content-range"], body) == (416, f"bytes */{len(DATA)}", b"")
    status, headers, body = ask(direct)
    assert (status, headers["accept-ranges"], body) == (200, "bytes", DATA)
    assert ask(direct, range="bytes=-")[0] == 200


def test_a_replaced_file_keeps_its_url_and_changes_its_etag(direct: StandInHub) -> None:
    _, before, _ = ask(direct, range="bytes=0-9")
    direct.replace(FINEWEB, NAME, b"something else")
    status, after, body = ask(direct, range="bytes=0-8")
    assert (status, body, after["x-repo-commit"]) == (206, b"something", before["x-repo-commit"])
    assert after["etag"] != before["etag"]
    assert ask(direct, range="bytes=0-8", if_range=before["etag"])[0] == 200
    assert ask(direct, range="bytes=0-8", if_match=before["etag"])[0] == 412
    assert ask(direct, range="bytes=0-8", if_match=after["etag"])[0] == 206


# --- faults


def test_a_status_is_sent_as_often_as_requested_and_only_where_requested(hub: StandInHub) -> None:
    hub.fail("status", "/api/", status=429, retry_after=7, times=2)
    assert ask(hub)[0] == 302
    answers = [ask(hub, INFO) for _ in range(3)]
    assert [status for status, _, _ in answers] == [429, 429, 200]
    assert answers[0][1]["retry-after"] == "7"
    hub.fail("status", method="HEAD", status=500, times=math.inf)
    assert [ask(hub, INFO, method)[0] for method in ("GET", "HEAD", "HEAD")] == [200, 500, 500]


def test_a_seed_decides_which_requests_fail(hub: StandInHub) -> None:
    runs = []
    for _ in range(2):
        hub.faults = []
        hub.fail("status", times=math.inf, probability=0.5)
        runs.append([ask(hub, INFO)[0] for _ in range(30)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 503}


def test_a_reset_is_seen_before_the_answer_or_within_its_body(direct: StandInHub) -> None:
    direct.fail("reset")
    with pytest.raises(ConnectionResetError):
        ask(direct)
    direct.fail("reset_body", after_bytes=100)
    with pytest.raises(ConnectionResetError):
        ask(direct)
    assert [(seen.status, seen.bytes_sent) for seen in direct.requests] == [(0, 0), (200, 100)]
    assert ask(direct)[2] == DATA


def test_a_truncated_body_is_shorter_than_announced_and_a_short_one_is_not(direct: StandInHub) -> None:
    direct.fail("truncate", after_bytes=0)
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(direct, range="bytes=100-199")
    assert caught.value.partial == b""
    direct.fail("short")
    status, headers, body = ask(direct, range="bytes=100-199")
    assert (status, headers["content-length"], body) == (206, "50", DATA[100:150])
    assert headers["content-range"] == f"bytes 100-199/{len(DATA)}"


def test_a_range_can_be_ignored(direct: StandInHub) -> None:
    direct.fail("whole")
    assert ask(direct, range="bytes=100-199")[::2] == (200, DATA)
    assert ask(direct, range="bytes=100-199")[::2] == (206, DATA[100:200])


def test_a_hung_request_ends_when_the_hub_does_and_holds_up_no_other(hub: StandInHub) -> None:
    hub.fail("hang")
    with pytest.raises(TimeoutError):
        ask(hub, timeout=0.1)
    assert ask(hub)[0] == 302
    hub.fail("hang", seconds=0.1)
    assert ask(hub)[0] == 302


def test_a_slow_body_takes_its_time(direct: StandInHub) -> None:
    direct.fail("slow", bytes_per_second=1000)
    start = time.perf_counter()
    assert ask(direct, range="bytes=0-199")[2] == DATA[:200]
    assert time.perf_counter() - start > 0.15
    direct.latency = 0.1
    start = time.perf_counter()
    ask(direct, INFO)
    assert time.perf_counter() - start > 0.1


def test_faults_of_a_body_pass_over_the_redirect(hub: StandInHub) -> None:
    hub.fail("short", NAME)
    with files_of(hub).open(f"datasets/{FINEWEB}/{NAME}", "rb", cache_type="none") as file:
        file.seek(10)
        assert file.read(100) == DATA[10:60]  # the client does not check the length


def test_a_fault_without_a_name_is_a_mistake(hub: StandInHub) -> None:
    with pytest.raises(ValueError, match="no fault is called 'rest'"):
        hub.fail("rest")


def test_the_network_goes_and_comes_back_on_the_same_port(hub: StandInHub) -> None:
    url, connection = hub.url, http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=5)
    connection.request("GET", INFO)
    connection.getresponse().read()
    hub.stop_serving()
    assert connection.sock.recv(1) == b""  # the open connection is closed
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        ask(hub)
    hub.start_serving()
    assert hub.url == url
    assert ask(hub)[0] == 302


def test_nothing_is_left_running_after_a_hub(hub: StandInHub) -> None:
    before = threading.active_count()
    with fineweb_hub(TEXTS) as other, ThreadPoolExecutor(8) as pool:
        other.redirects = False
        ranges = [f"bytes={start}-{start + 9}" for start in range(200)]
        bodies = list(pool.map(lambda asked: ask(other, range=asked)[2], ranges))
        assert other.bytes_sent(NAME) == sum(map(len, bodies)) == 2000
        other.fail("hang")
        with pytest.raises(TimeoutError):
            ask(other, timeout=0.05)
    wait_until(lambda: threading.active_count() <= before)


def wait_until(true: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what is served


def test_fineweb_files_hold_the_documents_in_order_and_fineweb_s_columns() -> None:
    found = []
    for name in sorted(set(FILES) - {"README.md"}):
        file = pq.ParquetFile(io.BytesIO(FILES[name]))
        assert file.num_row_groups == math.ceil(20 / 7)
        found += file.read(columns=["text"])["text"].to_pylist()
    assert found == TEXTS
    assert [f"{column.name} {column.type}" for column in file.schema_arrow] == [
        *("text string", "id string", "dump string", "url string", "file_path string", "language string"),
        *("language_score double", "token_count int64", "score double", "int_score int64"),
    ]


def test_a_process_of_its_own_serves_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "a.txt").write_text("contents")
    with spawn_hub("--files", str(tmp_path)) as url:
        info: Any = HfApi(endpoint=url).dataset_info(FINEWEB)
        assert [file.rfilename for file in info.siblings] == ["sample/a.txt"]
        with urlopen(f"{url}/datasets/{FINEWEB}/resolve/main/sample/a.txt") as file:
            assert file.read() == b"contents"
        with urlopen(f"{url}/counts") as counts:
            assert json.load(counts) == {"requests": 2, "bytes_sent": 8}
        close_session()
