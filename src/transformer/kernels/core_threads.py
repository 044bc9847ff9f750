"""Work divided among the cores once, not once for each operation.

PyTorch divides every operation among its threads, and they wait for each other at its end. A loop of hundreds of small
operations waits hundreds of times. On an idle machine a wait takes some microseconds. Beside another program it can
take milliseconds, because one of the threads has lost its core: the tiled loss then took ten times as long.

    operation by operation    a1|b1|c1|d1      core 1: half of each operation
                              a2|b2|c2|d2      core 2: the other half, and a wait at each |
    on_each_core              a  c  |          core 1: every other operation, alone
                              b  d  |          core 2

So on_each_core() calls a function in one Python thread for each core, in which operations use one thread each. Python
threads run at the same time as long as they are inside PyTorch's operations, which release Python's lock.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")


def on_each_core(work: Callable[[int], T], parts: int) -> list[T]:
    """Returns [work(0), ..., work(parts - 1)], all computed at the same time and without gradients.

    parts is at most torch.get_num_threads(). The first error of a part is raised after all parts have ended.
    """
    if parts == 1:
        return [work(0)]
    in_inference = torch.is_inference_mode_enabled()  # the modes of this thread; a new thread has its own

    def part(number: int) -> T:
        with torch.inference_mode() if in_inference else torch.no_grad():
            return work(number)

    futures = [_threads(torch.get_num_threads(), os.getpid()).submit(part, number) for number in range(parts)]
    wait(futures)
    return [future.result() for future in futures]


@functools.lru_cache(maxsize=1)
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """Returns `count` threads of this process whose operations use one thread each."""
    all_started = threading.Barrier(count)

    def start(_: int) -> None:
        torch.get_num_threads()  # the first call sets this thread's number to the default, so it must come before
        torch.set_num_threads(1)  # of operations that this thread calls, and the default of threads that start later
        all_started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="core")
    list(pool.map(start, range(count)))
    torch.set_num_threads(count)  # the default again; this thread's own number has not changed
    return pool
