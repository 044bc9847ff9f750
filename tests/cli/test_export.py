"""`main.py export`: what it writes and prints, what transformers makes of it, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import transformer
from stand_in_uploads import taken_for_uploads

Command = Callable[..., Any]


def test_a_checkpoint_becomes_a_folder_that_transformers_loads_and_agrees_with(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    done = command("export", "checkpoints", "--to", "hf", "out")
    assert (done.status, done.err) == (0, "")
    first, written, compared = done.out.splitlines()
    assert first.startswith("checkpoints/model_epoch_3_byte.pt (byte, ")
    assert written.startswith("out: written as gpt2, ")
    assert compared.startswith("transformers ")
    assert "loads it: the same logits (largest difference" in compared
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "gpt2"
    again = command("export", "--to", "hf", "out")
    assert (again.status, again.out, again.err.count("\n")) == (2, "", 1)  # before the model is loaded
    assert "out exists and is not empty" in again.err


def test_an_export_that_is_imported_is_exported_to_the_same_bytes(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    assert command("export", "checkpoints", "--to", "hf", "out", "--no-compare").status == 0
    assert command("import", "out", "--out", "checkpoints_back").status == 0
    assert command("export", "checkpoints_back", "--to", "hf", "again").status == 0
    first, again = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("out", "again"))
    assert [name for name in first if first[name] != again[name]] == ["README.md"]


def test_without_the_other_program_the_export_says_how_to_check_it(
    command: Command, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = command("export", "--to", "hf", "out")
    assert (done.status, done.err) == (0, "")
    assert "not compared, because transformers is not installed: run `pip install transformers`" in done.out
    done = command("export", "--to", "hf", "unchecked", "--no-compare")
    assert len(done.out.splitlines()) == 2


def test_an_export_that_computes_something_else_is_an_error(
    command: Command, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer.interop import hf_export

    def wrong(model: Any) -> Any:
        for name, tensor in right(model):
            yield name, tensor + 0.1 if name.endswith("ln_f.bias") else tensor

    right = hf_export.hf_weights
    monkeypatch.setattr(hf_export, "hf_weights", wrong)
    done = command("export", "--to", "hf", "out")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "error: out does not compute what checkpoints/model_epoch_3_byte.pt computes: the logits" in done.err


def test_a_shape_without_an_equal_is_refused_with_the_nearest(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    contents = torch.load(tiny_checkpoint, weights_only=True)
    contents["config"]["model"]["position"] = "alibi"
    del contents["model"]["embeddings.position.weight"]
    torch.save(contents, tiny_checkpoint)
    done = command("export", "--to", "hf", "out")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "position='alibi'" in done.err
    assert "the nearest, gpt2, needs position='learned'" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of PyTorch's exporter
def test_an_onnx_file_is_written_and_compared_in_onnxruntime(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="writes or runs the file")
    done = command("export", "--to", "onnx", "model.onnx")
    assert (done.status, done.err) == (0, "")
    assert "model.onnx: written with a key-value cache, " in done.out
    assert done.out.splitlines()[-1].startswith("onnxruntime ")
    assert done.out.splitlines()[-1].endswith("24 greedy tokens are equal")
    assert [path.name for path in tmp_path.glob("*.onnx*")] == ["model.onnx"]


@pytest.mark.parametrize(("flags", "kind", "error"), [((), "f16", 1e-4), (("--kind", "f32"), "f32", 0.0)])
def test_a_gguf_file_is_written_in_the_number_format_of_kind(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, flags: tuple[str, ...], kind: str, error: float
) -> None:
    pytest.importorskip("gguf", reason="writes the files")
    from transformer.interop.gguf_files import GgufFile

    done = command("export", "--to", "gguf", "model.gguf", *flags)
    assert (done.status, done.err) == (0, "")
    assert f"model.gguf: written for llama.cpp, matrices in {kind}, " in done.out
    assert "note: llama.cpp computes GELU by its approximation" in done.out
    stored = GgufFile(tmp_path / "model.gguf").tensor("transformer.wte.weight").float()
    wanted = transformer.load(tiny_checkpoint).model.embeddings.token.weight.detach()
    torch.testing.assert_close(stored, wanted, rtol=0, atol=error)
    assert torch.equal(stored, wanted) == (kind == "f32")
    again = command("export", "--to", "gguf", "model.gguf")
    assert (again.status, again.err) == (2, "error: model.gguf exists already: give the name of a new file\n")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub library, for large files
def test_what_was_compared_is_uploaded_and_what_differs_is_not(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer.interop import hf_check

    with taken_for_uploads(monkeypatch, tmp_path) as hub:
        done = command("export", "--to", "hf", "out", "--push-to", "hf:ann/model")
        assert (done.status, done.out.splitlines()[-1]) == (0, f"uploaded to {hub.url}/ann/model")
        assert hub.files["ann/model"].keys() == {path.name for path in (tmp_path / "out").iterdir()}
        monkeypatch.setattr(hf_check, "RELATIVE_ERROR", -1.0)
        done = command("export", "--to", "hf", "again", "--push-to", "hf:ann/other")
        assert (done.status, list(hub.files)) == (2, ["ann/model"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give the format and the path to write: --to hf FOLDER"),
        (("--to", "hff", "out"), "there is no format 'hff'; did you mean 'hf'?"),
        (("--to", "hf"), "--to takes a format and one path"),
        (("--to", "hf", "a", "b"), "--to takes a format and one path"),
        (("nowhere.pt", "--to", "hf", "out"), "there is no checkpoint nowhere.pt"),
        (("--to", "hf", "out", "--push-to", "ann/model"), "--push-to ann/model is not hf:USER/NAME"),
        (("--to", "hf", "out", "--push-to", "hf:ann/model.git"), "hf:ann/model.git is not hf:USER/NAME"),
        (("--to", "hf", "out", "--push-to", "hf:ann/a--b"), "hf:ann/a--b is not hf:USER/NAME"),
        (("--to", "hf", "out", "--public"), "--public is for --push-to"),
        (("--to", "hf", "out", "--kind", "q8_0"), "--kind q8_0 is for --to gguf"),
        (("--to", "gguf", "out"), "--to gguf out: the name of the file must end in .gguf"),
        (("--to", "onnx", "out"), "--to onnx out: the name of the file must end in .onnx"),
        (("--to", "gguf", "out.gguf", "--push-to", "hf:ann/model"), "--push-to uploads the folder of --to hf"),
    ],
)
def test_a_line_that_names_no_format_path_or_checkpoint_is_explained(
    command: Command, words: tuple[str, ...], message: str
) -> None:
    done = command("export", *words)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert message in done.err
