"""Top-p without a full sort keeps the tokens that the plain version keeps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import sampling
from transformer.config import SamplingConfig
from transformer.kernels.top_p import filter_logits, keep_top_p


@given(
    seed=st.integers(0, 999), vocab=st.sampled_from([1, 3, 63, 64, 65, 600, 5_000]), top_p=st.floats(0.001, 1.0),
    tied=st.booleans(), dtype=st.sampled_from([torch.float64, torch.float32]),
)  # fmt: skip
@settings(max_examples=100)
def test_the_result_equals_that_of_the_plain_version(
    seed: int, vocab: int, top_p: float, tied: bool, dtype: torch.dtype
) -> None:
    # The rows need different numbers of tokens: from one to nearly all of the vocabulary.
    logits = torch.randn(4, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    logits *= torch.tensor([[0.01], [0.3], [1.0], [10.0]])
    logits = (logits.round() if tied else logits).to(dtype)
    torch.testing.assert_close(keep_top_p(logits, top_p), sampling.keep_top_p(logits, top_p), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(7,), (3, 1), (2, 3, 500), (0, 4)])
def test_any_shape_is_filtered(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    logits[..., 1:2] = -math.inf
    torch.testing.assert_close(keep_top_p(logits, 0.5), sampling.keep_top_p(logits, 0.5), rtol=0, atol=0)


def test_tokens_without_probability_do_not_extend_the_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    """After top-k, most tokens have probability 0, so top_p = 0.9999999 must not end in a full sort."""
    kept = sampling.keep_top_k(torch.randn(3, 5_000, generator=torch.Generator().manual_seed(2)), 10)
    counts: list[int] = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda self, count: (counts.append(count), topk(self, count))[1])
    torch.testing.assert_close(keep_top_p(kept, 1 - 1e-12), kept, rtol=0, atol=0)
    assert counts == [64]


@pytest.mark.parametrize("strategy", ["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_other_filters_are_the_plain_ones_in_the_same_order(strategy: str, temperature: float) -> None:
    logits = torch.randn(2, 300, generator=torch.Generator().manual_seed(3)) * 2
    settings_ = SamplingConfig(strategy, temperature, 20, 0.7, 0.05, 1.5)  # type: ignore[arg-type]
    text = torch.tensor([[1, 2], [3, 3]])
    expected = sampling.filter_logits(logits, settings_, text)
    torch.testing.assert_close(filter_logits(logits, settings_, text), expected, rtol=0, atol=0)
