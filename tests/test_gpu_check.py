"""`make gpu-check` on a CPU: all checks pass, and a wrong kernel fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.slow
@pytest.mark.usefixtures("checks")
def test_every_check_passes_on_a_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu_check

    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu", "--quick"])
    assert gpu_check.main() == 0
    out = capsys.readouterr().out
    assert "weights bit for bit" in out
    assert "'tokens_per_s': " in out
    assert "generation                cached " in out
    assert "shard                     values and gradients differ by " in out
    assert "failed" not in out


@pytest.mark.usefixtures("checks")
def test_a_kernel_that_attends_to_later_tokens_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_check
    import gpu_correctness

    def sees_all(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    monkeypatch.setattr(gpu_correctness, "fused_attention", sees_all)
    outcome = gpu_check.outcome_of("attention", lambda: gpu_correctness.attention(torch.device("cpu")))
    assert outcome.startswith("failed: AssertionError: float32 kernels differ by ")


@pytest.mark.usefixtures("checks")
def test_what_does_not_fit_the_time_is_named_in_the_result_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import gpu_check

    out = tmp_path / "out.json"
    flags = ["--device", "cpu", "--quick", "--minutes", "0.1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *flags])
    assert gpu_check.main() == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["left_out"][:2] == ["correctness: attention", "correctness: loss"]
    assert not found["correctness"]
    assert "left out, because 0.1 minutes are over: correctness: attention; " in capsys.readouterr().out


@pytest.mark.usefixtures("checks")
def test_a_model_that_does_not_fit_the_device_is_no_failure() -> None:
    import gpu_check

    def too_large() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert gpu_check.outcome_of("gpt2", too_large) == "not possible: this device has too little memory"
