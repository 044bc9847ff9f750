"""The cost of a run, held against real models, real optimizers, real files and real memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from test_trainer import tiny_run, trained
from transformer.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from transformer.kernels import accelerate
from transformer.kernels.activation_checkpointing import checkpoint_activations
from transformer.kernels.tiled_loss import TILED_FROM_VOCAB
from transformer.model import DecoderOnlyTransformer
from transformer.optimizer import build_optimizers
from transformer.planning.cost import (
    Cost,
    cost,
    problems,
    readable,
    seconds,
    smaller_batches,
)
from transformer.presets import PRESETS
from transformer.training import checkpoint
from transformer.training.events import EpochMetrics, EvalMetrics
from transformer.training_utils import Objective, accumulate_gradients

SMALL = ModelConfig(
    vocab_size=300, d_model=32, num_heads=4, num_layers=2, d_ff=64, max_seq_len=24, dropout=0.0, position="learned"
)
TILED = 2 * TILED_FROM_VOCAB + 100
"""A vocabulary whose loss is computed in tiles."""


@st.composite
def models(draw: st.DrawFn, **settings: Any) -> ModelConfig:
    """Small models of every kind."""
    heads, head_dim = draw(st.sampled_from([2, 4, 6])), draw(st.sampled_from([4, 8]))
    chosen = {
        "vocab_size": draw(st.sampled_from([50, 300, TILED])),
        "d_model": heads * head_dim,
        "head_width": draw(st.sampled_from([None, None, 2, 12])),
        "qkv_bias": draw(st.sampled_from([None, False, True])),
        "qk_norm": draw(st.sampled_from(["none", "none", "head", "all"])),
        "num_heads": heads,
        "num_kv_heads": draw(st.sampled_from([None, 1, heads // 2])),
        "num_layers": draw(st.integers(1, 3)),
        "d_ff": draw(st.integers(1, 70)),
        "max_seq_len": draw(st.integers(12, 40)),
        "dropout": draw(st.sampled_from([0.0, 0.1])),
        "position": draw(st.sampled_from(["learned", "sinusoidal", "rotary", "alibi"])),
        "norm": draw(st.sampled_from(["layernorm", "rmsnorm"])),
        "activation": draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "swiglu"])),
        "bias": draw(st.booleans()),
        "tie_embeddings": draw(st.booleans()),
        "norm_position": draw(st.sampled_from(["before", "before", "after"])),
    }
    chosen["parallel_blocks"] = chosen["norm_position"] == "before" and draw(st.booleans())
    return ModelConfig(**{**chosen, **settings}).check()


def run_of(model: ModelConfig, seq_length: int = 12, **settings: Any) -> TrainConfig:
    """Returns a run of that model, in micro-batches of 3 rows, in float32."""
    defaults = {
        "data": DataConfig(seq_length=seq_length), "batch_size": 3, "accumulation_steps": 2, "precision": "float32",
    }  # fmt: skip
    return TrainConfig(model, **{**defaults, **settings})


def batch_of(config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Returns random tokens and targets of one micro-batch."""
    size = (config.batch_size, config.data.seq_length)
    return torch.randint(config.model.vocab_size, size), torch.randint(config.model.vocab_size, size)


def objective_of(config: TrainConfig) -> Objective:
    """Returns the model as it is trained."""
    model = DecoderOnlyTransformer(config.model).train()
    accelerate(model, config.kernels)
    if config.activation_checkpointing:
        checkpoint_activations(model)
    return Objective(model, 0 if config.data.mask_documents else None)


# Parameters


def test_the_published_sizes_of_gpt2_and_gpt3_come_out() -> None:
    small = dataclasses.replace(PRESETS["gpt2"].model, vocab_size=50_257)
    assert sum(cost(run_of(small)).parameters.values()) == 124_439_808
    large = ModelConfig(50_257, 12_288, 96, 96, 4 * 12_288, 2048)
    assert round(sum(cost(run_of(large)).parameters.values()) / 1e9) == 175


# Operations


def fused_forward(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)


def fused_backward(d_out: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(d_out, q, k, v)


FUSED = {  # PyTorch's counter knows the fused kernels of GPUs only; these do the same products
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused_forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: fused_backward,
}


def counted(work: Callable[[], object]) -> int:
    """Returns the operations in products of matrices that really run, as PyTorch counts them."""
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        work()
    return counter.get_total_flops()


@given(model=models(), seq_length=st.integers(1, 12))
@settings(max_examples=60)
def test_operations_are_those_that_run_forward_and_backward(model: ModelConfig, seq_length: int) -> None:
    config = run_of(model, seq_length)
    objective, batch = objective_of(config), batch_of(config)
    ran = counted(lambda: objective(*batch)[0].backward())
    # Without dropout attention is fused, and backward makes the scores again: not counted in `flops`.
    recomputed = 2 * model.num_layers * seq_length * model.num_heads * model.head_dim if model.dropout == 0 else 0
    tokens = config.batch_size * seq_length
    assert ran == tokens * (cost(config).flops_per_token + recomputed)


@pytest.mark.parametrize("vocab_size", [300, TILED])
def test_evaluating_is_a_third_of_the_operations_of_training(vocab_size: int) -> None:
    config = run_of(dataclasses.replace(SMALL, vocab_size=vocab_size))
    objective, batch = objective_of(config), batch_of(config)
    with torch.no_grad():
        ran = counted(lambda: objective(*batch))
    assert 3 * ran == config.batch_size * 12 * cost(config).flops_per_token


def test_operations_by_part_add_up_to_six_a_parameter_and_the_scores() -> None:
    plan = cost(run_of(dataclasses.replace(SMALL, bias=False)))
    matrices = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert plan.flops["projections"] + plan.flops["feed_forward"] == 6 * matrices
    assert plan.flops["head"] == 6 * 300 * 32
    assert plan.flops["scores"] == 2 * 12 * 12 * 32


# Memory


@given(model=models(), optimizer=st.sampled_from(["adamw", "muon"]))
@settings(max_examples=30)
def test_weights_gradients_and_optimizer_state_are_exact(model: ModelConfig, optimizer: str) -> None:
    config = run_of(model, optimizer=OptimizerConfig(optimizer))  # type: ignore[arg-type]
    objective, memory = objective_of(config), cost(config).memory
    optimizers = build_optimizers(objective.model, config.optimizer)
    objective(*batch_of(config))[0].backward()
    for one in optimizers:
        one.step()
    states = [tensor for one in optimizers for state in one.state.values() for tensor in state.values()]
    parameters = list(objective.parameters())
    assert memory["weights"] == sum(parameter.nbytes for parameter in parameters)
    assert memory["gradients"] == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    assert memory["optimizer"] == sum(tensor.nbytes for tensor in states)


def kept_for_backward(config: TrainConfig) -> int:
    """Returns the bytes of all that forward saves for backward, weights and the batch itself apart."""
    objective, batch = objective_of(config), batch_of(config)
    there = {id_of(tensor) for tensor in [*objective.parameters(), *objective.buffers(), *batch]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id_of(tensor) not in there:
            kept[id_of(tensor)] = tensor.untyped_storage()  # held, so that no other storage gets its place
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        nats, _ = objective(*batch)
    assert nats.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def id_of(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def plain_logarithms(config: TrainConfig) -> int:
    """Returns the bytes of the log-probabilities that plain_loss saves, which `cost` counts as working memory."""
    tokens = config.batch_size * config.data.seq_length
    return 4 * tokens * config.model.vocab_size if config.model.vocab_size < TILED_FROM_VOCAB else 0


ROTARY = ModelConfig(TILED, 8, 2, 1, 1, 12, dropout=0.0, position="rotary", bias=False, tie_embeddings=False)
"""So small that its tables of cosines and sines are 3 % of the activations; they were not counted."""


@given(model=models(), seq_length=st.sampled_from([8, 12]), documents=st.booleans())
@example(model=ROTARY, seq_length=8, documents=False)
@settings(max_examples=60)
def test_activations_are_what_forward_keeps(model: ModelConfig, seq_length: int, documents: bool) -> None:
    config = run_of(model, data=DataConfig(seq_length=seq_length, mask_documents=documents))
    expected = cost(config).memory["activations"] + plain_logarithms(config)
    assert expected == pytest.approx(kept_for_backward(config), rel=0.02, abs=100)


@pytest.mark.parametrize("preset", ["demo", "tiny"])
def test_activations_of_real_presets_are_exact(preset: str) -> None:
    config = dataclasses.replace(PRESETS[preset], precision="float32")
    assert cost(config).memory["activations"] == pytest.approx(
        kept_for_backward(config) - plain_logarithms(config), rel=1e-3
    )


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("activation", ["gelu", "relu", "swiglu"])
@pytest.mark.parametrize("vocab_size", [300, TILED])
def test_activations_under_autocast_are_what_forward_keeps(position: Any, activation: Any, vocab_size: int) -> None:
    model = dataclasses.replace(
        SMALL, vocab_size=vocab_size, position=position, activation=activation, d_model=64, d_ff=256
    )
    config = run_of(model, 24, batch_size=16, precision="auto")
    memory = cost(config, device="cuda").memory  # the formulas of CUDA, measured with a CPU's autocast, dropout apart
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = kept_for_backward(config) - plain_logarithms(config)
    head_copy = 2 * vocab_size * 64 if vocab_size < TILED_FROM_VOCAB else 0
    assert memory["activations"] + memory["autocast_copies"] + head_copy == pytest.approx(kept, rel=0.05)


def most_allocated(work: Callable[[], object]) -> int:
    """Returns the most bytes that `work` holds at once, counted at PyTorch's allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


MODERN = dataclasses.replace(PRESETS["modern"].model, d_model=128, d_ff=352, num_layers=3)
REAL_SHAPES = {
    "demo": PRESETS["demo"],
    "quick, fewer rows": dataclasses.replace(PRESETS["quick"], batch_size=2, accumulation_steps=2),
    "wide encoding, one short row": run_of(ModelConfig(50_000, 128, 4, 1, 256, 16), 16, batch_size=1),
    "bytes, long rows": run_of(ModelConfig(257, 64, 4, 2, 256, 256, dropout=0.1), 256, batch_size=4),
    "modern, narrow": run_of(MODERN, 128),
    "activation checkpointing": run_of(
        ModelConfig(257, 64, 4, 6, 256, 256, dropout=0.1), 256, batch_size=4, activation_checkpointing=True
    ),
    "as OLMo 2, wide heads": run_of(
        dataclasses.replace(MODERN, vocab_size=999, head_width=48, qk_norm="all", norm_position="after"), 128
    ),
    "as Qwen3": run_of(dataclasses.replace(MODERN, vocab_size=999, qk_norm="head", qkv_bias=True), 128),
    "parallel blocks": run_of(
        ModelConfig(257, 64, 4, 6, 256, 256, dropout=0.1, parallel_blocks=True), 256, batch_size=4
    ),
    "one micro-batch a step": run_of(ModelConfig(8_000, 128, 4, 4, 512, 128), 128, accumulation_steps=1),
}
LARGER = {"quick, fewer rows", "modern, narrow"}  # a step of these takes a second


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "shape", [pytest.param(name, marks=pytest.mark.slow) if name in LARGER else name for name in REAL_SHAPES]
)
def test_the_greatest_memory_is_what_a_step_really_holds(shape: str, precision: Any) -> None:
    config = dataclasses.replace(REAL_SHAPES[shape], precision=precision)
    objective = objective_of(config)
    batches = [batch_of(config) for _ in range(config.accumulation_steps)]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        most = most_allocated(lambda: accumulate_gradients(objective, batches, divisor=1))
    plan = cost(config)
    beside = plan.memory["weights"] + plan.memory["optimizer"]  # there before the step began
    assert plan.memory_bytes - beside == pytest.approx(most, rel=0.06)


def test_dropout_on_a_cpu_and_any_attention_on_mps_keep_tables_of_scores() -> None:
    model = dataclasses.replace(SMALL, dropout=0.1, max_seq_len=512)
    table = 4 * 3 * 512 * 4 * 512 * 2  # bytes, rows, queries, heads, keys, layers

    def activations(device: str, dropout: float) -> int:
        config = run_of(dataclasses.replace(model, dropout=dropout), 512, precision="auto", kernels="plain")
        return cost(config, device=device).memory["activations"]

    assert activations("cpu", 0.1) - activations("cpu", 0.0) > 3 * table
    assert table < activations("mps", 0.0) - activations("cpu", 0.0) < 2 * table
    assert activations("cuda", 0.1) < activations("cpu", 0.0)


def test_a_device_that_is_not_picked_yet_is_an_error() -> None:
    with pytest.raises(ValueError, match="device='auto' is not cpu, cuda or mps"):
        cost(run_of(SMALL), device="auto")


# Files


def test_checkpoints_and_states_are_at_least_as_large_as_planned_and_a_little_larger(tmp_path: Path) -> None:
    """The plan counts weights and optimizer state; names, settings and random state come on top."""
    config = tiny_run(tmp_path, max_steps=2, d_model=64, d_ff=256, num_layers=4)
    trainer, _ = trained(config)
    plan = cost(config, trainer.data.tokens_per_epoch)
    model, state = checkpoint.epochs(tmp_path)[0], checkpoint.state_path(tmp_path, "byte")
    assert plan.checkpoint_bytes < model.stat().st_size < 1.2 * plan.checkpoint_bytes
    assert plan.disk["states"] / 2 < state.stat().st_size < 1.2 * plan.disk["states"] / 2


def test_the_disk_holds_a_checkpoint_an_epoch_two_states_and_text_from_the_hub() -> None:
    plan = cost(PRESETS["default"])
    assert plan.disk == {
        "checkpoints": 10 * plan.checkpoint_bytes,
        "states": 2 * (plan.memory["weights"] + plan.memory["optimizer"]),
        "text_cache": 2_500_000_000,
    }
    assert cost(PRESETS["tiny"]).disk["text_cache"] == 0


def test_keep_last_bounds_the_room_of_the_checkpoints(tmp_path: Path) -> None:
    """Those that stay, the best one, and a new one that is written before an old one goes."""
    for epochs, keep_last, most in [(30, 0, 30), (30, 1, 3), (30, 5, 7), (3, 5, 3)]:
        plan = cost(tiny_run(tmp_path, epochs=epochs, keep_last=keep_last))
        assert plan.disk["checkpoints"] == most * plan.checkpoint_bytes


# Length


@pytest.mark.parametrize(
    "settings",
    [{}, {"max_steps": 7}, {"max_steps": 1}, {"max_steps": 1000}, {"tokens_per_epoch": 9}, {"eval_every": 5}],
    ids=str,
)
def test_steps_evaluations_and_checkpoints_are_those_of_the_trainer(tmp_path: Path, settings: dict[str, int]) -> None:
    config = tiny_run(tmp_path, **settings)
    trainer, events = trained(config)
    plan = cost(config, trainer.data.tokens_per_epoch)
    assert (plan.steps, plan.steps_per_epoch) == (trainer.total_steps, trainer.steps_per_epoch)
    assert plan.tokens == trainer.tokens
    assert plan.evaluations == sum(isinstance(event, EvalMetrics) for event in events)
    epochs = sum(isinstance(event, EpochMetrics) for event in events)
    assert plan.disk["checkpoints"] == epochs * plan.checkpoint_bytes


def test_more_processes_take_fewer_larger_steps(tmp_path: Path) -> None:
    config = tiny_run(tmp_path)
    alone, together = cost(config), cost(config, world_size=2)
    assert (alone.steps, alone.tokens_per_step) == (15, 32)
    assert (together.steps, together.tokens_per_step) == (6, 64)
    assert alone.memory == together.memory


def test_processes_that_share_a_model_keep_a_part_each_and_leave_the_same_files(tmp_path: Path) -> None:
    shape = {"num_layers": 3, "tie_embeddings": False, "accumulation_steps": 1}
    whole, part = (cost(tiny_run(tmp_path, shard=shard, **shape), None, "cpu", 4) for shard in (False, True))
    for use in ("weights", "optimizer"):
        assert part.memory[use] == -(-whole.memory[use] // 4)
    outside = 4 * (sum(whole.parameters.values()) - whole.parameters["blocks"])
    assert part.memory["gathered"] == outside + 4 * whole.parameters["blocks"] * 2 // 3
    assert part.memory["gradients"] == part.memory["weights"] + part.memory["gathered"]
    assert (part.checkpoint_bytes, part.disk) == (whole.checkpoint_bytes, whole.disk)
    accumulating = cost(tiny_run(tmp_path, shard=True, num_layers=3, tie_embeddings=False), None, "cpu", 4)
    assert accumulating.memory["gradients"] == whole.memory["gradients"]


def test_a_text_shorter_than_the_epoch_counts_as_what_it_has(tmp_path: Path) -> None:
    config = tiny_run(tmp_path, tokens_per_epoch=10**9)
    assert cost(config).steps_per_epoch == 10**9 // 32
    assert cost(config, tokens_per_epoch=320).steps_per_epoch == 10


def test_the_time_of_a_run_by_hand() -> None:
    data = DataConfig(seq_length=10, tokens_per_epoch=1_000, validation_tokens=300)
    config = run_of(SMALL, data=data, batch_size=5, accumulation_steps=2, epochs=2, eval_every=4)
    plan = cost(config)  # 10 steps per epoch; evaluations after steps 4, 8, 10, 12, 16, 20: one step's work each
    assert (plan.steps, plan.evaluations) == (20, 6)
    assert seconds(plan, 0.5) == pytest.approx(0.5 * (20 + 6))


def test_processes_share_the_validation_text() -> None:
    """The forecast counted the whole validation text for every process: with four, evaluation took four times."""
    data = DataConfig(seq_length=10, tokens_per_epoch=4_000, validation_tokens=300)
    plan = cost(run_of(SMALL, data=data, batch_size=5, eval_every=4), world_size=4)  # 10 steps of 400 tokens an epoch
    assert seconds(plan, 1.0) == pytest.approx(plan.steps + plan.evaluations * 300 / 3 / 400)


# What cannot fit


def test_nothing_is_wrong_where_all_fits_or_nothing_is_known() -> None:
    plan = cost(PRESETS["default"])
    assert problems(plan, plan.memory_bytes, plan.disk_bytes) == []
    assert problems(plan, None, None) == []


def test_too_little_memory_names_the_largest_micro_batch_that_fits() -> None:
    plan = cost(dataclasses.replace(PRESETS["default"], precision="float32"))
    eight, four, two = plan, *[smaller for smaller in smaller_batches(plan) if smaller.config.batch_size in (4, 2)]
    assert eight.memory_bytes > four.memory_bytes > two.memory_bytes
    (sentence,) = problems(plan, four.memory_bytes, None)
    assert sentence == (
        f"the run needs about {readable(plan.memory_bytes)} of memory and the device has "
        f"{readable(four.memory_bytes)}: --batch-size 4 --accumulation-steps 32 takes the same steps in "
        f"{readable(four.memory_bytes)}"
    )


def test_smaller_micro_batches_take_the_same_steps() -> None:
    plan = cost(dataclasses.replace(PRESETS["default"], batch_size=6, accumulation_steps=2), tokens_per_epoch=123_456)
    sizes = [(smaller.config.batch_size, smaller.config.accumulation_steps) for smaller in smaller_batches(plan)]
    assert sizes == [(4, 3), (3, 4), (2, 6), (1, 12)]
    assert {(smaller.steps, smaller.tokens_per_step) for smaller in smaller_batches(plan)} == {
        (plan.steps, plan.tokens_per_step)
    }


def test_where_no_batch_is_small_enough_the_advice_is_another() -> None:
    gpt2 = dataclasses.replace(PRESETS["gpt2"], precision="float32")
    plan = cost(gpt2)
    undropped = cost(dataclasses.replace(gpt2, model=dataclasses.replace(gpt2.model, dropout=0.0)))
    one_row = list(smaller_batches(plan))[-1]
    assert undropped.memory_bytes < one_row.memory_bytes  # so much do tables of scores take
    (sentence,) = problems(plan, undropped.memory_bytes, None)
    assert f"--dropout 0 takes {readable(undropped.memory_bytes)}" in sentence
    (sentence,) = problems(plan, plan.memory["weights"], None)
    assert f"a smaller --batch-size is not enough ({readable(one_row.memory_bytes)} at best)" in sentence
    assert "--num-layers" in sentence


def test_too_little_disk_says_what_takes_it() -> None:
    plan = cost(PRESETS["default"])
    (sentence,) = problems(plan, None, 10**9)
    for said in (
        readable(plan.disk_bytes),
        readable(plan.checkpoint_bytes),
        "1.0 GB",
        "--epochs",
        "--cache-gb",
    ):
        assert said in sentence
    (sentence,) = problems(cost(PRESETS["demo"]), None, 1)
    assert "--cache-gb" not in sentence


def test_what_is_said_of_memory_and_disk_comes_together() -> None:
    assert len(problems(cost(PRESETS["default"]), 1, 1)) == 2


def test_a_plan_of_any_size_is_instant_and_allocates_nothing() -> None:
    model = ModelConfig(256_000, 65_536, 512, 200, 4 * 65_536, 8_192)
    plan: Cost = cost(run_of(model, 8_192), device="cuda", world_size=1024)
    assert most_allocated(lambda: cost(run_of(model, 8_192))) == 0
    assert plan.memory_bytes > 10**12
    assert math.isfinite(seconds(plan, 1.0))
