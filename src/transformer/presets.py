"""Named starting points: of a training run, `train --preset NAME`, and of sampling. A flag changes one setting."""

from __future__ import annotations

from typing import Any

from transformer.config import (
    SAMPLING_PRESETS,
    ConfigError,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainConfig,
    near_miss,
)


def _preset(model: ModelConfig, suffix: str, **settings: Any) -> TrainConfig:
    return TrainConfig(model=model, checkpoint_dir=f"checkpoints{suffix}", **settings)


_QUICK = ModelConfig(d_model=128, num_layers=4, d_ff=512)
# 257: the 256 bytes and end-of-text
_TINY = ModelConfig(vocab_size=257, d_model=32, num_heads=2, num_layers=2, d_ff=64, max_seq_len=32)
# In the demo's time ALiBi reached fewer bits per byte than rotary: benchmarks/results/demo_experiments.md. MPT has
# the same parts, so that transformers and llama.cpp run the exported model.
_DEMO = ModelConfig(
    vocab_size=4096, d_model=128, num_heads=4, num_layers=2, d_ff=512, dropout=0.0, position="alibi", bias=False,
)  # fmt: skip
# A model that forms an induction head within minutes: benchmarks/results/induction.md
_INDUCTION = ModelConfig(
    vocab_size=257, d_model=64, num_heads=4, num_layers=2, d_ff=128, max_seq_len=64, dropout=0.0, position="rotary",
    activation="relu", bias=False,
)  # fmt: skip
# 50_281: the ids of p50k_base
_GPT2 = ModelConfig(
    vocab_size=50_281, d_model=768, num_heads=12, num_layers=12, d_ff=3072, max_seq_len=1024, activation="gelu_tanh"
)
# 1408: 8/3 of 512, as SwiGLU has three matrices, rounded up to a multiple of 128
_MODERN = ModelConfig(
    d_model=512, num_heads=8, num_layers=8, d_ff=1408, max_seq_len=512, dropout=0.0, num_kv_heads=2,
    position="rotary", norm="rmsnorm", activation="swiglu", bias=False,
)  # fmt: skip

CHAT_TOKENS = 1000
"""Default number of new tokens in an answer of a chat: usual ones end before."""

PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(),
    "quick": _preset(_QUICK, "_quick", data=DataConfig(tokens_per_epoch=10_000_000)),
    "tiny": _preset(
        _TINY, "_tiny", accumulation_steps=1, epochs=1, max_steps=100, eval_every=50,
        data=DataConfig(dataset="shakespeare", encoding="byte", seq_length=32, validation_tokens=4_096),
    ),
    "demo": _preset(
        _DEMO, "_demo", data=DataConfig(dataset="shakespeare", encoding="bpe4096"),
        optimizer=OptimizerConfig("muon", learning_rate=0.01, muon_learning_rate=0.02, warmup_fraction=0.05),
        batch_size=16, accumulation_steps=1, max_steps=600, eval_every=200,
    ),
    "induction": _preset(
        _INDUCTION, "_induction", batch_size=16, accumulation_steps=1, max_steps=3_000, eval_every=50, sample_tokens=0,
        data=DataConfig(dataset="repeats", encoding="byte", seq_length=64, validation_tokens=8_192),
        optimizer=OptimizerConfig(learning_rate=3e-3, schedule="wsd"), watch_inside=True,
    ),
    "gpt2": _preset(
        _GPT2, "_gpt2", batch_size=4, accumulation_steps=128, data=DataConfig(encoding="p50k_base", seq_length=1024)
    ),
    "modern": _preset(_MODERN, "_modern", data=DataConfig(seq_length=512)),
}  # fmt: skip


def preset_named(name: str) -> TrainConfig:
    """Returns the preset. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; one of {', '.join(PRESETS)}{near_miss(name, PRESETS)}")
    return PRESETS[name]


def sampling_preset(name: str) -> SamplingConfig:
    """Returns named sampling settings. Raises ConfigError for an unknown name."""
    if name not in SAMPLING_PRESETS:
        known = ", ".join(SAMPLING_PRESETS)
        raise ConfigError([f"there is no preset {name!r}: one of {known}{near_miss(name, SAMPLING_PRESETS)}"])
    return SAMPLING_PRESETS[name]
