"""Checks for a GPU: fast versions give the same results as plain ones; then tokens per second.

    make gpu-check                                        correctness, then the presets default and gpt2
    python benchmarks/gpu_check.py --device cpu --small   the same checks with tiny shapes

The checks compare fused with explicit attention, the tiled loss with PyTorch's cross-entropy, reduced precision with
float32, activation checkpointing with plain training, a compiled step with an eager one, a resumed run with an
uninterrupted one, and several ways to generate with each other. The timings are whole training steps of the Trainer on
random tokens, and greedy generation, eager and compiled. Utilisation is tokens per second times FLOPs per token
(planning/cost.py) divided by the peak of the device (planning/hardware.py). The exit status is 1 if a check fails; the
result file is written in any case.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_generation import generation, generation_speed
from machine import machine
from torch import Tensor

from transformer.attention import explicit_attention, fused_attention
from transformer.config import DataConfig, ModelConfig, TrainConfig
from transformer.data.contracts import TextData
from transformer.dataset import TokenDocuments
from transformer.kernels.tiled_loss import tiled_loss
from transformer.loss import next_token_loss as plain_loss
from transformer.planning.cost import flops
from transformer.planning.hardware import device_peak, utilisation
from transformer.presets import PRESETS
from transformer.text import load_tokenizer
from transformer.trainer import Trainer
from transformer.training.device import peak_memory_bytes, pick_device
from transformer.training.events import Event, StepMetrics

RESULT = Path(__file__).parent / "results" / "gpu_check.json"
TIMED_STEPS, WARM_STEPS = 5, 2

SMALL = ModelConfig(vocab_size=9_000, d_model=64, num_heads=4, num_layers=2, d_ff=128, max_seq_len=64, dropout=0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="use tiny shapes, do not compile, write no result file")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.manual_seed(0)
    checks: dict[str, Callable[[torch.device], str]] = {
        "attention": attention,
        "loss": loss,
        "reduced precision": reduced_precision,
        "activation checkpointing": activation_checkpointing,
        "resume": resumed,
        **({} if options.small else {"compile": compiled}),
        "generation": lambda device: generation(SMALL, device, compiled=not options.small),
    }
    correctness = {name: outcome_of(name, lambda check=check: check(device)) for name, check in checks.items()}
    presets = {"small": run_of(SMALL)} if options.small else {name: PRESETS[name] for name in ("default", "gpt2")}
    speeds = {
        f"{name}, {'compiled' if is_compiled else 'eager'}": outcome_of(
            name, lambda c=config, x=is_compiled: speed(c, device, x)
        )
        for name, config in presets.items()
        for is_compiled in ((False,) if options.small else (False, True))
    }
    shape = SMALL if options.small else replace(PRESETS["default"].model, max_seq_len=1024, dropout=0.0)
    for kind in ("eager",) if options.small else ("eager", "compiled", "bfloat16 compiled", "int8", "int8 compiled"):
        speeds[f"generation, {kind}"] = outcome_of(
            f"generation, {kind}", lambda k=kind: generation_speed(shape, device, k, 16 if options.small else 500)
        )
    found = {"machine": machine() | name_of(device), "correctness": correctness, "speed": speeds}
    if not options.small:
        RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(RESULT)
    return int(any("failed" in str(outcome) for outcome in (*correctness.values(), *speeds.values())))


def outcome_of(name: str, check: Callable[[], Any]) -> Any:
    """Returns the result of the check, or its error as text; prints it immediately."""
    try:
        outcome = check()
    except Exception as error:
        outcome = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    print(f"{name:<26}{outcome}", flush=True)
    return outcome


def name_of(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"device": str(device)}
    return {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}


def run_of(model: ModelConfig, **settings: Any) -> TrainConfig:
    """Returns a run of a few steps of two micro-batches of 4 rows, with the dropout of the model."""
    data = DataConfig(seq_length=model.max_seq_len, shuffle_rows=64)
    defaults = {"batch_size": 4, "accumulation_steps": 2, "max_steps": 8, "log_every": 1, "eval_every": 100}
    return TrainConfig(model, data, **{**defaults, "sample_tokens": 0, **settings})


def random_text(config: TrainConfig) -> TextData:
    """Returns random tokens from the first thousand ids, enough for all steps."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(min(1_000, config.model.vocab_size), (20 * config.tokens_per_step + 1,), generator=generator)
    rows = tokens[: 4 * config.data.seq_length].view(4, -1)
    source = TokenDocuments([tokens.numpy()], end_of_text=0)
    return TextData(load_tokenizer("byte"), source, len(tokens), (rows, rows), rows.numel())


def trained(config: TrainConfig, device: torch.device, folder: Path | None = None) -> tuple[Trainer, list[float]]:
    """Returns the trainer after its run, and the loss of each step. Without a folder, nothing is saved."""
    losses: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, StepMetrics):
            losses.append(event.loss)

    config = replace(config, device=device.type, checkpoint_dir=str(folder or "unused"))
    trainer = Trainer(config, random_text(config), [note])
    if folder is not None:
        trainer.fit()
    else:
        for _ in range(config.max_steps or 8):
            trainer.train_step()
            losses.append(trainer.report().loss)
    return trainer, losses


def furthest(left: Tensor, right: Tensor) -> float:
    """Returns the largest absolute difference, relative to the largest value."""
    left, right = left.detach().float(), right.detach().float()
    return float((left - right).abs().max() / right.abs().max())


def within(name: str, difference: float, bound: float) -> str:
    if not difference <= bound:
        raise AssertionError(f"{name} differ by {difference:.1e}, more than {bound:.0e}")
    return f"{name} differ by {difference:.1e}"


def attention(device: torch.device) -> str:
    """Compares fused with explicit attention: output and gradients, causal and masked, with and without groups."""
    worst = {torch.float32: 0.0, torch.bfloat16: 0.0}
    for dtype in worst:
        for kv_heads in (4, 2):
            for masked in (False, True):
                shapes = [(2, 4, 48, 32), (2, kv_heads, 48, 32), (2, kv_heads, 48, 32)]
                qkv = [torch.randn(shape, device=device) for shape in shapes]
                allowed = torch.ones(48, 48, dtype=torch.bool, device=device).tril()
                mask = allowed & (torch.rand(48, 48, device=device) < 0.7) | torch.eye(48, device=device).bool()
                reference = [value.double().requires_grad_() for value in qkv]
                ours = [value.to(dtype).detach().requires_grad_() for value in qkv]
                expected, _ = explicit_attention(*reference, mask if masked else None)
                out = fused_attention(*ours, mask if masked else None)
                expected.sin().sum().backward()
                out.sin().sum().backward()
                pairs = [(out, expected), *((a.grad, b.grad) for a, b in zip(ours, reference, strict=True))]
                worst[dtype] = max(worst[dtype], *(furthest(a, b) for a, b in pairs))
    single = within("float32 kernels", worst[torch.float32], 1e-4)
    return f"{single}, {within('bfloat16 kernels', worst[torch.bfloat16], 4e-2)}"


def loss(device: torch.device) -> str:
    """Compares the tiled loss with PyTorch's cross-entropy, in value and gradients, in float32 and under autocast."""
    size = (512, 64)
    found = []
    for dtype, bound in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
        hidden, weight = torch.randn(size, device=device), torch.randn(20_000, 64, device=device) * 0.1
        targets = torch.randint(20_000, (512,), device=device)
        both = []
        for function in (plain_loss, tiled_loss):
            h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                nats, _ = function(h, w, targets)
            nats.backward()
            both.append((nats.detach(), h.grad, w.grad))
        reference = F.cross_entropy(hidden.double() @ weight.double().T, targets, reduction="sum")
        name = str(dtype).removeprefix("torch.")
        worst = max(furthest(a, b) for a, b in zip(both[1], both[0], strict=True))
        found.append(within(f"{name} values and gradients", max(worst, furthest(both[1][0], reference)), bound))
    return ", ".join(found)


def reduced_precision(device: torch.device) -> str:
    """Compares a run in bfloat16, and one in float16 with gradient scaling, with one in float32."""
    _, single = trained(run_of(SMALL, precision="float32"), device)
    found = []
    for precision in ("bfloat16", "float16"):
        _, reduced = trained(run_of(SMALL, precision=precision), device)
        worst = max(abs(a - b) / b for a, b in zip(reduced, single, strict=True))
        found.append(within(f"losses in {precision}", worst, 0.02))
    return ", ".join(found)


def activation_checkpointing(device: torch.device) -> str:
    """Compares losses with and without checkpointing, with dropout, whose masks must be repeated."""
    model = replace(SMALL, dropout=0.1)
    _, plain = trained(run_of(model, precision="float32"), device)
    _, checkpointed = trained(run_of(model, precision="float32", activation_checkpointing=True), device)
    return within("losses", max(abs(a - b) / b for a, b in zip(checkpointed, plain, strict=True)), 1e-4)


def resumed(device: torch.device) -> str:
    """Compares a run that was saved half-way and resumed with an uninterrupted one, with dropout."""
    config = run_of(replace(SMALL, dropout=0.1))
    with tempfile.TemporaryDirectory() as folder:
        whole, losses = trained(config, device, Path(folder) / "whole")
        stopped = Trainer(replace(config, device=device.type, checkpoint_dir=folder + "/half"), random_text(config))
        for _ in range(4):
            stopped.train_step()
            stopped.report()
        state = stopped.save_state()  # before another trainer uses the random generators
        again = Trainer(stopped.config, random_text(config))
        again.resume(state)
        later = []
        while again.step < whole.step:
            again.train_step()
            later.append(again.report().loss)
    pairs = zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    same = all(torch.equal(a, b) for a, b in pairs)
    worst = max(abs(a - b) / b for a, b in zip(later, losses[4:], strict=True))
    return f"weights {'bit for bit' if same else 'to rounding'}, {within('losses', worst, 1e-3)}"


def compiled(device: torch.device) -> str:
    """Compares a compiled run with an eager one, with and without the tiled loss."""
    found = []
    for vocab_size in (300, 9_000):
        model = replace(SMALL, vocab_size=vocab_size)
        _, eager = trained(run_of(model, precision="float32"), device)
        started = time.perf_counter()
        _, fast = trained(run_of(model, precision="float32", compile=True), device)
        worst = max(abs(a - b) / b for a, b in zip(fast, eager, strict=True))
        found.append(
            f"{within(f'losses over {vocab_size} entries', worst, 1e-3)} ({time.perf_counter() - started:.0f} s)"
        )
    return ", ".join(found)


def speed(config: TrainConfig, device: torch.device, is_compiled: bool) -> dict[str, Any]:
    """Times whole training steps; reports the median without the warm-up steps."""
    config = replace(config, compile=is_compiled, device=device.type, max_steps=WARM_STEPS + TIMED_STEPS)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    trainer = Trainer(config, random_text(config))
    seconds = []
    for step in range(WARM_STEPS + TIMED_STEPS):
        begun = time.perf_counter()
        trainer.train_step()
        trainer.report()  # waits for the device
        if step == 0:
            ready = time.perf_counter() - started
        seconds.append(time.perf_counter() - begun)
    tokens_per_second = config.tokens_per_step / statistics.median(seconds[WARM_STEPS:])
    peak = device_peak(device, trainer.precision.dtype)
    share = utilisation(tokens_per_second, sum(flops(config.model, config.data.seq_length).values()), peak and peak[0])
    return {
        "tokens_per_s": round(tokens_per_second),
        "utilisation": None if share is None else round(share, 4),
        "peak": peak,
        "precision": str(trainer.precision.dtype).removeprefix("torch."),
        "memory_bytes": peak_memory_bytes(device),
        "first_step_s": round(ready, 1),
        "step_s": [round(second, 4) for second in seconds],
    }


if __name__ == "__main__":
    sys.exit(main())
