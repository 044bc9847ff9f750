"""What a run's rounding depends on, apart from its settings: kept in its checkpoints, shown, compared on resuming.

Another kind of processor adds in another order, and `--precision auto` may choose another format there. A run that
resumes on one continues with losses that agree, but not bit for bit, and says so in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from transformer import processor
from transformer.config import Kernels


def machine(device: torch.device, dtype: torch.dtype, kernels: Kernels) -> dict[str, str]:
    """Returns the format of matrix products, the processor's name and kind, and the row of choices for its kernels."""
    found = processor.processor()
    name, kind, routines = found.name, found.kind, processor.row(kernels)
    if device.type != "cpu":
        name, kind, routines = device.type, device.type, kernels
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {"precision": dtype_name(dtype), "processor": name, "kind": kind, "kernels": routines}


def dtype_name(dtype: torch.dtype) -> str:
    """Returns the name of a format, as --precision takes it."""
    return str(dtype).removeprefix("torch.")


def message_about_machine(now: Mapping[str, str], contents: Mapping[str, Any]) -> str | None:
    """Returns a line for a resumed run if its state was saved where products round differently; else None."""
    before = contents.get("machine")
    if before is None:  # an earlier version, whose "auto" was float32 on every CPU
        is_new = contents["config"].get("precision", "auto") == "auto" and now["kind"] not in ("cuda", "mps")
        if not is_new or now["precision"] == "float32":
            return None
        return (
            "this state is of an earlier version, which trained in float32 on a CPU: the run continues in "
            f"{now['precision']}; --precision float32 keeps the format"
        )
    if all(before.get(fact) == now[fact] for fact in ("precision", "kind", "kernels")):
        return None
    line = f"trained so far {placed(before)}; continues {placed(now)}: losses agree, but not bit for bit"
    if before.get("precision") == now["precision"]:
        return line
    return f"{line}; --precision {before.get('precision')} keeps the format, which may be slower here"


def placed(facts: Mapping[str, str]) -> str:
    """Returns the facts in words.

    >>> placed({"precision": "bfloat16", "processor": "Xeon", "kind": "intel-amx", "kernels": "plain"})
    'in bfloat16 on intel-amx, plain kernels'
    """
    kind, routines = facts.get("kind"), facts.get("kernels")
    own = "" if routines in (kind, "auto", "other") else f", {routines} kernels"
    return f"in {facts.get('precision')} on {kind}{own}"
