"""The random tokens on which interpret measures habits are tokens that the model knows."""

from __future__ import annotations

from collections.abc import Callable

import torch

from transformer import DecoderOnlyTransformer, ModelConfig
from transformer.cli.interpret.rows import habit_rows
from transformer.text import load_tokenizer

LETTERS = b"abcdefghi"


def model_of(likely: list[int], tiny_config: Callable[..., ModelConfig]) -> DecoderOnlyTransformer:
    """Returns a model that writes these tokens, equally often, and hardly ever another."""
    model = DecoderOnlyTransformer(tiny_config(vocab_size=257, tie_embeddings=False))
    with torch.no_grad():
        model.final_norm.weight.zero_()
        model.final_norm.bias.fill_(1)  # type: ignore[union-attr, operator]
        model.head.weight.zero_()
        model.head.weight[likely] = 2  # logits of 2 d_model, and 0
    return model


def test_they_are_drawn_as_often_as_the_model_writes_them(tiny_config: Callable[..., ModelConfig]) -> None:
    rows, sentence = habit_rows(model_of(list(LETTERS), tiny_config), load_tokenizer("byte"), None)
    assert rows.shape == (32, 6)  # a third of nine letters, repeated once
    assert set(rows.flatten().tolist()) == set(LETTERS)
    assert "32 rows of 3 random tokens" in sentence


def test_a_model_that_writes_nothing_but_end_of_text_is_measured_on_all_tokens(
    tiny_config: Callable[..., ModelConfig],
) -> None:
    rows, _ = habit_rows(model_of([256], tiny_config), load_tokenizer("byte"), None)
    assert rows.shape == (32, 12)  # the context
    assert len(rows.unique()) > 100
