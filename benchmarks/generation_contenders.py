"""The contenders of generation.py, each in a process of its own, and two further parts of that script.

    python benchmarks/generation_contenders.py prepare '{"quick": false, "model": "default", ...}'   machine and model
    python benchmarks/generation_contenders.py bandwidth '{"mib": 256}'       bytes per second read by all threads
    python benchmarks/generation_contenders.py write '{"peer": "litgpt", "shape": {...}, "texts": [...], ...}'

"write" may run with the Python of another environment, so each contender imports only what it needs. Our model and
transformers' fill their parameters with the same random values in place, so that no second copy adds to peak memory.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from machine import machine, peak_bytes
from torch import Tensor

WARM_UP_TOKENS = 16
Text = dict[str, Any]
"""The text to generate: "batch" rows of "new_tokens" tokens, with the "sampling" preset of this name."""
Contender = Callable[[Text, Tensor], Callable[[], Tensor]]
"""Prepares a text for prompts (B, P); returns the function to time, which returns the new ids (B, new_tokens)."""


VARIANTS = {"float32": 4, "float16": 2, "int8": 1}
"""Formats of our weights, and bytes per weight."""
SMOLLM2: dict[str, Any] = {
    "vocab_size": 49_152, "d_model": 576, "num_heads": 9, "num_kv_heads": 3, "num_layers": 30, "d_ff": 1536,
    "position": "rotary", "norm": "rmsnorm", "activation": "swiglu", "bias": False, "dropout": 0.0,
}  # fmt: skip
"""The shape of SmolLM2-135M, a Llama."""


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the machine, the model's shape, the variants, and the count of weights read per token."""
    from transformer import DecoderOnlyTransformer, ModelConfig
    from transformer.presets import PRESETS

    preset = PRESETS["tiny" if settings["quick"] else "default"].model
    shape = ModelConfig(**SMOLLM2) if settings.get("model") == "smollm2" else preset
    config = replace(shape, max_seq_len=settings["max_seq_len"], dropout=0.0)
    with torch.device("meta"):
        parameters = dict(DecoderOnlyTransformer(config).named_parameters())  # a tied weight is listed once
    positions = parameters.get("embeddings.position.weight")
    looked_up = 0 if positions is None else positions.numel() - 2 * config.d_model  # a row of each table is read
    return {
        "machine": machine("transformers"),
        "shape": asdict(config),
        "variants": VARIANTS,
        "weights_read": sum(parameter.numel() for parameter in parameters.values()) - looked_up,
        "cache_bytes_a_token": config.num_layers * 2 * config.kv_heads * config.head_dim * 4,
    }


def bandwidth(settings: dict[str, Any]) -> dict[str, float]:
    """Returns the bytes per second of several ways to read `mib` MiB of float32, the best of ten runs each."""
    flat = torch.rand(settings["mib"] * 2**18)
    matrix, vector, (first, second) = flat.view(-1, 256), torch.rand(256), flat.chunk(2)
    ways: dict[str, Callable[[], Tensor]] = {
        "sum": flat.sum,
        "largest": flat.amax,
        "dot product": lambda: torch.dot(first, second),
        "matrix times vector": lambda: torch.mv(matrix, vector),
    }
    found = {}
    for name, way in ways.items():
        seconds = []
        for _ in range(10):
            started = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - started)
        found[name] = flat.nbytes / min(seconds)
    return found


def write(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Generates all texts; returns for each its seconds, the ids, and the peak bytes of the process so far."""
    vocab_size = settings["shape"]["vocab_size"]
    most = max(text["batch"] for text in settings["texts"])
    prompts = torch.randint(vocab_size, (most, settings["prompt_tokens"]), generator=torch.Generator().manual_seed(1))
    contender = CONTENDERS[settings["peer"]](settings)
    warm_up = min(WARM_UP_TOKENS, *(text["new_tokens"] for text in settings["texts"]))
    contender({"batch": 1, "new_tokens": warm_up, "sampling": "greedy"}, prompts[:1])()
    rows = []
    for text in settings["texts"]:
        run = contender(text, prompts[: text["batch"]])
        started = time.perf_counter()
        ids = run()
        seconds = time.perf_counter() - started
        if ids.shape != (text["batch"], text["new_tokens"]):
            raise RuntimeError(f"{settings['peer']} wrote {tuple(ids.shape)} tokens instead of {text}")
        rows.append({"seconds": seconds, "ids": ids.tolist(), "peak_bytes": peak_bytes()})
    return rows


def fill(parameter: Tensor, name: str, is_transposed: bool = False) -> None:
    """Fills a parameter with random values that depend on its name in our model.

    The values are larger than initial weights, with which a model would repeat its last token.
    """
    generator, mean = torch.Generator().manual_seed(zlib.crc32(name.encode())), float(name.endswith("norm.weight"))
    with torch.no_grad():
        if is_transposed:
            parameter.T.copy_(torch.empty(parameter.T.shape).normal_(mean, 0.1, generator=generator))
        else:
            parameter.normal_(mean, 0.1, generator=generator)


def ours(settings: dict[str, Any]) -> Contender:
    """Returns a variant of our model, with or without the cache."""
    from transformer import DecoderOnlyTransformer, ModelConfig
    from transformer.config import SAMPLING_PRESETS
    from transformer.inference.batch import generate_batch
    from transformer.kernels import accelerate, round_weights

    model = accelerate(DecoderOnlyTransformer(ModelConfig(**settings["shape"])).eval())
    for name, parameter in model.named_parameters():
        fill(parameter, name)
    round_weights(model, settings["variant"])

    def contender(text: Text, prompts: Tensor) -> Callable[[], Tensor]:
        sampling, generator = SAMPLING_PRESETS[text["sampling"]], torch.Generator().manual_seed(0)

        def run() -> Tensor:
            cached = settings["use_cache"]
            ids = generate_batch(model, prompts, text["new_tokens"], sampling, use_cache=cached, generator=generator)
            return ids[:, prompts.shape[1] :]

        return run

    return contender


OUR_NAMES = {
    "transformer.wte": "embeddings.token", "transformer.wpe": "embeddings.position", "transformer.ln_f": "final_norm",
    "transformer.h": "blocks", "ln_1": "attention_norm", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.out",
    "ln_2": "feedforward_norm", "mlp.c_fc": "feedforward.up", "mlp.c_proj": "feedforward.down",
}  # fmt: skip


def llama(shape: dict[str, Any]) -> Any:
    """Returns the Llama of transformers, with weights of its own: its matrices are divided in another way."""
    import transformers

    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=shape["vocab_size"],
            hidden_size=shape["d_model"],
            intermediate_size=shape["d_ff"],
            num_hidden_layers=shape["num_layers"],
            num_attention_heads=shape["num_heads"],
            num_key_value_heads=shape["num_kv_heads"],
            max_position_embeddings=shape["max_seq_len"],
            tie_word_embeddings=True,
            attn_implementation="sdpa",
            initializer_range=0.1,
        )
    )


def gpt2(settings: dict[str, Any]) -> Contender:
    """Returns the GPT-2 of transformers with our weights, or its Llama, and its generate()."""
    from peers import gpt2
    from transformers import logging

    from transformer.config import SAMPLING_PRESETS

    logging.set_verbosity_error()
    is_llama = settings["shape"]["position"] == "rotary"
    model: Any = (llama if is_llama else lambda shape: gpt2(shape)[0])(settings["shape"]).eval()
    for theirs, parameter in () if is_llama else model.named_parameters():
        name = theirs
        for old, new in OUR_NAMES.items():
            name = name.replace(old, new)
        # GPT-2's Conv1D stores its matrices as (inputs, outputs).
        fill(parameter, name, is_transposed=parameter.ndim == 2 and name.startswith("blocks"))

    model = model.to(getattr(torch, settings["precision"]))

    def contender(text: Text, prompts: Tensor) -> Callable[[], Tensor]:
        sampling = SAMPLING_PRESETS[text["sampling"]]
        flags: dict[str, Any] = {"do_sample": sampling.strategy != "greedy"}
        if flags["do_sample"]:
            flags["temperature"] = sampling.temperature
            flags["top_k"] = sampling.top_k if "top_k" in sampling.strategy else 0
            flags["top_p"] = sampling.top_p if "top_p" in sampling.strategy else 1.0
        flags |= {"attention_mask": torch.ones_like(prompts), "eos_token_id": None, "pad_token_id": 0}
        return lambda: model.generate(prompts, max_new_tokens=text["new_tokens"], use_cache=True, **flags)[
            :, prompts.shape[1] :
        ]

    return contender


def litgpt(settings: dict[str, Any]) -> Contender:
    """Returns litgpt's GPT and the functions of its generate command. It only has rotary positions: other weights."""
    from litgpt.generate.base import batched_generate_fn, generate
    from peers import litgpt

    model: Any = litgpt(settings["shape"])[0].eval().to(getattr(torch, settings["precision"]))

    def contender(text: Text, prompts: Tensor) -> Callable[[], Tensor]:
        longest = prompts.shape[1] + text["new_tokens"]
        model.max_seq_length = longest  # as in its command
        model.set_kv_cache(batch_size=len(prompts))
        if len(prompts) == 1:
            return lambda: generate(model, prompts[0], longest, temperature=0.0, include_prompt=False)[None]
        flags = {"sample_args": {"temperature": 0.0}, "include_prompt": False, "include_eos": True}
        return lambda: torch.stack(
            [torch.cat(tokens) for tokens in batched_generate_fn(model, prompts, longest, **flags)], 1
        )

    return contender


CONTENDERS: dict[str, Callable[[dict[str, Any]], Contender]] = {"ours": ours, "transformers": gpt2, "litgpt": litgpt}

if __name__ == "__main__":
    part = {"prepare": prepare, "bandwidth": bandwidth, "write": write}[sys.argv[1]]
    print(json.dumps(part(json.loads(sys.argv[2]))))
