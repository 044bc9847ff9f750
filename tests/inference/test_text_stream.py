"""Text in, text out: pieces add up, stop strings never show, and a prompt in a batch is written as if alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import DecoderOnlyTransformer, ModelConfig, SamplingConfig
from transformer.inference.text_stream import TextStream, generate_text
from transformer.sampling import FILTERS
from transformer.text import ByteTokenizer

Models = Callable[..., DecoderOnlyTransformer]
BYTES = ByteTokenizer()
DRAWN = SamplingConfig("multinomial")


@functools.cache
def byte_model(make: Models) -> DecoderOnlyTransformer:
    """A random model over bytes: nearly everything it writes is broken UTF-8."""
    return make(vocab_size=257, max_seq_len=12)


class Parrot:
    """Writes `text` after any prompt, and then end-of-text."""

    def __init__(self, text: str) -> None:
        self.config, self.device, self.training = ModelConfig(vocab_size=257, max_seq_len=400), "cpu", False
        self.filters = FILTERS
        self.said = iter([*BYTES.encode(text), BYTES.eot_id])

    def next_logits(self, tokens: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(self.said)]), 257).float() * 100


def said(text: str, *stop: str, most: int = 1000) -> tuple[list[str], TextStream]:
    writing = TextStream(Parrot(text), BYTES, ["x"], SamplingConfig(), most, stop=stop, use_cache=False)  # type: ignore[arg-type]
    return [piece for (piece,) in writing], writing


def test_characters_that_span_tokens_appear_once_they_are_whole() -> None:
    pieces, writing = said("né €")
    assert pieces == ["n", "", "é", " ", "", "", "€", ""]  # end-of-text is the last token, and no text
    assert (writing.texts, writing.endings, writing.new_tokens) == (["né €"], ["end of text"], [8])


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    pieces, writing = said("a€", most=3)
    assert (pieces, writing.endings) == (["a", "", "", "\ufffd"], ["length"])


def test_a_stop_string_over_several_tokens_ends_the_text_before_it() -> None:
    pieces, writing = said("Once upon a time, there", "a time")
    assert "".join(pieces) == "Once upon " == writing.texts[0]
    assert writing.endings == ["stop string"]
    assert writing.new_tokens == [len("Once upon a time")]


def test_what_only_begins_like_a_stop_string_is_shown_once_that_is_sure() -> None:
    pieces, writing = said("an ant ate", "ants")
    assert pieces == ["", "", "an ", "", "", "", "ant ", "", "at", "e", ""]
    assert writing.endings == ["end of text"]
    assert said("no ant", "ants")[1].texts == ["no ant"]  # what is held at the end comes at the end
    assert "".join(said("no ant", "ants", most=6)[0]) == "no ant"


def test_the_first_of_several_stop_strings_counts() -> None:
    assert said("one two three", "three", "two", "o t")[1].texts == ["one "]


@given(
    text=st.text("ab\n", min_size=0, max_size=25),
    stop=st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_no_piece_ever_shows_a_part_of_a_stop_string(text: str, stop: list[str]) -> None:
    pieces, writing = said(text, *stop)
    ends = [text.find(string) + len(string) for string in stop if string in text]
    if not ends:
        assert ("".join(pieces), writing.endings) == (text, ["end of text"])
        return
    read = text[: min(ends)]  # the first stop string to be whole ends the text
    expected = min(read.find(string) for string in stop if string in read)
    assert "".join(pieces) == text[:expected] == writing.texts[0]
    assert writing.endings == ["stop string"]


@given(
    prompts=st.lists(st.text(max_size=9), min_size=1, max_size=4), new=st.integers(1, 20), seed=st.integers(0, 99),
    stop=st.lists(st.text(min_size=1, max_size=1), max_size=2), use_cache=st.booleans(),
)  # fmt: skip
@settings(max_examples=40)
def test_a_prompt_in_a_batch_is_written_as_if_alone(
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


def test_what_is_written_is_what_generate_gives(tiny_model: Models) -> None:
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
    writing = TextStream(model, BYTES, [""], SamplingConfig(), 8)
    assert list(writing)
    assert writing.tokens[0] == [token for token in greedy if token != 256]


def test_tokens_of_the_prompt_that_the_model_never_sees_are_counted(tiny_model: Models) -> None:
    writing = TextStream(byte_model(tiny_model), BYTES, ["short", "x" * 13], DRAWN, 1)
    assert (writing.prompt_tokens, writing.dropped) == ([5, 13], [0, 6])


@pytest.mark.parametrize(
    ("prompts", "settings_", "message"),
    [
        ([], {}, "at least one prompt"),
        (["a"], {"stop": ["b", ""]}, "stop string is empty"),
        (["a", "b"], {"seeds": [1]}, "1 seeds for 2 prompts"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(
    tiny_model: Models, prompts: list[str], settings_: dict[str, list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TextStream(byte_model(tiny_model), BYTES, prompts, DRAWN, 3, **settings_)  # type: ignore[arg-type]


def test_a_writing_that_is_given_up_keeps_what_it_has(tiny_model: Models) -> None:
    writing = TextStream(byte_model(tiny_model), BYTES, ["a"], DRAWN, 50, seeds=1)
    steps: Iterator[list[str]] = iter(writing)
    shown = "".join(next(steps)[0] for _ in range(5))
    assert (writing.texts, writing.new_tokens) == ([shown], [5])
