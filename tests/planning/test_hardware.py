"""What the machine offers: known peaks, and no guesses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from transformer.planning import hardware as capacity
from transformer.planning.hardware import (
    PEAKS,
    device_memory,
    device_peak,
    free_disk,
    peak_of,
    utilisation,
)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("A100-PCIE-40GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA A10", 125),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 5090", 209.5),
        ("AMD Instinct MI300X", 1307.4),
    ],
)
def test_known_devices_have_the_peak_of_their_data_sheet(name: str, tera: float) -> None:
    peak = peak_of(name)
    assert peak is not None
    assert peak[0] == pytest.approx(tera * 1e12)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "cpu",
        "NVIDIA H300",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A10G",
        "NVIDIA L40",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
    ],
)
def test_unknown_devices_and_parts_of_devices_have_no_peak(name: str) -> None:
    assert peak_of(name) is None


def test_a_device_without_bfloat16_has_no_peak_in_it() -> None:
    assert peak_of("Tesla V100-SXM2-16GB") is None
    assert peak_of("Tesla V100-SXM2-16GB", torch.float16) == (125e12, "NVIDIA V100 data sheet, NVLink")
    assert peak_of("Tesla T4", torch.float32) == (pytest.approx(8.1e12), "NVIDIA T4 data sheet")
    assert peak_of("Tesla T4", torch.float64) is None


def test_every_peak_names_its_source_and_wider_numbers_are_slower() -> None:
    for peak in PEAKS:
        assert "data sheet" in peak.source or "architecture paper" in peak.source
        assert peak.float16 is not None
        assert peak.float32 is not None
        assert peak.float32 < peak.float16
        assert peak.bfloat16 in (None, peak.float16)


def test_utilisation_is_a_fraction_of_the_peak() -> None:
    # An A100 that learns from 100,000 tokens a second, each costing what GPT-2 (124M) with 1,024 tokens costs.
    assert utilisation(100_000, 8.545e8, 312e12) == pytest.approx(0.274, abs=1e-3)


def test_a_cpu_has_no_peak_and_some_memory() -> None:
    assert device_peak(torch.device("cpu")) is None
    memory = device_memory(torch.device("cpu"))
    assert memory is None or memory > 2**28


@pytest.mark.parametrize(("limit", "counts"), [("4096\n", True), ("max\n", False), ("9223372036854771712", False)])
def test_a_containers_limit_counts_where_it_is_lower(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, counts: bool
) -> None:
    (tmp_path / "limit").write_text(limit)
    monkeypatch.setattr(capacity, "CGROUP_LIMITS", (str(tmp_path / "limit"), str(tmp_path / "missing")))
    monkeypatch.setattr(capacity, "_physical_memory", lambda: 2**33)
    assert device_memory(torch.device("cpu")) == (4096 if counts else 2**33)


def test_unknown_memory_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "CGROUP_LIMITS", ())
    monkeypatch.setattr(capacity, "_physical_memory", lambda: None)
    assert device_memory(torch.device("cpu")) is None


def test_free_disk_of_a_folder_that_is_yet_to_be_made(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "checkpoints" / "run") == pytest.approx(free_disk(tmp_path), rel=0.1)
    assert free_disk(Path("not/yet/there")) > 0
