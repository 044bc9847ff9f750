"""Each filter keeps the right tokens, draws follow the probabilities, and an independent implementation agrees.

Properties that exercises check too are in src/transformer/exercises/properties/sampling.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from transformer.categorical import inverse_cdf
from transformer.config import ConfigError, SamplingConfig
from transformer.inference.batch import sample_rows
from transformer.sampling import (
    is_greedy,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    logits_to_probs,
    penalise_repetition,
    sample,
)

MULTINOMIAL = SamplingConfig("multinomial")
STRATEGIES = ["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"]
LOGITS = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0]).log()  # probabilities 8, 4, 2, 1 and 1 of 16
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BEFORE_1 = 1 - 2**-53
"""The largest number that a uniform draw in float64 gives."""

# The 99.9th percentile of chi-square by degrees of freedom, from any printed table.
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47}


def random_logits(rows: int, vocab: int, seed: int, scale: float = 3.0) -> Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def seeded(seeds: Iterable[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def draw(probs: Tensor, generator: torch.Generator | list[torch.Generator] | None = None) -> Tensor:
    """Draws an id from each row of probabilities, given as their logarithms."""
    if isinstance(generator, list):
        return sample_rows(probs.log(), MULTINOMIAL, generator)
    return sample(probs.log(), MULTINOMIAL, generator)


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


def test_top_k_keeps_the_k_most_likely_tokens() -> None:
    torch.testing.assert_close(
        probs_of(LOGITS, strategy="top_k", top_k=2), torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0]) / 3, rtol=0, atol=1e-6
    )


def test_top_p_keeps_the_fewest_tokens_that_reach_p() -> None:
    for top_p, kept in [(0.01, 1), (0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.87, 3), (1.0, 5)]:
        assert support(probs_of(LOGITS, strategy="top_p", top_p=top_p)) == kept, top_p


def test_temperature_comes_before_top_p() -> None:
    assert support(probs_of(LOGITS, strategy="top_p", top_p=0.6, temperature=0.5)) == 1
    assert support(probs_of(LOGITS, strategy="top_p", top_p=0.6, temperature=100.0)) == 3  # about 1/5 each


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_temperature_0_is_greedy(strategy: str) -> None:
    logits = random_logits(20, 50, seed=1)
    probs = probs_of(logits, strategy=strategy, temperature=0.0)
    torch.testing.assert_close(probs, torch.nn.functional.one_hot(logits.argmax(-1), 50).float(), rtol=0, atol=0)
    assert torch.equal(
        sample(logits, SamplingConfig(strategy, temperature=0.0)), sample(logits, SamplingConfig("greedy"))
    )  # type: ignore[arg-type]


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


def test_all_logits_equal_to_the_last_of_the_nucleus_stay() -> None:
    # A plain sort keeps one of the last two tokens; which one differs between sorts and devices.
    assert support(probs_of(LOGITS, strategy="top_p", top_p=0.9)) == 5
    assert support(keep_top_p(torch.zeros(3, 700), 0.01).softmax(-1)) == [700] * 3


def test_top_p_always_keeps_the_most_likely_token() -> None:
    assert support(keep_top_p(random_logits(50, 20, seed=3), 1e-9).softmax(-1)) == [1] * 50


@given(st.integers(0, 999), st.sampled_from([3, 63, 64, 65, 600, 5_000]), st.floats(0.001, 0.9999), st.booleans())
@settings(max_examples=60)
def test_the_nucleus_is_the_one_that_a_full_sort_finds(seed: int, vocab: int, top_p: float, tied: bool) -> None:
    # Rows need different numbers of tokens: from one to nearly all of the vocabulary.
    logits = random_logits(4, vocab, seed).double() * torch.tensor([[0.01], [0.3], [1.0], [10.0]])
    logits = logits.round() if tied else logits
    kept = keep_top_p(logits, top_p) > -math.inf
    for row, inside in zip(logits, kept, strict=True):
        ordered = row.sort(descending=True)
        reaching = ordered.values.softmax(-1).cumsum(-1).tolist()
        edge = ordered.values[next(i for i, total in enumerate(reaching) if total >= top_p - 1e-12)]
        assert torch.equal(inside, row >= edge)


def test_top_p_just_below_1_keeps_all_tokens_that_top_k_kept() -> None:
    kept = keep_top_k(random_logits(3, 5_000, seed=2), 10)
    torch.testing.assert_close(keep_top_p(kept, 1 - 1e-12), kept, rtol=0, atol=0)


def test_min_p_keeps_tokens_with_that_fraction_of_the_largest_probability() -> None:
    for min_p, kept in [(0.0, 5), (0.12, 5), (0.13, 3), (0.24, 3), (0.26, 2), (0.51, 1), (1.0, 1)]:
        assert support(probs_of(LOGITS, strategy="multinomial", min_p=min_p)) == kept, min_p


def test_min_p_of_1_keeps_the_most_likely_tokens_only() -> None:
    assert support(keep_min_p(torch.tensor([2.0, 5.0, 5.0, -math.inf]), 1.0).softmax(-1)) == 2


def test_min_p_works_with_every_strategy_and_after_the_temperature() -> None:
    assert support(probs_of(LOGITS, strategy="top_k", top_k=4, min_p=0.2)) == 3
    assert support(probs_of(LOGITS, strategy="top_p", top_p=0.99, min_p=0.3)) == 2
    assert support(probs_of(LOGITS, strategy="multinomial", min_p=0.3)) == 2
    assert (
        support(probs_of(LOGITS, strategy="multinomial", min_p=0.3, temperature=2.0)) == 5
    )  # roots: 1, 0.71, ..., 0.35


def test_repetition_penalty_by_hand() -> None:
    logits, text = torch.tensor([[2.0, -2.0, 4.0, 0.0], [2.0, -2.0, 4.0, 0.0]]), torch.tensor([[0, 1, 1], [2, 2, 3]])
    expected = torch.tensor([[1.0, -4.0, 4.0, 0.0], [2.0, -2.0, 2.0, 0.0]])
    torch.testing.assert_close(penalise_repetition(logits, text, 2.0), expected, rtol=0, atol=0)


def test_repetition_penalty_takes_an_empty_text_and_one_text_for_all_rows() -> None:
    logits = random_logits(2, 6, seed=1)
    one, each = torch.tensor([3, 0, 3]), torch.tensor([[0, 3], [3, 0]])
    assert torch.equal(penalise_repetition(logits, one, 1.7), penalise_repetition(logits, each, 1.7))
    assert torch.equal(penalise_repetition(logits, torch.empty(2, 0, dtype=torch.int64), 1.7), logits)


def test_greedy_applies_the_repetition_penalty() -> None:
    sampling, text = SamplingConfig("greedy", repetition_penalty=4.0), torch.tensor([[0]])
    assert sample(LOGITS[None], sampling, text=text).tolist() == [1]
    assert logits_to_probs(LOGITS[None], sampling, text).tolist() == [[0.0, 1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("strategy", ["greedy", "top_p"])
def test_a_repetition_penalty_without_the_text_is_an_error(strategy: str) -> None:
    sampling = SamplingConfig(strategy, repetition_penalty=1.2)  # type: ignore[arg-type]
    for call in (sample, logits_to_probs):
        with pytest.raises(ValueError, match=r"repetition_penalty=1.2 needs the text so far"):
            call(LOGITS[None], sampling)  # type: ignore[operator]


def test_tokens_of_logit_minus_infinity_keep_probability_0() -> None:
    logits = LOGITS.clone()
    logits[0] = -math.inf
    for strategy in STRATEGIES:
        probs = probs_of(logits, strategy=strategy, top_k=3, top_p=0.9)
        assert probs[0] == 0
        assert probs.sum().item() == pytest.approx(1.0, abs=1e-6)


@given(
    strategy=st.sampled_from(STRATEGIES), rows=st.integers(1, 4), vocab=st.integers(1, 40), seed=st.integers(0, 999),
    temperature=st.sampled_from([0.0, 1e-6, 0.1, 0.7, 1.0, 2.0, 50.0, 9e5]), top_k=st.integers(1, 50),
    top_p=st.floats(0.01, 1.0), min_p=st.floats(0.0, 1.0), dtype=st.sampled_from(DTYPES),
)  # fmt: skip
@settings(max_examples=60)
def test_probabilities_sum_to_1_and_keep_the_order_of_the_logits(
    strategy: str, rows: int, vocab: int, seed: int, temperature: float, top_k: int, top_p: float, min_p: float,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    logits = random_logits(rows, vocab, seed).to(dtype)
    probs = probs_of(logits, strategy=strategy, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    assert probs.shape == logits.shape
    assert probs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(probs.sum(-1), torch.ones_like(probs[:, 0]), rtol=0, atol=1e-5)
    order = logits.double().sort(dim=-1, descending=True, stable=True).indices
    falling = probs.gather(-1, order)
    assert (falling.diff(dim=-1) <= 1e-7).all()


@given(st.integers(0, 999), st.integers(1, 30), st.floats(0.05, 3.0))
@settings(max_examples=60)
def test_a_larger_k_or_p_keeps_all_tokens_of_a_smaller_one(seed: int, vocab: int, temperature: float) -> None:
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


@given(
    seed=st.integers(0, 999), vocab=st.sampled_from([2, 7, 80, 700]), top_k=st.integers(1, 90),
    top_p=st.floats(0.05, 0.99), min_p=st.floats(0.01, 0.99), temperature=st.floats(0.1, 5.0),
    penalty=st.floats(0.5, 3.0),
)  # fmt: skip
@settings(max_examples=60)
def test_each_filter_equals_the_one_of_transformers(
    seed: int, vocab: int, top_k: int, top_p: float, min_p: float, temperature: float, penalty: float
) -> None:
    logits = random_logits(3, vocab, seed).double()
    ids = torch.randint(vocab, (3, 9), generator=torch.Generator().manual_seed(seed))
    theirs_k, theirs_p, theirs_m = TopKLogitsWarper(top_k), TopPLogitsWarper(top_p), MinPLogitsWarper(min_p)
    theirs_t, theirs_r = TemperatureLogitsWarper(temperature), RepetitionPenaltyLogitsProcessor(penalty)
    torch.testing.assert_close(keep_top_k(logits, top_k), theirs_k(ids, logits), rtol=0, atol=0)
    torch.testing.assert_close(keep_top_p(logits, top_p), theirs_p(ids, logits), rtol=0, atol=0)
    torch.testing.assert_close(keep_min_p(logits, min_p), theirs_m(ids, logits), rtol=0, atol=0)
    torch.testing.assert_close(penalise_repetition(logits, ids, penalty), theirs_r(ids, logits), rtol=0, atol=0)
    expected = logits
    for theirs in (theirs_r, theirs_t, theirs_k, theirs_p, theirs_m):
        expected = theirs(ids, expected)
    sampling = SamplingConfig("top_k_top_p", temperature, top_k, top_p, min_p, penalty)
    torch.testing.assert_close(logits_to_probs(logits, sampling, ids), expected.softmax(-1), rtol=1e-9, atol=1e-12)


SAMPLERS: dict[str, tuple[Callable[[Tensor, torch.Generator], Tensor], list[float]]] = {
    "multinomial": (lambda x, g: sample(x, MULTINOMIAL, g), [8, 4, 2, 1, 1]),
    "temperature": (lambda x, g: sample(x, SamplingConfig("multinomial", 0.5), g), [64, 16, 4, 1, 1]),
    "top_k": (lambda x, g: sample(x, SamplingConfig("top_k", top_k=3), g), [8, 4, 2, 0, 0]),
    "top_p": (lambda x, g: sample(x, SamplingConfig("top_p", top_p=0.7), g), [8, 4, 0, 0, 0]),
    "top_k_top_p": (lambda x, g: sample(x, SamplingConfig("top_k_top_p", 0.5, 4, 0.9), g), [64, 16, 0, 0, 0]),
    "min_p": (lambda x, g: sample(x, SamplingConfig("multinomial", min_p=0.2), g), [8, 4, 2, 0, 0]),
    "a generator for each row": (lambda x, g: sample_rows(x, MULTINOMIAL, seeded(range(len(x)))), [8, 4, 2, 1, 1]),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_follow_the_probabilities(name: str) -> None:
    sampler, weights = SAMPLERS[name]
    draws = 20_000
    counts = sampler(LOGITS.expand(draws, -1), torch.Generator().manual_seed(5)).bincount(minlength=5).tolist()
    expected = [draws * weight / sum(weights) for weight in weights]
    assert all(count == 0 for count, mean in zip(counts, expected, strict=True) if mean == 0)
    chi_square = sum((count - mean) ** 2 / mean for count, mean in zip(counts, expected, strict=True) if mean)
    assert chi_square < CHI_SQUARE[sum(weight > 0 for weight in weights) - 1]


def test_the_chi_square_test_detects_a_wrong_distribution() -> None:
    sampling, generator = SamplingConfig("multinomial", 1.1), torch.Generator().manual_seed(5)
    draws = sample(LOGITS.expand(20_000, -1), sampling, generator).bincount().tolist()
    expected = [20_000 * weight / 16 for weight in [8, 4, 2, 1, 1]]
    assert sum((count - mean) ** 2 / mean for count, mean in zip(draws, expected, strict=True)) > CHI_SQUARE[4]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_the_same_generator_state_draws_the_same(strategy: str) -> None:
    logits, sampling = random_logits(100, 30, seed=4), SamplingConfig(strategy)  # type: ignore[arg-type]
    first, second = (sample(logits, sampling, torch.Generator().manual_seed(6)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, sample(logits, sampling, torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_given_generator_leaves_the_global_one_unchanged(strategy: str) -> None:
    before = torch.get_rng_state()
    sample(LOGITS, SamplingConfig(strategy), torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)


def test_greedy_needs_no_random_numbers() -> None:
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    sample(LOGITS, SamplingConfig("greedy"), generator)
    sample(LOGITS, SamplingConfig("top_p", temperature=0.0), generator)
    assert torch.equal(generator.get_state(), before)


def test_is_greedy_for_the_strategy_and_for_temperature_0() -> None:
    assert is_greedy(SamplingConfig("greedy", temperature=2.0))
    assert is_greedy(SamplingConfig("top_k", temperature=0.0))
    assert not is_greedy(SamplingConfig("top_k", top_k=1))


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30).filter(any),
    st.sampled_from([0.0, 5e-324, 0.25, 0.5, 0.75, BEFORE_1]) | st.floats(0, BEFORE_1),
    st.sampled_from(DTYPES),
)
@settings(max_examples=60)
def test_the_id_drawn_is_the_first_whose_sum_exceeds_the_number(
    weights: list[int], number: float, dtype: torch.dtype
) -> None:
    # Sixteenths are exact in every type, and so are their sums. The total need not be 1.
    probs = torch.tensor([weights], dtype=dtype) / 16
    token = int(inverse_cdf(probs, torch.tensor([number], dtype=torch.float64)))
    point = Fraction(number) * sum(weights)
    reached = [sum(weights[: i + 1]) for i in range(len(weights))]
    assert token == next(i for i, total in enumerate(reached) if total > point)
    assert weights[token] > 0


@pytest.mark.parametrize("number", [0.0, 5e-324, BEFORE_1])
@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_an_id_of_probability_0_is_never_drawn_at_either_end_of_the_interval(number: float, strategy: str) -> None:
    logits = random_logits(50, 20_000, seed=8)
    logits[:, :7] = logits[:, -7:] = -math.inf
    probs = probs_of(logits, strategy=strategy)
    ids = inverse_cdf(probs, torch.full((50,), number, dtype=torch.float64))
    assert (probs.gather(-1, ids[:, None]) > 0).all()


@pytest.mark.parametrize("settings_", [MULTINOMIAL, SamplingConfig("greedy"), SamplingConfig("top_p", temperature=0.0)])
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize("vocab", [1, 4, 5])
def test_a_row_without_probabilities_is_an_error(bad: float, vocab: int, settings_: SamplingConfig) -> None:
    """Greedy sampling of nan once gave the first id, without an error."""
    logits = torch.zeros(3, vocab)
    logits[1] = bad
    with pytest.raises(ValueError, match=r"row 1 has no probabilities to draw from: its logits are not finite"):
        sample(logits, settings_)


@given(
    st.integers(0, 999), st.lists(st.integers(0, 99), min_size=2, max_size=5), st.sampled_from([1, 3, 200]),
    st.sampled_from(STRATEGIES), st.sampled_from(DTYPES),
)  # fmt: skip
@settings(max_examples=60)
def test_the_draw_of_a_row_does_not_depend_on_the_other_rows(
    seed: int, seeds: list[int], vocab: int, strategy: str, dtype: torch.dtype
) -> None:
    # From flat to steep rows, so the size of the nucleus differs between them.
    rows = len(seeds)
    logits = (random_logits(rows, vocab, seed) * torch.logspace(-2, 1, rows)[:, None]).to(dtype)
    text = torch.randint(vocab, (rows, 4), generator=torch.Generator().manual_seed(seed))
    sampling = SamplingConfig(strategy, 0.9, top_k=99, top_p=0.95, min_p=0.001, repetition_penalty=1.1)  # type: ignore[arg-type]
    together = sample_rows(logits, sampling, seeded(seeds), text)
    alone = [sample(logits[i : i + 1], sampling, seeded([seeds[i]])[0], text[i : i + 1]) for i in range(rows)]
    assert together.tolist() == torch.cat(alone).tolist()


def test_rows_with_one_generator_take_its_numbers_in_order() -> None:
    probs, generator = random_logits(40, 30, seed=3).softmax(-1), torch.Generator().manual_seed(4)
    one_by_one = [int(draw(row, generator)) for row in probs]
    assert draw(probs, torch.Generator().manual_seed(4)).tolist() == one_by_one


def test_a_row_takes_one_number_from_its_generator_however_many_tokens_there_are() -> None:
    first, second = seeded([1, 1])
    draw(torch.full((1, 3), 1 / 3), [first])
    draw(torch.full((1, 3_000), 1 / 3_000), [second])
    assert torch.equal(first.get_state(), second.get_state())


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_wrong_number_of_generators_is_an_error(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} generators for 3 rows: give one for each row, or one for all"):
        draw(torch.full((3, 2), 0.5), seeded(range(count)))


def test_without_a_generator_the_global_one_is_used() -> None:
    torch.manual_seed(3)
    first = draw(torch.full((50, 9), 1 / 9))
    assert torch.equal(first, draw(torch.full((50, 9), 1 / 9), torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 1), (3, 100), (2, 3, 5), (0, 4)])
def test_every_filter_takes_every_shape_and_type(shape: tuple[int, ...], dtype: torch.dtype, strategy: str) -> None:
    logits = random_logits(1, math.prod(shape), seed=1).reshape(shape).to(dtype)
    logits[..., 1:2] = -math.inf
    for kept in (keep_top_k(logits, 3), keep_top_p(logits, 0.5), keep_min_p(logits, 0.1)):
        assert (kept.shape, kept.dtype) == (logits.shape, dtype)
        assert (kept.amax(-1) == logits.amax(-1)).all()
    sampling, text = SamplingConfig(strategy, min_p=0.05, repetition_penalty=1.2), torch.zeros(1, dtype=torch.int64)  # type: ignore[arg-type]
    text = text.expand(*shape[:-1], 1)
    assert penalise_repetition(logits, text, 1.2).dtype == dtype
    ids = sample(logits, sampling, text=text)
    assert (ids.shape, ids.dtype) == (shape[:-1], torch.int64)
    assert not (ids == 1).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_gpu_draws_what_the_cpu_draws(strategy: str) -> None:
    logits, sampling = random_logits(64, 5_000, seed=1).double(), SamplingConfig(strategy)  # type: ignore[arg-type]
    expected = sample_rows(logits, sampling, seeded(range(64)))
    assert torch.equal(sample_rows(logits.cuda(), sampling, seeded(range(64))).cpu(), expected)
    on_gpu = torch.Generator("cuda").manual_seed(1)
    assert sample(logits.cuda(), sampling, on_gpu).device.type == "cuda"


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_one_id_is_drawn_for_each_row_of_any_shape(shape: tuple[int, ...]) -> None:
    ids = draw(torch.full((*shape, 4), 0.25))
    assert ids.shape == shape
    assert ids.dtype == torch.int64


def test_rows_are_drawn_independently() -> None:
    probs = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert draw(probs).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    "settings_",
    [{"temperature": -1.0}, {"temperature": 1e-40}, {"temperature": math.inf}, {"temperature": math.nan}, {"top_k": 0},
     {"top_k": -5}, {"top_p": 0.0}, {"top_p": 1.1}],
)  # fmt: skip
def test_impossible_settings_are_refused(settings_: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SamplingConfig(**settings_).check()  # type: ignore[arg-type]


def test_the_logits_given_are_not_changed() -> None:
    logits = LOGITS.clone()
    for strategy in STRATEGIES:
        sample(logits, SamplingConfig(strategy, top_k=2))  # type: ignore[arg-type]
    torch.testing.assert_close(logits, LOGITS, rtol=0, atol=0)
