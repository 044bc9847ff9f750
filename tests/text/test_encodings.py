"""Every encoding returns any text whole, and the bundled ones need nothing but the package."""

from __future__ import annotations

import doctest
import io
import pickle
import re
import socket
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import requests
import tiktoken
import tiktoken_ext.openai_public as published  # type: ignore[import-untyped]
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.text import (
    ByteTokenizer,
    StreamDecoder,
    Tokenizer,
    encodings,
    load_tokenizer,
    tokenizer_from_state,
    train_bpe,
)

NAMES = ("byte", "cl100k_base", "p50k_base", "bpe300")
BUNDLED = ("cl100k_base", "p50k_base")
ANY_TEXT = st.text(max_size=60) | st.text(st.sampled_from("ab 'I\n\r\t12.,<|>é低😀\u0301"), max_size=60)
WITH_SURROGATES = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=20)
TRAINED = train_bpe(["First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak."], 300)


def tokenizer_called(name: str) -> Tokenizer:
    return TRAINED if name == "bpe300" else load_tokenizer(name)


@pytest.fixture(params=NAMES)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return tokenizer_called(request.param)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(text=ANY_TEXT)
def test_any_text_comes_back_whole_from_ids_in_range(name: str, text: str) -> None:
    tokenizer = tokenizer_called(name)
    tokens = tokenizer.encode(text)
    assert all(0 <= token < tokenizer.vocab_size and token != tokenizer.eot_id for token in tokens)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.decode_bytes(tokens) == text.encode()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(text=WITH_SURROGATES)
def test_half_a_surrogate_pair_becomes_the_replacement_character(name: str, text: str) -> None:
    tokenizer = tokenizer_called(name)
    whole = re.sub("[\ud800-\udbff][\udc00-\udfff]", lambda pair: _joined(pair[0]), text)
    assert tokenizer.decode(tokenizer.encode(text)) == re.sub("[\ud800-\udfff]", "\ufffd", whole)
    assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)


def _joined(pair: str) -> str:
    return pair.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_streamed_text_equals_text_decoded_at_once_for_any_ids(name: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_called(name)
    tokens = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    stream = StreamDecoder(tokenizer)
    assert "".join(map(stream.push, tokens)) + stream.flush() == tokenizer.decode(tokens)


def test_a_stream_shows_a_character_only_when_it_is_whole_and_starts_anew_after_flush() -> None:
    stream = StreamDecoder(ByteTokenizer())
    assert [stream.push(token) for token in "a😀".encode()] == ["a", "", "", "", "😀"]
    stream.push(0xF0)
    assert stream.flush() == "\ufffd"
    assert stream.push(ord("b")) == "b"


def test_sizes_names_and_end_of_text_are_as_documented() -> None:
    facts = [(t.name, t.short_name, t.vocab_size, t.eot_id) for t in map(tokenizer_called, NAMES)]
    assert facts == [
        ("byte", "byte", 257, 256),
        ("cl100k_base", "cl100k", 100_277, 100_257),
        ("p50k_base", "p50k", 50_281, 50_256),
        ("bpe300", "bpe300", 300, 299),
    ]


def test_end_of_text_decodes_to_its_marker_and_the_marker_is_ordinary_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([tokenizer.eot_id]) == "<|endoftext|>"
    page = "A page about <|endoftext|> and <|fim_prefix|>."
    assert tokenizer.eot_id not in tokenizer.encode(page)
    assert tokenizer.decode(tokenizer.encode(page)) == page


def test_a_batch_equals_its_texts_one_by_one(tokenizer: Tokenizer) -> None:
    texts = ["", "one", "two\n\nthree", "\ud800", "é" * 50, "<|endoftext|> and <|fim_prefix|>"]
    assert [tokens.tolist() for tokens in tokenizer.encode_batch(texts)] == [tokenizer.encode(text) for text in texts]
    assert {tokens.dtype for tokens in tokenizer.encode_batch(texts)} == {np.dtype(np.uint32)}
    assert tokenizer.encode_batch([]) == []


def test_ids_without_a_meaning_decode_to_the_replacement_character() -> None:
    tokenizer = load_tokenizer("cl100k_base")
    around = tokenizer.encode("so")
    assert tokenizer.decode([*around, 100256, 100270, *around]) == "so\ufffd\ufffdso"
    assert tokenizer.decode_bytes([100256]) == "\ufffd".encode()


def test_an_id_outside_the_vocabulary_is_an_error(tokenizer: Tokenizer) -> None:
    for token in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"token {token} is outside this encoding's 0 to"):
            tokenizer.decode([token])


def test_a_tensor_of_ids_decodes_like_a_list(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("to be")
    assert tokenizer.decode(torch.tensor(tokens)) == "to be"


def test_long_runs_of_one_character_are_encoded(tokenizer: Tokenizer) -> None:
    for character in "a !\n1":
        assert tokenizer.decode(tokenizer.encode(character * 20_000)) == character * 20_000


def test_an_encoding_survives_a_checkpoint_read_with_weights_only(tokenizer: Tokenizer) -> None:
    file = io.BytesIO()
    torch.save({"tokenizer": tokenizer.state()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)["tokenizer"]
    again = tokenizer_from_state(state)
    assert again.state() == tokenizer.state()
    assert (again.name, again.vocab_size, again.eot_id) == (
        tokenizer.name,
        tokenizer.vocab_size,
        tokenizer.eot_id,
    )
    text = "Speak, speak. 😀 <|endoftext|>"
    assert again.encode(text) == tokenizer.encode(text)


def test_a_state_is_a_copy_that_cannot_change_its_tokenizer() -> None:
    TRAINED.state()["kind"] = "byte"
    assert TRAINED.state()["kind"] == "bpe"


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"kind": "word"},
        {"kind": "named"},
        {"kind": "bpe", "ranks": ["a"], "pattern": "."},
        {"kind": "bpe", "ranks": [b"a"]},
    ],
)
def test_a_state_of_another_shape_is_an_error(state: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a saved encoding: wanted a dict with kind"):
        tokenizer_from_state(state)


def test_a_damaged_bpe_state_is_an_error() -> None:
    every_byte = [bytes((value,)) for value in range(256)]
    for ranks in (every_byte[1:], [*every_byte, b"ab", b"ab"], [*every_byte, b""]):
        with pytest.raises(ValueError, match="damaged: the ranks of a BPE encoding must be distinct, not empty"):
            tokenizer_from_state({"kind": "bpe", "ranks": ranks, "pattern": "."})
    with pytest.raises(ValueError, match="saved BPE encoding is damaged: Parsing error"):
        tokenizer_from_state({"kind": "bpe", "ranks": every_byte, "pattern": "("})
    with pytest.raises(ValueError, match="splits text by a pattern that is not this project's"):
        tokenizer_from_state({"kind": "bpe", "ranks": every_byte, "pattern": ""})  # tiktoken panicked


def test_an_encoding_can_be_sent_to_another_process(tokenizer: Tokenizer) -> None:
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode("Speak, speak.") == tokenizer.encode("Speak, speak.")


def test_unknown_names_get_a_near_miss() -> None:
    with pytest.raises(ValueError, match=r"unknown encoding 'cl100k': did you mean cl100k_base\?"):
        load_tokenizer("cl100k")
    with pytest.raises(ValueError, match=r"unknown encoding 'xyzzy': There are byte, cl100k_base, "):
        load_tokenizer("xyzzy")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(requests, "get", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_encodings_load_offline_and_leave_the_cache_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    encodings._bundled.cache_clear()
    assert load_tokenizer(name).decode(load_tokenizer(name).encode("offline")) == "offline"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_network")
def test_other_encodings_say_in_one_line_that_they_need_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    with pytest.raises(ConnectionError, match=r"^o200k_base must be downloaded once, and the download failed") as error:
        load_tokenizer("o200k_base")
    assert "\n" not in str(error.value)


def test_other_encodings_are_tiktokens_own(monkeypatch: pytest.MonkeyPatch) -> None:
    small = tiktoken.Encoding(
        "o200k_base",
        pat_str=".",
        mergeable_ranks={bytes((value,)): value for value in range(256)},
        special_tokens={"<|endoftext|>": 256},
    )
    monkeypatch.setattr(tiktoken, "get_encoding", {"o200k_base": small}.__getitem__)
    tokenizer = load_tokenizer("o200k_base")
    assert (tokenizer.short_name, tokenizer.vocab_size) == ("o200k", 257)
    assert tokenizer.state() == {"kind": "named", "name": "o200k_base"}


@pytest.mark.parametrize("name", BUNDLED)
def test_patterns_checksums_and_special_tokens_are_those_tiktoken_publishes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def ranks(url: str, expected_hash: str | None = None) -> dict[bytes, int]:
        asked.append(expected_hash)
        return {}

    monkeypatch.setattr(published, "load_tiktoken_bpe", ranks)
    constructor: Callable[[], dict[str, object]] = getattr(published, name)
    ours = {"pat_str": encodings.PATTERNS[name], "special_tokens": encodings.SPECIAL_TOKENS[name]}
    assert ours.items() <= constructor().items()
    assert asked == [encodings.RANKS_SHA256[name]]


def test_a_damaged_or_missing_bundled_file_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"p50k_base.tiktoken is damaged \(wrong sha256\): install"):
        encodings.read_bundled("p50k_base.tiktoken", "0" * 64)
    with pytest.raises(ValueError, match=r"none.tiktoken cannot be read: install"):
        encodings.read_bundled("none.tiktoken", "0" * 64)


@pytest.mark.parametrize("module", ["tokenizer", "bpe", "corpus"])
def test_the_worked_examples_are_true(module: str) -> None:
    result = doctest.testmod(import_module(f"transformer.text.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
