"""What threads do while they wait for each other, set before PyTorch is imported.

PyTorch divides a product among one thread per core, and none continues before all are done. A thread that is done first
*spins*: it looks again and again whether the others are done, some hundred thousand times, and then sleeps. On an idle
machine spinning is fastest, because waking a thread takes time. Beside another program the last thread may not be
running at all: it waits for a core, on which another one spins. Two cores, with one other program running: decoding
fell from 199 tokens/s to 62, but only to 141 if waiting threads sleep at once, which costs a third on the idle machine
(AMD EPYC with AVX-512: benchmarks/results/busy_amd_avx512_bf16.json).

So threads sleep at once (OMP_WAIT_POLICY=passive) if other programs run when a command starts, and otherwise spin as
PyTorch chooses. A shorter spin (GOMP_SPINCOUNT=1000) is no compromise: on the idle machine it cost decoding a third on
AMD. A user who has set either variable has chosen. Only waiting depends on it: the number of threads, the order of sums
and all results stay the same.

PyTorch's Linux packages use GCC's OpenMP, which reads both variables once, when torch is imported. Nothing is set on
other systems, where this is unmeasured. Under torchrun nothing is set either: its processes have one thread each, or as
many as the user says, and would count each other as other programs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from transformer.cli.console import console, rank_prefix

POLICY, SPIN_COUNT = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
LOADAVG = Path("/proc/loadavg")
"""Its fourth word is "3/94": of 94 threads of the whole machine, 3 run or wait for a core at this moment."""
OWN_THREADS = Path("/proc/self/task")
MOMENTS, SECONDS_BETWEEN = 4, 0.006
"""A program that runs is seen at all moments; one that wakes up for a moment is not."""
NOTE = f"another program uses the cores, so waiting threads give way to it ({SPIN_COUNT}=300000: as PyTorch does)"


def choose_waiting(environment: MutableMapping[str, str]) -> None:
    """Adds the variables to the environment, before torch is imported; says so at a terminal if threads give way."""
    chosen = waiting(environment)
    environment.update(chosen)
    if POLICY in chosen and sys.stderr.isatty():
        console(stderr=True).print(NOTE, style="dim")


def waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables to add to an environment while other programs run, or not; none if the user has chosen."""
    if POLICY in environment or SPIN_COUNT in environment or not threads_spin(environment):
        return {}
    return {POLICY: "passive"} if others_use_the_cores() else {}


def threads_spin(environment: Mapping[str, str]) -> bool:
    """Whether this process has threads that spin while they wait for each other, as far as the environment says."""
    is_alone = environment.get("OMP_NUM_THREADS") == "1"
    is_passive = environment.get(POLICY, "").lower() == "passive"
    return sys.platform == "linux" and not (is_alone or is_passive or rank_prefix())


def others_use_the_cores() -> bool:
    """Whether other programs run on more than a quarter of the cores that this process may use. False if unknown."""
    from transformer.text.cores import usable_cores  # imports what every command needs, but --help does not

    cores = usable_cores()
    return are_shared(cores, os.cpu_count() or cores, others_running())


def are_shared(cores: int, machine_cores: int, others: int) -> bool:
    """Whether threads of other programs run on more than a quarter of our cores, if they prefer the machine's others.

    >>> are_shared(2, 2, others=1), are_shared(8, 8, others=2), are_shared(8, 8, others=3), are_shared(2, 64, others=9)
    (True, False, True, False)
    """
    return others - (machine_cores - cores) > cores / 4


def others_running() -> int:
    """Returns how many threads of other programs run or wait for a core, the fewest at several moments; or 0: unknown.

    In a container they are those of the whole machine, as are the cores. The average over a minute, in the same file,
    would count a command that has just ended.
    """
    fewest = None
    for moment in range(MOMENTS):
        if moment:
            time.sleep(SECONDS_BETWEEN)
        try:
            running = int(LOADAVG.read_text().split()[3].partition("/")[0])
            own = sum(_runs(thread) for thread in OWN_THREADS.iterdir())
        except (OSError, ValueError, IndexError):
            return 0
        fewest = running - own if fewest is None else min(fewest, running - own)
        if fewest <= 0:
            return 0
    return fewest or 0


def _runs(thread: Path) -> bool:
    """Whether a thread runs or waits for a core: state R, after its name in brackets. The name may contain brackets."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "R"
