"""White space of any length is encoded, with the ids of tiktoken's own rule wherever tiktoken itself works."""

from __future__ import annotations

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.text import encodings, load_shakespeare, load_tokenizer, long_runs, train_bpe
from transformer.text.encodings import TiktokenTokenizer

BPE = train_bpe(load_shakespeare()[:3], 400)
NAMES = ("cl100k_base", "p50k_base", "bpe400")
BLANKS = st.text(st.sampled_from(" \n\r\t\x0b\x85\xa0\u2003\u2028\u3000"), min_size=1, max_size=12)
WORDS = st.text(st.sampled_from("aé1.,'-\u0301\x1c\x1f低😀\ud800"), max_size=4)
TEXTS = st.lists(st.tuples(WORDS, BLANKS, WORDS), max_size=5).map(lambda parts: "".join(map("".join, parts)))


def tokenizer_called(name: str) -> TiktokenTokenizer:
    tokenizer = BPE if name == "bpe400" else load_tokenizer(name)
    assert isinstance(tokenizer, TiktokenTokenizer)
    return tokenizer


def tiktokens_ids(tokenizer: TiktokenTokenizer, text: str) -> list[int]:
    encoding: tiktoken.Encoding = tokenizer.encoding
    return encoding.encode_ordinary(text)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150)
@given(text=TEXTS)
def test_text_cut_at_its_white_space_has_tiktokens_ids(name: str, text: str) -> None:
    tokenizer = tokenizer_called(name)
    with pytest.MonkeyPatch.context() as patch:  # two blanks are long here
        patch.setattr(encodings, "LONGEST", 2)
        patch.setattr(long_runs, "LONGEST", 2)
        assert tokenizer.encode(text) == tiktokens_ids(tokenizer, text)


SHAPES = {
    "a word": "start{}end",
    "a stop": "start.{}.end",
    "the end of the text": "start{}",
    "the start of the text": "{}end",
}
RUNS = {"spaces": " ", "line breaks": "\n", "both": " \n", "carriage returns": "\r\n", "tabs": "\t"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", RUNS)
def test_a_run_that_tiktoken_still_encodes_has_tiktokens_ids(
    name: str, shape: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (encodings, long_runs):
        monkeypatch.setattr(module, "LONGEST", 1000)
    text = SHAPES[shape].format(RUNS[kind] * (long_runs.LONGEST // len(RUNS[kind]) + 1))
    tokenizer = tokenizer_called(name)
    assert tokenizer.encode(text) == tiktokens_ids(tokenizer, text)


@pytest.mark.parametrize("name", ["cl100k_base", "bpe400"])
def test_a_document_with_a_million_blanks_is_encoded(name: str) -> None:
    """tiktoken ended with a regular expression's "Max stack size" and did not name the document."""
    tokenizer = tokenizer_called(name)
    text = "start" + " " * 1_000_100 + "end"
    (tokens,) = tokenizer.encode_batch([text])
    assert tokenizer.decode(tokens) == text


def test_a_text_that_an_encoding_without_a_rule_cannot_encode_is_named() -> None:
    tokenizer = TiktokenTokenizer(BPE.encoding, {})  # type: ignore[attr-defined]
    with pytest.raises(
        ValueError, match=r"^bpe400 cannot encode a text of 1,200,008 characters that starts with 'start"
    ):
        tokenizer.encode("start" + " " * 1_200_000 + "end")
