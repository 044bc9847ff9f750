"""`make gpu-check` on a CPU: all checks pass, and a wrong kernel fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.usefixtures("checks")
def test_every_check_passes_on_a_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu_check

    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu", "--small"])
    assert gpu_check.main() == 0
    out = capsys.readouterr().out
    assert "weights bit for bit" in out
    assert "'tokens_per_s': " in out
    assert "generation                cached " in out
    assert "failed" not in out


@pytest.mark.usefixtures("checks")
def test_a_kernel_that_attends_to_later_tokens_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_check

    def sees_all(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    monkeypatch.setattr(gpu_check, "fused_attention", sees_all)
    outcome = gpu_check.outcome_of("attention", lambda: gpu_check.attention(torch.device("cpu")))
    assert outcome.startswith("failed: AssertionError: float32 kernels differ by ")
