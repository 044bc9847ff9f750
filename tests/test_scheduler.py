"""The learning rate climbs in a line, falls with the cosine, and stays down."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.config import OptimizerConfig
from transformer.scheduler import lr_scale

SETTINGS = st.builds(
    OptimizerConfig,
    schedule=st.sampled_from(["cosine", "constant", "wsd"]),
    warmup_fraction=st.floats(0, 0.99),
    min_lr_ratio=st.floats(0, 1, allow_subnormal=False),
    decay_fraction=st.floats(0.01, 1),
)
TOTALS = st.integers(1, 400)


def scales(total: int, beyond: int = 0, **settings_: float) -> list[float]:
    return [lr_scale(step, total, OptimizerConfig(**settings_)) for step in range(total + beyond)]  # type: ignore[arg-type]


def test_the_schedule_by_hand() -> None:
    found = scales(8, beyond=3, warmup_fraction=0.5, min_lr_ratio=0.2)
    cosine = [0.2 + 0.8 * (1 + math.cos(math.pi * t / 4)) / 2 for t in (0.8, 1.6, 2.4, 3.2)]  # fifths of the way
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, *cosine, 0.2, 0.2, 0.2])


def test_without_warm_up_the_fall_begins_at_once() -> None:
    found = scales(10, warmup_fraction=0.0, min_lr_ratio=0.1)
    assert 0.95 < found[0] < 1.0
    assert 0.1 < found[-1] < 0.13  # the eleventh would be 0.1


def test_wsd_stays_at_the_peak_and_comes_down_in_a_line() -> None:
    found = scales(10, beyond=2, schedule="wsd", warmup_fraction=0.2, decay_fraction=0.3, min_lr_ratio=0.2)
    assert found == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_a_longer_wsd_run_begins_like_a_shorter_one() -> None:
    short, long = (scales(total, schedule="wsd", warmup_fraction=4 / total) for total in (40, 80))
    assert short[:32] == long[:32]
    assert scales(40, schedule="constant", warmup_fraction=0.1) == short[:4] + [1.0] * 36


def test_a_ratio_of_1_keeps_the_rate_after_warm_up() -> None:
    assert scales(10, beyond=5, warmup_fraction=0.2, min_lr_ratio=1.0) == pytest.approx([0.5] + [1.0] * 14)


@given(TOTALS, SETTINGS)
@settings(max_examples=100)
def test_no_step_has_a_rate_of_0(total: int, schedule: OptimizerConfig) -> None:
    for step in range(total):
        assert lr_scale(step, total, schedule) > 0


@given(TOTALS, SETTINGS)
@settings(max_examples=100)
def test_the_first_step_always_moves(total: int, schedule: OptimizerConfig) -> None:
    """With min_lr_ratio 0 and a single step, that step was once the end of the cosine: a rate of 0."""
    assert lr_scale(0, total, schedule) > 0


@given(TOTALS, SETTINGS)
@settings(max_examples=100)
def test_it_rises_to_the_peak_and_never_rises_again(total: int, schedule: OptimizerConfig) -> None:
    found = [lr_scale(step, total, schedule) for step in range(2 * total + 2)]
    warmup = round(schedule.warmup_fraction * total)
    assert all(0 <= scale <= 1 for scale in found)
    assert all(a < b for a, b in itertools.pairwise(found[:warmup]))
    assert warmup == 0 or found[warmup - 1] == 1
    falling = found[max(0, warmup - 1) :]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(falling))


@given(TOTALS, SETTINGS, st.integers(0, 1_000))
@settings(max_examples=100)
def test_it_lands_on_the_lowest_rate_and_stays_there(total: int, schedule: OptimizerConfig, beyond: int) -> None:
    lowest = 1.0 if schedule.schedule == "constant" else schedule.min_lr_ratio
    assert lr_scale(total + beyond, total, schedule) == pytest.approx(lowest)


@given(TOTALS, SETTINGS)
@settings(max_examples=50)
def test_it_never_jumps_by_more_than_a_steps_share(total: int, schedule: OptimizerConfig) -> None:
    warmup = round(schedule.warmup_fraction * total)
    fall = total - warmup
    if schedule.schedule == "wsd":  # a line, not a wave, over its own fraction of the steps
        fall = min(fall, max(1, round(schedule.decay_fraction * total)))
    steepest = max(1 / max(1, warmup), math.pi / 2 / max(1, fall))
    found = [lr_scale(step, total, schedule) for step in range(total)]
    assert all(abs(b - a) <= steepest + 1e-9 for a, b in itertools.pairwise(found))
