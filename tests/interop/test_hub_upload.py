"""An exported folder goes to the hub: every file, in a private repository, or a reason on one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

import transformer
from stand_in_uploads import UploadHub, taken_for_uploads
from transformer.data.hub.errors import HubError
from transformer.interop.hub_upload import upload

# The hub library streams large files in a way that its HTTP client deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[UploadHub]:
    with taken_for_uploads(monkeypatch, tmp_path) as hub:
        yield hub


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    transformer.load(tiny_checkpoint).save_pretrained(tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("is_public", [False, True])
def test_every_file_arrives_unchanged(hub: UploadHub, folder: Path, is_public: bool) -> None:
    assert upload(folder, "ann/model", is_public) == f"{hub.url}/ann/model"
    assert hub.files == {"ann/model": {path.name: path.read_bytes() for path in folder.iterdir()}}
    assert [made["visibility"] for made in hub.made] == ["public" if is_public else "private"]


@pytest.mark.parametrize(
    ("token", "refuses", "reason"),
    [
        ("other", None, r"refuses it \(401\): set HF_TOKEN to a token that may write to it"),
        (None, None, r"refuses it \(401\): set HF_TOKEN"),
        ("secret", ("/commit/", 403), r"refuses it \(403\)"),
        ("secret", ("/preupload/", 418), "answered 418"),
    ],
)
def test_a_refusal_is_one_line_with_the_next_step(
    hub: UploadHub,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    refuses: tuple[str, int] | None,
    reason: str,
) -> None:
    hub.refuses = refuses
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=reason) as refused:
        upload(folder, "ann/model", False)
    assert f"`hf upload ann/model {folder}` tries again" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert hub.files == {}


def test_without_a_network_the_reason_is_named(hub: UploadHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        upload(folder, "ann/model", False)
