"""Settings say all that is wrong with them at once, and come back from a checkpoint as they were."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.config import (
    SAMPLING_PRESETS,
    ConfigError,
    DataConfig,
    Kernels,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainConfig,
    near_miss,
)
from transformer.presets import PRESETS
from transformer.processor import TABLE


def problems_of(config: ModelConfig | TrainConfig | SamplingConfig | OptimizerConfig | DataConfig) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        config.check()
    return raised.value.problems


def test_all_problems_are_reported_at_once() -> None:
    found = problems_of(ModelConfig(vocab_size=0, d_ff=-1, dropout=1.0))
    assert found == ["vocab_size=0 must be above 0", "d_ff=-1 must be above 0", "dropout=1.0 must be from 0 to below 1"]


def test_problems_of_model_data_and_optimizer_are_reported_together() -> None:
    found = problems_of(
        TrainConfig(ModelConfig(d_model=130), DataConfig(seq_length=0), OptimizerConfig(learning_rate=0.0), epochs=0)
    )
    assert [problem.split("=")[0] for problem in found] == ["d_model", "seq_length", "learning_rate", "epochs"]


def test_the_message_joins_the_problems() -> None:
    assert str(ConfigError(["one", "two"])) == "one; two"
    assert isinstance(ConfigError([]), ValueError)


@pytest.mark.parametrize(
    ("d_model", "num_heads", "nearest"), [(130, 4, "nearest: 128, 132"), (2, 4, "nearest: 4"), (13, 6, "12, 18")]
)
def test_the_nearest_sizes_that_fit_are_named(d_model: int, num_heads: int, nearest: str) -> None:
    (problem,) = problems_of(ModelConfig(d_model=d_model, num_heads=num_heads))
    assert problem.startswith(f"d_model={d_model} is not divisible by num_heads={num_heads}")
    assert problem.endswith(nearest)


@given(st.integers(1, 600), st.integers(1, 40))
@settings(max_examples=50)
def test_the_nearest_sizes_do_fit(d_model: int, num_heads: int) -> None:
    config = ModelConfig(d_model=d_model, num_heads=num_heads)
    if d_model % num_heads == 0:
        assert config.check().head_dim * num_heads == d_model
        return
    (problem,) = problems_of(config)
    for size in problem.split("nearest: ")[1].split(", "):
        ModelConfig(d_model=int(size), num_heads=num_heads).check()


def test_heads_without_a_width_are_one_problem_with_rotary_positions_too() -> None:
    (problem,) = problems_of(ModelConfig(d_model=2, num_heads=4, position="rotary", rotary_fraction=0.5))
    assert problem == "d_model=2 is not divisible by num_heads=4; nearest: 4"


def test_problems_of_fraction_and_scaling_come_together() -> None:
    found = problems_of(ModelConfig(position="rotary", rotary_fraction=0.3, rope_scaling="linear"))
    assert len(found) == 2


@given(st.integers(1, 40).map(lambda pairs: 2 * pairs), st.floats(-0.5, 1.5))
@settings(max_examples=50)
def test_the_nearest_rotary_fraction_does_fit(width: int, fraction: float) -> None:
    config = ModelConfig(head_width=width, position="rotary", rotary_fraction=fraction)
    for problem in config.problems():  # none for a fraction that fits
        nearest = float(problem.split("nearest: ")[1])
        ModelConfig(head_width=width, position="rotary", rotary_fraction=nearest).check()


def test_possible_head_groupings_are_named() -> None:
    (problem,) = problems_of(ModelConfig(num_heads=12, d_model=48, num_kv_heads=5))
    assert problem == "num_kv_heads=5 does not divide num_heads=12; possible: 1, 2, 3, 4, 6, 12"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ModelConfig(d_model=12, num_heads=4, position="rotary"), "d_model/num_heads=3 must be even"),
        (ModelConfig(head_width=0), "head_width=0 must be above 0"),
        (ModelConfig(head_width=5, position="rotary"), "head_width=5 must be even"),
        (ModelConfig(rotary_fraction=0.5), "rotary_fraction=0.5 needs position='rotary', not 'learned'"),
        (ModelConfig(rope_scaling="linear:2"), "rope_scaling='linear:2' needs position='rotary', not 'learned'"),
        (ModelConfig(position="rotary", rotary_fraction=0.3), "no whole number of the 32 pairs; nearest: 0.3125"),
        (ModelConfig(position="rotary", rotary_fraction=1.5), "no whole number of the 32 pairs; nearest: 1.0"),
        (ModelConfig(position="rotary", rotary_fraction=0.0), "no whole number of the 32 pairs; nearest: 0.03125"),
        (ModelConfig(position="rotary", rope_scaling="yarn:4"), "rope_scaling='yarn:4' is not linear:FACTOR"),
        (ModelConfig(position="rotary", rope_scaling="linear:x"), "rope_scaling='linear:x' is not"),
        (ModelConfig(position="rotary", rope_scaling="linear:0.5"), "FACTOR at least 1"),
        (ModelConfig(position="rotary", rope_scaling="llama3:8:4:1:8192"), "LOW below HIGH"),
        (ModelConfig(position="rotary", rope_scaling="llama3:8:1:4"), "for example llama3:8:1:4:8192"),
        (ModelConfig(norm_position="after", parallel_blocks=True), "cannot be combined: choose one of them"),
        (ModelConfig(d_model=9, num_heads=3, position="sinusoidal"), "d_model=9 must be even"),
        (ModelConfig(dropout=-0.1), "dropout=-0.1"),
        (SamplingConfig(temperature=-1.0), "temperature=-1.0"),
        (SamplingConfig(top_p=0.0), "top_p=0.0"),
        (SamplingConfig(top_p=1.5), "top_p=1.5"),
        (SamplingConfig(top_k=0), "top_k=0"),
        (SamplingConfig(min_p=-0.1), "min_p=-0.1"),
        (SamplingConfig(min_p=1.1), "min_p=1.1"),
        (SamplingConfig(repetition_penalty=0.0), "repetition_penalty=0.0"),
        (SamplingConfig(repetition_penalty=math.nan), "repetition_penalty=nan"),
        (SamplingConfig(temperature=math.nan), "temperature=nan"),
        (SamplingConfig(temperature=1e-40), "temperature=1e-40"),
        (OptimizerConfig(min_lr_ratio=1.1), "min_lr_ratio=1.1"),
        (OptimizerConfig(grad_clip=-1.0), "grad_clip=-1.0"),
        (OptimizerConfig(warmup_fraction=1.0), "warmup_fraction=1.0"),
        (DataConfig(dataset=""), "dataset is empty"),
        (DataConfig(validation_fraction=1.0), "validation_fraction=1.0"),
        (TrainConfig(max_steps=0), "max_steps=0"),
        (TrainConfig(data=DataConfig(seq_length=129)), "set max_seq_len to 129 as well"),
    ],
)  # fmt: skip
def test_an_impossible_setting_is_named_with_its_value(config: ModelConfig, words: str) -> None:
    assert any(words in problem for problem in problems_of(config))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"d_modle": 128}, "unknown setting 'd_modle'; did you mean 'd_model'?"),
        ({"n_layers": 2}, "did you mean 'num_layers'?"),
        ({"xyzzy": 1}, "unknown setting 'xyzzy'"),
    ],
)
def test_an_unknown_name_gets_its_near_miss(values: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ModelConfig.from_dict(values)
    assert words in str(raised.value)


def test_nothing_close_is_not_suggested() -> None:
    assert near_miss("xyzzy", ["d_model", "num_heads"]) == ""


def test_an_unknown_name_in_a_nested_group_is_found() -> None:
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        TrainConfig.from_dict({"optimizer": {"learning_rat": 1e-3}})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ModelConfig(position="rotatory"), ["learned, sinusoidal, rotary, alibi", "did you mean 'rotary'?"]),  # type: ignore[arg-type]
        (ModelConfig(norm="rms_norm"), ["layernorm, rmsnorm", "did you mean 'rmsnorm'?"]),  # type: ignore[arg-type]
        (SamplingConfig(strategy="topk"), ["did you mean 'top_k'?"]),  # type: ignore[arg-type]
        (TrainConfig(device="gpu"), ["auto, cpu, cuda, mps", "did you mean 'cpu'?"]),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_choice_lists_the_choices_and_the_near_miss(config: ModelConfig, words: list[str]) -> None:
    (problem,) = problems_of(config)
    for word in words:
        assert word in problem


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"d_model": "256"}, "d_model='256' is not a whole number"),
        ({"d_model": 256.0}, "d_model=256.0 is not a whole number"),
        ({"d_model": True}, "d_model=True is not a whole number"),
        ({"num_kv_heads": "2"}, "num_kv_heads='2' is not a whole number or None"),
        ({"dropout": None}, "dropout=None is not a finite number"),
        ({"dropout": float("nan")}, "dropout=nan is not a finite number"),
        ({"bias": 1}, "bias=1 is not True or False"),
    ],
)
def test_a_value_of_the_wrong_type_says_what_was_wanted(values: dict[str, object], wanted: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ModelConfig.from_dict(values)
    assert str(raised.value) == wanted


def test_a_whole_number_will_do_for_a_float() -> None:
    assert ModelConfig.from_dict({"dropout": 0}).dropout == 0


@pytest.mark.parametrize("other", [{"num_layers": "two"}, {"dropout": 2.0}], ids=["wrong type", "out of range"])
def test_unknown_names_and_wrong_values_are_reported_together(other: dict[str, object]) -> None:
    """from_dict promises that the error lists all that is wrong, whichever kind of wrong it is."""
    with pytest.raises(ConfigError) as raised:
        ModelConfig.from_dict({"d_modle": 128, **other})
    for name in ("d_modle", *other):
        assert name in str(raised.value)


def test_a_nested_group_that_is_no_group_says_so() -> None:
    """A number where model's settings belong was once reported as "model=3 is not None"."""
    with pytest.raises(ConfigError, match="model=3") as raised:
        TrainConfig.from_dict({"model": 3})
    assert "not None" not in str(raised.value)


def test_a_setting_that_takes_several_names_takes_only_known_ones() -> None:
    assert TrainConfig(trackers=()).check().trackers == ()
    assert TrainConfig.from_dict({"trackers": ["wandb", "tensorboard"]}).trackers == ("wandb", "tensorboard")
    for wrong in (("tensorboard", "wandbb"), "wandb", (1,), None):
        with pytest.raises(ConfigError, match=r"trackers=.* is not one of tensorboard, wandb, trackio"):
            TrainConfig.from_dict({"trackers": wrong})


def test_a_checkpoint_without_a_setting_that_came_later_has_its_default() -> None:
    stored = TrainConfig(epochs=3).to_dict()
    del stored["trackers"]
    assert TrainConfig.from_dict(stored) == TrainConfig(epochs=3)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid(name: str) -> None:
    assert PRESETS[name].check() is PRESETS[name]


@pytest.mark.parametrize("name", SAMPLING_PRESETS)
def test_every_sampling_preset_is_valid(name: str) -> None:
    assert SAMPLING_PRESETS[name].check() is SAMPLING_PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name: str) -> None:
    values = json.loads(json.dumps(PRESETS[name].to_dict()))
    assert TrainConfig.from_dict(values) == PRESETS[name]


@given(
    st.builds(
        ModelConfig,
        vocab_size=st.integers(1, 10**6),
        d_model=st.integers(1, 32).map(lambda n: 24 * n),
        num_heads=st.sampled_from([1, 2, 4, 6]),
        num_kv_heads=st.sampled_from([None, 1]),
        position=st.sampled_from(["learned", "sinusoidal", "rotary", "alibi"]),
        norm=st.sampled_from(["layernorm", "rmsnorm"]),
        dropout=st.floats(0, 0.99),
        bias=st.booleans(),
    )
)
@settings(max_examples=50)
def test_any_valid_config_survives_json(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_cannot_be_changed_behind_anybodys_back() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().d_model = 3  # type: ignore[misc]


def test_kv_heads_resolves_its_default() -> None:
    assert ModelConfig(num_heads=8).kv_heads == 8
    assert ModelConfig(num_heads=8, num_kv_heads=2).kv_heads == 2


def test_the_default_run_is_the_documented_one() -> None:
    """SURFACE M3: 6 layers, d_model 256, 4 heads, d_ff 1024, sequence 128, batch 8, 16 accumulation steps."""
    run = TrainConfig()
    assert (run.model.num_layers, run.model.d_model, run.model.num_heads, run.model.d_ff) == (6, 256, 4, 1024)
    assert (run.data.dataset, run.data.tokens_per_epoch, run.data.seq_length) == ("fineweb", 100_000_000, 128)
    assert (run.batch_size, run.accumulation_steps, run.model.dropout) == (8, 16, 0.1)
    assert run.tokens_per_step == 8 * 16 * 128


def test_the_quick_run_is_the_documented_one() -> None:
    """SURFACE M4: 10M tokens an epoch, 4 layers, d_model 128, d_ff 512, the rest as the default."""
    quick, run = PRESETS["quick"], TrainConfig()
    assert (quick.model.num_layers, quick.model.d_model, quick.model.d_ff) == (4, 128, 512)
    assert quick.data.tokens_per_epoch == 10_000_000
    assert quick.checkpoint_dir == "checkpoints_quick"
    assert dataclasses.replace(quick, model=run.model, data=run.data, checkpoint_dir=run.checkpoint_dir) == run


def test_a_model_is_compiled_or_sharded_not_both() -> None:
    with pytest.raises(ConfigError, match="compile and shard cannot be combined: choose one of them"):
        TrainConfig(compile=True, shard=True).check()


def test_a_number_that_becomes_a_size_has_an_upper_bound() -> None:
    """`--batch-size 10**12` searched for smaller batches for over a minute, and other numbers ended in a crash."""
    huge = TrainConfig(ModelConfig(d_model=10**9), DataConfig(cache_gb=1e300), epochs=10**22, batch_size=10**12)
    assert problems_of(huge) == [
        "d_model=1000000000 must be at most 1000000",
        "cache_gb=1e+300 must be at most 1000000000",
        f"epochs={10**22} must be at most 1000000000",
        f"batch_size={10**12} must be at most 1000000",
    ]
    with pytest.raises(ConfigError, match="log_every=10000000000000000 must be at most 1000000000000000"):
        TrainConfig.from_dict({"log_every": 10**16})
    for digits in ("99999999999", "9" * 5000):
        (problem,) = problems_of(DataConfig(encoding=f"bpe{digits}"))
        assert problem == f"encoding=bpe{digits} must be at most bpe10000000"


def test_kernels_can_be_named_by_every_kind_of_processor_in_the_table() -> None:
    assert get_args(Kernels) == ("auto", "plain", *TABLE)
    assert TrainConfig(kernels="intel-amx").problems() == []
    with pytest.raises(ConfigError, match=r"kernels='intel' is not one of auto, plain, .*; did you mean"):
        TrainConfig.from_dict({"kernels": "intel"})
