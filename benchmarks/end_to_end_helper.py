"""Two parts of training_end_to_end.py that import torch, which that script's own process must not do.

    python benchmarks/end_to_end_helper.py prepare FOLDER MICRO_BATCHES STEPS
    python benchmarks/end_to_end_helper.py overhead --preset quick --max-steps 3 ...        flags of `main.py train`

"prepare" writes FOLDER/rows.npy, the rows of the first micro-batches of our run, and prints the settings of the peers.
"overhead" runs `main.py train` in this process, times forward, backward and the optimizer steps, and prints the share
of the step time outside them: reading rows, gradient norm, metrics, display, metrics file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

PRESETS_MEASURED = ("default", "quick")


def prepare(folder: str, micro_batches: str, steps: str) -> dict[str, Any]:
    """Writes the rows (rows, T + 1) int64; returns the machine and, by preset, settings and learning rates."""
    from machine import machine

    from transformer.config import DataConfig
    from transformer.data.open import open_dataset
    from transformer.dataset import PackedBatches
    from transformer.presets import PRESETS
    from transformer.scheduler import lr_scale

    config = PRESETS["default"]
    with contextlib.closing(open_dataset(DataConfig("shakespeare"))) as data:
        length = config.data.seq_length
        window = min(config.data.shuffle_rows, data.tokens_per_epoch // length)
        batches = iter(PackedBatches(data.train, length, config.batch_size, config.seed, window_rows=window))
        drawn = [next(batches) for _ in range(int(micro_batches))]
    rows = [np.concatenate([inputs.numpy(), targets[:, -1:].numpy()], axis=1) for inputs, targets, _ in drawn]
    np.save(Path(folder) / "rows.npy", np.concatenate(rows))
    settings = {}
    for name in PRESETS_MEASURED:
        preset = PRESETS[name]
        rates = [preset.optimizer.learning_rate * lr_scale(n, int(steps), preset.optimizer) for n in range(int(steps))]
        settings[name] = {
            "shape": asdict(preset.model), "optimizer": asdict(preset.optimizer), "seed": preset.seed, "rates": rates,
            "batch_size": preset.batch_size, "seq_length": preset.data.seq_length,
        }  # fmt: skip
    return {"machine": machine("transformers"), "presets": settings}


def overhead(*flags: str) -> dict[str, Any]:
    """Runs `main.py train` with these flags; returns the overhead as a share of the time of all steps but the first."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # before torch is imported; app.main() would be too late here
    from transformer.cli import app

    watch = StopWatch()
    watch.instrument()
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        status = app.main(["train", *flags])
    if status:
        raise SystemExit(shown.getvalue())
    return watch.result()


class StopWatch:
    """Seconds spent in forward, backward and optimizer steps, and the time at the end of each training step."""

    def __init__(self) -> None:
        self.spent = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0}
        self.ends: list[tuple[float, dict[str, float]]] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, wrapped so that its time is added to `part`."""

        def wrapper(*arguments: Any, **settings: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **settings)
            finally:
                self.spent[part] += time.perf_counter() - started

        return wrapper

    def instrument(self) -> None:
        """Replaces Trainer by a subclass with timed parts. Call it before a command imports Trainer."""
        import torch

        from transformer import trainer

        watch = self

        class TimedTrainer(trainer.Trainer):
            def __init__(self, *arguments: Any, **settings: Any) -> None:
                super().__init__(*arguments, **settings)
                self.objective.forward = watch.timed("forward", self.objective.forward)  # type: ignore[method-assign]
                for optimizer in self.optimizers:
                    optimizer.step = watch.timed("optimizer", optimizer.step)  # type: ignore[method-assign]

            def train_step(self) -> None:
                super().train_step()
                watch.ends.append((time.perf_counter(), dict(watch.spent)))

        torch.Tensor.backward = watch.timed("backward", torch.Tensor.backward)  # type: ignore[method-assign]
        trainer.Trainer = TimedTrainer  # type: ignore[misc]

    def result(self) -> dict[str, Any]:
        """Returns the seconds of each part after the first step, and the share of the rest."""
        (started, before), (ended, after) = self.ends[0], self.ends[-1]
        wall = ended - started
        parts = {part: after[part] - before[part] for part in after}
        rest = wall - sum(parts.values())
        rounded = {f"{part}_s": round(seconds, 4) for part, seconds in {**parts, "other": rest, "wall": wall}.items()}
        return {"overhead": round(rest / wall, 5), "steps": len(self.ends) - 1, **rounded}


if __name__ == "__main__":
    result = {"prepare": prepare, "overhead": overhead}[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(result))
