"""The benchmarks of training: peers with equal settings, and whether two precisions differ by more than their seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_tuned_peer_has_the_environment_that_main_py_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    import training_end_to_end

    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")
    monkeypatch.setattr(training_end_to_end, "waiting", lambda environment: {"GOMP_SPINCOUNT": "1000"})
    as_it_comes, tuned = (training_end_to_end.environment(2, is_tuned=way) for way in (False, True))
    assert "THP_MEM_ALLOC_ENABLE" not in as_it_comes
    assert as_it_comes["OMP_NUM_THREADS"] == "2"
    assert tuned == {**as_it_comes, "THP_MEM_ALLOC_ENABLE": "1", "GOMP_SPINCOUNT": "1000"}


def test_the_verdict_is_against_the_best_peer_tuned_or_not() -> None:
    import training_end_to_end

    def rounds(speed: float) -> list[dict[str, Any]]:
        return [{"tokens_per_s": speed, "peak_mib": 100, "process_s": 9}] * 2

    runs = {"main.py train": rounds(200), "litgpt": rounds(50), "litgpt, tuned": rounds(100)}
    found = training_end_to_end.summary(runs, wanted_speed=2.2)
    assert (found["best_peer"], found["speed_over_best"], found["speed_is_as_wanted"]) == ("litgpt, tuned", 2.0, False)
    shown = training_end_to_end.table("quick", {**found, "goal": 2.2, "overhead": {"overhead": 0.01}})
    assert "goal: 2.2 x the best peer's speed (measured 2.00)" in shown
    assert all(f"| {name} |" in shown for name in runs)


def test_a_peer_trains_under_autocast_in_bfloat16(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import peers

    seen = []
    embedding = torch.nn.Embedding(8, 8)
    linear = torch.nn.Linear(8, 8)

    def loss(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = linear(embedding(tokens))
        seen.append(logits.dtype)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    monkeypatch.setitem(peers.PEERS, "tiny", lambda shape: (torch.nn.Sequential(embedding, linear), loss))
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).integers(0, 8, (4, 5)))
    optimizer = {"learning_rate": 0.1, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "grad_clip": 1.0}
    settings = {
        "peer": "tiny", "shape": {}, "seed": 1, "optimizer": optimizer, "rates": [0.1], "batch_size": 2,
        "accumulation_steps": 2, "rows": str(tmp_path / "rows.npy"),
    }  # fmt: skip
    for precision in ("float32", "bfloat16"):
        assert len(peers.train({**settings, "precision": precision})["losses"]) == 1
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2


def test_a_difference_is_inside_if_it_is_at_most_the_smaller_spread_of_the_seeds() -> None:
    from precision_curves import compare

    inside = compare([1.0, 2.0, 3.0], [1.5, 2.5, 3.5])
    assert (inside["difference"], inside["spreads"], inside["is_inside"]) == (0.5, [1.0, 1.0], True)
    outside = compare([1.0, 2.0, 3.0], [2.4, 2.5, 2.6])
    assert (outside["difference"], outside["spreads"], outside["is_inside"]) == (0.5, [1.0, 0.1], False)
    assert outside["largest_within_a_seed"] == 1.4
    assert not compare([1.0], [1.0001])["is_inside"], "one seed has no spread"


def test_the_report_counts_the_points_of_both_curves(tmp_path: Path) -> None:
    from precision_curves import report

    runs = [
        {
            "recipe": "demo", "precision": precision, "seed": seed, "command": "c", "evaluated": "e",
            "training": [(1, 9.0 + seed), (2, 5.0 + 0.1 * seed + shift)], "validation": [(2, 6.0 + seed)],
            "bits_per_byte": 2.0 + 0.1 * seed + shift / 10,
        }
        for seed in (1, 2)
        for precision, shift in (("float32", 0.0), ("bfloat16", 0.5))
    ]  # fmt: skip
    out = tmp_path / "curves.json"
    report({"commands": {"demo": "python x"}, "machine": {"threads": 1}, "runs": runs}, out)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["summary"]["demo"]["training_curve"] == {
        "points": 2, "points_inside": 1, "largest_within_a_seed": 0.5,
    }  # fmt: skip
    assert found["summary"]["demo"]["bits_per_byte"]["is_inside"]
    assert len(found["runs"]) == 4
    assert "| demo | bits per byte | 2.1500 ± 0.0707 | 2.2000 ± 0.0707 | +0.0500 | yes | 0.0500 |" in (
        out.with_suffix(".md").read_text(encoding="utf-8")
    )
    assert out.with_suffix(".png").stat().st_size > 1000
