"""Work shared out among the cores: every part runs, in its caller's modes, with one thread for each operation."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from transformer.kernels.core_threads import on_each_core
from transformer.kernels.tiled_loss import tiled_head


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_the_parts_run_at_the_same_time_and_come_back_in_order() -> None:
    all_there = threading.Barrier(3, timeout=30)  # passes only if three threads are inside at once
    assert on_each_core(lambda part: (part, all_there.wait() >= 0), 3) == [(0, True), (1, True), (2, True)]


def test_operations_use_one_thread_inside_and_as_many_as_before_outside() -> None:
    assert on_each_core(lambda _: torch.get_num_threads(), 4) == [1] * 4
    assert torch.get_num_threads() == 4
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [4]


def test_the_modes_are_those_of_the_caller() -> None:
    def modes(_: int) -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    assert on_each_core(modes, 2) == [(False, False)] * 2
    with torch.inference_mode():
        assert on_each_core(modes, 2) == [(False, True)] * 2


def test_an_error_is_raised_after_the_other_parts_have_ended() -> None:
    ended = []

    def part(number: int) -> None:
        if number == 0:
            raise MemoryError("part 0")
        threading.Event().wait(0.05)
        ended.append(number)

    with pytest.raises(MemoryError, match="part 0"):
        on_each_core(part, 3)
    assert sorted(ended) == [1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_tiled_loss_is_repeated_bit_for_bit_and_agrees_for_any_number_of_cores(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 16, generator=random).to(dtype)
    weight, targets = torch.randn(9_000, 16, generator=random), torch.randint(9_000, (40,), generator=random)
    found = [tiled_head(hidden, weight, targets, wants_gradient=True) for _ in range(3)]
    assert all(torch.equal(a, b) for one in found for a, b in zip(one, found[0], strict=True))
    torch.set_num_threads(1)
    alone = tiled_head(hidden, weight, targets, wants_gradient=True)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(alone, found[0], rtol=tolerance, atol=tolerance)
