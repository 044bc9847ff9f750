"""`main.py evaluate`: which text is measured, what is said of it, JSON, and slips."""

from __future__ import annotations

import io
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stand_in_hub import FINEWEB, StandInHub, fineweb_files, taken_for_the_hub
from transformer.config import DataConfig
from transformer.data.eval_documents import encode_documents, held_out_documents
from transformer.evaluation.document_perplexity import score_documents
from transformer.perplexity import Evaluation, calculate_perplexity_from_loss, unigram_nats
from transformer.text import is_validation
from transformer.training import checkpoint

Command = Callable[..., Any]
FEW = ("--max-tokens", "1500")


def measured(command: Command, *arguments: str) -> dict[str, Any]:
    outcome = command("evaluate", "--json", *arguments)
    assert outcome.status == 0, outcome.err
    assert len(outcome.out.splitlines()) == 1
    found = json.loads(outcome.out, parse_constant=pytest.fail)
    assert isinstance(found, dict)
    return found


def slip(command: Command, *arguments: str) -> str:
    outcome = command("evaluate", *arguments)
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 1, outcome.err
    return str(outcome.err.removeprefix("error: "))


def test_the_numbers_are_the_librarys_and_not_rounded(command: Command, tiny_checkpoint: Path) -> None:
    found = measured(command, *FEW)
    loaded = checkpoint.load_model(tiny_checkpoint)
    documents = held_out_documents(loaded.config.data, loaded.tokenizer, 1500)
    scores = score_documents(loaded.model, documents.tokens, documents.text_bytes, 256)
    assert found["nats"] == pytest.approx(scores.evaluation.nats, rel=1e-6)
    assert found["loss"] == found["nats"] / 1500
    assert found["perplexity"] == calculate_perplexity_from_loss(found["loss"])
    assert found["bits_per_byte"] == found["nats"] / math.log(2) / found["bytes"]
    assert found["standard_error"]["loss"] == pytest.approx(scores.loss_error, rel=1e-5)
    assert (found["tokens"], found["documents"], found["bytes"]) == (1500, len(scores), sum(documents.text_bytes))
    assert (found["context"], found["stride"]) == (24, 12)
    assert found["text"] == "held-out text of shakespeare"
    assert found["encoding"] == "byte"
    assert found["checkpoint"].endswith("model_epoch_3_byte.pt")
    assert found["seconds"] > 0


def test_the_baselines_are_uniform_and_the_frequencies_of_the_training_text(
    command: Command, tiny_checkpoint: Path
) -> None:
    found = measured(command, *FEW)
    loaded = checkpoint.load_model(tiny_checkpoint)
    documents = held_out_documents(loaded.config.data, loaded.tokenizer, 1500)
    assert documents.known is not None
    unigram = unigram_nats(torch.from_numpy(documents.counts), torch.from_numpy(documents.known))
    assert found["uniform"]["perplexity"] == pytest.approx(257)
    assert found["unigram"]["loss"] == pytest.approx(unigram)
    assert found["unigram"]["counted_in"] == "training text"
    assert 2 < unigram < 4


def test_int8_measures_the_rounded_weights(command: Command, tiny_checkpoint: Path) -> None:
    plain, rounded = measured(command, *FEW), measured(command, *FEW, "--int8")
    assert rounded["loss"] != plain["loss"]
    assert rounded["loss"] == pytest.approx(plain["loss"], rel=0.01)
    assert measured(command, *FEW, "--weights", "float16")["loss"] == pytest.approx(plain["loss"], rel=1e-3)


def test_plain_kernels_measure_the_same(command: Command, tiny_checkpoint: Path) -> None:
    """--kernels plain leaves the model as its source shows it, for every command that opens a checkpoint."""
    fast, plain = measured(command, *FEW), measured(command, *FEW, "--kernels", "plain")
    assert plain["loss"] == pytest.approx(fast["loss"], rel=1e-5)
    assert "--kernels" in slip(command, *FEW, "--kernels", "fast")
    texts = [
        command("generate", "--prompt", "The", "--seed", "1", "--max-new-tokens", "5", "--kernels", kernels).out
        for kernels in ("auto", "plain")
    ]
    assert texts[0] == texts[1]
    for line in (("benchmark", "--lengths", "4", "--repeats", "1"), ("compare", *FEW)):
        assert command(*line, "--kernels", "plain").status == 0


def test_the_table_shows_the_same_numbers(command: Command, tiny_checkpoint: Path) -> None:
    found, outcome = measured(command, *FEW), command("evaluate", *FEW)
    for name in ("loss", "bits_per_byte"):
        assert f" {found[name]:.4f} │ {found['standard_error'][name]:.4f} │" in outcome.out
    assert f"{found['perplexity']:.2f}" in outcome.out
    assert found["verdict"] in outcome.out
    assert "1,500 tokens in " in outcome.out
    assert "1,500 tokens of held-out text of shakespeare\n" in outcome.out
    assert "windows of 24 with a stride of 12" in outcome.out
    assert "\x1b" not in outcome.out


def test_the_amount_of_text_and_the_time_left_are_shown_while_it_is_evaluated(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformer.cli.progress.LINE_SECONDS", 0.0)
    (tmp_path / "notes.txt").write_text("A few words. " * 40, encoding="utf-8")
    outcome = command("evaluate", "--text-file", "notes.txt", "--batch-size", "40")
    lines = outcome.out.splitlines()
    [at] = [at for at, line in enumerate(lines) if line == "521 tokens of notes.txt; --max-tokens evaluates fewer"]
    assert re.fullmatch(r"evaluating: \d+% done, about .+ left", lines[at + 1])
    assert lines[at + 2] == "evaluating: 100% done"


@pytest.mark.parametrize("stride", ["1", "24"])
def test_the_stride_and_the_batch_size_are_flags(command: Command, tiny_checkpoint: Path, stride: str) -> None:
    few = ("--max-tokens", "300", "--stride", stride)
    found, batched = measured(command, *few), measured(command, *few, "--batch-size", "3")
    assert found["stride"] == int(stride)
    assert found["loss"] == pytest.approx(batched["loss"], rel=1e-6)
    assert found["loss"] != measured(command, "--max-tokens", "300")["loss"]


def test_a_text_of_ones_own_is_measured_whole(command: Command, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"body": "One."}\n{"body": "né"}\n', encoding="utf-8")
    found = measured(command, "--text-file", "rows.jsonl", "--text-column", "body")
    assert (found["documents"], found["tokens"], found["bytes"]) == (2, 9, 7)
    assert found["text"] == "rows.jsonl"
    assert found["unigram"]["counted_in"] == "training text"


def test_standard_input_is_a_text_too(command: Command, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("To bé".encode())))
    found = measured(command, "--text-file", "-")
    assert (found["text"], found["tokens"], found["bytes"]) == ("standard input", 7, 6)
    assert found["standard_error"] == {"loss": None, "perplexity": None, "bits_per_byte": None}


def test_another_dataset_is_measured_on_its_held_out_text(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    texts = [f"Page {n}" for n in range(100)]
    (tmp_path / "pages.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    found = measured(command, "--dataset", "pages.jsonl")
    assert found["documents"] == sum(map(is_validation, texts))
    assert found["trained_on"] == "shakespeare"


def test_fineweb_is_measured_without_its_training_text(
    command: Command, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"Page {n} of the web, in words" for n in range(300)]
    with StandInHub() as server, taken_for_the_hub(server, monkeypatch):
        server.add(FINEWEB, fineweb_files(texts, 2, 10))
        found = measured(command, "--dataset", "fineweb", "--max-tokens", "200")
    held_out = [text for text in texts if is_validation(text)]
    expected = encode_documents(held_out, checkpoint.load_model(tiny_checkpoint).tokenizer, "", 200)
    assert (found["tokens"], found["documents"]) == (200, len(expected.tokens))
    assert found["bytes"] == sum(expected.text_bytes)
    assert found["unigram"]["counted_in"] == "the text itself"
    assert (tmp_path / "data" / "fineweb_cache").is_dir()


def test_a_vanished_training_text_leaves_the_texts_own_frequencies(
    command: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    contents = checkpoint.load(tiny_checkpoint)
    contents["config"]["data"] = DataConfig("gone.txt", "byte", seq_length=24).to_dict()
    checkpoint.save(tiny_checkpoint, contents)
    (tmp_path / "a.txt").write_text("To be", encoding="utf-8")
    assert measured(command, "--text-file", "a.txt")["unigram"]["counted_in"] == "the text itself"
    assert "gone.txt does not exist" in slip(command)


@pytest.mark.parametrize(
    ("loss", "counted", "said"),
    [
        (math.log(50), True, "among 50.0 equally likely tokens. The uniform baseline chooses among 1,000, the unigram "
         "baseline (token frequencies of the training text) among 200.0: the context reduces the choices by a factor "
         "of 4.0."),
        (math.log(50), False, "(token frequencies of the evaluated text) among 200.0: the context"),
        (math.log(300), True, "the model is no better than these frequencies"),
        (math.log(300), False, "the model does not beat this baseline; on a short text that means little"),
        (math.log(1001), True, "no better than the uniform baseline"),
        (math.nan, True, "not a finite number"),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_the_numbers(command: Command, loss: float, counted: bool, said: str) -> None:
    from transformer.cli.evaluate.measure import verdict

    model, unigram, uniform = (Evaluation(x * 10, 10, 40) for x in (loss, math.log(200), math.log(1000)))
    assert said in verdict(model, unigram, uniform, counted)


def test_documents_are_encoded_once_for_each_encoding(command: Command, tiny_checkpoint: Path) -> None:
    from transformer.cli.evaluate.measure import Texts
    from transformer.cli.evaluate.options import MeasureOptions

    texts = Texts(MeasureOptions(max_tokens=500))
    models = [checkpoint.load_model(tiny_checkpoint) for _ in range(2)]
    first, second = (texts.of(loaded.config.data, loaded.tokenizer) for loaded in models)
    assert first is second


SLIPS = {
    "stride 0": (("--stride", "0"), "stride=0 must be from 1 to the context of 24"),
    "a stride above the context": (("--stride", "25"), "stride=25 must be from 1 to the context of 24"),
    "a context that the model has not": (("--context", "25"), "context=25 must be from 1 to 24"),
    "a negative batch": (("--batch-size", "-1"), "batch_size=-1 must be at least 1"),
    "no tokens": (("--max-tokens", "0"), "max_tokens=0 must be at least 1"),
    "a text that is missing": (("--text-file", "nowhere.txt"), "nowhere.txt does not exist"),
    "a text that is empty": (("--text-file", "empty.txt"), "empty.txt holds no text"),
    "a text that is binary": (("--text-file", "junk.txt"), "junk.txt is not UTF-8 text"),
    "two texts": (("--text-file", "empty.txt", "--dataset", "fineweb"), "give one of them"),
    "a dataset that is missing": (("--dataset", "nowhere"), "nowhere does not exist"),
    "a checkpoint that is missing": (("--checkpoint", "gone.pt"), "there is no checkpoint gone.pt"),
    "a text as checkpoint": (("--checkpoint", "junk.txt"), "junk.txt is damaged or not a checkpoint"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_is_one_line(command: Command, tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "junk.txt").write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    arguments, said = SLIPS[name]
    assert said in slip(command, *arguments)


def test_empty_standard_input_is_one_line(
    command: Command, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert "standard input has no text on which to evaluate" in slip(command, "--text-file", "-")
