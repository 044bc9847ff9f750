"""Small runs whose losses are kept in golden/: a change in what a run learns shows, however small.

python tests/test_golden.py        writes the files again, if a change of the numbers is intended
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from transformer.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from transformer.data.open import open_dataset
from transformer.trainer import Trainer
from transformer.training.events import EvalMetrics, Event, StepMetrics

GOLDEN = Path(__file__).parent / "golden"
RUNS: dict[str, dict[str, Any]] = {
    "adamw": {"model": {}, "optimizer": {"optimizer": "adamw", "learning_rate": 3e-3}},
    "muon": {
        "model": {"position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "num_kv_heads": 1, "bias": False},
        "optimizer": {"optimizer": "muon", "learning_rate": 3e-3, "schedule": "wsd"},
    },
}
TOLERANCE = 1e-4
"""Relative. With 1, 2 and 4 threads, with PyTorch's kernels for AVX-512, AVX2 and neither, MKL's compatible ones, and
oneDNN's for SSE 4.1 or none at all, the losses differ by at most 2.3e-5; the same settings give the same bits."""


def losses(name: str, folder: Path, kernels: Literal["auto", "plain"] = "plain") -> dict[str, list[float]]:
    """Returns the loss of each of the 60 steps and of the 3 evaluations, in nats per token."""
    settings = RUNS[name]
    config = TrainConfig(
        model=ModelConfig(257, 32, 2, 2, 64, 32, dropout=0.0, **settings["model"]),
        data=DataConfig("shakespeare", "byte", seq_length=32, shuffle_rows=256, validation_tokens=1_000),
        optimizer=OptimizerConfig(**settings["optimizer"]),
        batch_size=4,
        accumulation_steps=2,
        max_steps=60,
        kernels=kernels,
        precision="float32",
        eval_every=20,
        log_every=1,
        device="cpu",
        checkpoint_dir=str(folder),
    )
    events: list[Event] = []
    with contextlib.closing(open_dataset(config.data)) as data:
        Trainer(config, data, [events.append]).fit()
    return {
        kind: [event.loss for event in events if isinstance(event, cls)]
        for kind, cls in (("train", StepMetrics), ("validation", EvalMetrics))
    }


@pytest.mark.parametrize("kernels", ["plain", "auto"])
@pytest.mark.parametrize("name", RUNS)
def test_a_small_run_has_the_stored_losses_with_plain_and_with_faster_kernels(
    name: str, kernels: Literal["auto", "plain"], tmp_path: Path
) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    found = losses(name, tmp_path, kernels)
    assert (len(found["train"]), len(found["validation"])) == (60, 3)
    for kind, values in found.items():
        assert values == pytest.approx(golden[kind], rel=TOLERANCE), f"{kind}, made with torch {golden['torch']}"


def main() -> None:
    torch.set_num_threads(1)
    for name in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            golden = {"torch": torch.__version__.split("+")[0], **losses(name, Path(folder))}
        (GOLDEN / f"{name}.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
