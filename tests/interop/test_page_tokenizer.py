"""A tokenizer that the lesson page cannot run exactly is refused with the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tiny_tokenizers import tokenizer_files
from transformer.interop.lesson_page import export_tokenizer
from transformer.interop.page_tokenizer import SAME_IN_JAVASCRIPT, byte_level_parts
from transformer.interop.tokenizer_json import tokenizer_files as our_files
from transformer.text import HuggingFaceTokenizer, load_tokenizer


def regex(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("normalizer", {"type": "Lowercase"}, "it changes the text by other rules than NFC"),
        ("pre_tokenizer", {"type": "Whitespace"}, "it cuts a text in another way than by regular expressions"),
        ("pre_tokenizer", {**regex("a"), "behavior": "Removed"}, "it cuts a text in another way"),
        ("pre_tokenizer", regex(r"\s+\z"), "JavaScript has no equal of its regular expression"),
        ("pre_tokenizer", regex(r"\s+$"), "JavaScript has no equal of its regular expression"),
        ("pre_tokenizer", regex(r"\p{N}{1,3}+"), "JavaScript has no equal of its regular expression"),
        ("pre_tokenizer", regex("."), "JavaScript has no equal of its regular expression"),
    ],
)
def test_what_the_page_would_do_otherwise_is_refused(part: str, value: dict[str, Any], reason: str) -> None:
    contents, settings = tokenizer_files("gpt2")
    tokenizer = HuggingFaceTokenizer(json.dumps({**json.loads(contents), part: value}), settings)
    with pytest.raises(ValueError, match=f"the lesson page cannot run this model's tokenizer: {reason}"):
        export_tokenizer(tokenizer)


@pytest.mark.parametrize(
    ("kind", "reason"), [("llama3", "the model expects a token before each text"), ("mistral", "expects a token")]
)
def test_models_with_a_first_token_are_refused(kind: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        export_tokenizer(HuggingFaceTokenizer(*tokenizer_files(kind)))


def test_byte_fallback_is_refused() -> None:
    contents, settings = tokenizer_files("llama2")
    with pytest.raises(ValueError, match="it is not byte-level"):
        export_tokenizer(HuggingFaceTokenizer(contents, {**settings, "add_bos_token": False}))


def test_merges_in_another_order_than_the_ids_are_refused() -> None:
    contents, settings = tokenizer_files("gpt2")
    found = json.loads(contents)
    found["model"]["merges"].reverse()
    with pytest.raises(ValueError, match="its ids are not in the order of its merges"):
        export_tokenizer(HuggingFaceTokenizer(json.dumps(found), settings))


@pytest.mark.parametrize("kind", ["llama3", "qwen", "smollm"])
def test_every_regular_expression_of_a_known_model_has_an_equal_one(kind: str) -> None:
    contents, settings = tokenizer_files(kind)
    parts = byte_level_parts(HuggingFaceTokenizer(contents, {**settings, "add_bos_token": False}))
    assert all(map(SAME_IN_JAVASCRIPT.fullmatch, parts["patterns"]))


@pytest.mark.slow
def test_our_own_encoding_that_came_back_is_exported_as_before_it_left() -> None:
    ours = load_tokenizer("cl100k_base")
    files = our_files(ours, 64)
    again = HuggingFaceTokenizer(
        json.dumps(files["tokenizer.json"]), files["tokenizer_config.json"], vocab_size=ours.vocab_size
    )
    before, after = export_tokenizer(ours), export_tokenizer(again)
    assert after["patterns"] == [before["pattern"]]
    assert (after["tokens"], after["special"]) == (before["tokens"], before["special"])
