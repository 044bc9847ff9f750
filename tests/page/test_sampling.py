"""The browser reshapes probabilities like sampling.py, and its draws follow them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from playwright.sync_api import Page

from page.browsing import compute
from transformer.config import SamplingConfig
from transformer.sampling import logits_to_probs

STAGES = """([logits, settings]) =>
  GPT.sampling
    .stages(Float32Array.from(logits), settings)
    .map((stage) => ({ ...stage, probs: Array.from(stage.probs) }))
"""
DRAWS = """(seed) => {
  const next = GPT.sampling.rng(seed);
  return Array.from({ length: 20000 }, () => GPT.sampling.draw([0.5, 0, 0.3, 0.2], next()));
}"""
LOGITS = torch.randn(50, generator=torch.Generator().manual_seed(3)).mul(2).tolist()
SEEN = [3, 17, 17, 40]


def last(engine: Page, logits: list[float], **settings: Any) -> torch.Tensor:
    return torch.tensor(compute(engine, STAGES, [logits, settings])[-1]["probs"], dtype=torch.float32)


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({}, SamplingConfig("multinomial")),
        ({"temperature": 0}, SamplingConfig("greedy")),
        ({"temperature": 0.7}, SamplingConfig("multinomial", 0.7)),
        ({"temperature": 1.3, "topK": 5}, SamplingConfig("top_k", 1.3, top_k=5)),
        ({"topK": 500}, SamplingConfig("top_k", top_k=500)),
        ({"topP": 0.8}, SamplingConfig("top_p", top_p=0.8)),
        ({"topP": 0.01}, SamplingConfig("top_p", top_p=0.01)),
        ({"temperature": 1.5, "topK": 20, "topP": 0.9}, SamplingConfig("top_k_top_p", 1.5, 20, 0.9)),
        ({"minP": 0.05}, SamplingConfig("multinomial", min_p=0.05)),
        ({"topP": 0.9, "minP": 0.05}, SamplingConfig("top_p", min_p=0.05)),
        ({"repetitionPenalty": 1.3, "seen": SEEN}, SamplingConfig("multinomial", repetition_penalty=1.3)),
        ({"repetitionPenalty": 3, "temperature": 0, "seen": SEEN}, SamplingConfig("greedy", repetition_penalty=3.0)),
        (
            {"repetitionPenalty": 0.7, "temperature": 1.5, "topK": 20, "topP": 0.9, "minP": 0.1, "seen": SEEN},
            SamplingConfig("top_k_top_p", 1.5, 20, 0.9, min_p=0.1, repetition_penalty=0.7),
        ),
    ],
)
def test_each_setting_gives_the_same_probabilities_as_python(
    settings: dict[str, Any], config: SamplingConfig, engine: Page
) -> None:
    expected = logits_to_probs(torch.tensor(LOGITS), config, torch.tensor(SEEN))
    torch.testing.assert_close(last(engine, LOGITS, **settings), expected, rtol=0, atol=1e-6)


def test_the_stages_are_in_order_and_marked_on_or_off(engine: Page) -> None:
    stages = compute(engine, STAGES, [LOGITS, {"topK": 3, "minP": 0.1}])
    names = ["model", "repetitionPenalty", "temperature", "topK", "topP", "minP"]
    assert [stage["name"] for stage in stages] == names
    assert [stage["name"] for stage in stages if stage["isOn"]] == ["model", "topK", "minP"]
    assert stages[2]["probs"] == stages[0]["probs"]
    assert [sum(p > 0 for p in stage["probs"]) for stage in stages[:4]] == [50, 50, 50, 3]


def test_by_hand_min_p_and_the_repetition_penalty(engine: Page) -> None:
    halves = torch.tensor([8.0, 4.0, 2.0, 2.0]).log().tolist()
    kept = last(engine, halves, minP=0.4)  # at least 0.4 of the largest probability, one half
    torch.testing.assert_close(kept, torch.tensor([2 / 3, 1 / 3, 0, 0]), rtol=0, atol=1e-6)
    penalised = last(engine, [2.0, 1.0, -1.0], repetitionPenalty=2, seen=[0, 2])
    torch.testing.assert_close(penalised, torch.tensor([1.0, 1.0, -2.0]).softmax(0), rtol=0, atol=1e-6)


def test_equal_logits_at_the_threshold_are_all_kept(engine: Page) -> None:
    assert (last(engine, [3.0, 1.0, 1.0, 0.0], topP=0.8) > 0).tolist() == [True, True, True, False]
    assert (last(engine, [3.0, 1.0, 1.0, 0.0], topK=2) > 0).tolist() == [True, True, True, False]


def test_draws_follow_the_probabilities_and_repeat_with_their_seed(engine: Page) -> None:
    first, again, other = (compute(engine, DRAWS, seed) for seed in (1, 1, 2))
    assert first == again != other
    frequencies = torch.bincount(torch.tensor(first), minlength=4) / len(first)
    torch.testing.assert_close(frequencies, torch.tensor([0.5, 0.0, 0.3, 0.2]), rtol=0, atol=0.015)
