"""Sampling settings that change nothing are named."""

from __future__ import annotations

from transformer.cli.sampling_settings import top_k_notice, unused_settings
from transformer.config import SamplingConfig


def test_settings_without_effect_are_named() -> None:
    assert top_k_notice(SamplingConfig("top_k", top_k=6), 5) == "top_k=6 keeps all 5 tokens of the vocabulary"
    for sampling in (SamplingConfig("top_k", top_k=5), SamplingConfig("top_p", top_k=6), SamplingConfig(top_k=6)):
        assert top_k_notice(sampling, 5) is None
    names = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"]
    assert unused_settings(SamplingConfig("greedy"), names) == ["temperature", "top_k", "top_p", "min_p"]
    assert unused_settings(SamplingConfig("top_k", temperature=0.0), names) == ["top_k", "top_p", "min_p"]
    assert unused_settings(SamplingConfig("multinomial"), names) == ["top_k", "top_p"]
    assert unused_settings(SamplingConfig("top_k_top_p"), names) == []
