"""What the machine offers: memory, disk, and operations a second; and how much of the last a run makes use of.

The peaks are the dense ones of the makers' data sheets and architecture papers, products of matrices with sums in
float32. Sheets like to print the rate for matrices that are half zeros, twice as high; it is halved here. A device that
is not in the table, or a part of one (MIG), has no peak: a guess would make every utilisation got from it wrong.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux says how much memory a container may use, in its second and its first version."""


@dataclass(frozen=True)
class Peak:
    """Most operations a second of a device, in units of 10**12, by the numbers' type; None: not supported."""

    name: str
    """A pattern for the whole name that PyTorch gives, without the maker's."""
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


def known_peak(device_name: str) -> Peak | None:
    """Returns the device's line of PEAKS, where it has one; the name is PyTorch's."""
    name = re.sub(r"^(NVIDIA|AMD|Tesla)\s+", "", device_name)
    return next((peak for peak in PEAKS if re.fullmatch(peak.name, name)), None)


def peak_flops(device_name: str, dtype: torch.dtype = torch.bfloat16) -> float | None:
    """Returns the device's peak in operations a second, or None where it is not known; the name is PyTorch's.

    >>> peak_flops("NVIDIA A100-SXM4-80GB"), peak_flops("Tesla T4"), peak_flops("NVIDIA A100-SXM4-40GB MIG 1g.5gb")
    (312000000000000.0, None, None)
    """
    units = getattr(known_peak(device_name), str(dtype).removeprefix("torch."), None)
    return None if units is None else units * 1e12


def device_peak(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> tuple[float, str] | None:
    """Returns a device's peak for products of that type, and its source; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known, flops = known_peak(name), peak_flops(name, dtype)
    return None if known is None or flops is None else (flops, known.source)


def utilisation(tokens_per_second: float, flops_per_token: float, peak: float | None) -> float | None:
    """Returns the share of the peak that reaches the model, often called MFU; None where the peak is not known.

    For several devices, give the tokens of one. By hand: a thousand tokens a second of 10**9 operations, of 4 * 10**12:

    >>> utilisation(1_000, 1e9, 4e12), utilisation(1_000, 1e9, None)
    (0.25, None)
    """
    return None if peak is None else tokens_per_second * flops_per_token / peak


def device_memory(device: torch.device) -> int | None:
    """Returns the bytes that a run can use: CUDA's free ones, what Apple recommends at most, or the machine's memory.

    The machine's is all of it, used or not, or what its container may use where that is less. None: not known.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return min(filter(None, [_physical_memory(), *map(_limit, CGROUP_LIMITS)]), default=None)


def free_disk(path: Path) -> int:
    """Returns the bytes left on the disk that holds `path`, which need not exist yet."""
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
    return int(text) if text.isdigit() else None  # "max": none
