"""benchmarks/bench_kernels.py: every candidate is compared with the plain one; a choice that is too slow fails."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer.config import ModelConfig
from transformer.processor import TABLE, Choices

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TINY = ModelConfig(vocab_size=512, d_model=64, num_heads=4, num_layers=1, d_ff=128, max_seq_len=32, num_kv_heads=2)


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # the script sets these for its own process
    monkeypatch.setenv("GOMP_SPINCOUNT", "300000")
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def case(choice: str, **milliseconds: float) -> dict[str, Any]:
    return {"decision": "product", "choice": choice, "median_ms": milliseconds}


@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(16, marks=pytest.mark.slow)])
def test_every_candidate_that_works_here_equals_the_plain_one(rows: int) -> None:
    import bench_kernels
    import kernel_candidates

    weights = kernel_candidates.step_weights(TINY)
    assert [tuple(weight.shape) for weight in weights] == [(128, 64), (64, 64), (128, 64), (64, 128), (512, 64)]
    cases = [
        kernel_candidates.product_case("tiny", weights, rows, Choices("blocks", 4)),
        kernel_candidates.format_case("tiny", weights, rows),
        kernel_candidates.attention_case("tiny", TINY, rows),
    ]
    for one in cases:
        with torch.no_grad():
            ready, _, wrong = bench_kernels.prepare(one)
        assert next(iter(one.candidates)) in ready
        assert not wrong


def test_a_wrong_candidate_is_named_and_is_not_timed() -> None:
    import bench_kernels
    import kernel_candidates

    parts = {"plain": lambda: [("sum", lambda: torch.ones(2))], "wrong": lambda: [("sum", lambda: torch.zeros(2))]}
    found = bench_kernels.measure(kernel_candidates.Case("ones", parts), argparse.Namespace(quick=True, seconds=0.0))
    assert list(found["median_ms"]) == ["plain"]
    assert found["wrong"] == {"wrong": 1.0}
    results = {"kind": "amd-avx2", "emulated_by": {}, "decisions": {}, "cases": [{**found, "case": "ones"}]}
    assert bench_kernels.report(results, quick=True) == 1


def test_a_choice_is_judged_by_the_geometric_mean_of_its_cases() -> None:
    import bench_kernels

    right = bench_kernels.decisions([case("blocks", plain=4.0, blocks=1.0), case("blocks", plain=1.0, blocks=2.0)])
    assert right["product"]["mean_ms"] == {"plain": 2.0, "blocks": 1.4142}
    assert right["product"]["is_right"]
    slow = bench_kernels.decisions([case("blocks", plain=1.0, blocks=1.2)])["product"]
    assert (slow["best"], slow["choice_over_best"], slow["is_right"]) == ("plain", 1.2, False)
    assert not bench_kernels.decisions([case("packed", plain=1.0)])["product"]["is_right"], (
        "a choice that is impossible here"
    )


@pytest.mark.parametrize(("milliseconds", "status"), [(1.05, 0), (1.2, 1)])
def test_a_choice_that_is_too_slow_fails_the_bench(milliseconds: float, status: int) -> None:
    import bench_kernels

    decisions = bench_kernels.decisions([case("blocks", plain=1.0, blocks=milliseconds)])
    results = {"kind": "amd-avx2", "emulated_by": {}, "decisions": decisions, "cases": []}
    assert bench_kernels.report(results, quick=False) == status


def test_emulation_needs_the_kind_that_it_emulates(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import bench_kernels

    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setattr("sys.argv", ["bench_kernels.py", "--quick"])
    with pytest.raises(SystemExit) as left:
        bench_kernels.main()
    assert left.value.code == 2
    assert "ATEN_CPU_CAPABILITY is set: give the --kind" in capsys.readouterr().err


def test_the_choice_of_a_product_follows_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    import kernel_candidates

    monkeypatch.setattr(kernel_candidates.cpu_linear, "HAS_MKL", True)
    monkeypatch.setattr(kernel_candidates.row_products, "has_packed_product", lambda: True)
    chosen = [kernel_candidates.chosen_product(rows, Choices("blocks", 4)) for rows in (1, 2, 4, 16)]
    assert chosen == ["blocks", "blocks", "packed", "packed"]
    assert kernel_candidates.chosen_product(16, Choices("blocks")) == "plain"
    assert {kernel_candidates.chosen_product(1, row) for row in TABLE.values()} <= {"plain", "blocks"}
