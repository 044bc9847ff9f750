"""What a run's rounding depends on: its checkpoints keep it, and a run that resumes elsewhere says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from test_trainer import assert_same, tiny_run, tiny_text, trained, weights
from transformer.processor import TABLE
from transformer.trainer import Trainer
from transformer.training import checkpoint
from transformer.training.checkpoint import CheckpointError
from transformer.training.events import EvalMetrics, Sample
from transformer.training.machine import machine, message_about_machine

OnProcessor = Callable[[str], None]
BFLOAT16, FLOAT32 = (
    next(kind for kind, choices in TABLE.items() if choices.training == wanted) for wanted in ("bfloat16", "float32")
)
"""A kind of processor on which auto is bfloat16, and one on which it is float32."""


@pytest.mark.parametrize("kernels", ["auto", "plain", FLOAT32])
def test_checkpoints_and_the_start_event_hold_what_a_run_used(
    tmp_path: Path, on_processor: OnProcessor, kernels: str
) -> None:
    on_processor(BFLOAT16)
    _, events = trained(tiny_run(tmp_path, max_steps=2, kernels=kernels))
    used = {"auto": (BFLOAT16, "bfloat16"), "plain": ("plain", "float32"), FLOAT32: (FLOAT32, "float32")}[kernels]
    for path in (*checkpoint.epochs(tmp_path), *checkpoint.states(tmp_path)):
        assert checkpoint.load(path)["machine"] == {
            "precision": used[1], "processor": f"the {BFLOAT16}", "kind": BFLOAT16, "kernels": used[0]
        }  # fmt: skip
    start: Any = events[0]
    assert (start.kernels_chosen, start.precision) == used
    assert (start.processor, start.processor_kind) == (f"the {BFLOAT16}", BFLOAT16)


def test_scores_and_samples_of_a_run_in_bfloat16_are_in_float32(tmp_path: Path) -> None:
    trainer, events = trained(tiny_run(tmp_path, max_steps=3, precision="bfloat16", num_layers=2))
    alike = Trainer(tiny_run(tmp_path, precision="float32", num_layers=2), tiny_text(trainer.config), [events.append])
    alike.resume(tmp_path / "training_state_byte.pt")
    last = next(event for event in reversed(events) if isinstance(event, EvalMetrics))
    assert alike.evaluate().loss == last.loss
    sample = next(event for event in reversed(events) if isinstance(event, Sample))
    alike.sample()
    assert events[-1] == sample


def test_a_run_resumes_on_another_kind_in_the_format_of_that_and_in_its_own_if_it_is_named(
    tmp_path: Path, on_processor: OnProcessor
) -> None:
    on_processor(BFLOAT16)
    config = tiny_run(tmp_path / "run", max_steps=3)
    first, _ = trained(config)
    path = tmp_path / "run" / "training_state_byte.pt"
    on_processor(FLOAT32)
    for precision, dtype in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        again = Trainer(tiny_run(tmp_path / "run", max_steps=4, precision=precision), tiny_text(config))
        again.resume(path)
        assert again.precision.dtype == dtype
        assert_same(weights(first), weights(again))
        again.train_step()
        assert again.report().loss < 6


NOW = machine(torch.device("cpu"), torch.float32, "auto")
STATE = {"config": {"precision": "auto"}, "machine": NOW}


def test_a_run_that_resumes_where_it_was_says_nothing() -> None:
    assert message_about_machine(NOW, STATE) is None
    renamed = {**NOW, "processor": "the same kind, another model"}
    assert message_about_machine(renamed, STATE) is None


@pytest.mark.parametrize(
    ("before", "now", "line"),
    [
        (
            {"precision": "bfloat16", "kind": "intel-amx", "kernels": "intel-amx"},
            {"precision": "float32", "kind": "amd-avx2", "kernels": "amd-avx2"},
            "trained so far in bfloat16 on intel-amx; continues in float32 on amd-avx2: losses agree, but not bit for "
            "bit; --precision bfloat16 keeps the format, which may be slower here",
        ),
        (
            {"precision": "float32", "kind": "intel-avx2", "kernels": "other"},
            {"precision": "float32", "kind": "amd-avx2", "kernels": "plain"},
            "trained so far in float32 on intel-avx2; continues in float32 on amd-avx2, plain kernels: losses agree, "
            "but not bit for bit",
        ),
    ],
)
def test_a_run_that_resumes_elsewhere_says_so(before: dict[str, str], now: dict[str, str], line: str) -> None:
    assert message_about_machine({**NOW, **now}, {**STATE, "machine": before}) == line


def test_the_state_of_an_earlier_version_names_the_flag_for_its_format() -> None:
    old = {"config": {"precision": "auto"}}
    assert message_about_machine(NOW, old) is None
    line = message_about_machine({**NOW, "precision": "bfloat16"}, old)
    assert line is not None
    assert line.endswith("the run continues in bfloat16; --precision float32 keeps the format")
    assert message_about_machine({**NOW, "precision": "bfloat16"}, {"config": {"precision": "bfloat16"}}) is None


@pytest.mark.parametrize("machine", [7, {"kind": 7}, ["amd"]])
def test_a_machine_of_another_kind_of_value_is_refused(tmp_path: Path, machine: object) -> None:
    trained(tiny_run(tmp_path, max_steps=1))
    path = tmp_path / "training_state_byte.pt"
    checkpoint.save(path, {**checkpoint.load(path), "machine": machine})
    with pytest.raises(CheckpointError, match=r"machine is .*, not texts by name"):
        checkpoint.load(path)
