"""A checkpoint with the tokenizer.json of another model works in every command that reads or continues it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tiny_tokenizers import tokenizer_files
from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.config import DataConfig, TrainConfig
from transformer.data.eval_documents import encode_documents
from transformer.evaluation.document_perplexity import score_documents
from transformer.text import HuggingFaceTokenizer, load_shakespeare, read_documents
from transformer.training import checkpoint

pytestmark = pytest.mark.usefixtures("plain_pictures")

Command = Callable[..., Any]
TOKENIZER = HuggingFaceTokenizer(*tokenizer_files("llama3"), vocab_size=512, stop_ids=[381])
RUN = ("--dataset", "notes.txt", "--batch-size", "2", "--seq-length", "16", "--checkpoint-dir", "new", "--max-steps")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """checkpoints/model_epoch_0_hf512.pt in tmp_path, beside notes.txt: fresh weights and the encoding of a Llama."""
    torch.manual_seed(0)
    shape = ModelConfig(vocab_size=512, d_model=16, num_heads=2, num_layers=2, d_ff=32, max_seq_len=24, dropout=0.0)
    config = TrainConfig(shape, DataConfig("notes.txt", TOKENIZER.name, seq_length=24))
    contents = checkpoint.model_contents(DecoderOnlyTransformer(shape), config, TOKENIZER)
    path = checkpoint.epoch_path(tmp_path / "checkpoints", 0, TOKENIZER.short_name)
    checkpoint.save(path, {**contents, "step": 0, "epoch": 0, "tokens": 0})
    (tmp_path / "notes.txt").write_text(load_shakespeare()[0][:6000], encoding="utf-8")
    return path


def test_inspect_says_that_the_file_carries_the_encoding(command: Command, foreign: Path) -> None:
    found = json.loads(command("inspect", "--json", str(foreign)).out)
    assert found["valid"]
    carried = "whole, as it came with the model"
    expected = {"name": "hf512", "vocab_size": 512, "end_of_text": TOKENIZER.eot_id, "carried": carried}
    assert found["encoding"] == expected


def test_documents_are_scored_after_the_token_that_the_model_expects_first(command: Command, foreign: Path) -> None:
    found = json.loads(command("evaluate", "--json", "--checkpoint", str(foreign), "--text-file", "notes.txt").out)
    loaded = checkpoint.load_model(foreign)
    documents = encode_documents(read_documents(Path("notes.txt")), loaded.tokenizer, "notes")
    assert TOKENIZER.bos_id is not None
    scores = score_documents(loaded.model, documents.tokens, documents.text_bytes, TOKENIZER.bos_id)
    assert found["nats"] == pytest.approx(scores.evaluation.nats, rel=1e-5)
    assert found["bytes"] == Path("notes.txt").stat().st_size  # no token of the encoding changes the text


@pytest.mark.slow
def test_a_run_starts_from_it_and_resumes_and_its_text_is_continued(command: Command, foreign: Path) -> None:
    outcome = command("train", "--init-from", str(foreign), *RUN, "4")
    assert outcome.status == 0, outcome.err
    shutil.rmtree(foreign.parent)  # all that the run needs is in its own folder
    outcome = command("train", "--resume", *RUN, "6")
    assert outcome.status == 0, outcome.err
    for line in (("generate", "--prompt", "Speak", "--max-new-tokens", "4", "--checkpoint"), ("inspect",)):
        outcome = command(*line, "new/model_epoch_1_hf512.pt")
        assert outcome.status == 0, outcome.err
    kept = checkpoint.load_model(Path("new/model_epoch_1_hf512.pt")).tokenizer
    assert kept.state() == TOKENIZER.state()
    outcome = command("compare", "new/model_epoch_1_hf512.pt", "--text-file", "notes.txt")
    assert outcome.status == 0, outcome.err


def test_a_tokenizer_that_does_not_fit_the_weights_is_refused_on_one_line(command: Command, foreign: Path) -> None:
    contents = checkpoint.load(foreign)
    contents["tokenizer"]["vocab_size"] = 600
    checkpoint.save(foreign, contents)
    outcome = command("generate", "--prompt", "x", "--checkpoint", str(foreign))
    assert outcome.status == 2
    assert "the encoding has 600 ids, the model 512" in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("kind", ["llama3", "mistral", "qwen"])
def test_a_model_of_transformers_continues_a_prompt_with_the_text_that_transformers_gives(
    command: Command, tmp_path: Path, kind: str
) -> None:
    """The prompt has the token that the model expects first, if there is one, and special tokens in it are text."""
    contents, settings = tokenizer_files(kind)
    named = {name: settings[name] for name in ("eos_token", "bos_token") if isinstance(settings.get(name), str)}
    theirs = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(contents), **named)
    shape = LlamaConfig(
        vocab_size=512, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, eos_token_id=theirs.eos_token_id, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(shape).eval()
    model.save_pretrained(tmp_path / "model")
    theirs.save_pretrained(tmp_path / "model")
    prompt = "Speak, <|endoftext|></s> we'll"
    ids = theirs(prompt, split_special_tokens=True, return_tensors="pt").input_ids
    written = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()
    line = ("generate", "--checkpoint", "model", "--preset", "greedy", "--max-new-tokens", "8", "--json")
    outcome = command(*line, "--prompt", prompt)
    assert outcome.status == 0, outcome.err
    (found,) = json.loads(outcome.out)["texts"]
    kept = HuggingFaceTokenizer(contents, settings, vocab_size=512)
    new = [token for token in written if token != kept.eot_id]
    assert found["prompt_tokens"] == ids.shape[1]
    assert found["text"] == kept.decode_bytes(new).decode(errors="replace")
