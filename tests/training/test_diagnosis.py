"""The verdict states what the curves show and how certain it is, and claims nothing that they do not show."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transformer.training.diagnosis import ENOUGH, Verdict, diagnose, no_longer_improves
from transformer.training.trend import FEWEST, SMALL, WIDE, Trend

TrainPoints = list[tuple[int, float, int]]
Evaluations = list[tuple[int, float, float | None]]
KINDS = {"learning", "memorising", "overfitting", "underfitting", "diverging", "finished", "uncertain"}


def train_line(change: float, end: float = 3.0, last: int = 3000, points: int = 300) -> TrainPoints:
    """A train loss that changes by `change` per 100 steps and is `end` at the last one."""
    steps = [last * number // points for number in range(1, points + 1)]
    return [(step, end + change * (step - last) / 100, 2048) for step in steps]


def val_line(
    change: float, end: float = 3.1, last: int = 3000, points: int = 30, error: float | None = None
) -> Evaluations:
    """The same for validation."""
    return [(step, loss, error) for step, loss, _ in train_line(change, end, last, points)]


def evaluations_of(*losses: float, error: float | None = None) -> Evaluations:
    """Evaluations 100 steps apart."""
    return [(100 * number, loss, error) for number, loss in enumerate(losses, start=1)]


# By hand


def test_the_line_of_the_lesson_by_hand() -> None:
    trend = Trend.of([(0, 2.00, None), (100, 1.91, None), (200, 1.79, None), (300, 1.70, None)], 0, 300)
    assert trend is not None
    assert trend.change == pytest.approx(-0.00102 * 300)
    assert trend.error == pytest.approx(300 * math.sqrt(0.00018 / 2 / 50_000))
    assert trend.level == pytest.approx(1.85 - 0.00102 * 150)
    assert trend.level_error == pytest.approx(math.sqrt(0.00018 / 2 * (1 / 4 + 150**2 / 50_000)))


@pytest.mark.parametrize(
    ("train", "validation", "schedule", "kind", "reason"),
    [
        (
            train_line(-0.5, 3.0), val_line(-0.25, 3.125), {},
            "learning", "validation falls by 0.2500 ± 0.0000 per 100 steps, train falls by 0.5000 ± 0.0000; "
            "gap 0.1250 ± 0.0000, widening: go on",
        ),
        (
            train_line(-0.5), val_line(-0.5), {"schedule_done": 1.0, "lr_fraction": 0.1},
            "learning", "validation falls by 0.5000 ± 0.0000 per 100 steps, train falls by 0.5000 ± 0.0000; "
            "gap 0.1000 ± 0.0000: a longer run would learn more",
        ),
        (
            train_line(-0.5), val_line(0.25, 3.5), {},
            "overfitting", "validation rises by 0.2500 ± 0.0000 per 100 steps, train falls by 0.5000 ± 0.0000; "
            "gap 0.5000 ± 0.0000, widening: stop, or more text, more dropout or a smaller model; "
            "validation was lowest at step 100",
        ),
        (
            train_line(-0.5), val_line(0.0, 3.5), {},
            "overfitting", "validation is flat, 0.0000 ± 0.0000 per 100 steps, train falls by 0.5000 ± 0.0000; "
            "gap 0.5000 ± 0.0000, widening: this is how it begins: more text, more dropout or a smaller model; "
            "validation was lowest at step 100",
        ),
        (
            train_line(0.0, 1.0), val_line(0.0, 3.0), {},
            "overfitting", "validation is flat, 0.0000 ± 0.0000 per 100 steps, train is flat, 0.0000 ± 0.0000; "
            "gap 2.0000 ± 0.0000: the text is memorised: more text, more dropout or a smaller model; "
            "validation was lowest at step 100",
        ),
        (
            train_line(0.0), val_line(0.0), {"schedule_done": 0.5, "lr_fraction": 0.6},
            "underfitting", "validation is flat, 0.0000 ± 0.0000 per 100 steps, train is flat, 0.0000 ± 0.0000; "
            "gap 0.1000 ± 0.0000: the learning rate is at 60% of its peak; try another, or a larger model",
        ),
        (
            train_line(0.0), val_line(0.0), {"schedule_done": 1.0, "lr_fraction": 0.1},
            "finished", "validation is flat, 0.0000 ± 0.0000 per 100 steps, train is flat, 0.0000 ± 0.0000; "
            "gap 0.1000 ± 0.0000: "
            "the schedule is complete; to improve further: a longer one, more text or a larger model",
        ),
        (
            train_line(0.5), val_line(0.25), {},
            "diverging", "validation rises by 0.2500 ± 0.0000 per 100 steps, train rises by 0.5000 ± 0.0000; "
            "gap 0.1000 ± 0.0000, narrowing: a lower learning rate",
        ),
        (
            train_line(0.0), val_line(0.0), {"schedule_done": 0.01, "lr_fraction": 0.1},
            "uncertain", "validation is flat, 0.0000 ± 0.0000 per 100 steps, train is flat, 0.0000 ± 0.0000; "
            "gap 0.1000 ± 0.0000: the learning rate is still warming up",
        ),
    ],
)  # fmt: skip
def test_straight_lines_get_the_verdict_and_the_numbers(
    train: TrainPoints, validation: Evaluations, schedule: dict[str, float], kind: str, reason: str
) -> None:
    assert diagnose(train, validation, **schedule) == Verdict(kind, reason)  # type: ignore[arg-type]


def test_the_reason_counts_in_round_numbers_of_steps_that_fit_the_recent_part() -> None:
    for last, unit in ((24, " per step,"), (240, " per 10 steps,"), (30_000, " per 10,000 steps,")):
        assert unit in diagnose(train_line(-1, last=last, points=24), val_line(-1, last=last, points=12)).reason


def test_a_change_below_a_hundredth_of_a_nat_is_flat_however_significant() -> None:
    """A sure fall of 0.009 nats over a third of a run is no reason to continue."""
    recent = 9.9  # hundreds of steps: from 2010 on
    assert diagnose(train_line(-0.99 * SMALL / recent), val_line(-0.99 * SMALL / recent)).kind == "underfitting"
    assert diagnose(train_line(-1.01 * SMALL / recent), val_line(-1.01 * SMALL / recent)).kind == "learning"


def test_a_gap_that_widens_a_little_is_watched_and_one_that_widens_much_is_overfitting() -> None:
    """A model too small for its text had a gap of 0.02 ± 0.01 that widened by 0.02: no overfitting."""
    recent = 9.9
    for widening, kind in ((0.9 * WIDE, "learning"), (1.1 * WIDE, "overfitting")):
        assert diagnose(train_line(-widening / recent), val_line(0.0)).kind == kind


def test_only_the_recent_part_counts() -> None:
    early = [(step, 9.0 - step / 250, None) for step in range(100, 2000, 100)]
    late = [(step, 1.5 + step / 10_000, None) for step in range(2000, 3001, 100)]
    found = diagnose(train_line(-0.5, 1.0), early + late)
    assert found.kind == "overfitting"
    assert "validation rises by 0.0100 ± 0.0000 per 100 steps" in found.reason
    assert "lowest at step 1,900" in found.reason


def test_an_uncertain_level_does_not_make_the_slope_uncertain() -> None:
    """All evaluations read the same sample: its error counts in the gap and not in the slope."""
    found = diagnose(train_line(-0.05), val_line(-0.05, error=0.2))
    assert found.kind == "learning"
    assert "validation falls by 0.0500 ± 0.0000" in found.reason
    assert "gap 0.1 ± 0.2" in found.reason


def test_a_gap_within_its_error_is_not_memorisation() -> None:
    assert diagnose(train_line(0.0, 2.0), val_line(0.0, 2.5, error=0.01)).kind == "overfitting"
    assert diagnose(train_line(0.0, 2.0), val_line(0.0, 2.5, error=0.2)).kind == "underfitting"


def test_a_train_loss_far_below_a_validation_loss_that_still_falls_is_memorising() -> None:
    """Three kilobytes of text: train fell to 4.4, validation stood at 6.6, and the advice was a longer run."""
    found = diagnose(train_line(-5, 4.4, last=60, points=60), val_line(-2, 6.6, last=60, points=10), schedule_done=1.0)
    assert str(found) == (
        "memorising: validation falls by 0.2000 ± 0.0000 per 10 steps, train falls by 0.5000 ± 0.0000; "
        "gap 2.2000 ± 0.0000, widening: train is far below validation: more text would help more than more steps"
    )
    assert diagnose(train_line(-5, 4.4), val_line(-2, 4.8)).kind == "learning"  # less than a tenth below


# Little evidence


def test_no_points_are_no_evidence() -> None:
    assert diagnose([], []).kind == "uncertain"
    assert "too few points" in diagnose([], []).reason


def test_a_run_too_short_for_a_verdict_gets_one_plain_sentence() -> None:
    for points in range(1, FEWEST):
        found = diagnose(train_line(-0.5, points=points), val_line(-0.5, points=points))
        assert str(found) == "uncertain: too few points: a verdict takes four evaluations"


@pytest.mark.parametrize("count", range(1, FEWEST))
def test_fewer_than_four_evaluations_without_errors_are_uncertain(count: int) -> None:
    found = diagnose(train_line(-0.5), val_line(-0.5, points=count))
    assert found.kind == "uncertain"
    assert "validation has too few points" in found.reason
    assert "train falls by " in found.reason


@pytest.mark.parametrize("count", [2, 3])
def test_two_evaluations_are_enough_if_they_differ_by_more_than_their_errors(count: int) -> None:
    """A run of 600 steps with a point every 200 once had three evaluations, and no verdict."""
    assert diagnose(train_line(-0.05), val_line(-0.05, points=count, error=0.02)).kind == "learning"
    assert diagnose(train_line(-0.05), val_line(+0.05, points=count, error=0.02)).kind == "overfitting"
    assert diagnose(train_line(-0.05), val_line(-0.05, points=count, error=2.0)).kind == "uncertain"


def test_impossible_errors_are_ignored() -> None:
    for error in (0.0, -1.0, math.nan, math.inf):
        assert diagnose(train_line(-0.5), val_line(-0.5, points=3, error=error)).kind == "uncertain"
        assert diagnose(train_line(-0.5), val_line(-0.5, error=error)) == diagnose(train_line(-0.5), val_line(-0.5))


def test_curvature_is_not_mistaken_for_noise() -> None:
    """The first evaluations fall along a curve, so a line through them has a large error; still they all fall."""
    found = diagnose(train_line(-2.0, last=400), evaluations_of(5.0, 3.5, 3.0, 2.8))
    assert found.kind == "learning"
    assert "validation falls by 0.7 ± 0.2 per 100 steps" in found.reason


def test_noise_wider_than_the_change_is_uncertain() -> None:
    found = diagnose(train_line(-0.01), evaluations_of(3.0, 3.3, 2.9, 3.2, 3.1, 2.8, 3.3, 3.0))
    assert found.kind == "uncertain"
    assert "validation is unclear" in found.reason


def test_with_one_train_point_validation_decides() -> None:
    assert diagnose(train_line(0.0, points=1), val_line(-0.5)).kind == "learning"
    assert diagnose(train_line(0.0, points=1), val_line(+0.5)).kind == "uncertain"  # or does it diverge?


# Losses that are not finite


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 1e300])
def test_a_last_loss_that_is_not_finite_is_a_diverging_run(loss: float) -> None:
    found = diagnose([*train_line(-0.5), (3010, loss, 2048)], val_line(-0.5))
    assert found.kind == "diverging"
    assert f"train loss is {loss} at step 3,010" in found.reason
    assert f"validation loss is {loss}" in diagnose(train_line(-0.5), [*val_line(-0.5), (3100, loss, None)]).reason


def test_an_earlier_loss_that_is_not_finite_is_ignored() -> None:
    train, evaluations = train_line(-0.5), val_line(-0.5)
    broken = [*train[:250], (train[250][0], math.nan, 2048), *train[251:]]
    assert diagnose(broken, evaluations) == diagnose(train, evaluations)


def test_a_report_without_tokens_is_ignored() -> None:
    """Steps without a finite gradient are skipped; a report of skipped steps alone says loss 0 of 0 tokens."""
    train, evaluations = train_line(-0.5), val_line(-0.5)
    skipped = [*train[:250], (train[250][0], 0.0, 0), *train[251:]]
    assert diagnose(skipped, evaluations) == diagnose(train[:250] + train[251:], evaluations)


def test_train_points_are_weighted_by_their_tokens() -> None:
    train = train_line(-0.5)
    jumps = [(step, loss + 5 * (step % 100 == 50), 1 if step % 100 == 50 else 10**12) for step, loss, _ in train]
    assert diagnose(jumps, val_line(-0.5)) == diagnose(train, val_line(-0.5))


# A run that resumed from an earlier state


def test_a_run_that_resumed_from_an_earlier_state_is_judged_by_its_later_points() -> None:
    train, evaluations = train_line(-0.5), val_line(-0.5)
    lost = [(step, loss + 1, tokens) for step, loss, tokens in train[:200]]
    lost_evaluations = [(step, loss + 1, error) for step, loss, error in evaluations[:20]]
    again = diagnose(
        train[:100] + lost[100:] + train[100:], evaluations[:10] + lost_evaluations[10:] + evaluations[10:]
    )
    assert again == diagnose(train, evaluations)


def test_a_step_given_twice_counts_once() -> None:
    train, evaluations = train_line(-0.5), val_line(-0.5)
    twice = [point for point in train for _ in range(2)]
    assert diagnose(twice, [point for point in evaluations for _ in range(2)]) == diagnose(train, evaluations)


def test_one_step_given_many_times_is_one_point() -> None:
    assert diagnose([(7, 3.0, 1)] * 9, [(7, 3.0, 0.1)] * 9).kind == "uncertain"


# Against an independent implementation, and on random data


@given(st.integers(0, 2**32 - 1), st.integers(FEWEST, 60))
@settings(max_examples=60)
def test_the_line_agrees_with_numpys(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    steps = np.sort(generator.choice(10_000, count, replace=False))
    losses, tokens = generator.normal(3, 1, count), generator.integers(1, 5000, count)
    trend = Trend.of(
        [(int(step), float(loss), None) for step, loss in zip(steps, losses, strict=True)],
        int(steps[0]), int(steps[-1]), [int(number) for number in tokens],
    )  # fmt: skip
    assert trend is not None
    x = (steps - steps[-1]) / (steps[-1] - steps[0])
    (slope, level), covariance = np.polyfit(x, losses, 1, w=np.sqrt(tokens), cov=True)
    assert (trend.change, trend.level) == pytest.approx((slope, level), rel=1e-9, abs=1e-9)
    assert (trend.error, trend.level_error) == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-9)


def test_the_bound_is_students_t() -> None:
    """Two-sided 95 % points from the tables, by degrees of freedom."""
    table = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 8: 2.306, 10: 2.228, 15: 2.131, 20: 2.086, 60: 2.000}
    for freedom, wanted in table.items():
        zigzag = [(step, float(step % 2), None) for step in range(freedom + 2)]
        trend = Trend.of(zigzag, 0, freedom + 1)
        assert trend is not None
        assert trend.bound / trend.error == pytest.approx(wanted, rel=1e-3)


def noisy(
    generator: np.random.Generator, train: float, validation: float, noise: float, evaluations: int
) -> tuple[TrainPoints, Evaluations]:
    """Curves of 3 * `evaluations` evaluations and ten times as many reports, straight in the recent part.

    Over that part train and validation change by so many standard errors, of `noise` nats each.
    """
    x = (np.arange(evaluations) - (evaluations - 1)) / (evaluations - 1)
    deviation = np.sqrt(np.sum((x - x.mean()) ** 2))
    at = np.arange(1, 3 * evaluations + 1)
    v = 3.1 + noise * (
        validation * (at - 3 * evaluations) / (evaluations - 1) + deviation * generator.normal(size=at.size)
    )
    at_report = np.arange(1, 30 * evaluations + 1)
    report_deviation = deviation * np.sqrt(10)  # ten times the points: the same error of the slope, or very nearly
    t = 3.0 + noise * (
        train * (at_report / 10 - 3 * evaluations) / (evaluations - 1)
        + report_deviation * generator.normal(size=30 * evaluations)
    )
    reports = [(10 * int(step), float(loss), 2048) for step, loss in zip(at_report, t, strict=True)]
    return reports, [(100 * int(step), float(loss), None) for step, loss in zip(at, v, strict=True)]


def right(
    kind: str,
    make: Callable[[np.random.Generator], tuple[TrainPoints, Evaluations]],
    done: float = 0.0,
    rate: float = 1.0,
) -> float:
    """The share of 300 seeds for which the verdict on what `make` draws is `kind`."""
    runs = (make(np.random.default_rng(seed)) for seed in range(300))
    return sum(diagnose(train, evaluations, done, rate).kind == kind for train, evaluations in runs) / 300


FOUR_ERRORS = [
    ("learning", -4, -4, 0.01),
    ("learning", 0, -4, 0.01),
    ("overfitting", -4, +4, 0.01),
    ("overfitting", 0, +5, 0.01),  # must not be taken for diverging: of two curves, neither may err
    ("overfitting", -30, 0, SMALL / 4),  # it begins: the gap widens by 0.075
    ("learning", -12, 0, SMALL / 8),  # by 0.015 only, or by 0.03
    ("underfitting", 0, 0, SMALL / 4),  # what counts as a change is 4 errors wide
    ("diverging", +5, +5, 0.01),  # two curves, each of which must be believed
]


@pytest.mark.parametrize(("kind", "train", "validation", "noise"), FOUR_ERRORS)
def test_changes_of_four_standard_errors_are_judged_correctly(
    kind: str, train: float, validation: float, noise: float
) -> None:
    assert right(kind, lambda generator: noisy(generator, train, validation, noise, evaluations=24)) >= 0.95


@pytest.mark.parametrize(("kind", "train", "validation", "noise"), FOUR_ERRORS)
def test_few_evaluations_are_judged_correctly_if_the_change_is_twice_as_large(
    kind: str, train: float, validation: float, noise: float
) -> None:
    assert right(kind, lambda generator: noisy(generator, 2 * train, 2 * validation, noise, evaluations=6)) >= 0.95


def test_flat_curves_at_the_end_of_the_schedule_are_finished() -> None:
    assert right("finished", lambda g: noisy(g, 0, 0, SMALL / 4, 12), done=1.0, rate=0.1) >= 0.95


@pytest.mark.parametrize(("evaluations", "noise"), [(5, 0.005), (5, 0.05), (24, 0.02), (24, 0.2)])
def test_noise_alone_is_rarely_judged_as_overfitting(evaluations: int, noise: float) -> None:
    assert right("overfitting", lambda generator: noisy(generator, 0, 0, noise, evaluations)) <= 0.05


def test_a_curve_that_starts_to_rise_is_soon_judged_as_overfitting() -> None:
    """Down to the tenth point of twenty, then up by 0.03 a point, with noise of 0.01: seen by the sixteenth."""
    late = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        losses = [3.0 + 0.03 * abs(number - 10) + generator.normal(0, 0.01) for number in range(1, 17)]
        train = [(step, 3.2 - step / 4000 + generator.normal(0, 0.02), 2048) for step in range(10, 1601, 10)]
        late += diagnose(train, evaluations_of(*losses)).kind != "overfitting"
    assert late <= 5


# Properties

STEPS = st.integers(0, 10**7)
LOSSES = st.one_of(st.floats(0, 20), st.floats(), st.sampled_from([math.nan, math.inf, 3.0]))
TRAINS = st.lists(st.tuples(STEPS, LOSSES, st.integers(0, 10**9)), max_size=40)
EVALUATIONS = st.lists(st.tuples(STEPS, LOSSES, st.one_of(st.none(), st.floats(), st.floats(1e-3, 1))), max_size=40)
ASCENDING = st.integers(0, 2**32 - 1)


def random_run(seed: int) -> tuple[TrainPoints, Evaluations]:
    """Any kind of run: slopes, noise, numbers of points and distances between them at random."""
    generator = np.random.default_rng(seed)

    def curve(most: int) -> list[tuple[int, float]]:
        steps = np.cumsum(generator.integers(1, 50, generator.integers(0, most)))
        slope, noise = generator.normal(0, 1) / max(1, steps.max(initial=0)), 10 ** generator.uniform(-4, 0)
        return [(int(step), float(3 + slope * step + generator.normal(0, noise))) for step in steps]

    error = None if generator.random() < 0.5 else float(10 ** generator.uniform(-3, 0))
    train = [(step, loss, int(generator.integers(0, 5000))) for step, loss in curve(120)]
    return train, [(step, loss, error) for step, loss in curve(30)]


def without_steps(found: Verdict) -> tuple[str, str]:
    return found.kind, re.sub(r"step -?[\d,]+|per ([\d,]+ )?steps?", "", found.reason)


@given(TRAINS, EVALUATIONS, st.floats(), st.floats())
@settings(max_examples=300)
@example([(0, 1e8, 10**9), (1, 1e8, 1)], [(0, 1.0, 5e-324), (10**7, 1e8, 5e-324)], math.nan, math.inf)
@example([], [(0, 3.0, 1e300), (1, 3.0, 1e-300)], 0.0, 1.0)
@example([(10**18, 3.0, 1)], [(0, 3.0, None), (1, 2.0, None), (2, 3.0, None), (3, 2.0, None)], 0.0, 1.0)
def test_any_input_gives_one_line(train: TrainPoints, evaluations: Evaluations, done: float, rate: float) -> None:
    found = diagnose(train, evaluations, done, rate)
    assert found.kind in KINDS
    assert found.reason
    assert "\n" not in str(found)


@given(ASCENDING, st.integers(-(10**12), 10**12))
@settings(max_examples=150)
def test_an_offset_of_the_steps_changes_nothing(seed: int, shift: int) -> None:
    train, evaluations = random_run(seed)
    shifted = diagnose(
        [(step + shift, loss, tokens) for step, loss, tokens in train],
        [(step + shift, loss, error) for step, loss, error in evaluations],
    )
    assert without_steps(shifted) == without_steps(diagnose(train, evaluations))


@given(ASCENDING, st.sampled_from([10, 1000]), st.integers(1, 10**6))
@settings(max_examples=150)
def test_a_factor_on_the_steps_changes_nothing_but_the_unit(seed: int, power: int, factor: int) -> None:
    train, evaluations = random_run(seed)
    found = diagnose(train, evaluations)

    def scaled(unit: int) -> Verdict:
        return diagnose(
            [(unit * step, loss, tokens) for step, loss, tokens in train],
            [(unit * step, loss, error) for step, loss, error in evaluations],
        )

    assert scaled(factor).kind == found.kind
    assert scaled(power).kind == found.kind
    if (units := re.search(r"per ([\d,]+ )?steps?", found.reason)) and "too few" not in found.reason:
        steps = power * int((units[1] or "1").replace(",", ""))
        assert f"per {steps:,} steps" in scaled(power).reason
        assert without_steps(scaled(power)) == without_steps(found)


@given(ASCENDING, st.integers(-20, 4))
@settings(max_examples=100)
def test_a_line_through_scaled_losses_is_the_scaled_line(seed: int, power: int) -> None:
    _, evaluations = random_run(seed)
    steps = [step for step, _, _ in evaluations] or [0]
    plain = Trend.of([(step, loss, None) for step, loss, _ in evaluations], steps[0], steps[-1])
    scaled = Trend.of([(step, loss * 2**power, None) for step, loss, _ in evaluations], steps[0], steps[-1])
    assert (plain is None) == (scaled is None)
    if plain and scaled:
        for name in ("change", "error", "bound", "level", "level_error"):
            assert getattr(scaled, name) == getattr(plain, name) * 2**power


@given(ASCENDING)
@settings(max_examples=50)
def test_points_that_were_stored_and_read_again_give_the_same_verdict(seed: int) -> None:
    train, evaluations = random_run(seed)
    assert diagnose(tuple(map(tuple, train)), list(map(tuple, evaluations))) == diagnose(train, evaluations)  # type: ignore[arg-type]
    assert diagnose(train, evaluations) == diagnose(train, evaluations)


@given(st.floats(0.1, 10), st.floats(-1, 1), st.integers(ENOUGH, 50), st.integers(FEWEST, 500))
@settings(max_examples=100)
def test_the_reason_gives_the_slopes_of_straight_lines(
    end: float, change: float, evaluations: int, reports: int
) -> None:
    found = diagnose(train_line(change, end, points=3 * reports), val_line(change, end, points=3 * evaluations))
    numbers = re.search(
        r"validation .*?(-?[\d.]+) ± 0.0000 per ([\d,]+) steps, train .*?(-?[\d.]+) ± 0.0000;", found.reason
    )
    assert numbers
    wanted = change * int(numbers[2].replace(",", "")) / 100
    assert abs(float(numbers[1])) == abs(float(numbers[3])) == pytest.approx(abs(wanted), abs=5.1e-5)


# Patience


def test_a_rising_loss_no_longer_improves() -> None:
    evaluations = evaluations_of(3.0, 2.5, 2.0, 2.1, 2.2, 2.3, 2.4, 2.5)
    assert [no_longer_improves(evaluations[:count], 4) for count in range(9)] == [False] * 7 + [True] * 2
    assert [no_longer_improves(evaluations[:count], 5) for count in range(9)] == [False] * 8 + [True]


def test_a_flat_loss_no_longer_improves() -> None:
    evaluations = evaluations_of(3.0, 2.5, 2.0, *[2.001, 2.003, 2.002, 2.001, 2.002])
    assert [no_longer_improves(evaluations[:count], 4) for count in range(9)] == [False] * 7 + [True] * 2


def test_one_lucky_evaluation_does_not_end_a_run_that_still_falls() -> None:
    """With the lowest loss alone as the yardstick, the third point would end this run at the eighth."""
    assert not no_longer_improves(evaluations_of(3.0, 2.9, 2.2, 2.7, 2.6, 2.5, 2.4, 2.3), 5)


def test_patience_below_four_waits_for_the_evaluations_that_a_slope_needs() -> None:
    evaluations = evaluations_of(2.0, 2.1, 2.2, 2.3, 2.4, 2.5)
    assert [no_longer_improves(evaluations[:count], 1) for count in range(7)] == [False] * 5 + [True] * 2


def test_too_much_noise_does_not_end_a_run() -> None:
    assert not no_longer_improves(evaluations_of(2.0, 2.5, 2.1, 2.6, 2.2, 2.4), 5)


def test_a_run_whose_loss_is_not_finite_ends_with_its_patience() -> None:
    evaluations = evaluations_of(2.0, math.nan, math.inf, math.nan)
    assert [no_longer_improves(evaluations[:count], 3) for count in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize("patience", [0, -3])
def test_patience_below_one_is_refused(patience: int) -> None:
    with pytest.raises(ValueError, match=rf"patience={patience} must be 1 or more"):
        no_longer_improves([], patience)


@given(EVALUATIONS, st.integers(1, 50))
@settings(max_examples=200)
def test_patience_accepts_any_input(evaluations: Evaluations, patience: int) -> None:
    assert no_longer_improves(evaluations, patience) in (True, False)


@given(st.integers(1, 200), st.integers(1, 10))
@settings(max_examples=50)
def test_a_run_that_falls_at_every_evaluation_is_never_ended(count: int, patience: int) -> None:
    assert not no_longer_improves(evaluations_of(*[3.0 / number for number in range(1, count + 1)]), patience)


def ended_at(losses: list[float], patience: int) -> int | None:
    evaluations = evaluations_of(*losses)
    return next(
        (count for count in range(1, len(evaluations) + 1) if no_longer_improves(evaluations[:count], patience)), None
    )


def test_noisy_runs_that_still_fall_are_rarely_ended_and_those_that_rise_always() -> None:
    stopped, missed = 0, 0
    for seed in range(100):
        noise = np.random.default_rng(seed).normal(0, 0.01, 60)
        stopped += ended_at([3.0 - 0.01 * number + noise[number] for number in range(60)], patience=5) is not None
        when = ended_at([3.0 + 0.02 * abs(number - 20) + noise[number] for number in range(60)], patience=5)
        missed += when is None or when > 20 + 10
    assert stopped <= 5
    assert missed <= 5


def test_the_thresholds_are_ordered() -> None:
    assert SMALL < WIDE
    assert FEWEST <= ENOUGH
