"""Choosing a device, copying batches to it, and its memory."""

from __future__ import annotations

import contextlib
import sys

import torch
from torch import Tensor


def pick_device(wanted: str = "auto") -> torch.device:
    """Returns the device for "auto" (CUDA, then MPS, then CPU), "cpu", "cuda" or "mps".

    Raises ValueError if the device is not available.
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


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a copy of a CPU tensor on the device. On CUDA nothing waits: the copy is queued from pinned memory."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the peak memory so far, in bytes: PyTorch's on a device, the process's on a CPU. 0: unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return 0
