"""Tiny models of every family, made by transformers with weights far from their initial ones, and saved as it saves."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from transformer.interop.json_files import read_json

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
GPT2 = {
    "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 40, "n_positions": 64, "bos_token_id": 0,
    "eos_token_id": 0,
}  # fmt: skip
MPT = {
    "vocab_size": 61, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "bos_token_id": 0,
    "eos_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", GPT2),
    "gpt2-untied-gelu": ("gpt2", GPT2 | {"tie_word_embeddings": False, "activation_function": "gelu"}),
    "llama": ("llama", SIZES | {"num_key_value_heads": 2}),
    "llama-tied-wide": ("llama", SIZES | {"num_key_value_heads": 1, "head_dim": 12, "tie_word_embeddings": True}),
    "llama-biases": ("llama", SIZES | {"attention_bias": True, "mlp_bias": True}),
    "llama-linear": ("llama", SIZES | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "llama3": ("llama", SIZES | {"rope_parameters": LLAMA3}),
    "mistral": ("mistral", SIZES | {"num_key_value_heads": 2, "sliding_window": None, "head_dim": 16}),
    "qwen2": ("qwen2", SIZES | {"num_key_value_heads": 2}),
    "qwen3": ("qwen3", SIZES | {"num_key_value_heads": 2, "head_dim": 16}),
    "olmo2": ("olmo2", SIZES | {"num_key_value_heads": 2}),
    "mpt": ("mpt", MPT),
    "mpt-twelve-heads": ("mpt", MPT | {"d_model": 48, "n_heads": 12, "tie_word_embeddings": False}),
    "gpt_neox": ("gpt_neox", SIZES | {"hidden_size": 64}),
    "gpt_neox-in-turn": ("gpt_neox", SIZES | {"use_parallel_residual": False, "rotary_pct": 1.0, "hidden_act": "relu"}),
}  # fmt: skip
"""name -> model_type and settings. A quarter of 16 numbers is two rotated pairs in gpt_neox."""


@functools.cache
def theirs(case: str) -> nn.Module:
    """The model of a case, in eval mode; every parameter is far from its initial value, norms and biases too."""
    kind, settings = CASES[case]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def save(case: str, folder: Path, **options: Any) -> dict[str, Any]:
    """Saves the model of a case as transformers does; returns its config.json."""
    theirs(case).save_pretrained(folder, **options)
    return read_json(folder / "config.json")
