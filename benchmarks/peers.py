"""Training of a peer in a plain loop: transformers' GPT-2, or litgpt's GPT as its pretrain command uses it.

    python benchmarks/peers.py '{"peer": "litgpt", "rows": "rows.npy", ...}'

training_end_to_end.py runs it, possibly with the Python of another environment, so nothing of this project is imported.
The settings contain the file of rows, in the order in which our run reads them, the shape, the optimizer, the precision
(bfloat16: autocast around the model and its loss, as in our run), and the learning rate of each step. Prints JSON:
seconds and mean loss of each step.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


def gpt2(shape: dict[str, Any]) -> tuple[nn.Module, Loss]:
    """Returns transformers' model and loss. Its "gelu" is one kernel; its default "gelu_new" is several."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=shape["vocab_size"], n_positions=shape["max_seq_len"], n_embd=shape["d_model"],
        n_layer=shape["num_layers"], n_head=shape["num_heads"], n_inner=shape["d_ff"], activation_function="gelu",
        resid_pdrop=shape["dropout"], embd_pdrop=shape["dropout"], attn_pdrop=shape["dropout"], use_cache=False,
        attn_implementation="sdpa", tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    return model, lambda tokens, targets: model(tokens, labels=targets, shift_labels=targets).loss


def litgpt(shape: dict[str, Any], is_compiled: bool = False) -> tuple[nn.Module, Loss]:
    """Returns litgpt's model and loss, in chunks of 128 positions. It has only rotary positions and no dropout."""
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    vocab = shape["vocab_size"]
    config = Config(
        block_size=shape["max_seq_len"], n_layer=shape["num_layers"], n_embd=shape["d_model"], vocab_size=vocab,
        padded_vocab_size=vocab, n_head=shape["num_heads"], intermediate_size=shape["d_ff"], attn_bias=True,
        parallel_residual=False, rotary_percentage=1.0,
    )  # fmt: skip
    model = GPT(config)
    model.apply(model._init_weights)
    model.transformer.wte.weight = model.lm_head.weight
    logits = torch.compile(model) if is_compiled else model  # pretrain compiles
    return model, lambda tokens, targets: chunked_cross_entropy(logits(tokens), targets)


def train(settings: dict[str, Any]) -> dict[str, list[float]]:
    """Trains; returns "step_s" and "losses"."""
    torch.manual_seed(settings["seed"])
    model, loss_of = PEERS[settings["peer"]](settings["shape"])
    model.train()
    optimizer = adamw(model, settings["optimizer"])
    batches = iter(torch.from_numpy(np.load(settings["rows"])).split(settings["batch_size"]))
    accumulation = settings["accumulation_steps"]
    seconds, losses = [], []
    for rate in settings["rates"]:
        started, total = time.perf_counter(), torch.zeros(())
        for group in optimizer.param_groups:
            group["lr"] = rate
        for _ in range(accumulation):
            batch = next(batches)
            with torch.autocast("cpu", torch.bfloat16, enabled=settings["precision"] == "bfloat16"):
                loss = loss_of(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
            (loss / accumulation).backward()
            total += loss.detach() / accumulation
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["optimizer"]["grad_clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(round(float(total), 4))
        seconds.append(round(time.perf_counter() - started, 4))
    return {"step_s": seconds, "losses": losses}


def adamw(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Returns a fused AdamW with weight decay for matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (settings["beta1"], settings["beta2"])
    return torch.optim.AdamW(groups, settings["learning_rate"], betas, fused=True)


PEERS = {"transformers GPT-2": gpt2, "litgpt": litgpt, "litgpt, compiled": partial(litgpt, is_compiled=True)}


if __name__ == "__main__":
    print(json.dumps(train(json.loads(sys.argv[1]))))
