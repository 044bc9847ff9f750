"""Our encodings, written as tokenizer.json, give equal ids in `transformers`, in `tokenizers` and here."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tiny_tokenizers import KINDS, TEXT
from tiny_tokenizers import tokenizer_files as foreign_files
from transformer.interop.tokenizer_json import merges, tokenizer_files
from transformer.text import HuggingFaceTokenizer, Tokenizer, load_shakespeare, load_tokenizer, train_bpe
from transformer.text.encodings import TiktokenTokenizer

PLAY = load_shakespeare()[0]
NAMES = ("byte", "bpe700", "p50k_base", "cl100k_base")
ASSIGNED = st.characters(exclude_categories=["Cs", "Cn"])  # engines may know different versions of Unicode
HARD = [
    "<|endoftext|>", "<|fim_prefix|>", "<|", "'S", "'ſ", "'Ll", "'ve", "I'Re", "'\u212a", "\u00a0", "\u3000", "\x85",
    "\x1c", "\ufeff", "\u180e", "\u200b", "1", "12", "1234", "²", "½", "٣", " ", "  ", "\n", "\r\n", "\t", "\n\n  ",
    ".", "...\n", "😀", "e\u0301", "한", "İ", "word", " word", "don't", "o'er'ing", "#" * 40, " " * 90, "_", "`",
]  # fmt: skip
ANY_TEXT = st.text(ASSIGNED, max_size=40) | st.lists(st.sampled_from(HARD + TEXT), max_size=15).map("".join)


@cache
def ours(name: str) -> Tokenizer:
    return train_bpe([PLAY], 700) if name == "bpe700" else load_tokenizer(name)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizerFast]:
    """Each encoding as `transformers` loads it from its two files."""
    return {name: loaded(ours(name), tmp_path_factory.mktemp(name)) for name in NAMES}


def loaded(tokenizer: Tokenizer, folder: Path) -> PreTrainedTokenizerFast:
    for name, content in tokenizer_files(tokenizer, 64).items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", NAMES)
def test_ids_of_any_text_are_equal(name: str, theirs: dict[str, PreTrainedTokenizerFast]) -> None:
    other = theirs[name]

    @settings(max_examples=250, deadline=None)
    @given(text=ANY_TEXT)
    def check(text: str) -> None:
        ids = ours(name).encode(text)
        assert other(text, split_special_tokens=True).input_ids == ids
        assert other.decode(ids) == text

    check()


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_play_has_equal_ids(name: str, theirs: dict[str, PreTrainedTokenizerFast]) -> None:
    assert theirs[name](PLAY).input_ids == ours(name).encode(PLAY)


@pytest.mark.parametrize("name", NAMES)
def test_end_of_text_has_its_id_and_the_context_its_length(
    name: str, theirs: dict[str, PreTrainedTokenizerFast]
) -> None:
    other = theirs[name]
    assert (other.eos_token_id, other.bos_token_id, other.model_max_length) == (
        ours(name).eot_id,
        ours(name).eot_id,
        64,
    )
    assert other("<|endoftext|>").input_ids == [ours(name).eot_id]
    assert other.decode([ours(name).eot_id], skip_special_tokens=True) == ""
    if name == "cl100k_base":
        assert other.convert_tokens_to_ids("<|endofprompt|>") == 100_276


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_files_come_back_as_an_equal_encoding(name: str) -> None:
    files = tokenizer_files(ours(name), 64)
    again = HuggingFaceTokenizer(
        json.dumps(files["tokenizer.json"]), files["tokenizer_config.json"], vocab_size=ours(name).vocab_size
    )
    assert (again.eot_id, again.bos_id, again.vocab_size) == (ours(name).eot_id, None, ours(name).vocab_size)
    for text in [*HARD, *TEXT, PLAY[:5000]]:
        assert again.encode(text) == ours(name).encode(text)
    every = range(ours(name).vocab_size)
    assert [again.decode_bytes([i]) for i in every] == [
        b"\xef\xbf\xbd" if (spelt := ours(name).decode_bytes([i])) == "\ufffd".encode() else spelt for i in every
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_of_an_imported_model_leaves_as_it_came(kind: str, tmp_path: Path) -> None:
    contents, given_settings = foreign_files(kind)
    tokenizer = HuggingFaceTokenizer(contents, given_settings)
    files = tokenizer_files(tokenizer, 64)
    assert files["tokenizer.json"] == json.loads(contents)
    other = loaded(tokenizer, tmp_path)
    assert other.eos_token_id == tokenizer.eot_id
    for text in [*HARD, *TEXT]:
        assert other(text, add_special_tokens=False, split_special_tokens=True).input_ids == tokenizer.encode(text)


@pytest.mark.slow
def test_a_merge_is_derived_for_every_token_of_the_bundled_encodings() -> None:
    for name in ("p50k_base", "cl100k_base"):
        tokenizer = ours(name)
        assert isinstance(tokenizer, TiktokenTokenizer)
        ranks = tokenizer.encoding._mergeable_ranks
        made = [left + right for left, right in merges(ranks)]
        assert made == [token for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1]


def test_an_encoding_that_the_files_cannot_express_is_refused_on_one_line() -> None:
    ranks = {bytes([value]): value for value in range(256)}
    encoding = tiktoken.Encoding(
        "other", pat_str=r"\w+|\W+", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 256}
    )
    with pytest.raises(ValueError, match=r"encoding other cannot be written as a tokenizer\.json: no equal of its"):
        tokenizer_files(TiktokenTokenizer(encoding, {}), 64)

    class Words:
        name = "words"

    with pytest.raises(ValueError, match=r"encoding words cannot be written as a tokenizer\.json: it is no BPE"):
        tokenizer_files(Words(), 64)  # type: ignore[arg-type]
