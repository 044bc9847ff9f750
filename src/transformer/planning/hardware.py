"""The machine's memory, disk space and peak FLOP/s, and the fraction of the peak that a run reaches.

The peaks are for dense matrix multiplications with float32 accumulation, from the manufacturers' data sheets and
architecture papers. Where a data sheet gives only the rate for sparse matrices, which is twice as high, the table has
half of it. A device that is not in the table, or a part of a device (MIG), has no peak: a guess would make every
utilisation computed from it wrong.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the memory limit of a container on Linux: cgroup version 2, then version 1."""


@dataclass(frozen=True)
class Peak:
    """The peak of a device for each dtype, in TFLOP/s (10**12 FLOP/s). None: not supported."""

    name: str
    """A regular expression for PyTorch's whole device name, without the manufacturer."""
    source: str
    bfloat16: float | None
    float16: float | None
    float32: float | None


PEAKS = (
    Peak("A100.*(40GB|80GB|PCIe)", "NVIDIA A100 data sheet", 312, 312, 19.5),
    Peak("H100 80GB HBM3", "NVIDIA H100 data sheet, SXM", 1979 / 2, 1979 / 2, 67),
    Peak("H100 PCIe", "NVIDIA H100 data sheet, PCIe", 1513 / 2, 1513 / 2, 51),
    Peak("H100 NVL", "NVIDIA H100 data sheet, NVL", 1671 / 2, 1671 / 2, 60),
    Peak("H200", "NVIDIA H200 data sheet, SXM", 1979 / 2, 1979 / 2, 67),
    Peak("H200 NVL", "NVIDIA H200 data sheet, NVL", 1671 / 2, 1671 / 2, 60),
    Peak("A10", "NVIDIA A10 data sheet", 125, 125, 31.2),
    Peak("A40", "NVIDIA A40 data sheet", 149.7, 149.7, 37.4),
    Peak("L4", "NVIDIA L4 data sheet", 242 / 2, 242 / 2, 30.3),
    Peak("L40S", "NVIDIA L40S data sheet", 362.05, 362.05, 91.6),
    Peak("T4", "NVIDIA T4 data sheet", None, 65, 8.1),
    Peak("V100-SXM2-(16|32)GB", "NVIDIA V100 data sheet, NVLink", None, 125, 15.7),
    Peak("V100-PCIE-(16|32)GB", "NVIDIA V100 data sheet, PCIe", None, 112, 14),
    Peak("V100S-PCIE-32GB", "NVIDIA V100 data sheet, V100S", None, 130, 16.4),
    Peak("GeForce RTX 3090", "NVIDIA Ampere GA102 architecture paper", 71, 71, 35.6),
    Peak("GeForce RTX 4090", "NVIDIA Ada architecture paper", 165.2, 165.2, 82.6),
    Peak("GeForce RTX 5090", "NVIDIA RTX Blackwell architecture paper", 209.5, 209.5, 104.8),
    Peak("Instinct MI300X( OAM)?", "AMD Instinct MI300X data sheet", 1307.4, 1307.4, 163.4),
)


def peak_of(device_name: str, dtype: torch.dtype = torch.bfloat16) -> tuple[float, str] | None:
    """Returns the peak in FLOP/s for PyTorch's device name, and its source; None if it is unknown.

    >>> peak_of("NVIDIA A100-SXM4-80GB"), peak_of("Tesla T4"), peak_of("NVIDIA A100-SXM4-40GB MIG 1g.5gb")
    ((312000000000000.0, 'NVIDIA A100 data sheet'), None, None)
    """
    name = re.sub(r"^(NVIDIA|AMD|Tesla)\s+", "", device_name)
    for peak in PEAKS:
        tera = getattr(peak, str(dtype).removeprefix("torch."), None)
        if tera is not None and re.fullmatch(peak.name, name):
            return tera * 1e12, peak.source
    return None


def device_peak(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> tuple[float, str] | None:
    """Returns the device's peak in FLOP/s for matrix multiplications in `dtype`, and its source; None if unknown."""
    return peak_of(torch.cuda.get_device_name(device), dtype) if device.type == "cuda" else None


def utilisation(tokens_per_second: float, flops_per_token: float, peak: float | None) -> float | None:
    """Returns the model FLOPs utilisation (MFU): the model's FLOP/s as a fraction of the peak. None: peak unknown.

    With several devices, `tokens_per_second` is that of one. By hand: 1,000 tokens/s of 10**9 FLOPs, peak 4 * 10**12:

    >>> utilisation(1_000, 1e9, 4e12), utilisation(1_000, 1e9, None)
    (0.25, None)
    """
    return None if peak is None else tokens_per_second * flops_per_token / peak


def device_memory(device: torch.device) -> int | None:
    """Returns the memory that a run can use, in bytes; None if unknown.

    CUDA: the free memory. MPS: the maximum that Apple recommends. CPU: the machine's total memory, free or not, or the
    limit of the container if that is lower.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return min(filter(None, [_physical_memory(), *map(_limit, CGROUP_LIMITS)]), default=None)


def free_disk(path: Path) -> int:
    """Returns the free bytes on the disk of `path`, which need not exist yet."""
    existing = next(folder for folder in [path.absolute(), *path.absolute().parents] if folder.exists())
    return shutil.disk_usage(existing).free


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _limit(file: str) -> int | None:
    try:
        text = Path(file).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max": no limit
