"""A model from a stand-in for the hub: what is fetched, through every fault, and without a network afterwards."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from model_folders import files_in, save_gguf, save_model
from stand_in_hub import StandInHub, taken_for_the_hub
from transformer.data.hub.errors import HubError
from transformer.interop import hub_model
from transformer.interop.errors import SourceError
from transformer.interop.gguf_files import GgufFile
from transformer.interop.importing import imported
from transformer.interop.sources import Source, open_source
from transformer.training import checkpoint

REPO = "someone/tiny"


@functools.cache
def files(kind: str = "llama", **sizes: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return files_in(save_model(Path(folder), kind, **sizes))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """A hub with REPO, and files that no import wants; the library's cache is an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_model, "OPENING_PATIENCE", 1.0)
    monkeypatch.setattr(hub_model, "DOWNLOAD_PATIENCE", 1.0)
    with StandInHub() as server, taken_for_the_hub(server, monkeypatch):
        other = {"pytorch_model.bin": b"pickled", "onnx/model.onnx": b"graph", "LICENSE": b"Apache License\n"}
        server.add(REPO, {**files(), **other}, card={"license": "apache-2.0"})
        yield server


def fetched(server: StandInHub) -> list[str]:
    """The files whose contents were sent, in order."""
    return [seen.file for seen in server.requests if seen.file and seen.method == "GET"]


def same_weights(source: Source) -> bool:
    """Whether every tensor of the source is that of the files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files().items():
            (Path(folder) / name).write_bytes(data)
        wanted = open_source(folder)
        return all(source.tensor(name).equal(wanted.tensor(name)) for name in wanted.names)


def test_a_model_is_fetched_once_and_only_what_an_import_reads(server: StandInHub) -> None:
    source = open_source(f"hf:{REPO}")
    assert same_weights(source)
    assert sorted(fetched(server)) == sorted([*files(), "LICENSE"])
    about = source.provenance
    assert about["revision"] == server.commit(REPO).sha
    assert (about["source"], about["licence"]) == (f"hf:{REPO}", "apache-2.0")
    assert f"model.safetensors={server.commit(REPO).files['model.safetensors'].sha256}" in about["sha256"]
    server.reset_counts()
    for same in (f"hf:{REPO}", f"HF:/{REPO}", f"https://huggingface.co/{REPO}/"):
        assert open_source(same).provenance["source"] == f"hf:{REPO}"
    assert fetched(server) == []


def test_a_revision_is_read_and_pinned(server: StandInHub) -> None:
    first = server.commit(REPO).sha
    server.add(REPO, files(num_hidden_layers=1))
    for source in (open_source(f"hf:{REPO}@{first}"), open_source(f"hf:{REPO}", first)):
        assert (source.settings["num_hidden_layers"], source.provenance["revision"]) == (2, first)
    assert open_source(f"hf:{REPO}").settings["num_hidden_layers"] == 1
    with pytest.raises(SourceError, match="name two revisions: give one of them"):
        open_source(f"hf:{REPO}@{first}", "main")


def test_after_the_first_import_no_network_is_needed(server: StandInHub) -> None:
    told: list[str] = []
    path = imported(f"hf:{REPO}", told.append)
    first = server.commit(REPO).sha
    server.stop_serving()
    told.clear()
    assert imported(f"hf:{REPO}", told.append) == path
    assert told[-1] == f"the hub cannot be reached: continuing with commit {first[:12]} of {REPO}, fetched before"
    assert imported(f"hf:{REPO}@{first}") == path
    told.clear()
    assert same_weights(open_source(f"hf:{REPO}@{first}", notify=told.append))
    assert told == []  # nothing is tried twice


def test_with_hf_hub_offline_nothing_is_asked(server: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    open_source(f"hf:{REPO}")
    server.reset_counts()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same_weights(open_source(f"hf:{REPO}"))
    with pytest.raises(HubError, match=r"model someone/other cannot be reached \(HF_HUB_OFFLINE is set\)"):
        open_source("hf:someone/other")
    assert server.requests == []


def test_a_model_that_was_never_fetched_needs_a_network(server: StandInHub) -> None:
    server.stop_serving()
    with pytest.raises(HubError, match=r"model someone/tiny cannot be reached .*never fetched: connect once"):
        open_source(f"hf:{REPO}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "settings"),
    [
        ("status", {"status": 503, "path": "/api/"}),
        ("status", {"status": 503, "path": "resolve"}),
        ("status", {"status": 429, "path": "/cdn/", "retry_after": 0}),
        ("reset", {"path": "/api/"}),
        ("reset", {"path": "resolve"}),
        ("reset_body", {"path": "/cdn/"}),
        ("truncate", {"path": "/cdn/"}),
        ("corrupt", {"path": "/cdn/"}),
    ],
)  # fmt: skip
def test_a_fault_of_the_network_is_outlived(server: StandInHub, fault: str, settings: dict[str, object]) -> None:
    used = server.fail(fault, **settings)  # type: ignore[arg-type]
    assert same_weights(open_source(f"hf:{REPO}"))
    assert used.times == 0


def test_a_network_that_fails_for_good_is_one_line_and_a_later_import_continues(server: StandInHub) -> None:
    fault = server.fail("reset_body", "/cdn/", times=1000)
    with pytest.raises(HubError, match=r"cannot read model\.safetensors from 127\.0\.0\.1.*check the network"):
        open_source(f"hf:{REPO}")
    assert [path for path in Path().rglob("*") if path.is_file() and "hub" not in path.parts] == []
    server.faults.remove(fault)
    assert same_weights(open_source(f"hf:{REPO}"))


def test_a_cache_that_is_a_file_is_one_line_and_no_fault_of_the_network(
    server: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    told: list[str] = []
    with pytest.raises(HubError, match=r"cannot be stored in the hub library's cache .*set HF_HOME"):
        open_source(f"hf:{REPO}", notify=told.append)
    assert told == []


def test_half_a_download_is_not_taken_for_the_model(server: StandInHub) -> None:
    fault = server.fail("reset_body", "/cdn/", times=1000)
    with pytest.raises(HubError, match=r"cannot read model\.safetensors"):
        open_source(f"hf:{REPO}")
    server.faults.remove(fault)
    server.stop_serving()
    with pytest.raises(HubError, match=r"cannot read model someone/tiny at .*check the network"):
        open_source(f"hf:{REPO}@{server.commit(REPO).sha}")


def test_what_the_hub_refuses_is_one_line(server: StandInHub) -> None:
    refused: dict[str, Callable[[], object]] = {
        "there is no model someone/none on": lambda: open_source("hf:someone/none"),
        "has no such revision: model someone/tiny at v9": lambda: open_source(f"hf:{REPO}@v9"),
        "is not hf:OWNER/NAME": lambda: open_source("hf:gpt2"),
    }
    for message, attempt in refused.items():
        with pytest.raises(ValueError, match=message):
            attempt()
    server.gated.add(REPO)
    with pytest.raises(HubError, match="model someone/tiny is gated: accept its terms on"):
        open_source(f"hf:{REPO}")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_repository_without_a_needed_file_is_refused_before_its_weights_are_fetched(
    server: StandInHub, missing: str
) -> None:
    server.add(REPO, {name: data for name, data in files().items() if name != missing})
    with pytest.raises(SourceError, match=rf"hf:{REPO} has no {missing}"):
        open_source(f"hf:{REPO}")
    assert set(fetched(server)) <= {"config.json", "README.md"}


@pytest.fixture
def gguf_server(server: StandInHub, tmp_path: Path) -> StandInHub:
    """A hub with REPO that holds .gguf files alone, one of them in a folder."""
    data = save_gguf(save_model(tmp_path / "saved"), tmp_path / "m.gguf", "f32").read_bytes()
    names = ("tiny-F32.gguf", "more/tiny-F32+.gguf", "tiny-00001-of-00002.gguf")
    server.add(REPO, {"README.md": b"# Tiny", **dict.fromkeys(names, data), "tiny.imatrix": b""})
    return server


def test_one_gguf_file_of_a_repository_is_fetched_once(gguf_server: StandInHub, tmp_path: Path) -> None:
    name, told = "more/tiny-F32+.gguf", list[str]()
    path = imported(f"hf:{REPO}/{name}", told.append)
    first = gguf_server.commit(REPO).sha
    assert fetched(gguf_server) == ["README.md", name]
    loaded = checkpoint.load_model(path)
    about = loaded.contents["imported"]
    assert (about["source"], about["revision"]) == (f"hf:{REPO}/{name}", first)
    assert about["sha256"] == f"{Path(name).name}={gguf_server.commit(REPO).files[name].sha256}"
    wanted = GgufFile(tmp_path / "m.gguf").tensor("model.embed_tokens.weight")
    assert torch.equal(loaded.model.embeddings.get_parameter("token.weight"), wanted)
    gguf_server.stop_serving()
    assert imported(f"hf:{REPO}/{name}", told.append) == path
    assert told[-1] == f"the hub cannot be reached: continuing with commit {first[:12]} of {REPO}, fetched before"
    assert open_source(f"hf:{REPO}/{name}@{first}").provenance["revision"] == first


def test_a_repository_of_gguf_files_lists_them(gguf_server: StandInHub) -> None:
    listed = r"it has more/tiny-F32\+\.gguf, tiny-F32\.gguf$"
    with pytest.raises(SourceError, match=rf"hf:{REPO} needs the name of a file, hf:{REPO}/FILE\.gguf; {listed}"):
        open_source(f"hf:{REPO}")
    with pytest.raises(SourceError, match=rf"hf:{REPO} has no file other\.gguf; {listed}"):
        open_source(f"hf:{REPO}/other.gguf")
    gguf_server.add(REPO, dict.fromkeys((f"{number:03}.gguf" for number in range(1000)), b""))
    with pytest.raises(SourceError, match=r"000\.gguf, .* 029\.gguf and 970 more$"):
        open_source(f"hf:{REPO}")
    for text in (f"hf:{REPO}/../../a.gguf", f"hf:{REPO}/x.bin", f"hf:{REPO}/a.gguf/b", f"hf:{REPO}/.gguf@"):
        with pytest.raises(SourceError, match=r"is not hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:OWNER/NAME/FILE"):
            open_source(text)
    gguf_server.add(REPO, files())
    with pytest.raises(SourceError, match=rf"hf:{REPO} has no file a\.gguf; it has no \.gguf file"):
        open_source(f"hf:{REPO}/a.gguf")


def test_a_name_in_the_listing_cannot_leave_the_folder(server: StandInHub) -> None:
    server.add(REPO, {**files(), "../model.safetensors": b"", "a/../../tokenizer.json": b""})
    assert same_weights(open_source(f"hf:{REPO}"))


def test_a_file_that_the_cache_shares_between_repositories_is_read(server: StandInHub, tmp_path: Path) -> None:
    """The library moves large files to a store of the whole cache, and leaves links in their place."""
    open_source(f"hf:{REPO}")
    sha256 = server.commit(REPO).files["model.safetensors"].sha256
    blob, store = tmp_path / "hub" / "models--someone--tiny" / "blobs" / sha256, tmp_path / "hub" / "blobs" / "ab" / "c"
    store.parent.mkdir(parents=True)
    blob.rename(store)
    blob.symlink_to(Path("../../blobs/ab/c"))
    assert same_weights(open_source(f"hf:{REPO}"))
    (snapshot,) = (tmp_path / "hub" / "models--someone--tiny" / "snapshots").iterdir()
    assert same_weights(open_source(str(snapshot)))
