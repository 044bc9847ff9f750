"""Which numbers a run computes in, and the scale that keeps float16's gradients from vanishing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from transformer.config import TrainConfig
from transformer.processor import TABLE
from transformer.training.precision import FIRST_SCALE, GROW_AFTER, Precision, automatic_dtype, chosen_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_in_float32_products_are_in_full_precision(device: str) -> None:
    precision = Precision(torch.device(device))
    with precision.tf32(), precision.autocast():
        assert not torch.is_autocast_enabled("cpu")
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == torch.float32
    assert precision.scale is None


@pytest.mark.parametrize("kind", [*TABLE, "unknown"])
def test_on_a_cpu_auto_is_what_the_table_says_of_the_processor_or_of_the_kernels(
    kind: str, on_processor: Callable[[str], None]
) -> None:
    on_processor(kind)
    formats = {name: getattr(torch, choices.training) for name, choices in TABLE.items()}
    assert automatic_dtype(CPU) == formats.get(kind, torch.float32)
    assert automatic_dtype(CPU, "plain") == torch.float32
    assert {name: automatic_dtype(CPU, name) for name in TABLE} == formats
    assert automatic_dtype(torch.device("mps")) == torch.float32
    assert chosen_dtype(TrainConfig(precision="bfloat16", kernels="plain"), CPU) == torch.bfloat16


def test_an_evaluation_on_a_cpu_is_in_float32() -> None:
    precision = Precision(CPU, torch.bfloat16)
    with precision.evaluation():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_cuda_products_are_in_bfloat16() -> None:
    device = torch.device("cuda")
    with Precision(device, automatic_dtype(device)).autocast():
        product = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
    assert product.dtype == torch.bfloat16


@pytest.mark.parametrize(("has_bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_without_bfloat16_takes_float16(
    monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    assert automatic_dtype(torch.device("cuda")) == dtype


def test_tf32_is_switched_on_for_a_gpu_only_and_back_again() -> None:
    gpu = Precision(CPU)
    gpu.may_round = True
    with gpu.tf32():
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == "highest"
    with Precision(CPU).tf32():
        assert torch.get_float32_matmul_precision() == "highest"


def test_a_gradient_too_small_for_float16_survives_by_the_scale() -> None:
    weight = nn.Parameter(torch.ones(1, 1))
    small = torch.full((1, 1), 2.0**-30)  # float16 ends at 2**-24
    for scaled, expected in ((False, 0.0), (True, 2.0**-30)):
        precision = Precision(CPU, torch.float16)
        weight.grad = None
        with precision.autocast():
            out = torch.nn.functional.linear(torch.ones(1, 1), weight)
        assert out.dtype == torch.float16
        assert precision.scale is not None
        # 2**-30 is what the loss gives out's gradient, which is a float16 number.
        (out.float() * small * (precision.scale if scaled else 1.0)).sum().backward()
        if scaled:
            precision.unscale([weight])
        assert weight.grad is not None
        assert float(weight.grad) == expected


def test_an_overflow_halves_the_scale_and_many_good_steps_double_it() -> None:
    precision = Precision(CPU, torch.float16)
    good, bad = torch.tensor(False), torch.tensor(True)
    assert float(precision.scale) == FIRST_SCALE
    precision.adapt(bad)
    assert float(precision.scale) == FIRST_SCALE / 2
    for _ in range(GROW_AFTER - 1):
        precision.adapt(good)
    assert float(precision.scale) == FIRST_SCALE / 2
    precision.adapt(good)
    assert float(precision.scale) == FIRST_SCALE
    precision.adapt(good)
    assert float(precision.scale) == FIRST_SCALE


def test_the_scale_resumes_from_its_state() -> None:
    one, other = Precision(CPU, torch.float16), Precision(CPU, torch.float16)
    for _ in range(3):
        one.adapt(torch.tensor(True))
    one.adapt(torch.tensor(False))
    other.restore(one.state())
    assert other.state() == one.state() == [FIRST_SCALE / 8, 1.0]
    wide = Precision(CPU)
    wide.restore(one.state())  # a run that resumes on a device with bfloat16
    assert wide.state() == []
