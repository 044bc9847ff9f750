"""The preset `induction` does what it is for: an induction head forms, and the model learns from its context."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Command


@pytest.mark.slow
def test_an_induction_head_forms_above_one_that_attends_to_the_previous_token(command: Command, tmp_path: Path) -> None:
    outcome = command("train", "--preset", "induction", "--sample-tokens", "0", "--trackers", "--checkpoint-dir", "run")
    assert outcome.status == 0, outcome.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = [line for line in lines if line["event"] == "inside"]
    first, last = measured[0], measured[-1]
    assert (first["step"], last["step"]) == (0, 3000)
    previous, induction = ([max(layer) for layer in last["scores"][name]] for name in ("previous token", "induction"))
    assert previous[0] > 0.6
    assert induction[1] > 0.5
    assert induction[0] < 0.2  # the first layer cannot know what stood before a token
    assert max(map(max, first["scores"]["induction"])) < 2 * first["even"]["induction"]
    assert last["first_loss"] - last["second_loss"] > 1.5
    assert abs(first["first_loss"] - first["second_loss"]) < 0.05
