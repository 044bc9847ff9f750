"""Pieces add up to the text, stop strings never appear, and a prompt in a batch gives what it gives alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_tokenizers import tokenizer_files
from transformer import DecoderOnlyTransformer, ModelConfig, SamplingConfig
from transformer.inference.text_stream import TextStream, generate_text
from transformer.sampling import filter_logits
from transformer.text import ByteTokenizer, HuggingFaceTokenizer

Models = Callable[..., DecoderOnlyTransformer]
BYTES = ByteTokenizer()
DRAWN = SamplingConfig("multinomial")


@functools.cache
def byte_model(make: Models) -> DecoderOnlyTransformer:
    """A random model over bytes: nearly all of its output is invalid UTF-8."""
    return make(vocab_size=257, max_seq_len=12)


class Parrot:
    """Continues any prompt with `text`, and then end-of-text."""

    def __init__(self, text: str) -> None:
        self.config, self.device, self.training = ModelConfig(vocab_size=257, max_seq_len=400), "cpu", False
        self.filter_logits = filter_logits
        self.said = iter([*BYTES.encode(text), BYTES.eot_id])

    def next_logits(self, tokens: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(self.said)]), 257).float() * 100


def said(text: str, *stop: str, most: int = 1000) -> tuple[list[str], TextStream]:
    stream = TextStream(Parrot(text), BYTES, ["x"], SamplingConfig(), most, stop=stop, use_cache=False)  # type: ignore[arg-type]
    return [piece for (piece,) in stream], stream


class Reader(Parrot):
    """Continues any prompt with `ids`, and notes what it has read."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__("")
        self.config, self.said, self.read = ModelConfig(vocab_size=600, max_seq_len=400), iter(ids), list[list[int]]()

    def next_logits(self, tokens: torch.Tensor, *_: object) -> torch.Tensor:
        self.read += tokens.tolist()
        return torch.nn.functional.one_hot(torch.tensor([next(self.said)]), 600).float() * 100


@pytest.mark.parametrize("end", [2, 599])
def test_a_model_of_others_gets_the_first_token_it_expects_and_ends_at_each_of_its_stop_ids(end: int) -> None:
    llama = HuggingFaceTokenizer(*tokenizer_files("llama2"), vocab_size=600, stop_ids=[599])
    model = Reader([*llama.encode("speak"), end])
    stream = TextStream(model, llama, ["hear me"], SamplingConfig(), 100, use_cache=False)  # type: ignore[arg-type]
    assert "".join(piece for (piece,) in stream) == " speak"
    assert model.read[0] == [1, *llama.encode("hear me")]
    assert stream.endings == ["end of text"]


def test_a_character_of_several_tokens_appears_when_it_is_complete() -> None:
    pieces, stream = said("né €")
    assert pieces == ["n", "", "é", " ", "", "", "€", ""]  # end-of-text is the last token, and no text
    assert (stream.texts, stream.endings, stream.new_tokens) == (["né €"], ["end of text"], [8])


def test_an_incomplete_character_at_the_end_is_shown_as_a_replacement() -> None:
    pieces, stream = said("a€", most=3)
    assert (pieces, stream.endings) == (["a", "", "", "\ufffd"], ["length"])


def test_a_stop_string_over_several_tokens_ends_the_text_before_it() -> None:
    pieces, stream = said("Once upon a time, there", "a time")
    assert "".join(pieces) == "Once upon " == stream.texts[0]
    assert stream.endings == ["stop string"]
    assert stream.new_tokens == [len("Once upon a time")]


def test_text_that_only_begins_like_a_stop_string_is_shown_later() -> None:
    pieces, stream = said("an ant ate", "ants")
    assert pieces == ["", "", "an ", "", "", "", "ant ", "", "at", "e", ""]
    assert stream.endings == ["end of text"]
    assert said("no ant", "ants")[1].texts == ["no ant"]  # text held back until the end comes at the end
    assert "".join(said("no ant", "ants", most=6)[0]) == "no ant"


def test_the_first_of_several_stop_strings_counts() -> None:
    assert said("one two three", "three", "two", "o t")[1].texts == ["one "]


@given(
    text=st.text("ab\n", min_size=0, max_size=25),
    stop=st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_no_piece_ever_shows_a_part_of_a_stop_string(text: str, stop: list[str]) -> None:
    pieces, stream = said(text, *stop)
    ends = [text.find(string) + len(string) for string in stop if string in text]
    if not ends:
        assert ("".join(pieces), stream.endings) == (text, ["end of text"])
        return
    read = text[: min(ends)]  # the first stop string to be whole ends the text
    expected = min(read.find(string) for string in stop if string in read)
    assert "".join(pieces) == text[:expected] == stream.texts[0]
    assert stream.endings == ["stop string"]


@given(
    prompts=st.lists(st.text(max_size=9), min_size=1, max_size=4), new=st.integers(1, 20), seed=st.integers(0, 99),
    stop=st.lists(st.text(min_size=1, max_size=1), max_size=2), use_cache=st.booleans(),
)  # fmt: skip
@settings(max_examples=40)
def test_a_prompt_in_a_batch_gives_the_text_it_gives_alone(
    tiny_model: Models, prompts: list[str], new: int, seed: int, stop: list[str], use_cache: bool
) -> None:
    model = byte_model(tiny_model)
    together = TextStream(model, BYTES, prompts, DRAWN, new, seeds=seed, stop=stop, use_cache=use_cache)
    pieces = ["".join(parts) for parts in zip(*together, strict=True)]
    assert pieces == together.texts
    for row, prompt in enumerate(prompts):
        alone = TextStream(model, BYTES, [prompt], DRAWN, new, seeds=[seed + row], stop=stop)
        assert "".join(piece for (piece,) in alone) == together.texts[row]
        assert (alone.endings[0], alone.new_tokens[0]) == (together.endings[row], together.new_tokens[row])


def test_the_text_is_that_of_generate(tiny_model: Models) -> None:
    model = byte_model(tiny_model)
    tokens = model.generate(
        torch.tensor([BYTES.encode("The cat")]), max_new_tokens=30, sampling_strategy="multinomial", stop_ids=[256],
        generator=torch.Generator().manual_seed(5),
    )[0, 7:].tolist()  # fmt: skip
    expected = BYTES.decode(token for token in tokens if token != 256)
    assert generate_text(model, BYTES, "The cat", DRAWN, 30, seed=5) == expected


def test_an_empty_prompt_starts_from_end_of_text(tiny_model: Models) -> None:
    model = byte_model(tiny_model)
    greedy = model.generate(torch.tensor([[256]]), max_new_tokens=8, stop_ids=[256])[0, 1:].tolist()
    stream = TextStream(model, BYTES, [""], SamplingConfig(), 8)
    assert list(stream)
    assert stream.tokens[0] == [token for token in greedy if token != 256]


def test_tokens_of_the_prompt_that_the_model_never_sees_are_counted(tiny_model: Models) -> None:
    stream = TextStream(byte_model(tiny_model), BYTES, ["short", "x" * 13], DRAWN, 1)
    assert (stream.prompt_tokens, stream.dropped) == ([5, 13], [0, 6])


@pytest.mark.parametrize(
    ("prompts", "settings_", "message"),
    [
        ([], {}, "at least one prompt"),
        (["a"], {"stop": ["b", ""]}, "stop string is empty"),
        (["a", "b"], {"seeds": [1]}, "1 seeds for 2 prompts"),
    ],
)
def test_impossible_arguments_are_refused_before_the_first_token(
    tiny_model: Models, prompts: list[str], settings_: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TextStream(byte_model(tiny_model), BYTES, prompts, DRAWN, 3, **settings_)  # type: ignore[arg-type]


def test_a_stream_that_is_abandoned_keeps_its_text_so_far(tiny_model: Models) -> None:
    stream = TextStream(byte_model(tiny_model), BYTES, ["a"], DRAWN, 50, seeds=1)
    steps: Iterator[list[str]] = iter(stream)
    shown = "".join(next(steps)[0] for _ in range(5))
    assert (stream.texts, stream.new_tokens) == ([shown], [5])
