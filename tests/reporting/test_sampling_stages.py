"""The distribution after each filter, and its entropy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer.config import SamplingConfig
from transformer.reporting.sampling_stages import entropy_bits, stages
from transformer.sampling import logits_to_probs

LOGITS = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0]).log()  # probabilities 8, 4, 2, 1 and 1 of 16


def test_stages_show_the_distribution_after_each_filter_that_is_on() -> None:
    sampling = SamplingConfig("top_k_top_p", 0.7, top_k=4, top_p=0.9, min_p=0.1, repetition_penalty=1.3)
    text = torch.tensor([[1]])
    shown = stages(LOGITS[None], sampling, text)
    assert [name for name, _ in shown] == [
        "softmax", "repetition_penalty 1.3", "temperature 0.7", "top_k 4", "top_p 0.9", "min_p 0.1",
    ]  # fmt: skip
    torch.testing.assert_close(shown[0][1], LOGITS[None].softmax(-1), rtol=0, atol=0)
    torch.testing.assert_close(shown[-1][1], logits_to_probs(LOGITS[None], sampling, text), rtol=0, atol=0)
    off = SamplingConfig("top_p", top_p=1.0)
    assert [name for name, _ in stages(LOGITS, off)] == ["softmax"]
    assert [name for name, _ in stages(LOGITS, SamplingConfig("greedy"))] == ["softmax", "greedy"]
    assert [name for name, _ in stages(LOGITS, SamplingConfig("top_k", temperature=0.0))] == ["softmax", "greedy"]


@pytest.mark.parametrize("strategy", ["greedy", "top_p"])
def test_a_repetition_penalty_without_the_text_is_an_error(strategy: str) -> None:
    sampling = SamplingConfig(strategy, repetition_penalty=1.2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"repetition_penalty=1.2 needs the text so far"):
        stages(LOGITS[None], sampling)


def test_entropy_of_known_distributions_by_hand() -> None:
    assert entropy_bits(torch.tensor([1.0, 0.0, 0.0])) == 0.0
    assert entropy_bits(torch.tensor([0.5, 0.5])) == pytest.approx(1.0)
    assert entropy_bits(torch.tensor([0.5, 0.25, 0.125, 0.125])) == pytest.approx(1.75)  # 1/2 + 2/4 + 3/8 + 3/8
    assert str(entropy_bits(torch.tensor([1.0]))) == "0.0"  # not -0.0, which a table would show


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=40))
def test_entropy_is_between_certainty_and_all_alike(logits: list[float]) -> None:
    probs = torch.tensor(logits, dtype=torch.float64).softmax(0)
    uniform = torch.full_like(probs, 1 / len(probs))
    assert -1e-9 <= entropy_bits(probs) <= entropy_bits(uniform) + 1e-9
    assert 2 ** entropy_bits(uniform) == pytest.approx(len(probs))
