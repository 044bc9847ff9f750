"""Shares of a logit: each is what its part writes, read through the frozen norm, and they sum to the logit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import DecoderOnlyTransformer
from transformer.interpret.attribution import attribute
from transformer.kernels import round_weights
from variants import variants

Models = Callable[..., DecoderOnlyTransformer]
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])


@given(settings_=variants(), tied=st.booleans(), versus=st.sampled_from([None, 2]), position=st.integers(-5, -1))
@settings(max_examples=12)
@torch.no_grad()
def test_shares_sum_to_the_logit_or_the_difference(
    tiny_model: Models, settings_: dict[str, Any], tied: bool, versus: int | None, position: int
) -> None:
    model = tiny_model(tie_embeddings=tied, **settings_)
    shares = attribute(model, TOKENS, target=7, versus=versus, position=position)
    logits = model(TOKENS)[:, position]
    expected = logits[:, 7] - (0 if versus is None else logits[:, versus])
    torch.testing.assert_close(shares.total, expected, rtol=0, atol=1e-9)
    assert shares.heads.shape == (2, 2, 4)
    ranked = shares.ranked(row=1)
    assert len(ranked) == 2 * 4 + 2 + 2
    assert sum(share for _, share in ranked) == pytest.approx(float(expected[1]))
    amounts = [abs(share) for _, share in ranked]
    assert amounts == sorted(amounts, reverse=True)
    assert dict(ranked)["head 1.3"] == float(shares.heads[1, 1, 3])


@given(settings_=variants(), layer=st.integers(0, 1), head=st.integers(0, 3))
@settings(max_examples=8)
@torch.no_grad()
def test_a_share_is_the_change_of_the_logit_if_the_part_is_taken_from_the_last_stream(
    tiny_model: Models, settings_: dict[str, Any], layer: int, head: int
) -> None:
    """With the norms' divisors held at those of the full stream, which are recomputed here."""
    model = tiny_model(**settings_)
    _, found = model.run_with_cache(TOKENS)
    block, config, rows = model.layers[layer], model.config, model.head.weight[[7, 3]]  # one target for each text

    def frozen(norm: Any, part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        if config.norm == "layernorm":
            mean = part.mean(-1, keepdim=True)
            return (part - mean) / (whole.var(-1, correction=0, keepdim=True) + norm.eps).sqrt() * norm.weight
        return part / (whole.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight

    heads = found[f"blocks.{layer}.attention.heads"]
    alone = torch.zeros_like(heads)
    alone[:, head] = heads[:, head]
    part, whole = (
        F.linear(one.transpose(1, 2).flatten(2)[:, -1], block.attention.out.weight, bias)
        for one, bias in ((alone, None), (heads, block.attention.out.bias))
    )
    if block.norms_after:
        part = frozen(block.attention_norm, part, whole)
    stream, shares = found["blocks.1.residual_after"][:, -1], attribute(model, TOKENS, torch.tensor([7, 3]))
    expected = (frozen(model.final_norm, part, stream) * rows).sum(-1)
    torch.testing.assert_close(shares.heads[:, layer, head], expected, rtol=0, atol=1e-9)
    for share, written in (
        (shares.embeddings, found["embeddings"]),
        (shares.feedforwards[:, layer], found[f"blocks.{layer}.feedforward.output"]),
    ):
        expected = (frozen(model.final_norm, written[:, -1], stream) * rows).sum(-1)
        torch.testing.assert_close(share, expected, rtol=0, atol=1e-9)


def test_rounded_weights_and_training_mode_are_attributed_too(tiny_model: Models) -> None:
    model = tiny_model(dtype=torch.float32, d_model=32)
    round_weights(model.train(), "int8")
    shares = attribute(model, TOKENS, target=7, versus=2)
    assert model.training
    logits = model.eval()(TOKENS)[:, -1]
    torch.testing.assert_close(shares.total, logits[:, 7] - logits[:, 2], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("target", [-1, 17])
def test_a_token_outside_the_vocabulary_is_refused(tiny_model: Models, target: int) -> None:
    with pytest.raises(ValueError, match=rf"\[{target}\] are not all in the vocabulary, 0 to 16"):
        attribute(tiny_model(), TOKENS, target)
