"""A trained vocabulary has the size asked for, is the same every time, and tiktoken runs it as its trainer would."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.text import load_shakespeare, train_bpe
from transformer.text.bpe import byte_alphabet, merged_tokens, train_merges

PLAY = load_shakespeare()[0]
ASSIGNED = st.characters(exclude_categories=["Cs", "Cn"])  # engines may know different versions of Unicode
OVERLAPS = st.text(st.sampled_from("aab '\n"), max_size=40)
ORDINARY = st.text(ASSIGNED | st.sampled_from("the and,.'\n 12"), max_size=60)


def library_tokens(text: str, corpus: list[str], vocab_size: int) -> tuple[list[bytes], list[bytes]]:
    """The pieces of `text` by the training library's own merges, and by the encoding made from them."""
    trained = train_merges(corpus, vocab_size - 257)
    to_byte = byte_alphabet()
    theirs = [bytes(to_byte[char] for char in token) for token in trained.encode(text).tokens]
    ours = train_bpe(corpus, vocab_size)
    return theirs, [ours.decode_bytes([token]) for token in ours.encode(text)]


@settings(max_examples=80, deadline=None)
@given(corpus=st.lists(OVERLAPS | ORDINARY, min_size=1, max_size=4), text=OVERLAPS | ORDINARY, size=st.integers(1, 40))
def test_tiktoken_cuts_any_text_as_the_training_library_does(corpus: list[str], text: str, size: int) -> None:
    possible = len(merged_tokens(train_merges(corpus, size)))
    theirs, ours = library_tokens(text + "".join(corpus), corpus, possible + 1)
    assert ours == theirs


def test_tiktoken_cuts_a_play_as_the_training_library_does() -> None:
    theirs, ours = library_tokens(PLAY, [PLAY], 1024)
    assert ours == theirs


def test_the_size_counts_bytes_merges_and_end_of_text() -> None:
    for size in (257, 258, 500):
        tokenizer = train_bpe([PLAY], size)
        assert (tokenizer.name, tokenizer.vocab_size, tokenizer.eot_id) == (f"bpe{size}", size, size - 1)
        every_id = [tokenizer.decode_bytes([token]) for token in range(size)]
        assert len(set(every_id)) == size


def test_the_same_text_gives_the_same_vocabulary() -> None:
    states = [train_bpe(iter([PLAY, PLAY[:100]]), 700).state() for _ in range(3)]
    assert states[0] == states[1] == states[2]


def test_no_token_crosses_from_one_word_into_the_next() -> None:
    tokenizer = train_bpe([PLAY], 1024)
    tokens = [tokenizer.decode_bytes([token]) for token in range(256, 1023)]
    assert all(b" " not in token[1:] or not token.strip() for token in tokens)


def test_scripts_never_seen_in_training_come_back_whole() -> None:
    tokenizer = train_bpe([PLAY], 300)
    for text in ("Привет, мир", "नमस्ते", "你好😀", "\x00\x01\x7f"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_lone_surrogates_in_the_training_text_do_no_harm() -> None:
    assert train_bpe([PLAY, "\ud800"], 300).vocab_size == 300


def test_a_text_too_small_for_the_vocabulary_says_how_far_it_reaches() -> None:
    with pytest.raises(ValueError, match=r"needs 243 merges and the text allows 3: .* at most 260"):
        train_bpe(["low low low"], 500)
    assert train_bpe(["low low low"], 260).vocab_size == 260
    with pytest.raises(ValueError, match=r"the text allows 0: .* at most 257"):
        train_bpe([], 258)


def test_a_vocabulary_without_room_for_bytes_is_an_error() -> None:
    with pytest.raises(ValueError, match="vocab_size=256 is below 257: 256 bytes and end-of-text"):
        train_bpe([PLAY], 256)


def test_unbroken_runs_take_time_in_proportion_to_their_length() -> None:
    """100,000 letters of DNA, one piece, took most of a minute: the time grew with the square of the piece."""
    unbroken = "".join(random.Random(0).choices("ACGT", k=100_000))
    started = time.perf_counter()
    tokenizer = train_bpe([unbroken], 512)
    assert time.perf_counter() - started < 15
    assert tokenizer.decode(tokenizer.encode(unbroken)) == unbroken
    assert train_bpe([unbroken[:4096]], 512).state() == train_bpe([f"{unbroken[:4096]} "], 512).state()
