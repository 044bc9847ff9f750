"""Choosing a device: CUDA, then MPS, then the CPU; what is missing is said in one line."""

from __future__ import annotations

import sys

import pytest
import torch

from transformer.distributed.processes import Dist
from transformer.training.device import peak_memory_bytes, pick_device


def machine(monkeypatch: pytest.MonkeyPatch, *devices: str) -> None:
    """Pretends that PyTorch finds these devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in devices)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in devices)


@pytest.mark.parametrize(
    ("there", "picked"), [(("cuda", "mps"), "cuda"), (("cuda",), "cuda"), (("mps",), "mps"), ((), "cpu")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], picked: str
) -> None:
    machine(monkeypatch, *there)
    assert pick_device().type == pick_device("auto").type == picked


@pytest.mark.parametrize("wanted", ["cpu", "cuda", "mps"])
def test_a_device_that_is_there_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    machine(monkeypatch, "cuda", "mps")
    assert pick_device(wanted) == torch.device(wanted)


@pytest.mark.parametrize(
    ("wanted", "there", "message"),
    [
        ("mps", (), "device 'mps' was asked for, but Apple's GPU (MPS) was not found; available: cpu"),
        ("mps", ("cuda",), "device 'mps' was asked for, but Apple's GPU (MPS) was not found; available: cuda, cpu"),
        (
            "cuda",
            ("mps",),
            "device 'cuda' was asked for, but an NVIDIA or AMD GPU that this build of PyTorch can use was not found; "
            "available: mps, cpu",
        ),
        ("gpu", (), "unknown device 'gpu': one of auto, cuda, mps, cpu"),
        ("", (), "unknown device '': one of auto, cuda, mps, cpu"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, wanted: str, there: tuple[str, ...], message: str
) -> None:
    machine(monkeypatch, *there)
    with pytest.raises(ValueError, match="device") as caught:
        pick_device(wanted)
    assert str(caught.value) == message


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_cuda_memory_is_counted() -> None:
    device = torch.device("cuda")
    held = torch.ones(1 << 20, device=device)
    assert peak_memory_bytes(device) >= held.nbytes


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not report the peak memory of a process this way")
def test_on_a_cpu_the_memory_of_the_process_is_counted() -> None:
    before = peak_memory_bytes(torch.device("cpu"))
    held = torch.ones(1 << 26)  # 256 MiB
    after = peak_memory_bytes(torch.device("cpu"))
    assert before >= 50e6  # PyTorch alone takes more
    assert after >= held.nbytes


def test_one_process_is_the_main_one_and_its_sums_are_its_own() -> None:
    values = torch.tensor([1.0, 2.0])
    assert Dist().is_main
    assert not Dist(rank=1, world_size=2).is_main
    assert Dist().sum(values).tolist() == [1.0, 2.0]
