"""Vocabularies in GGUF files: written and read back with equal ids, and cut as llama.cpp cuts."""

import contextlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_cpp import LlamaCpp
from tiny_tokenizers import TEXT, tokenizer_files
from transformer.config import ModelConfig
from transformer.interop.errors import SourceError
from transformer.interop.gguf_files import GgufFile
from transformer.interop.gguf_header import read_header
from transformer.interop.gguf_tokenizer import PIECES, read_tokenizer
from transformer.interop.gguf_vocabulary import NEAREST, Vocabulary, vocabulary
from transformer.interop.gguf_write import write_gguf
from transformer.model import DecoderOnlyTransformer
from transformer.text import HuggingFaceTokenizer, Tokenizer, load_tokenizer, train_bpe

gguf = pytest.importorskip("gguf", reason="the package gguf reads and writes the files")

KINDS = ("gpt2", "llama3", "qwen", "smollm", "llama2")
PADDED = 700
"""Ids of the model; the vocabularies have fewer."""
HARD = [
    *TEXT, "", " ", "  ", "\n", " \n\n  x", "a  b   c\t\td", "it's IT'S we'll 'tis o'er", "1 12 123 1234 12.5", "x²½Ⅷ",
    "<|endoftext|>", "<|im_start|>user\n", "</s><s>", "<tool_call>", "👩‍👩‍👧 नमस्ते", "e\u0301 é",
    "\u00a0\u3000", "(){}[];:,.!?",
]  # fmt: skip


def given_tokenizer(kind: str) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(*tokenizer_files(kind), vocab_size=PADDED)


def shape(vocab_size: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size, d_model=32, num_heads=2, num_layers=1, d_ff=32, max_seq_len=64, dropout=0.0,
        activation="gelu_tanh",
    )  # fmt: skip


@cache
def written(kind: str, folder: Path) -> Path:
    """A file with the encoding of a kind, or one of this project's by its name."""
    tokenizer = own(kind) if kind not in KINDS else given_tokenizer(kind)
    path = folder / f"{kind}.gguf"
    write_gguf(DecoderOnlyTransformer(shape(max(PADDED, tokenizer.vocab_size))), tokenizer, path, "q8_0")
    return path


@cache
def own(name: str) -> Tokenizer:
    return train_bpe(TEXT, 320) if name == "bpe320" else load_tokenizer(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_is_read_as_it_was_written(folder: Path, kind: str) -> None:
    before, after = given_tokenizer(kind), GgufFile(written(kind, folder)).tokenizer()
    for text in HARD:
        assert after.encode(text) == before.encode(text), text
        assert after.encode_special(text) == before.encode_special(text), text
        assert after.decode(after.encode(text)) == before.decode(before.encode(text))
    same = ("vocab_size", "eot_id", "bos_id", "stop_ids", "chat_template")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
@pytest.mark.parametrize("kind", KINDS)
def test_any_text_has_the_ids_that_it_had(folder: Path, kind: str, text: str) -> None:
    assert read_back(written(kind, folder)).encode(text) == given_tokenizer_once(kind).encode(text)


@cache
def read_back(path: Path) -> HuggingFaceTokenizer:
    return GgufFile(path).tokenizer()


@cache
def given_tokenizer_once(kind: str) -> HuggingFaceTokenizer:
    return given_tokenizer(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "byte", "p50k_base", "cl100k_base"])
def test_llama_cpp_gives_the_same_ids(folder: Path, kind: str) -> None:
    tokenizer = own(kind) if kind not in KINDS else given_tokenizer(kind)
    theirs = LlamaCpp(written(kind, folder), context=64)
    for text in HARD:
        if kind == "qwen" and "\u0301" in text:
            continue  # llama.cpp does not compose accents
        ours = tokenizer.encode(text)
        assert theirs.tokenize(text) == ours, text


def test_a_vocabulary_of_ones_own_is_cut_almost_as_in_training(folder: Path) -> None:
    tokenizer = own("bpe320")
    words = vocabulary(tokenizer, PADDED)
    assert (words.pre, words.note) == ("llama-bpe", NEAREST)
    theirs = LlamaCpp(written("bpe320", folder), context=64)
    plain = "Before we proceed any further, hear me speak.\n\nAll:\nSpeak, speak."
    assert theirs.tokenize(plain) == tokenizer.encode(plain)


def test_an_encoding_with_another_rule_is_refused() -> None:
    files = tokenizer_files("gpt2")
    other = files[0].replace('"add_prefix_space":false', '"add_prefix_space":true', 1)
    with pytest.raises(ValueError, match=r"llama\.cpp has no rule for this encoding's pieces"):
        vocabulary(HuggingFaceTokenizer(other, files[1]), PADDED)


def with_words(path: Path, **changes: Any) -> Path:
    """Writes a file with nothing but a vocabulary, changed."""
    given: dict[str, Any] = vars(vocabulary(given_tokenizer_once("smollm"), PADDED)) | changes
    writer = gguf.GGUFWriter(path, "llama")
    Vocabulary(**given).write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"model": "bert"}, "of the kind 'bert'; supported: gpt2 and llama"),
    "an unknown rule": ({"pre": "gemma4"}, "with the rule 'gemma4' for pieces; supported: gpt-2"),
    "a token twice": ({"tokens": ["a", "a"], "types": [1, 1]}, "without tokens, with one twice"),
    "types that are missing": ({"types": [1]}, "without a type for each"),
    "types as texts": ({"types": ["1"] * PADDED}, "tokenizer.ggml.token_type is not a list of int"),
    "tokens as numbers": ({"tokens": [1, 2]}, "tokenizer.ggml.tokens is not a list of str"),
    "a merge of one token": ({"merges": ["ab"]}, "not two tokens with a space between them"),
    "a merge that is no token": ({"merges": ["q zz"]}, "its vocabulary cannot be used"),
    "an end of text that is no token": ({"ids": {"eos": 10**6}}, "eos_token_id is 1000000, and there are 700 tokens"),
    "no end of text": ({"ids": {}, "tokens": ["a"], "types": [1], "merges": ["a a"]}, "its vocabulary cannot be used"),
    "tokens that can be cut anywhere": (  # from 40 MB of them, gigabytes of merges were made
        {"model": "llama", "tokens": ["a" * (k + 1) for k in range(200)], "types": [1] * 200, "scores": [0.0] * 200},
        "its tokens can be cut into two others in more than 11,392 ways",
    ),
    "scores that are missing": ({"model": "llama"}, "tokenizer.ggml.scores has no number for each token"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_vocabulary_is_one_line(tmp_path: Path, case: str) -> None:
    changes, reason = DAMAGED[case]
    path = with_words(tmp_path / "m.gguf", **changes)
    with pytest.raises(SourceError, match=reason) as caught:
        read_tokenizer(read_header(path), PADDED)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_more_tokens_than_the_model_has_are_one_line(tmp_path: Path) -> None:
    path = with_words(tmp_path / "m.gguf")
    with pytest.raises(SourceError, match="its vocabulary cannot be used"):
        read_tokenizer(read_header(path), PADDED - 1)


@pytest.mark.slow
def test_every_rule_cuts_as_llama_cpp_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, text = given_tokenizer_once("gpt2"), "It's o'er, 12345 x\n\n  y"
    for pre in PIECES:
        words = Vocabulary(**{**vars(vocabulary(tokenizer, PADDED)), "pre": pre})
        monkeypatch.setattr("transformer.interop.gguf_write.vocabulary", lambda *_, words=words: words)
        path = tmp_path / "m.gguf"
        write_gguf(DecoderOnlyTransformer(shape(PADDED)), tokenizer, path, "q8_0")
        assert LlamaCpp(path, context=64).tokenize(text) == GgufFile(path).tokenizer().encode(text), pre


@settings(max_examples=100, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 12_000), st.integers(0, 255)), min_size=1, max_size=3))
@pytest.mark.parametrize("kind", ["gpt2", "llama2"])
def test_changed_bytes_give_a_model_or_the_error_of_foreign_files(
    folder: Path, kind: str, changes: list[tuple[int, int]]
) -> None:
    content, path = bytearray(written(kind, folder).read_bytes()), folder / "changed.gguf"
    for at, value in changes:
        content[at] = value
    path.write_bytes(content)
    with contextlib.suppress(SourceError):
        GgufFile(path).tokenizer()
