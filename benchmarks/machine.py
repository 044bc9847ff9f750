"""The machine and the versions, which each result file records."""

from __future__ import annotations

import platform
import resource
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def machine(*packages: str) -> dict[str, Any]:
    """Returns processor, usable cores, threads, and the versions of Python, torch and the given packages."""
    import torch

    from transformer.text.cores import usable_cores

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": (names or [platform.processor()])[0],
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: version(package) for package in packages},
    }


def result_file(name: str, kind: str = "") -> Path:
    """Returns the result file of this kind of processor (processor.py): results/NAME_amd_avx512_bf16.json."""
    from transformer.processor import processor

    kind = kind or processor().kind
    return Path(__file__).resolve().parent / "results" / f"{name}_{kind.replace('-', '_')}.json"


def typed_command() -> str:
    """Returns the command line of this process. Absolute paths are shortened to the file name."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def peak_bytes() -> int:
    """Returns the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
