"""`main.py import`, and sources in place of checkpoints: what commands print and write, and what they refuse."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from full_disk import files_of_at_most
from model_folders import save_gguf, save_model

pytestmark = pytest.mark.usefixtures("plain_pictures")

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """The folder `tiny` in the command's folder."""
    return shutil.copytree(saved, tmp_path / "tiny")


def test_an_imported_model_is_the_latest_checkpoint_of_every_command(command: Command, model: Path) -> None:
    told = command("import", "tiny")
    assert (told.status, told.err) == (0, "")
    path = "checkpoints_tiny/model_epoch_0_hf400.pt"
    assert told.out.splitlines()[0] == "tiny, 164.5 kB, licence apache-2.0"
    assert told.out.splitlines()[1].startswith(f"{path}: written, 41,120 parameters in float32")
    text = command("generate", "--prompt", "def f", "--max-new-tokens", "4", "--json")
    assert text.status == 0, text.err
    assert json.loads(text.out)["checkpoint"] == path
    assert f"{path} (hf400, 41,120 parameters, imported from tiny)" in text.err
    report = command("inspect", "--json")
    assert report.status == 0, report.err
    assert json.loads(report.out)["provenance"]["imported"]["licence"] == "apache-2.0"
    shown = command("inspect").out
    assert "imported model" in shown
    assert "licence     apache-2.0" in shown
    assert f"train --init-from {path} --dataset notes.txt" in shown


def test_out_revision_and_dtype_are_options(command: Command, model: Path, tmp_path: Path) -> None:
    told = command("import", "tiny", "--out", "own/a folder", "--dtype", "bfloat16")
    assert told.status == 0, told.err
    assert "in bfloat16" in told.out
    assert "generate --checkpoint 'own/a folder/model_epoch_0_hf400.pt' --" in told.out  # ready for a shell
    assert [path.name for path in (tmp_path / "own" / "a folder").iterdir()] == ["model_epoch_0_hf400.pt"]
    again = command("import", "tiny", "--out", "own/a folder")
    assert again.status == 2
    assert again.err == "error: own/a folder already holds a model: give another --out, or remove its checkpoints\n"
    revision = command("import", "tiny", "--revision", "main")
    assert revision.err == "error: --revision main: only a model on the hub has revisions, and tiny is a path\n"


def test_a_part_of_the_context_is_an_option(command: Command, model: Path) -> None:
    changed_settings(model, model_type="mistral", sliding_window=8)
    refused = command("generate", "--checkpoint", "tiny", "--prompt", "a")
    assert refused.status == 2
    assert "sliding_window=8 is shorter than the context of 64" in refused.err
    assert "import it with --max-seq-len 8, a context in which both are the same" in refused.err
    assert command("import", "tiny", "--max-seq-len", "0").err == "error: max_seq_len=0 must be at least 1\n"
    told = command("import", "tiny", "--max-seq-len", "65")
    assert told.err == "error: --max-seq-len 65 must be from 1 to 64, the context of the model\n"
    assert command("import", "tiny", "--max-seq-len", "8").status == 0
    assert "max_seq_len=8" in command("inspect").out.replace(" ", "=")


def test_a_source_stands_for_a_checkpoint_everywhere(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformer.data.eval_documents.COUNTED_TOKENS", 1000)
    first = command("evaluate", "--checkpoint", "tiny", "--max-tokens", "200", "--json")
    assert first.status == 0, first.err
    assert "importing tiny into data/imported_models/tiny-" in first.err
    assert "does not say on which text it was trained: the bundled plays are read" in first.err
    found = json.loads(first.out)
    assert (found["trained_on"], found["text"]) == ("tiny", "held-out text of shakespeare")
    notes = [f"Note {number}: a few words of it.\n" * 20 for number in range(30)]
    (tmp_path / "notes.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in notes), encoding="utf-8"
    )
    small = ("--max-steps", "2", "--batch-size", "1", "--accumulation-steps", "1", "--seq-length", "16")
    lines = [
        ("generate", "--checkpoint", "tiny", "--prompt", "a", "--max-new-tokens", "2"),
        ("evaluate", "--checkpoint", "tiny", "--text-file", "notes.jsonl"),
        ("compare", "tiny", "--text-file", "notes.jsonl"),
        ("inspect", "tiny"),
        ("benchmark", "--checkpoint", "tiny", "--lengths", "12", "--repeats", "1"),
        ("demo-sampling", "--with-model", "--checkpoint", "tiny"),
        ("train", "--init-from", "tiny", "--dataset", "notes.jsonl", "--sample-tokens", "0", "--trackers", *small),
    ]
    for line in lines:
        told = command(*line)
        assert told.status == 0, (line, told.err)
        assert "importing" not in told.err
    assert len(list(Path("data/imported_models").glob("*/*.pt"))) == 1
    report = command("inspect", "checkpoints_finetuned")
    assert "imported    from tiny" in report.out
    assert "licence     apache-2.0" in report.out


HOSTILE: dict[str, tuple[str, bytes | None, str]] = {
    "no settings": ("config.json", None, "cannot be imported: give a folder with config.json"),
    "no JSON": ("config.json", b"{", "config.json: not a JSON file"),
    "a list": ("config.json", b"[]", "config.json: holds a list, not a JSON object"),
    "no family": ("config.json", b"{}", "config.json: model_type is missing"),
    "a family with another part": ("config.json", b'{"model_type": "mixtral"}', "needs a mixture of experts"),
    "code": ("config.json", b'{"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "x.Y"}}', "never run"),
    "no weights": ("model.safetensors", None, "model.safetensors"),
    "a repository without its large files": (
        "model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "git lfs pull"
    ),
    "no header": ("model.safetensors", b"\xff" * 64, "model.safetensors: not a safetensors file"),
    "no tokenizer": ("tokenizer.json", None, "tiny has no tokenizer.json"),
    "another tokenizer": ("tokenizer.json", b"{}", "tokenizer.json"),
    "a tokenizer in bytes": ("tokenizer.json", b"\xff\xfe", "tokenizer.json"),
    "settings of the tokenizer": ("tokenizer_config.json", b'{"eos_token": 3}', "tokenizer"),
    "a template in bytes": ("chat_template.jinja", b"\xff\xfe", "chat_template.jinja: not a text in UTF-8"),
    "an end outside": ("generation_config.json", b'{"eos_token_id": 400}', "tokenizer.json"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_folder_that_is_not_a_model_is_one_line(command: Command, model: Path, tmp_path: Path, case: str) -> None:
    name, data, message = HOSTILE[case]
    (model / name).unlink(missing_ok=True)
    if data is not None:
        (model / name).write_bytes(data)
    before = sorted(tmp_path.rglob("*"))
    for line in (("import", "./tiny"), ("generate", "--checkpoint", "tiny", "--prompt", "a")):
        told = command(*line)
        if line[0] == "generate" and case == "no settings":
            continue  # then it is not a source, but a folder without checkpoints
        assert (told.status, told.out) == (2, ""), told
        assert told.err.startswith("error: ")
        assert len(told.err.splitlines()) == 1
        assert message in told.err
    assert sorted(tmp_path.rglob("*")) == before


def changed_settings(model: Path, **changes: Any) -> None:
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**settings, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": -1}, "hidden_size=-1 is not a whole number"),
        ({"hidden_size": 10**6}, "config.json"),
        ({"num_hidden_layers": 9_999}, "9,999 layers"),
        ({"vocab_size": 10**7}, "config.json"),
        ({"max_position_embeddings": 10**8}, "config.json"),
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
        ({"hidden_act": "tanh"}, "hidden_act='tanh' is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type='yarn' is not supported"),
    ],
)
def test_settings_that_the_weights_do_not_have_are_one_line(
    command: Command, model: Path, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    changed_settings(model, **changes)
    before = sorted(tmp_path.rglob("*"))
    told = command("import", "tiny")
    assert told.status == 2
    assert told.err.startswith("error: ")
    assert len(told.err.splitlines()) == 1
    assert message in told.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_out_of_the_folder_is_not_followed(command: Command, model: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    (model / "tokenizer.json").rename(secret)
    (model / "tokenizer.json").symlink_to(secret)
    told = command("import", "tiny")
    assert told.status == 2
    assert "tokenizer.json: is a link to a file outside tiny" in told.err


def test_words_that_are_no_source_are_one_line(command: Command, tiny_checkpoint: Path) -> None:
    words = (
        "", "nowhere", "hf:gpt2", "hf:a/b/c", "https://huggingface.co/datasets/a/b", "ann/model", str(tiny_checkpoint)
    )  # fmt: skip
    told = {word: command("import", *word.split()) for word in words}
    assert {answer.status for answer in told.values()} == {2}
    assert told[""].err == "error: no source is given: hf:OWNER/NAME, a folder with config.json, or a .gguf file\n"
    assert (
        "nowhere cannot be imported: give a folder with config.json, a .gguf file, or hf:OWNER/NAME"
        in told["nowhere"].err
    )
    assert "hf:gpt2 is not hf:OWNER/NAME, hf:OWNER/NAME@REVISION or" in told["hf:gpt2"].err
    assert (
        "ann/model cannot be imported: give a folder with config.json, a .gguf file, or hf:ann/model"
        in told["ann/model"].err
    )
    assert all(len(answer.err.splitlines()) == 1 for answer in told.values())
    wrong = command("generate", "--checkpoint", "ann/model", "--prompt", "a")
    assert wrong.err == "error: there is no checkpoint ann/model; a model on the Hugging Face hub is hf:ann/model\n"


def test_a_gguf_file_becomes_a_checkpoint_that_continues_a_prompt_as_the_folder_does(
    command: Command, model: Path, tmp_path: Path
) -> None:
    save_gguf(model, tmp_path / "tiny.gguf", "f32")
    told = command("import", "tiny.gguf", "--out", "own")
    assert (told.status, told.err) == (0, "")
    assert re.match(r"tiny\.gguf, [\d.]+ kB, licence not named by the model", told.out)
    texts = []
    for source in ("own", "tiny.gguf", "tiny"):
        line = ("--checkpoint", source, "--prompt", "def f", "--max-new-tokens", "8", "--strategy", "greedy", "--json")
        told = command("generate", *line)
        assert told.status == 0, told.err
        texts.append(json.loads(told.out)["texts"][0]["text"])
    assert texts[0] == texts[1] == texts[2]


def test_a_damaged_gguf_file_is_one_line(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    assert command("import", "nowhere.gguf").err.startswith("error: nowhere.gguf cannot be imported: give a folder")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 60)
    told = command("generate", "--checkpoint", "bad.gguf", "--prompt", "a")
    assert told.status == 2
    assert told.err.startswith("error: bad.gguf: ")
    assert len(told.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.gguf"]


def test_an_import_that_is_interrupted_or_finds_no_room_leaves_nothing(
    command: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with files_of_at_most(100_000):
        told = command("import", "tiny")
    assert told.status == 2
    assert re.fullmatch(r"error: .*File too large.*checkpoints_tiny/model_epoch_0_hf400\.pt'?\n", told.err)
    monkeypatch.setattr("transformer.training.checkpoint.save", lambda *_: signal.raise_signal(signal.SIGINT))
    told = command("import", "tiny")
    assert (told.status, told.err) == (130, "\nstopped\n")
    assert sorted(tmp_path.rglob("*")) == before
