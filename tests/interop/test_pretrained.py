"""transformer.load(): a checkpoint's model for text in and text out, and the same choice of checkpoint as commands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import transformer
from chat_templates import SMOLLM2, render_here, save_chat_model
from model_folders import save_model
from tiny_tokenizers import tokenizer_files
from transformer import ConfigError
from transformer.inference.text_stream import generate_text
from transformer.presets import sampling_preset
from transformer.text import chat_template
from transformer.training.checkpoint import CheckpointError


@pytest.fixture
def model(tiny_checkpoint: Path) -> transformer.Pretrained:
    return transformer.load(tiny_checkpoint)


def test_a_path_a_string_and_the_folder_of_a_run_name_the_same_checkpoint(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_checkpoint.parent.parent)
    sources = [tiny_checkpoint, str(tiny_checkpoint), "checkpoints", Path("checkpoints"), None]
    assert {transformer.load(source).loaded.path.resolve() for source in sources} == {tiny_checkpoint.resolve()}


def test_a_folder_is_its_latest_epoch_and_best_the_lowest_loss(tiny_checkpoint: Path) -> None:
    later = tiny_checkpoint.with_name("model_epoch_10_byte.pt")
    shutil.copy(tiny_checkpoint, later)
    contents = torch.load(tiny_checkpoint, weights_only=True)
    torch.save({**contents, "metrics": {"validation_loss": 2.0, "verdict": "learning"}}, tiny_checkpoint)
    os.utime(tiny_checkpoint, (1, 1))
    assert transformer.load(later.parent).loaded.path == later
    best = transformer.load(later.parent / "best")
    assert (best.loaded.path, best.metrics["validation_loss"]) == (tiny_checkpoint, 2.0)


def test_the_loaded_model_is_ready_to_use(model: transformer.Pretrained, tiny_checkpoint: Path) -> None:
    assert not model.model.training
    assert model.config.model == model.model.config
    assert model.tokenizer.encode("ab") == [97, 98]
    assert model.provenance["training"] == "7 steps, 5,376 tokens"
    assert str(tiny_checkpoint) in repr(model)
    assert "step 7" in repr(model)


def test_a_string_gives_the_new_text_and_a_list_gives_a_list(model: transformer.Pretrained) -> None:
    settings = sampling_preset("balanced")
    alone = [
        generate_text(model.model, model.tokenizer, prompt, settings, 9, seed=5 + i)
        for i, prompt in enumerate(["ab", "c", ""])
    ]
    assert model.generate("ab", max_new_tokens=9, seed=5) == alone[0]
    assert model.generate(["ab", "c", ""], max_new_tokens=9, seed=5) == alone
    assert model.generate([]) == []


def test_more_texts_than_a_batch_holds_are_each_the_text_of_their_seed(
    model: transformer.Pretrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformer.interop.pretrained.ROWS", 2)
    texts = model.generate(["ab"] * 5, max_new_tokens=6, seed=3, temperature=2.0)
    assert texts == [model.generate("ab", max_new_tokens=6, seed=3 + i, temperature=2.0) for i in range(5)]
    assert len(set(texts)) > 1


def test_a_preset_and_single_settings_choose_the_sampling(model: transformer.Pretrained) -> None:
    greedy = model.generate("ab", 8, preset="greedy")
    assert (
        greedy == model.generate("ab", 8, strategy="greedy", seed=1) == model.generate("ab", 8, temperature=0, seed=2)
    )
    assert model.generate("ab", 8, preset="very-creative", seed=1) != greedy
    assert greedy.startswith(model.generate("ab", 8, preset="greedy", stop=greedy[2]))
    assert greedy[2] not in model.generate("ab", 8, preset="greedy", stop=[greedy[2], "never"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "creativ"}, "did you mean 'creative'"),
        ({"temperatur": 0.5}, "did you mean 'temperature'"),
        ({"top_p": 3.0}, "top_p=3.0"),
        ({"seed": -1}, "seed=-1"),
        ({"max_new_tokens": -1}, "-1"),
        ({"stop": ""}, "stop string is empty"),
    ],
)
def test_an_impossible_setting_is_refused(
    model: transformer.Pretrained, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate("ab", **settings)  # type: ignore[call-overload]


def test_a_model_with_a_template_answers_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "render", render_here)
    model = transformer.load(save_chat_model(tmp_path, 60))
    prompt = "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([model.tokenizer.encode_special(prompt)])  # type: ignore[attr-defined]
    answer = model.model.generate(ids, max_new_tokens=9, stop_ids=model.tokenizer.stop_ids)[0, ids.shape[1] :]
    assert model.chat("Hi", 9, preset="greedy") == model.tokenizer.decode(answer.tolist())
    assert model.chat([{"role": "user", "content": "Hi"}], 9, preset="greedy") == model.chat("Hi", 9, preset="greedy")
    longest = model.chat("Hi", 1000, preset="greedy")  # up to the end of the context
    assert ids.shape[1] + len(model.tokenizer.encode(longest)) <= 60
    with pytest.raises(ValueError, match="leaves no room for an answer"):
        model.chat("Hi " * 60)


def test_a_template_comes_from_transformers_and_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "render", render_here)
    monkeypatch.chdir(tmp_path)
    contents, settings = tokenizer_files("smollm")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(contents), eos_token=settings["eos_token"])
    tokenizer.chat_template = SMOLLM2
    tokenizer.save_pretrained(save_model(tmp_path / "theirs"))  # its template is in a file of its own
    assert (tmp_path / "theirs" / "chat_template.jinja").is_file()
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]
    wanted = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    model = transformer.load("theirs")
    assert chat_template.chat_ids(model.tokenizer, chat) == wanted
    model.save_pretrained("again")
    again = AutoTokenizer.from_pretrained("again")
    assert again.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) == wanted


def test_a_model_without_a_template_does_not_chat(model: transformer.Pretrained) -> None:
    with pytest.raises(ValueError, match="the model has no chat template"):
        model.chat("Hi")


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint nowhere\.pt"):
        transformer.load("nowhere.pt")
    with pytest.raises(CheckpointError, match="the path is empty: leave it out for the latest checkpoint"):
        transformer.load("")
    with pytest.raises(CheckpointError, match="no checkpoint found"):
        transformer.load(tmp_path)


def test_a_setting_error_of_generate_is_a_config_error(model: transformer.Pretrained) -> None:
    with pytest.raises(ConfigError):
        model.generate("ab", top_p=3.0)
