"""Choosing a device, and the precision that suits it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

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


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 matrix products on CUDA; float32 elsewhere, where bfloat16 is slower or missing."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the most device memory that PyTorch has held, in bytes; 0 where it does not count (CPU)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return 0
