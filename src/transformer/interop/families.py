"""Models of other programs: between config.json and tensors as `transformers` stores them, and our model, both ways.

GPT-2, Llama (with SmolLM2 and others of its shape), Mistral, Qwen2.5, Qwen3, OLMo 2 and GPT-NeoX (Pythia) are all this
model with other settings: each is a few rows in a table of settings and a table of names.

    config.json --model_config()--> ModelConfig --hf_settings()--> config.json       family_settings, family_exports
    tensors --read_weights(), read_model()--> the model --hf_weights()--> tensors    family_weights

A model with a part that ours does not have is refused, with that part named.
"""

from transformer.interop.family_exports import hf_settings, hf_weights
from transformer.interop.family_settings import FAMILIES, model_config
from transformer.interop.family_weights import read_model, read_weights

__all__ = ["FAMILIES", "hf_settings", "hf_weights", "model_config", "read_model", "read_weights"]
