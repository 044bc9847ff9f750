"""The correctness part of gpu_check.py: fast versions against plain ones, on any device.

Each check returns a line with the differences it found, and raises AssertionError if one is too large.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.attention import explicit_attention, fused_attention
from transformer.config import DataConfig, ModelConfig, TrainConfig
from transformer.data.contracts import TextData
from transformer.dataset import TokenDocuments
from transformer.kernels.tiled_loss import tiled_loss
from transformer.loss import next_token_loss as plain_loss
from transformer.model import DecoderOnlyTransformer
from transformer.text import load_tokenizer
from transformer.trainer import Trainer
from transformer.training.events import Event, StepMetrics
from transformer.training_utils import Objective

SMALL = ModelConfig(vocab_size=9_000, d_model=64, num_heads=4, num_layers=2, d_ff=128, max_seq_len=64, dropout=0.0)


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


def sharded(device: torch.device) -> str:
    """Compares the gradients of a model that FSDP shards over one process with those of the whole model."""
    from transformer.distributed import fsdp

    torch.manual_seed(0)
    whole = DecoderOnlyTransformer(SMALL).to(device)
    parted = copy.deepcopy(whole)
    rows = torch.randint(SMALL.vocab_size, (4, SMALL.max_seq_len + 1), device=device)
    with process_group(device):
        fsdp.shard(parted, parted.layers, device, world_size=1)
        nats = [Objective(model)(rows[:, :-1], rows[:, 1:])[0] for model in (parted, whole)]
        for loss_of_one in nats:
            loss_of_one.backward()
        pairs: Any = zip(parted.parameters(), whole.parameters(), strict=True)
        worst = max(furthest(one.grad.full_tensor(), other.grad) for one, other in pairs)
    return within("values and gradients", max(worst, furthest(*nats)), 1e-4)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Makes this process a group of one, as torchrun would."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
