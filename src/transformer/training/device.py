"""Choosing a device, and how much of its memory is used."""

from __future__ import annotations

import contextlib
import sys

import torch


def pick_device(wanted: str = "auto") -> torch.device:
    """Returns the device for "auto" (CUDA, then MPS, then CPU), "cpu", "cuda" or "mps".

    Raises ValueError where the device that was asked for is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if wanted not in present:
        raise ValueError(f"unknown device {wanted!r}: one of auto, {', '.join(present)}")
    if not present[wanted]:
        names = {"cuda": "an NVIDIA or AMD GPU that this build of PyTorch can use", "mps": "Apple's GPU (MPS)"}
        there = ", ".join(name for name, is_there in present.items() if is_there)
        raise ValueError(f"device {wanted!r} was asked for, but {names[wanted]} was not found; available: {there}")
    return torch.device(wanted)


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the most memory held so far, in bytes: PyTorch's on the device; on a CPU the process's. 0: not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    with contextlib.suppress(ImportError):  # Windows has no such module
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return 0
