"""What a run has counted survives saving, and states of earlier versions still load."""

from __future__ import annotations

from transformer.training.metric_sums import MetricSums
from transformer.training.state import OLD_NAMES, RunState


def example() -> RunState:
    return RunState(
        step=7,
        tokens=224,
        metric_sums=MetricSums.from_state([3.0, 2.0, 0.5, 1.0, 0.0, 1.0, 64.0, 0.25, 1.5]),
        epoch_nats=4.0,
        epoch_tokens=32,
        evaluation_pending=True,
        train_points=[(5, 3.0, 160)],
        validation_points=[(6, 3.1, None)],
        saved_epochs=[(1, 3.2)],
    )


def test_a_stored_state_is_restored_exactly() -> None:
    stored = example().to_dict()
    assert RunState.from_dict(stored).to_dict() == stored


def test_a_state_with_the_names_of_earlier_versions_loads() -> None:
    stored = example().to_dict()
    before = {today: old for old, today in OLD_NAMES.items()}
    assert RunState.from_dict({before.get(name, name): value for name, value in stored.items()}).to_dict() == stored
