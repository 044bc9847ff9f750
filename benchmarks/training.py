"""Training speed and memory: this project's model, the same with the plain loss, and transformers' GPT-2.

    uv run python benchmarks/training.py                        all presets, five rounds; half an hour on two cores
    uv run python benchmarks/training.py --presets quick --rounds 1
    uv run python benchmarks/training.py --precision bfloat16   all contenders under the same autocast

Each contender runs in its own process, one after another, for several rounds, with the same data, shape, dropout and
fused AdamW: one micro-batch of warm-up, the timed micro-batches, and an optimizer step. Tokens per second are those of
a whole step: accumulation_steps micro-batches and one update. Peak memory is the largest resident size of the process,
as reported by the operating system. "huge pages" is PyTorch's THP_MEM_ALLOC_ENABLE, read when it starts. Ratios are to
the faster of GPT-2 without and with huge pages. "products alone" is the limit of this processor: the model's FLOPs at
the highest rate of any matrix product of its shapes, as if nothing else took time. The result file is that of the kind
of processor, with an entry for each preset and precision; entries that are not measured again stay.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import machine, peak_bytes, result_file, typed_command

CONTENDERS = {
    "ours": {"THP_MEM_ALLOC_ENABLE": "0"},
    "ours, huge pages": {"THP_MEM_ALLOC_ENABLE": "1"},
    "ours, plain head": {"THP_MEM_ALLOC_ENABLE": "0"},
    "transformers GPT-2": {"THP_MEM_ALLOC_ENABLE": "0"},
    "transformers GPT-2, huge pages": {"THP_MEM_ALLOC_ENABLE": "1"},
    "products alone": {"THP_MEM_ALLOC_ENABLE": "1"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["default", "quick", "demo"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--micro-batches", type=int, default=4, help="timed micro-batches in each process")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, help="result file (default results/training_KIND.json)")
    parser.add_argument("--worker", nargs=2, metavar=("CONTENDER", "PRESET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(*options.worker, options.precision, options.micro_batches)))
        return
    out = options.out or result_file("training")
    entries = json.loads(out.read_text())["entries"] if out.exists() else {}
    for preset in options.presets:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for number in range(options.rounds):
            for name in CONTENDERS:
                runs[name].append(run_worker(name, preset, options))
                print(f"{preset}, round {number + 1}, {name}: {runs[name][-1]}", flush=True)
        contenders = summary(runs)
        title = f"{preset}, {options.precision}"
        entries[title] = {"command": typed_command(), "machine": machine("transformers"), "contenders": contenders}
        out.write_text(json.dumps({"entries": entries}, indent=2) + "\n", encoding="utf-8")
        print(table(title, contenders), flush=True)


def run_worker(name: str, preset: str, options: argparse.Namespace) -> dict[str, float]:
    """Measures one contender in a new process."""
    command = [sys.executable, __file__, "--worker", name, preset]
    command += ["--precision", options.precision, "--micro-batches", str(options.micro_batches)]
    environment = {**os.environ, **CONTENDERS[name]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(name: str, preset: str, precision: str, micro_batches: int) -> dict[str, float]:
    """Times forward and backward of a micro-batch, and the optimizer step: seconds, tokens/s, bytes."""
    import torch

    from transformer.presets import PRESETS

    config = PRESETS[preset]
    torch.manual_seed(0)
    if name == "products alone":
        return products_alone(config, precision)
    model, loss = build(name, preset)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    shape = (config.batch_size, config.data.seq_length + 1)
    batches = [torch.randint(config.model.vocab_size, shape) for _ in range(micro_batches + 1)]
    seconds: list[float] = []
    for batch in batches:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            mean = loss(batch)
        mean.backward()
        seconds.append(time.perf_counter() - started)
    optimizer.step()  # the first makes its state
    started = time.perf_counter()
    optimizer.step()
    update = time.perf_counter() - started
    micro_batch = statistics.median(seconds[1:])
    step = micro_batch * config.accumulation_steps + update
    return {
        "micro_batch_s": round(micro_batch, 5),
        "optimizer_s": round(update, 5),
        "tokens_per_s": round(config.tokens_per_step / step, 1),
        "peak_bytes": peak_bytes(),
    }


def products_alone(config: Any, precision: str) -> dict[str, float]:
    """Returns the tokens/s that the model's FLOPs allow at the highest rate of any of its products."""
    import torch

    from transformer.planning.cost import flops

    model, rows = config.model, config.batch_size * config.data.seq_length
    rates = []
    for inner, out in ((model.d_model, model.d_ff), (model.d_ff, model.d_model), (model.d_model, 768)):
        a, b = torch.randn(rows, inner), torch.randn(inner, out)
        if precision == "bfloat16":
            a, b = a.bfloat16(), b.bfloat16()
        seconds = []
        for _ in range(30):
            started = time.perf_counter()
            torch.mm(a, b)
            seconds.append(time.perf_counter() - started)
        rates.append(2 * rows * inner * out / statistics.median(seconds))
    allowed = max(rates) / sum(flops(model, config.data.seq_length).values())
    return {"tokens_per_s": round(allowed, 1), "gflop_per_s": round(max(rates) / 1e9), "peak_bytes": peak_bytes()}


def build(name: str, preset: str) -> tuple[Any, Callable[[Any], Any]]:
    """Returns a contender's model and its mean loss as a function of tokens (B, T + 1)."""
    from transformer.presets import PRESETS

    shape = PRESETS[preset].model
    if name.startswith("transformers"):
        import transformers

        if shape.position != "learned" or shape.activation == "swiglu" or shape.norm != "layernorm":
            print(f"note: GPT-2 has learned positions, layer norms and gelu; {preset} does not", file=sys.stderr)
        settings = transformers.GPT2Config(
            vocab_size=shape.vocab_size, n_positions=shape.max_seq_len, n_embd=shape.d_model, n_layer=shape.num_layers,
            n_head=shape.num_heads, n_inner=shape.d_ff, resid_pdrop=shape.dropout, embd_pdrop=shape.dropout,
            attn_pdrop=shape.dropout, use_cache=False, attn_implementation="sdpa",
        )  # fmt: skip
        peer = transformers.GPT2LMHeadModel(settings).train()
        return peer, lambda batch: peer(input_ids=batch[:, :-1], labels=batch[:, :-1]).loss
    from transformer import DecoderOnlyTransformer
    from transformer.kernels import accelerate
    from transformer.loss import next_token_loss

    model = accelerate(DecoderOnlyTransformer(shape))
    if name == "ours, plain head":
        model.next_token_loss = next_token_loss

    def mean_loss(batch: Any) -> Any:
        nats, count = model.loss(batch[:, :-1], batch[:, 1:])
        return nats / count

    return model, mean_loss


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Returns runs and medians of each contender, and its median ratio to the faster GPT-2."""
    peers = [rounds for name, rounds in runs.items() if name.startswith("transformers")]
    peer = max(peers, key=lambda rounds: statistics.median(run["tokens_per_s"] for run in rounds))
    out: dict[str, Any] = {}
    for name, rounds in runs.items():
        ratios = [mine["tokens_per_s"] / its["tokens_per_s"] for mine, its in zip(rounds, peer, strict=True)]
        memory = [mine["peak_bytes"] / its["peak_bytes"] for mine, its in zip(rounds, peer, strict=True)]
        out[name] = {
            "tokens_per_s": statistics.median(run["tokens_per_s"] for run in rounds),
            "peak_mib": round(statistics.median(run["peak_bytes"] for run in rounds) / 2**20),
            "speed_ratio": round(statistics.median(ratios), 2),
            "memory_ratio": round(statistics.median(memory), 2),
            "runs": rounds,
        }
    return out


def table(title: str, contenders: dict[str, Any]) -> str:
    """Returns the medians as a Markdown table."""
    lines = [f"| {title} | tokens/s | against GPT-2 | peak MiB | against GPT-2 |", "| --- | --- | --- | --- | --- |"]
    for name, row in contenders.items():
        speed, memory = f"{row['speed_ratio']:.2f} x", f"{row['memory_ratio']:.2f} x"
        lines.append(f"| {name} | {row['tokens_per_s']:,.0f} | {speed} | {row['peak_mib']:,} | {memory} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
