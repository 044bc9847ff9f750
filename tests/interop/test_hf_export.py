"""A folder for transformers: what is written, and that transformers computes the same from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import transformer
from tiny_tokenizers import KINDS, tokenizer_files
from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.interop import hf_check
from transformer.interop.families import model_config, read_weights
from transformer.interop.hf_check import MismatchError, compare_with_transformers
from transformer.interop.hf_export import save_pretrained
from transformer.interop.json_files import read_json
from transformer.interop.tensor_files import TensorFolder
from transformer.presets import PRESETS
from transformer.text import HuggingFaceTokenizer, Tokenizer, load_tokenizer, train_bpe

Model = Callable[..., DecoderOnlyTransformer]
SIZES = {"vocab_size": 257, "d_model": 16, "num_heads": 4, "num_layers": 2, "d_ff": 24, "max_seq_len": 64}
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "default": ("default", "gpt2", {}),
    "fixed positions": ("default", "gpt2", {"position": "sinusoidal"}),
    "demo": ("demo", "mpt", {"d_ff": 64}),
    "demo without ALiBi": ("demo", "gpt2", {"position": "learned"}),
    "modern": ("modern", "llama", {"num_kv_heads": 2}),
    "modern with two tables": ("modern", "llama", {"tie_embeddings": False, "bias": True}),
}
"""A preset, the architecture that expresses it, and settings that differ from the preset's."""


def preset_shape(name: str, **settings: Any) -> ModelConfig:
    """The shape of a preset, with tiny sizes."""
    return replace(PRESETS[name].model, **{**SIZES, "dropout": 0.0, **settings})


def exported(tiny_model: Model, folder: Path, tokenizer: Tokenizer, **settings: Any) -> DecoderOnlyTransformer:
    model = tiny_model(dtype=torch.float32, **{**settings, "vocab_size": tokenizer.vocab_size})
    save_pretrained(model, tokenizer, folder, {"dataset": "plays"})
    return model


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_gives_the_same_logits_and_greedy_text(tiny_model: Model, tmp_path: Path, name: str) -> None:
    preset, architecture, settings = SHAPES[name]
    tokenizer = load_tokenizer("byte")
    model = exported(tiny_model, tmp_path / "out", tokenizer, **preset_shape(preset, **settings).to_dict())
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert other.config.model_type == architecture
    encode = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "né <|endoftext|>, 10\n"
    assert encode(text, split_special_tokens=True)["input_ids"] == tokenizer.encode(text)
    tokens = torch.tensor([tokenizer.encode("ROMEO: né")])
    with torch.no_grad():
        torch.testing.assert_close(other(tokens).logits, model(tokens), rtol=1e-5, atol=1e-5)
    theirs = other.generate(tokens, max_new_tokens=20, do_sample=False)
    assert torch.equal(theirs, model.generate(tokens, max_new_tokens=20, stop_ids=tokenizer.stop_ids))
    found = compare_with_transformers(tmp_path / "out", model, tokenizer)
    assert found.difference < 1e-4
    assert found.tokens > 0


@pytest.mark.parametrize("name", SHAPES)
def test_an_exported_model_that_is_imported_again_has_the_same_weights_and_exports_to_the_same_bytes(
    tiny_model: Model, tmp_path: Path, name: str
) -> None:
    tokenizer, folders = load_tokenizer("byte"), [tmp_path / part / "model" for part in ("first", "again")]
    preset, _, shape = SHAPES[name]
    model = exported(tiny_model, folders[0], tokenizer, **preset_shape(preset, **shape).to_dict())
    settings, tensors = read_json(folders[0] / "config.json"), TensorFolder(folders[0])
    back = DecoderOnlyTransformer(model_config(settings))
    read_weights(back, settings, tensors.tensor, tensors.names)
    weights, wanted = back.state_dict(), model.state_dict()
    assert all(torch.equal(weights[key], tensor) for key, tensor in wanted.items())
    save_pretrained(back, tokenizer, folders[1], {"dataset": "plays"})
    first, again = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert first == again


def test_a_shape_that_no_architecture_has_is_refused_before_anything_is_written(
    tiny_model: Model, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"position='alibi'.* needs .*position='learned'") as refused:
        exported(
            tiny_model, tmp_path / "out", load_tokenizer("byte"), **preset_shape("demo", activation="relu").to_dict()
        )
    assert len(str(refused.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_rounded_weights_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rounded = transformer.load(tiny_checkpoint, weights="int8")
    with pytest.raises(ValueError, match="weights='float32'"):
        rounded.save_pretrained(tmp_path / "out")


def test_a_folder_with_files_is_left_alone_and_an_empty_one_filled(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model, folder = transformer.load(tiny_checkpoint), tmp_path / "out"
    folder.mkdir()
    model.save_pretrained(str(folder))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert {path.name for path in before} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "README.md",
    }  # fmt: skip
    with pytest.raises(ValueError, match="out exists and is not empty"):
        model.save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(ValueError, match=r"config\.json exists and is a file"):
        model.save_pretrained(folder / "config.json")


def test_an_error_while_writing_leaves_no_folder(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("transformer.interop.hf_export.write_tensors", full)
    with pytest.raises(OSError, match="No space"):
        transformer.load(tiny_checkpoint).save_pretrained(tmp_path / "exports" / "out")
    assert list((tmp_path / "exports").iterdir()) == []


def test_a_checkpoint_in_bfloat16_is_exported_in_bfloat16(tiny_checkpoint: Path, tmp_path: Path) -> None:
    contents = torch.load(tiny_checkpoint, weights_only=True)
    contents["model"] = {name: weight.bfloat16() for name, weight in contents["model"].items()}
    torch.save(contents, tiny_checkpoint)
    transformer.load(tiny_checkpoint).save_pretrained(tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(stored["transformer.wte.weight"], contents["model"]["embeddings.token.weight"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_the_card_of_an_imported_model_names_its_source_and_licence(tiny_checkpoint: Path, tmp_path: Path) -> None:
    contents = torch.load(tiny_checkpoint, weights_only=True)
    origin = {"source": "hf:openai-community/gpt2", "licence": "mit", "revision": "607a30d783df"}
    torch.save({**contents, "imported": origin}, tiny_checkpoint)
    transformer.load(tiny_checkpoint).save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| imported from | hf:openai-community/gpt2 |\n| licence | mit |\n| revision | 607a30d783df |" in card
    assert "license: mit\n" in card
    assert "To train it again" not in card
    before = {"path": "/data/ann/model.pt", "dataset": "none", "step": 0, "tokens": 0, "imported": origin}
    torch.save({**contents, "init_from": before}, tiny_checkpoint)
    transformer.load(tiny_checkpoint).save_pretrained(tmp_path / "trained")
    card = (tmp_path / "trained" / "README.md").read_text(encoding="utf-8")
    assert "| started from | hf:openai-community/gpt2 |\n| licence of that model | mit |" in card
    assert "| training | 7 steps, 5,376 tokens |" in card


def test_a_name_that_is_not_utf_8_does_not_stop_an_export(tiny_model: Model, tmp_path: Path) -> None:
    tokenizer = load_tokenizer("byte")
    model = tiny_model(dtype=torch.float32, vocab_size=tokenizer.vocab_size)
    save_pretrained(model, tokenizer, tmp_path / "out", {"imported from": "caf\udce9"})
    assert "caf\N{REPLACEMENT CHARACTER}" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_card_tells_where_the_model_comes_from(tiny_checkpoint: Path, tmp_path: Path) -> None:
    contents = torch.load(tiny_checkpoint, weights_only=True)
    contents["config"]["data"]["dataset"] = "/data/ann/my notes|2.txt"
    contents["config"]["checkpoint_dir"] = "/data/ann/run"
    contents["metrics"] = {"validation_loss": 1.5, "bits_per_byte": 2.25}
    torch.save(contents, tiny_checkpoint)
    transformer.load(tiny_checkpoint).save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| dataset | my notes\\|2.txt |" in card
    assert "| training | 7 steps, 5,376 tokens |" in card
    assert "| validation | 1.5000 loss in nats per token, 2.2500 bits per byte |" in card
    assert "python main.py train --d-model 16" in card
    assert "--dataset 'my notes|2.txt'" in card
    assert "ann" not in card
    code = card.partition("```python\n")[2].partition("```")[0].replace('"."', repr(str(tmp_path / "out")))
    exec(compile(code, "README.md", "exec"), {})


def test_the_weights_are_written_in_several_files_that_transformers_reads(tiny_model: Model, tmp_path: Path) -> None:
    tokenizer = load_tokenizer("byte")
    model = tiny_model(dtype=torch.float32, **preset_shape("modern").to_dict())
    save_pretrained(model, tokenizer, tmp_path / "out", {}, largest_file=20_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert compare_with_transformers(tmp_path / "out", model, tokenizer).difference < 1e-4


def test_bfloat16_weights_stay_bfloat16(tiny_model: Model, tmp_path: Path) -> None:
    tokenizer = load_tokenizer("byte")
    model = tiny_model(dtype=torch.bfloat16, **preset_shape("modern").to_dict())
    save_pretrained(model, tokenizer, tmp_path / "out", {})
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    assert compare_with_transformers(tmp_path / "out", model, tokenizer).difference < 1e-4


def test_a_vocabulary_trained_here_is_exported_with_equal_ids(tiny_model: Model, tmp_path: Path) -> None:
    tokenizer = train_bpe(["low low lower slower. It's 10,000!\n\n  low"] * 3, 270)
    exported(tiny_model, tmp_path / "out", tokenizer, **preset_shape("default").to_dict())
    other = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "low lower né <|endoftext|>\n  It's 10,000 \N{GRINNING FACE}"
    assert other(text, split_special_tokens=True)["input_ids"] == tokenizer.encode(text)
    assert other.decode(tokenizer.encode(text)) == text
    assert other.eos_token_id == tokenizer.eot_id


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_of_another_model_is_exported_with_equal_ids(
    tiny_model: Model, tmp_path: Path, kind: str
) -> None:
    contents, settings = tokenizer_files(kind)
    tokenizer = HuggingFaceTokenizer(contents, settings)
    model = exported(tiny_model, tmp_path / "out", tokenizer, **preset_shape("modern").to_dict())
    assert compare_with_transformers(tmp_path / "out", model, tokenizer).tokens > 0
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert written.items() >= settings.items()


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_a_folder_that_computes_something_else_is_an_error(tiny_model: Model, tmp_path: Path, part: str) -> None:
    tokenizer = load_tokenizer("byte")
    model = exported(tiny_model, tmp_path / "out", tokenizer, **preset_shape("default").to_dict())
    if part == "model":
        with torch.no_grad():
            model.final_norm.bias[3] += 0.01
    else:
        path = tmp_path / "out" / "tokenizer.json"
        contents = json.loads(path.read_text(encoding="utf-8"))
        ids = contents["model"]["vocab"]
        ids["a"], ids["e"] = ids["e"], ids["a"]
        path.write_text(json.dumps(contents), encoding="utf-8")
    with pytest.raises(MismatchError, match="differ" if part == "model" else "encodes"):
        compare_with_transformers(tmp_path / "out", model, tokenizer)


def test_another_greedy_text_is_an_error_unless_two_tokens_are_equally_good(tiny_model: Model) -> None:
    class Other:
        """A program with the same logits that continues with token 100."""

        def to(self, _: object) -> Other:
            return self

        def __call__(self, tokens: torch.Tensor) -> Any:
            return type("Output", (), {"logits": model(tokens)})

        def generate(self, tokens: torch.Tensor, **_: object) -> torch.Tensor:
            return torch.cat([tokens, torch.tensor([[100]])], dim=1)

    model, tokenizer, tokens = tiny_model(vocab_size=257), load_tokenizer("byte"), torch.tensor([[1, 2]])
    with pytest.raises(MismatchError, match="greedy text of transformers is another one from its token 1 on"):
        hf_check.compare_text(model, Other(), tokens, tokenizer)
    with torch.no_grad():
        model.head.weight.zero_()  # now all tokens are equally good
    assert hf_check.compare_text(model, Other(), tokens, tokenizer) == (0.0, 0)
