"""What each strategy keeps, that draws follow the probabilities, and that an independent implementation agrees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from transformer.config import ConfigError, SamplingConfig
from transformer.sampling import (
    choose,
    draw,
    is_greedy,
    keep_top_k,
    keep_top_p,
    logits_to_probs,
    sample_greedy,
    sample_multinomial,
    sample_top_k,
    sample_top_k_top_p,
    sample_top_p,
)

STRATEGIES = ["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"]
LOGITS = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0]).log()  # probabilities 8, 4, 2, 1 and 1 of 16

# The 99.9th percentile of chi-square by degrees of freedom, from any printed table.
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47}


def random_logits(rows: int, vocab: int, seed: int, scale: float = 3.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def probs_of(logits: Tensor, **settings_: object) -> Tensor:
    return logits_to_probs(logits, SamplingConfig(**settings_).check())  # type: ignore[arg-type]


def support(probs: Tensor) -> list[int]:
    return (probs > 0).sum(-1).tolist()


def test_multinomial_is_softmax() -> None:
    torch.testing.assert_close(
        probs_of(LOGITS, strategy="multinomial"), torch.tensor([8, 4, 2, 1, 1]) / 16, rtol=0, atol=1e-6
    )


def test_temperature_raises_probabilities_to_its_inverse() -> None:
    expected = torch.tensor([64.0, 16.0, 4.0, 1.0, 1.0]) / 86
    torch.testing.assert_close(probs_of(LOGITS, strategy="multinomial", temperature=0.5), expected, rtol=0, atol=1e-6)


def test_top_k_keeps_the_k_likeliest() -> None:
    torch.testing.assert_close(
        probs_of(LOGITS, strategy="top_k", top_k=2), torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0]) / 3, rtol=0, atol=1e-6
    )


def test_top_p_keeps_the_fewest_that_reach_p() -> None:
    for top_p, kept in [(0.01, 1), (0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.87, 3), (0.9, 4), (1.0, 5)]:
        assert support(probs_of(LOGITS, strategy="top_p", top_p=top_p)) == kept, top_p


def test_top_k_comes_before_top_p() -> None:
    # Of the 2 likeliest, 2/3 and 1/3, the first alone reaches 0.6; of all, it would take two (1/2 + 1/4).
    assert support(probs_of(LOGITS, strategy="top_k_top_p", top_k=2, top_p=0.6)) == 1
    assert support(probs_of(LOGITS, strategy="top_p", top_p=0.6)) == 2


def test_temperature_comes_before_top_p() -> None:
    assert support(probs_of(LOGITS, strategy="top_p", top_p=0.6, temperature=0.5)) == 1
    assert support(probs_of(LOGITS, strategy="top_p", top_p=0.6, temperature=100.0)) == 3  # about 1/5 each


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_temperature_0_is_greedy(strategy: str) -> None:
    logits = random_logits(20, 50, seed=1)
    probs = probs_of(logits, strategy=strategy, temperature=0.0)
    torch.testing.assert_close(probs, torch.nn.functional.one_hot(logits.argmax(-1), 50).float(), rtol=0, atol=0)
    assert torch.equal(choose(logits, SamplingConfig(strategy, temperature=0.0)), sample_greedy(logits))  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_temperature_near_0_is_near_greedy(strategy: str) -> None:
    logits = random_logits(20, 50, seed=1)
    probs = probs_of(logits, strategy=strategy, temperature=1e-4)
    torch.testing.assert_close(probs, torch.nn.functional.one_hot(logits.argmax(-1), 50).float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("top_k", [5, 6, 10_000])
def test_top_k_at_or_above_the_vocabulary_keeps_all(top_k: int) -> None:
    everything = probs_of(LOGITS, strategy="multinomial")
    torch.testing.assert_close(probs_of(LOGITS, strategy="top_k", top_k=top_k), everything, rtol=0, atol=0)


def test_top_p_of_1_keeps_all() -> None:
    logits = random_logits(30, 5_000, seed=2, scale=1.0)
    torch.testing.assert_close(keep_top_p(logits, 1.0), logits, rtol=0, atol=0)


def test_equals_at_the_kth_place_all_stay() -> None:
    assert support(probs_of(LOGITS, strategy="top_k", top_k=4)) == 5


def test_top_p_always_keeps_the_likeliest() -> None:
    assert support(keep_top_p(random_logits(50, 20, seed=3), 1e-9).softmax(-1)) == [1] * 50


def test_tokens_already_ruled_out_stay_out() -> None:
    logits = LOGITS.clone()
    logits[0] = -math.inf
    for strategy in STRATEGIES:
        probs = probs_of(logits, strategy=strategy, top_k=3, top_p=0.9)
        assert probs[0] == 0
        assert probs.sum().item() == pytest.approx(1.0, abs=1e-6)


@given(
    strategy=st.sampled_from(STRATEGIES), rows=st.integers(1, 4), vocab=st.integers(1, 40), seed=st.integers(0, 999),
    temperature=st.sampled_from([0.0, 0.1, 0.7, 1.0, 2.0, 50.0]), top_k=st.integers(1, 50),
    top_p=st.floats(0.01, 1.0), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)  # fmt: skip
@settings(max_examples=80)
def test_probabilities_sum_to_1_and_keep_the_order_of_the_logits(
    strategy: str, rows: int, vocab: int, seed: int, temperature: float, top_k: int, top_p: float, dtype: torch.dtype
) -> None:
    logits = random_logits(rows, vocab, seed).to(dtype)
    probs = probs_of(logits, strategy=strategy, temperature=temperature, top_k=top_k, top_p=top_p)
    assert probs.shape == logits.shape
    assert probs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(probs.sum(-1), torch.ones_like(probs[:, 0]), rtol=0, atol=1e-5)
    order = logits.double().sort(dim=-1, descending=True, stable=True).indices
    falling = probs.gather(-1, order)
    assert (falling.diff(dim=-1) <= 1e-7).all()


@given(st.integers(0, 999), st.integers(1, 30), st.floats(0.05, 3.0))
@settings(max_examples=40)
def test_what_is_kept_grows_with_k_and_with_p(seed: int, vocab: int, temperature: float) -> None:
    logits = random_logits(3, vocab, seed)
    by_k = [probs_of(logits, strategy="top_k", top_k=k, temperature=temperature) > 0 for k in range(1, vocab + 1)]
    by_p = [probs_of(logits, strategy="top_p", top_p=p / 10, temperature=temperature) > 0 for p in range(1, 11)]
    for kept in (by_k, by_p):
        for fewer, more in itertools.pairwise(kept):
            assert (fewer <= more).all()


@given(st.integers(0, 999), st.integers(1, 60), st.floats(0.05, 0.999))
@settings(max_examples=60)
def test_the_nucleus_reaches_p_and_without_its_last_token_does_not(seed: int, vocab: int, top_p: float) -> None:
    logits = random_logits(4, vocab, seed).double()
    probs = logits.softmax(-1)
    kept = keep_top_p(logits, top_p) > -math.inf
    for row, inside in zip(probs, kept, strict=True):
        inner = row[inside]
        assert inner.sum() >= top_p - 1e-9
        assert inner.sum() - inner.min() < top_p + 1e-9
        assert (row[~inside] <= inner.min() + 1e-12).all()


@given(st.integers(0, 999), st.integers(2, 80), st.integers(1, 90), st.floats(0.05, 0.99), st.floats(0.1, 5.0))
@settings(max_examples=60)
def test_each_filter_equals_the_one_of_transformers(
    seed: int, vocab: int, top_k: int, top_p: float, temperature: float
) -> None:
    logits, ids = random_logits(3, vocab, seed).double(), torch.zeros(3, 1, dtype=torch.int64)
    theirs_k, theirs_p = TopKLogitsWarper(top_k), TopPLogitsWarper(top_p)
    theirs_t = TemperatureLogitsWarper(temperature)
    torch.testing.assert_close(keep_top_k(logits, top_k), theirs_k(ids, logits), rtol=0, atol=0)
    torch.testing.assert_close(keep_top_p(logits, top_p), theirs_p(ids, logits), rtol=0, atol=0)
    torch.testing.assert_close(
        probs_of(logits, strategy="top_k_top_p", top_k=top_k, top_p=top_p, temperature=temperature),
        theirs_p(ids, theirs_k(ids, theirs_t(ids, logits))).softmax(-1),
        rtol=1e-9,
        atol=1e-12,
    )


SAMPLERS: dict[str, tuple[Callable[[Tensor, torch.Generator], Tensor], list[float]]] = {
    "multinomial": (lambda x, g: sample_multinomial(x, generator=g), [8, 4, 2, 1, 1]),
    "temperature": (lambda x, g: sample_multinomial(x, 0.5, g), [64, 16, 4, 1, 1]),
    "top_k": (lambda x, g: sample_top_k(x, 3, generator=g), [8, 4, 2, 0, 0]),
    "top_p": (lambda x, g: sample_top_p(x, 0.7, generator=g), [8, 4, 0, 0, 0]),
    "top_k_top_p": (lambda x, g: sample_top_k_top_p(x, 4, 0.9, 0.5, g), [64, 16, 0, 0, 0]),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_follow_the_probabilities(name: str) -> None:
    sampler, shares = SAMPLERS[name]
    draws = 20_000
    counts = sampler(LOGITS.expand(draws, -1), torch.Generator().manual_seed(5)).bincount(minlength=5).tolist()
    expected = [draws * share / sum(shares) for share in shares]
    assert all(count == 0 for count, mean in zip(counts, expected, strict=True) if mean == 0)
    chi_square = sum((count - mean) ** 2 / mean for count, mean in zip(counts, expected, strict=True) if mean)
    assert chi_square < CHI_SQUARE[sum(share > 0 for share in shares) - 1]


def test_the_count_of_draws_would_notice_a_wrong_distribution() -> None:
    draws = sample_multinomial(LOGITS.expand(20_000, -1), 1.1, torch.Generator().manual_seed(5)).bincount().tolist()
    expected = [20_000 * share / 16 for share in [8, 4, 2, 1, 1]]
    assert sum((count - mean) ** 2 / mean for count, mean in zip(draws, expected, strict=True)) > CHI_SQUARE[4]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_the_same_generator_state_draws_the_same(strategy: str) -> None:
    logits, sampling = random_logits(100, 30, seed=4), SamplingConfig(strategy)  # type: ignore[arg-type]
    first, second = (choose(logits, sampling, torch.Generator().manual_seed(6)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, choose(logits, sampling, torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_generator_of_ones_own_leaves_the_global_one_alone(strategy: str) -> None:
    before = torch.get_rng_state()
    choose(LOGITS, SamplingConfig(strategy), torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)


def test_greedy_needs_no_random_numbers() -> None:
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    choose(LOGITS, SamplingConfig("greedy"), generator)
    choose(LOGITS, SamplingConfig("top_p", temperature=0.0), generator)
    assert torch.equal(generator.get_state(), before)


def test_is_greedy_knows_both_ways_to_be() -> None:
    assert is_greedy(SamplingConfig("greedy", temperature=2.0))
    assert is_greedy(SamplingConfig("top_k", temperature=0.0))
    assert not is_greedy(SamplingConfig("top_k", top_k=1))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_one_id_is_drawn_for_each_row_of_any_shape(shape: tuple[int, ...]) -> None:
    ids = draw(torch.full((*shape, 4), 0.25))
    assert ids.shape == shape
    assert ids.dtype == torch.int64


def test_rows_are_drawn_independently() -> None:
    probs = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert draw(probs).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    "sampler",
    [lambda: sample_multinomial(LOGITS, -1.0), lambda: sample_top_k(LOGITS, 0), lambda: sample_top_p(LOGITS, 0.0),
     lambda: sample_top_p(LOGITS, 1.1), lambda: sample_top_k_top_p(LOGITS, top_k=-5)],
)  # fmt: skip
def test_impossible_settings_are_refused(sampler: Callable[[], Tensor]) -> None:
    with pytest.raises(ConfigError):
        sampler()


def test_the_logits_given_are_not_changed() -> None:
    logits = LOGITS.clone()
    for strategy in STRATEGIES:
        choose(logits, SamplingConfig(strategy, top_k=2))  # type: ignore[arg-type]
    torch.testing.assert_close(logits, LOGITS, rtol=0, atol=0)
