"""As many threads tokenize as there are cores that this process may use."""

from __future__ import annotations

import os

import pytest

from transformer.text.cores import usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system assigns no cores to a process")
def test_cores_that_this_process_may_not_use_do_not_count() -> None:
    """Under `taskset -c 0` the tokenizer started a thread for every core of the machine."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)
