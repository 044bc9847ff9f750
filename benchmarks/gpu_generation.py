"""The generation part of gpu_check.py: cached and uncached, compiled and eager, int8 and float32, with hooks on."""

from __future__ import annotations

import time
from typing import Any

import torch

from transformer import DecoderOnlyTransformer, ModelConfig, SamplingConfig
from transformer.activations import hooked, run_with_cache
from transformer.inference.batch import BatchModel, generate_batch
from transformer.inference.compiled_decode import CompiledDecoder
from transformer.inference.padding import next_logits, pad
from transformer.kernels import accelerate
from transformer.kernels.int8 import quantise

PROMPTS = [[1, 2, 3, 4, 5], [6, 7, 8], [9]]
PROMPT_TOKENS = 8


def fresh(config: ModelConfig, device: torch.device) -> DecoderOnlyTransformer:
    """Returns a model with larger weights than initial ones, so that its logits differ clearly."""
    torch.manual_seed(0)
    model = DecoderOnlyTransformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return accelerate(model.to(device).eval())


@torch.no_grad()
def logits_of(model: BatchModel, steps: int, use_cache: bool) -> torch.Tensor:
    """Returns the next-token logits (steps, B, V) of three prompts of unequal length, continued with 0, 1, 2, ..."""
    tokens, padding = (tensor.to(model.device) for tensor in pad(PROMPTS))
    cache = model.allocate_cache(len(tokens), tokens.shape[1] + steps) if use_cache else None
    found = []
    for step in range(steps):
        unread = tokens if cache is None else tokens[:, cache.length :]
        read = next_logits if isinstance(model, DecoderOnlyTransformer) else type(model).next_logits
        found.append(read(model, unread, cache, padding).float())
        tokens = torch.cat([tokens, tokens.new_full((len(tokens), 1), step)], 1)
    return torch.stack(found)


def worst(left: torch.Tensor, right: torch.Tensor, bound: float, name: str) -> str:
    """Returns the largest difference in units of the logits' standard deviation. Raises ValueError above the bound."""
    difference = float((left - right).abs().max() / right.std())
    if not difference <= bound:
        raise ValueError(f"{name}: {difference:.1e} standard deviations of the logits, above {bound:.0e}")
    return f"{name} {difference:.1e}"


def generation(config: ModelConfig, device: torch.device, compiled: bool) -> str:
    """Compares the ways to generate with each other, in float32."""
    model = fresh(config, device)
    plain = logits_of(model, 8, use_cache=False)
    found = [worst(logits_of(model, 8, use_cache=True), plain, 1e-3, "cached")]
    if compiled:
        found.append(worst(logits_of(CompiledDecoder(model), 8, use_cache=True), plain, 1e-3, "compiled"))
    quantise(model)
    found.append(worst(logits_of(model, 8, use_cache=True), plain, 0.3, "int8"))
    if compiled:
        found.append(worst(logits_of(CompiledDecoder(model), 8, use_cache=True), plain, 0.3, "int8 compiled"))
    return ", ".join(found)


@torch.no_grad()
def activations(config: ModelConfig, device: torch.device, compiled: bool) -> str:
    """Compares recorded activations with those of the CPU, and generation with and without hooks."""
    model, tokens = fresh(config, device), torch.randint(config.vocab_size, (2, 24))
    _, expected = run_with_cache(fresh(config, torch.device("cpu")), tokens)
    _, found = run_with_cache(model, tokens.to(device))
    if found.keys() != expected.keys():
        raise ValueError("other activations than on the CPU")
    for name, activation in found.items():  # masked scores are -inf
        worst(activation.cpu().nan_to_num(neginf=0), expected[name].nan_to_num(neginf=0), 1e-3, name)
    plain, calls = logits_of(model, 8, use_cache=True), []
    runners: dict[str, BatchModel] = {"eager": model} | ({"compiled": CompiledDecoder(model)} if compiled else {})
    lines = [f"{len(found)} activations as on the CPU"]
    for kind, runner in runners.items():
        logits_of(runner, 8, use_cache=True)  # compiles
        with hooked(model, {"blocks.0.attention.weights": lambda weights: calls.append(len(weights))}):
            lines.append(worst(logits_of(runner, 8, use_cache=True), plain, 1e-3, f"hooked {kind}"))
    if len(calls) != 8 * len(runners):
        raise ValueError(f"{len(calls)} calls in {8 * len(runners)} steps")
    return ", ".join(lines)


def generation_speed(config: ModelConfig, device: torch.device, kind: str, new_tokens: int) -> dict[str, Any]:
    """Times greedy generation with batch sizes 1 and 8; `kind` may contain "compiled", "int8" and "bfloat16"."""
    model = fresh(config, device)
    if "bfloat16" in kind:
        model = model.bfloat16()
    if "int8" in kind:
        quantise(model)
    runner: BatchModel = CompiledDecoder(model) if "compiled" in kind else model
    skipped_before = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] if "compiled" in kind else 0
    rates = {}
    for batch in (1, 8):
        prompt = torch.randint(config.vocab_size, (batch, PROMPT_TOKENS), device=device)
        generate_batch(runner, prompt, 8, SamplingConfig())  # compiles and warms up
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            generate_batch(runner, prompt, new_tokens, SamplingConfig()).cpu()  # waits for the device
            seconds.append(time.perf_counter() - started)
        rates[f"batch {batch}"] = round(batch * new_tokens / sorted(seconds)[1])
    found: dict[str, Any] = {"tokens_per_s": rates, "new_tokens": new_tokens}
    if "compiled" in kind and device.type == "cuda":
        found["steps_without_cuda_graph"] = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] - skipped_before
    return found
