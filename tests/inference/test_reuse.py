"""A text that begins like the one before processes only what is new, and is the same text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from transformer import DecoderOnlyTransformer, SamplingConfig
from transformer.inference.batch import stream_tokens
from transformer.inference.reuse import Reuse

Make = Callable[..., DecoderOnlyTransformer]
SAMPLED = SamplingConfig("multinomial")


def text(model: DecoderOnlyTransformer, prompt: list[int], reuse: Reuse | None, tokens: int = 4) -> list[int]:
    stream = stream_tokens(
        model, torch.tensor([prompt]), tokens, SAMPLED, generator=torch.Generator().manual_seed(3), reuse=reuse
    )
    return [*prompt, *(int(token) for token in stream)]


@pytest.fixture
def processed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of each pass through a model."""
    counts: list[int] = []
    hidden = DecoderOnlyTransformer.hidden

    def counted(self: DecoderOnlyTransformer, tokens: torch.Tensor, *rest: object, **more: object) -> torch.Tensor:
        counts.append(tokens.shape[1])
        return hidden(self, tokens, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(DecoderOnlyTransformer, "hidden", counted)
    return counts


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "alibi"])
def test_only_new_tokens_are_processed_and_the_text_is_the_same(
    model_of: Make, position: str, processed: list[int]
) -> None:
    model, reuse = model_of(position, limit=16), Reuse()
    first = text(model, [1, 2, 3], reuse)
    assert processed == [3, 1, 1, 1]
    for longer, count in ([*first, 4, 5], 3), ([*first[:5], 9, 8], 2), ([*first[:5]], 1), ([6, 7], 2):
        alone = text(model, longer, None)
        processed.clear()
        assert text(model, longer, reuse) == alone
        assert processed == [count, 1, 1, 1]


def test_a_text_whose_window_moves_is_the_same(model_of: Make) -> None:
    model, reuse = model_of("rotary", limit=8), Reuse()
    first = text(model, [1, 2, 3], reuse, 12)
    assert first == text(model, [1, 2, 3], None, 12)
    for longer in ([*first, 4], [1, 2, 3, 4], first[:6], first[-7:]):
        assert text(model, longer, reuse, 12) == text(model, longer, None, 12)


def test_a_stream_that_is_left_half_way_is_continued(model_of: Make, processed: list[int]) -> None:
    model, reuse = model_of("rotary", limit=16), Reuse()
    stream = stream_tokens(
        model, torch.tensor([[1, 2, 3]]), 9, SAMPLED, generator=torch.Generator().manual_seed(3), reuse=reuse
    )
    begun = [1, 2, 3, int(next(stream)), int(next(stream))]
    processed.clear()
    assert text(model, [*begun, 7], reuse) == text(model, [*begun, 7], None)
    assert processed[0] == 2


def test_a_batch_of_several_texts_reuses_nothing(model_of: Make) -> None:
    model, reuse = model_of("rotary", limit=16), Reuse()
    text(model, [1, 2, 3], reuse)
    prompt = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]])
    found, alone = (
        [token.tolist() for token in stream_tokens(model, prompt, 4, SamplingConfig(), reuse=kept)]
        for kept in (reuse, None)
    )
    assert found == alone
