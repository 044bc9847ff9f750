"""Which processor this is, and what was measured to be fastest on it.

The same product takes 2 ms on one processor and 11 ms on another, depending on the routine that PyTorch calls for it.
So the routines that depend on the processor are chosen here, from a table of measurements. Nothing is timed during a
run: a timing would choose differently from day to day, and with another order of sums a run could not be repeated.

A processor is known by its vendor and its widest instructions for matrices: "amd-avx512-bf16", "intel-amx". One that is
not in the table gets OTHER, plain PyTorch. `--kernels NAME` takes another row of the table; `make bench-kernels` times
all candidates on this machine and fails if the table's choice is more than 10 % slower than the best of them.

Nothing here imports torch, so that a command can show the choice, or refuse a wrong one, before that takes a second.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LEVELS = (("amx_bf16", "amx"), ("avx512_bf16", "avx512-bf16"), ("avx512f", "avx512"), ("avx2", "avx2"))
"""Flags of /proc/cpuinfo, and what we call a processor that has them; the first that it has counts."""
VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}


@dataclass(frozen=True)
class Choices:
    """The routines for one kind of processor."""

    one_row: Literal["plain", "blocks"] = "plain"
    """The float32 product with few rows, a decode step's: nn.Linear, or kernels/cpu_linear.py."""
    packs_from: int = 0
    """Fewest rows for which a copy of the weights in oneDNN's own layout is faster, in float32; 0: never."""
    training: Literal["float32", "bfloat16"] = "float32"
    """What --precision auto takes."""
    measured: str = ""
    """Where the measurements are."""


OTHER = Choices(measured="nothing was measured on this kind of processor: plain PyTorch")
TABLE: Mapping[str, Choices] = {
    "amd-avx512-bf16": Choices("blocks", 4, "bfloat16", "benchmarks/results/kernels_amd_avx512_bf16.json"),
    "amd-avx2": Choices("blocks", 8, "float32", "benchmarks/results/kernels_amd_avx2.json"),
    "intel-amx": Choices("plain", 4, "bfloat16", "benchmarks/results/kernels_intel_amx.json"),
}


@dataclass(frozen=True)
class Processor:
    """A processor: its name as the operating system gives it, and its kind, a key of TABLE or not."""

    name: str
    kind: str


@functools.cache
def processor() -> Processor:
    """Returns the processor of this machine."""
    path = Path("/proc/cpuinfo")
    return read_processor(path.read_text(encoding="utf-8", errors="replace") if path.exists() else "")


def read_processor(text: str) -> Processor:
    """Returns the first processor in the text of /proc/cpuinfo; without one, what Python knows.

    >>> read_processor("vendor_id : GenuineIntel\\nmodel name : Xeon\\nflags : avx2 avx512f amx_bf16\\n")
    Processor(name='Xeon', kind='intel-amx')
    """
    fields: dict[str, str] = {}
    for line in text.split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    flags = set(fields.get("flags", "").split())
    machine = platform.machine().lower()
    vendor = VENDORS.get(fields.get("vendor_id", ""), machine or "unknown")
    level = next((level for flag, level in LEVELS if flag in flags), "")
    return Processor(
        fields.get("model name") or platform.processor() or machine, f"{vendor}-{level}" if level else vendor
    )


def choices(kernels: str = "auto") -> Choices:
    """Returns the row of the table: "auto" for this processor, "plain" for none, or a kind by its name."""
    return TABLE.get(row(kernels), OTHER)


def row(kernels: str = "auto") -> str:
    """Returns the name of the row that choices() returns: a key of TABLE, "plain", or "other" for OTHER."""
    name = processor().kind if kernels == "auto" else kernels
    return name if name in TABLE or name == "plain" else "other"
