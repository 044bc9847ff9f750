"""A report has the library's numbers, rounded: each part is compared with the tool that computes it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from transformer import DecoderOnlyTransformer
from transformer.interpret.attribution import attribute
from transformer.interpret.lens import logit_lens
from transformer.interpret.patching import logit_difference, patch_heads, patch_positions
from transformer.interpret.question import Question, check, complete, read_question
from transformer.interpret.report import patching_passes, prompt_report
from transformer.interpret.report_values import packed_bytes
from transformer.text import load_tokenizer
from variants import variants

Models = Callable[..., DecoderOnlyTransformer]
BYTES = load_tokenizer("byte")
PROMPT, VERSUS = list(b"Mary, Jo\xc3"), list(b"Mary, Al\xc3")
QUESTION = Question(PROMPT, target=7, rather_than=200, versus=VERSUS, head=(1, 2))
CLOSE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(scope="module")
def model(tiny_model: Models) -> DecoderOnlyTransformer:
    return tiny_model(vocab_size=257)


@pytest.fixture(scope="module")
def report(model: DecoderOnlyTransformer) -> dict[str, Any]:
    return prompt_report(model, BYTES, QUESTION)


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.tensor([PROMPT])


def ids(found: list[dict[str, Any]]) -> list[int]:
    return [each["piece"]["id"] for each in found]


def test_attention_weights_are_packed_up_to_the_diagonal(
    report: dict[str, Any], model: DecoderOnlyTransformer, tokens: Tensor
) -> None:
    _, found = model.run_with_cache(tokens, ["blocks.*.attention.weights"])
    expected = torch.cat(list(found.values())).flatten(0, 1)  # (L H, T, T)
    rows, columns = torch.tril_indices(9, 9)
    whole = np.frombuffer(base64.b64decode(report["attention"]), dtype="<u2").astype(np.float64)
    torch.testing.assert_close(torch.from_numpy(whole / 65_535).view(8, -1), expected[:, rows, columns], **CLOSE)
    assert len(report["attention"]) == packed_bytes(model.config, 9)


def test_the_lens_is_that_of_the_library_and_ends_with_the_prediction(
    report: dict[str, Any], model: DecoderOnlyTransformer, tokens: Tensor
) -> None:
    lens = report["lens"]
    assert lens["stages"] == ["embeddings", "block 0", "block 1"]
    for reading, cells in zip(logit_lens(model, tokens), lens["cells"], strict=True):
        assert [ids(cell) for cell in cells] == reading.ids[0].tolist()
        shown = torch.tensor([[each["probability"] for each in cell] for cell in cells])
        torch.testing.assert_close(shown.double(), reading.probabilities[0].double(), **CLOSE)
    assert ids(report["next"]) == ids(lens["cells"][-1][-1])
    with torch.no_grad():
        last = model(tokens)[0, -1].softmax(-1)
    assert lens["target"][-1]["probability"] == pytest.approx(float(last[7]), abs=1e-5)
    assert lens["target"][-1]["rank"] == sorted(last.tolist(), reverse=True).index(float(last[7])) + 1


def test_shares_are_those_of_the_library_and_sum_to_the_difference(
    report: dict[str, Any], model: DecoderOnlyTransformer, tokens: Tensor
) -> None:
    found, shares = report["attribution"], attribute(model, tokens, 7, 200)
    torch.testing.assert_close(torch.tensor(found["heads"]).double(), shares.heads[0], **CLOSE)
    assert [(part["name"], part["value"]) for part in found["parts"]] == [
        (name, pytest.approx(value, abs=1e-5)) for name, value in shares.ranked()
    ]
    assert found["total"] == pytest.approx(sum(part["value"] for part in found["parts"]), abs=1e-4)
    named = {part["name"]: (part["layer"], part["head"]) for part in found["parts"] if "head" in part}
    assert named["head 1.3"] == (1, 3)
    assert len(named) == 8


def test_the_tokens_that_a_head_favours_differ_by_its_share_in_the_difference(
    report: dict[str, Any], model: DecoderOnlyTransformer, tokens: Tensor
) -> None:
    for layer, head in ((0, 1), (1, 3)):
        found = report["results"][layer][head]
        best, worst = found["up"][0], found["down"][0]
        share = attribute(model, tokens, best["piece"]["id"], worst["piece"]["id"]).heads[0, layer, head]
        assert best["value"] - worst["value"] == pytest.approx(float(share), abs=3e-5)
        others = attribute(model, tokens, best["piece"]["id"], found["up"][1]["piece"]["id"]).heads[0, layer, head]
        assert float(others) >= 0
    assert report["head"]["rows"][-1] == report["results"][1][2]
    assert (report["head"]["layer"], report["head"]["head"]) == tuple(report["chosen"]) == (1, 2)


def test_patching_is_that_of_the_library_at_every_place(
    report: dict[str, Any], model: DecoderOnlyTransformer, tokens: Tensor
) -> None:
    found, corrupt, answer = report["patching"], torch.tensor([VERSUS]), logit_difference(7, 200)
    stream, attention, network = found["places"]
    assert stream["rows"] == ["before block 0", "before block 1", "after block 1"]
    for place, what in ((stream, "residual"), (attention, "attention.output"), (network, "feedforward.output")):
        expected = patch_positions(model, tokens, corrupt, answer, what)  # type: ignore[arg-type]
        torch.testing.assert_close(torch.tensor(place["values"]).double(), expected, **CLOSE)
    torch.testing.assert_close(
        torch.tensor(found["heads"]).double(), patch_heads(model, tokens, corrupt, answer), **CLOSE
    )
    assert found["clean"] == report["attribution"]["total"]
    with torch.no_grad():
        assert found["corrupt"] == pytest.approx(float(answer(model(corrupt)[:, -1])), abs=1e-5)


def test_progress_is_reported_for_every_layer_that_is_patched(model: DecoderOnlyTransformer) -> None:
    told: list[tuple[str, int, int]] = []
    prompt_report(model, BYTES, QUESTION, lambda *part: told.append(part))
    total = patching_passes(model)
    assert told == [("patching", done, total) for done in range(1, total + 1)]


@given(settings_=variants())
@settings(max_examples=6)
@torch.no_grad()
def test_any_model_has_a_report(tiny_model: Models, settings_: dict[str, Any]) -> None:
    model = tiny_model(vocab_size=257, **settings_).train()
    report = prompt_report(model, BYTES, replace(QUESTION, prompt=PROMPT[:3], versus=None))
    assert report["versus"] is report["patching"] is None
    logits = model.eval()(torch.tensor([PROMPT[:3]]))[0, -1]
    assert report["attribution"]["total"] == pytest.approx(float(logits[7] - logits[200]), abs=1e-5)


def test_a_token_that_is_no_whole_character_has_its_bytes(report: dict[str, Any]) -> None:
    assert report["prompt"][0] == {"id": 77, "text": "M"}
    assert report["prompt"][-1] == {"id": 0xC3, "text": "\ufffd", "bytes": [0xC3]}


# Questions


def test_a_question_without_tokens_asks_about_the_most_likely_ones(model: DecoderOnlyTransformer) -> None:
    with torch.no_grad():
        first, second = (int(model(torch.tensor([ids]))[0, -1].argmax()) for ids in (PROMPT, VERSUS))
    assert first != second
    assert complete(Question(PROMPT), model) == Question(PROMPT, first)
    assert complete(Question(PROMPT, versus=VERSUS), model) == Question(PROMPT, first, second, VERSUS)


def test_one_prediction_after_both_prompts_is_no_question(model: DecoderOnlyTransformer) -> None:
    with pytest.raises(ValueError, match="predicts the same token after both prompts"):
        complete(Question(PROMPT, versus=PROMPT), model)
    with pytest.raises(ValueError, match="--target and --rather-than are the same token"):
        complete(Question(PROMPT, target=5, rather_than=5), model)


def test_unequal_prompts_show_how_both_were_cut() -> None:
    with pytest.raises(
        ValueError, match=r"have 2 and 3 tokens, and patching needs equal numbers: \|h\|i\| and \|h\|e\|y\|"
    ):
        read_question(BYTES, "hi", versus="hey")


def test_a_target_is_a_single_token() -> None:
    assert read_question(BYTES, "hi", target="a", rather_than="b") == Question([104, 105], 97, 98)
    with pytest.raises(ValueError, match=r"'no' is 2 tokens for this model, \|n\|o\|: give a single token"):
        read_question(BYTES, "hi", target="no")


@pytest.mark.parametrize(("head", "said"), [((2, 0), "no layer 2"), ((1, 4), "no head 4, the last one is 3")])
def test_a_head_that_does_not_exist_is_named(model: DecoderOnlyTransformer, head: tuple[int, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(Question(PROMPT, head=head), model)
