"""What a GPU must show before its figures count: the same results as the plain ways, then tokens a second.

    make gpu-check                                        correctness, then the presets default and gpt2
    python benchmarks/gpu_check.py --device cpu --small   the same checks on tiny shapes, to see that they run

Each check compares what runs with what is read: fused attention with explicit attention, the loss in tiles with
PyTorch's own, narrow numbers with wide ones, a compiled step with a plain one, a resumed run with one that never
stopped, a text written in one way with another. The timings are whole steps of the Trainer on random tokens, and greedy
texts, eager and compiled; utilisation is tokens a second
times operations a token (cost.py) over the device's peak (runtime/capacity.py). Exit status 1 where a check fails; the
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
from gpu_generation import writing, writing_speed
from machine import machine
from torch import Tensor

from transformer.attention import explicit_attention, fused_attention
from transformer.config import PRESETS, DataConfig, ModelConfig, TrainConfig
from transformer.data.contracts import TextData
from transformer.dataset import TokenDocuments
from transformer.kernels.tiled_loss import tiled_loss
from transformer.loss import next_token_loss as plain_loss
from transformer.planning.cost import flops
from transformer.planning.hardware import device_peak, utilisation
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
    parser.add_argument("--small", action="store_true", help="tiny shapes, no compilation, no result file")
    options = parser.parse_args()
    device = pick_device(options.device)
    torch.manual_seed(0)
    checks: dict[str, Callable[[torch.device], str]] = {
        "attention": attention,
        "loss": loss,
        "narrow numbers": narrow_numbers,
        "activation checkpointing": activation_checkpointing,
        "resume": resumed,
        **({} if options.small else {"compile": compiled}),
        "writing": lambda device: writing(SMALL, device, translate=not options.small),
    }
    correctness = {name: outcome_of(name, lambda check=check: check(device)) for name, check in checks.items()}
    presets = {"small": run_of(SMALL)} if options.small else {name: PRESETS[name] for name in ("default", "gpt2")}
    speeds = {
        f"{name}, {'compiled' if translate else 'eager'}": outcome_of(
            name, lambda c=config, x=translate: speed(c, device, x)
        )
        for name, config in presets.items()
        for translate in ((False,) if options.small else (False, True))
    }
    shape = SMALL if options.small else replace(PRESETS["default"].model, max_seq_len=1024, dropout=0.0)
    for kind in ("eager",) if options.small else ("eager", "compiled", "bfloat16 compiled", "int8", "int8 compiled"):
        speeds[f"writing, {kind}"] = outcome_of(
            f"writing, {kind}", lambda k=kind: writing_speed(shape, device, k, 16 if options.small else 500)
        )
    found = {"machine": machine() | name_of(device), "correctness": correctness, "speed": speeds}
    if not options.small:
        RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(RESULT)
    return int(any("failed" in str(outcome) for outcome in (*correctness.values(), *speeds.values())))


def outcome_of(name: str, check: Callable[[], Any]) -> Any:
    """Returns what the check found, or how it failed; shows either as soon as it is known."""
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
    """A run of a few steps of two micro-batches of 4 rows, with dropout where the model has it."""
    data = DataConfig(seq_length=model.max_seq_len, shuffle_rows=64)
    defaults = {"batch_size": 4, "accumulation_steps": 2, "max_steps": 8, "log_every": 1, "eval_every": 100}
    return TrainConfig(model, data, **{**defaults, "sample_tokens": 0, **settings})


def random_text(config: TrainConfig) -> TextData:
    """Random tokens whose first thousand are the frequent ones, enough for some steps."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(min(1_000, config.model.vocab_size), (20 * config.tokens_per_step + 1,), generator=generator)
    rows = tokens[: 4 * config.data.seq_length].view(4, -1)
    source = TokenDocuments([tokens.numpy()], end_of_text=0)
    return TextData(load_tokenizer("byte"), source, len(tokens), (rows, rows), rows.numel())


def trained(config: TrainConfig, device: torch.device, folder: Path | None = None) -> tuple[Trainer, list[float]]:
    """Returns the trainer after its run, and the loss of every step; without a folder, nothing is saved."""
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
    """The largest difference, relative to the largest number."""
    left, right = left.detach().float(), right.detach().float()
    return float((left - right).abs().max() / right.abs().max())


def within(name: str, difference: float, bound: float) -> str:
    if not difference <= bound:
        raise AssertionError(f"{name} differ by {difference:.1e}, more than {bound:.0e}")
    return f"{name} differ by {difference:.1e}"


def attention(device: torch.device) -> str:
    """Fused against explicit attention, output and gradients, causal and under a mask, one head group and several."""
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
    wide = within("float32 kernels", worst[torch.float32], 1e-4)
    return f"{wide}, {within('bfloat16 kernels', worst[torch.bfloat16], 4e-2)}"


def loss(device: torch.device) -> str:
    """The loss in tiles against PyTorch's cross-entropy, in value and gradients; and float32 beside autocast."""
    size = (512, 64)
    said = []
    for dtype, bound in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
        hidden, weight = torch.randn(size, device=device), torch.randn(20_000, 64, device=device) * 0.1
        targets = torch.randint(20_000, (512,), device=device)
        both = []
        for way in (plain_loss, tiled_loss):
            h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                nats, _ = way(h, w, targets)
            nats.backward()
            both.append((nats.detach(), h.grad, w.grad))
        reference = F.cross_entropy(hidden.double() @ weight.double().T, targets, reduction="sum")
        name = str(dtype).removeprefix("torch.")
        worst = max(furthest(a, b) for a, b in zip(both[1], both[0], strict=True))
        said.append(within(f"{name} values and gradients", max(worst, furthest(both[1][0], reference)), bound))
    return ", ".join(said)


def narrow_numbers(device: torch.device) -> str:
    """A run in bfloat16, and one in float16 with its scale, against one in float32."""
    _, wide = trained(run_of(SMALL, precision="float32"), device)
    said = []
    for precision in ("bfloat16", "float16"):
        _, narrow = trained(run_of(SMALL, precision=precision), device)
        worst = max(abs(a - b) / b for a, b in zip(narrow, wide, strict=True))
        said.append(within(f"losses in {precision}", worst, 0.02))
    return ", ".join(said)


def activation_checkpointing(device: torch.device) -> str:
    """With dropout, whose decisions must come again."""
    model = replace(SMALL, dropout=0.1)
    _, plain = trained(run_of(model, precision="float32"), device)
    _, frugal = trained(run_of(model, precision="float32", activation_checkpointing=True), device)
    return within("losses", max(abs(a - b) / b for a, b in zip(frugal, plain, strict=True)), 1e-4)


def resumed(device: torch.device) -> str:
    """A run that was saved half-way and resumed, against one that never stopped; with dropout."""
    config = run_of(replace(SMALL, dropout=0.1))
    with tempfile.TemporaryDirectory() as folder:
        whole, losses = trained(config, device, Path(folder) / "whole")
        stopped = Trainer(replace(config, device=device.type, checkpoint_dir=folder + "/half"), random_text(config))
        for _ in range(4):
            stopped.train_step()
            stopped.report()
        state = stopped.save_state()  # before another trainer draws
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
    """A compiled run against an eager one, with the vocabulary in tiles and without."""
    said = []
    for vocab_size in (300, 9_000):
        model = replace(SMALL, vocab_size=vocab_size)
        _, eager = trained(run_of(model, precision="float32"), device)
        started = time.perf_counter()
        _, fast = trained(run_of(model, precision="float32", compile=True), device)
        worst = max(abs(a - b) / b for a, b in zip(fast, eager, strict=True))
        said.append(
            f"{within(f'losses over {vocab_size} entries', worst, 1e-3)} ({time.perf_counter() - started:.0f} s)"
        )
    return ", ".join(said)


def speed(config: TrainConfig, device: torch.device, translate: bool) -> dict[str, Any]:
    """Times whole steps: the median, over those after the first ones."""
    config = replace(config, compile=translate, device=device.type, max_steps=WARM_STEPS + TIMED_STEPS)
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
