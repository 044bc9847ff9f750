"""A foreign model becomes a checkpoint: the same logits, its own number format, little memory, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from full_disk import files_of_at_most
from model_folders import save_gguf, save_model
from transformer.interop import importing
from transformer.interop.errors import SourceError
from transformer.interop.importing import import_checkpoint, imported
from transformer.interop.sources import locate, open_source, opened
from transformer.training import checkpoint
from transformer.training.checkpoint_report import inspect

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_checkpoint_gives_the_logits_and_the_ids_of_transformers(llama: Path, tmp_path: Path) -> None:
    loaded = checkpoint.load_model(import_checkpoint(open_source(str(llama)), tmp_path / "out"))
    text = "def f(x):\n    return 1234  # naïve 😀"
    ids = AutoTokenizer.from_pretrained(llama)(text, add_special_tokens=False)["input_ids"]
    assert loaded.tokenizer.encode(text) == ids
    tokens = torch.tensor([ids])
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(llama)(tokens).logits
        torch.testing.assert_close(loaded.model(tokens), theirs, rtol=1e-5, atol=1e-5)


def test_a_checkpoint_records_where_its_model_comes_from(llama: Path, tmp_path: Path) -> None:
    path = import_checkpoint(open_source(str(llama)), tmp_path / "out")
    assert path == tmp_path / "out" / "model_epoch_0_hf400.pt"
    assert list(path.parent.iterdir()) == [path]
    report = inspect(path)
    assert (report.problems, report.kind, report.step, report.tokens) == ([], "imported model", 0, 0)
    about = report.provenance["imported"]
    assert (about["source"], about["licence"]) == (str(llama), "apache-2.0")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", about["imported_at"])
    digests = dict(file.split("=") for file in about["sha256"].split())
    assert digests.keys() == {file.name for file in llama.iterdir()}
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests.values())


@pytest.mark.parametrize(("kind", "settings"), [("mistral", {"sliding_window": 16}), ("gpt2", {}), ("gpt_neox", {})])
def test_the_first_positions_of_a_context_give_the_same_logits(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model", kind, **settings)
    source = opened(locate(str(folder)), max_seq_len=16)
    loaded = checkpoint.load_model(import_checkpoint(source, tmp_path / "out"))
    assert loaded.model.config.max_seq_len == 16
    assert loaded.config.data.seq_length == 16
    tokens = torch.randint(400, (2, 16))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
        torch.testing.assert_close(loaded.model(tokens), theirs, rtol=1e-5, atol=1e-5)


def test_the_first_positions_of_a_gguf_file_are_the_same(tmp_path: Path) -> None:
    path = save_gguf(save_model(tmp_path / "model", "gpt2"), tmp_path / "m.gguf", "f32")
    models = [
        checkpoint.load_model(
            import_checkpoint(opened(locate(str(path)), max_seq_len=kept), tmp_path / str(kept))
        ).model
        for kept in (7, None)
    ]
    table, whole = (model.embeddings.get_parameter("position.weight") for model in models)
    assert (len(table), len(whole)) == (7, 64)
    assert torch.equal(table, whole[:7])


@pytest.mark.parametrize(
    ("stored", "asked", "wanted"),
    [
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float16, None, torch.float16),
        (torch.float32, "bfloat16", torch.bfloat16),
        (torch.bfloat16, "float32", torch.float32),
    ],
)
def test_weights_keep_their_format_unless_another_is_asked_for(
    stored: torch.dtype, asked: importing.Format | None, wanted: torch.dtype, tmp_path: Path
) -> None:
    source = open_source(str(save_model(tmp_path / "model", dtype=stored)))
    weights = checkpoint.load(import_checkpoint(source, tmp_path / "out", asked))["model"]
    assert {weight.dtype for weight in weights.values()} == {wanted}
    theirs = source.tensor("model.embed_tokens.weight")
    assert torch.equal(weights["embeddings.token.weight"], theirs.to(wanted))


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    source = open_source(str(save_model(tmp_path / "model", tie_word_embeddings=True)))
    path = import_checkpoint(source, tmp_path / "out")
    weights = checkpoint.load(path)["model"]
    assert weights["head.weight"].data_ptr() == weights["embeddings.token.weight"].data_ptr()
    assert inspect(path).problems == []


def test_a_folder_that_holds_a_model_is_refused_and_unchanged(llama: Path, tiny_checkpoint: Path) -> None:
    before = tiny_checkpoint.read_bytes()
    with pytest.raises(SourceError, match="checkpoints already holds a model"):
        import_checkpoint(open_source(str(llama)), tiny_checkpoint.parent)
    assert list(tiny_checkpoint.parent.iterdir()) == [tiny_checkpoint]
    assert tiny_checkpoint.read_bytes() == before
    with pytest.raises(SourceError, match="is a file: name a folder"):
        import_checkpoint(open_source(str(llama)), tiny_checkpoint)


def test_a_full_disk_leaves_no_folder_behind(llama: Path, here: Path) -> None:
    with files_of_at_most(100_000), pytest.raises(OSError, match="model_epoch_0_hf400"):
        import_checkpoint(open_source(str(llama)), here / "new" / "out")
    assert list(here.iterdir()) == []
    (here / "own").mkdir()
    with files_of_at_most(100_000), pytest.raises(OSError, match="model_epoch_0_hf400"):
        import_checkpoint(open_source(str(llama)), here / "own")
    assert list(here.rglob("*")) == [here / "own"]


def test_an_import_that_is_interrupted_leaves_nothing_behind(llama: Path, here: Path) -> None:
    source = open_source(str(llama))

    def tensor(name: str) -> torch.Tensor:
        if name.endswith("lm_head.weight"):
            raise KeyboardInterrupt
        return source.tensor(name)

    with pytest.raises(KeyboardInterrupt):
        import_checkpoint(replace(source, tensor=tensor), here / "out")
    assert list(here.iterdir()) == []


def test_a_source_is_imported_once_and_anew_if_its_contents_change(here: Path) -> None:
    folder, told = save_model(here / "model"), []
    path = imported("model", told.append)
    assert path.parent.parent == Path("data/imported_models")
    assert told == [f"importing model into {path.parent}, once"]
    written = path.stat().st_mtime_ns
    assert imported(str(folder), told.append) == path
    assert (len(told), path.stat().st_mtime_ns) == (1, written)
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 5]}', encoding="utf-8")
    other = imported("model", told.append)
    assert other != path
    assert checkpoint.load_model(other).tokenizer.stop_ids == (0, 5)


def test_the_files_of_a_source_are_read_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in save_model(here / "model").iterdir():
        os.utime(file, (1e9, 1e9))
    path = imported("model")
    monkeypatch.setattr("transformer.interop.digests.sha256_of", pytest.fail)
    assert imported("model") == path


def test_imports_of_the_same_source_at_the_same_time_wait_for_each_other(llama: Path, here: Path) -> None:
    told: list[str] = []
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(imported(str(llama), told.append))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(found), len(set(found)), len(told)) == (4, 1, 1)


def test_a_source_that_cannot_be_imported_leaves_no_cache(here: Path) -> None:
    folder = save_model(here / "model")
    (folder / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(SourceError, match=r"model\.safetensors: not a safetensors file"):
        imported("model")
    assert [path for path in here.rglob("*") if path.is_file() and folder not in path.parents] == []


def test_a_shard_with_a_name_of_its_own_is_refused(here: Path) -> None:
    """Its digest was not taken, so that other contents under this name were found in the cache as if unchanged."""
    folder = save_model(here / "model")
    names = open_source("model").names
    (folder / "model.safetensors").rename(folder / "mine.safetensors")
    index = {"weight_map": dict.fromkeys(names, "mine.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(SourceError, match=r"mine\.safetensors is not named as shards are"):
        open_source("model")


PEAK = """
import sys
from pathlib import Path
from transformer.interop.importing import import_checkpoint
from transformer.interop.sources import open_source

def status(name):  # bytes
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024

import_checkpoint(open_source(sys.argv[1]), Path("out-small"))  # everything is imported and allocated once
source, before = open_source(sys.argv[2]), status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
path = import_checkpoint(source, Path("out-large"))
print(path.stat().st_size, status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can measure the peak of a part")
@pytest.mark.parametrize("kind", ["llama", "gpt2", "q4_0", "f16"])
def test_an_import_needs_a_fifth_more_memory_than_the_model_has(kind: str, here: Path) -> None:
    """Resident memory at its peak, pages of mapped files included, for models of some 25 to 50 MB."""
    large = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "tie_word_embeddings": True}
    if kind == "gpt2":
        large = {"n_embd": 512, "n_layer": 4, "n_head": 8, "hidden_size": 512}
    dtype = torch.bfloat16 if kind == "llama" else torch.float32
    family = "gpt2" if kind == "gpt2" else "llama"
    sources = [save_model(here / "small", family, dtype), save_model(here / "large", family, dtype, **large)]
    if kind in ("q4_0", "f16"):
        sources = [save_gguf(folder, folder / "m.gguf", kind) for folder in sources]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, sources)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    size, needed = map(int, done.stdout.split())
    assert size > 25e6
    assert needed <= 1.2 * size
