r"""The cost of a run: where a GPT's parameters, work and memory go, known before anything is allocated.

**The problem.** The commonest way to lose a day is to learn late that a run does not fit: memory ends in the first
step, the disk after the third epoch, patience on the second evening. All three follow from the settings by arithmetic,
which also says what to change. Below C = d_model, F = d_ff, V = vocab_size, T = seq_length, H heads, L layers.

**Parameters.** A block's matrices hold 4 C^2 for attention (fewer with grouped queries) and 2 C F for the feed-forward
network (3 C F with swiglu): 12 C^2 at F = 4 C. The vocabulary's table holds V C, most of a small model with a large
encoding; tied, it counts once. Norms and biases are dust.

**Work: the 6N rule.** Forward, a token meets each number of a matrix in one multiplication and one addition; backward
in two such pairs, for the gradient of the input and for that of the matrix. Hence "6 N operations a token for N
parameters". What the rule leaves out, and what it counts too much:

    attention's scores and mix      + 12 L T C     no parameters at all, and they grow with the context
    the head, tied or not             6 V C        a tied table is counted once, and rightly: its lookup is no product
    tables only looked up           - 6 C a row    positions, and an untied table of tokens
    norms, softmax, dropout, update                few operations, yet not always little time

`flops` counts the products of the model as written, every query with all T keys: the convention of arXiv 2204.02311, so
that *utilisation*, tokens/s * flops_per_token / peak (runtime/capacity.py), compares with what others publish. A fused
kernel does less, since it skips most of what the mask forbids, and more, since it makes the scores again in backward
(2 L T C, *recomputation*). The tiled loss does no more than the plain one while its sums stay in range (loss.py).

By hand: one block, C = 2, F = 8, V = 3, T = 4, tied, alibi, no biases. Table 6, attention 16, feed-forward 32, three
norms of 2: 60 parameters, so the rule says 360. A token really costs 6 * 16 + 6 * 32 + 12 * 4 * 2 + 6 * 6 = 420:

>>> from transformer.config import DataConfig
>>> model = ModelConfig(3, 2, 1, 1, 8, 4, dropout=0.0, position="alibi", bias=False)
>>> plan = cost(TrainConfig(model, DataConfig("my_text", seq_length=4), batch_size=1, accumulation_steps=2))
>>> plan.parameters
{'embeddings': 6, 'blocks': 52, 'final_norm': 2, 'head': 0}
>>> plan.flops, plan.flops_per_token
({'projections': 96, 'scores': 96, 'feed_forward': 192, 'head': 36}, 420)
>>> [plan.memory[use] for use in ("weights", "gradients", "optimizer")]     # 4, 4, 8 bytes a parameter, and 8 counters
[240, 240, 512]

**Memory.** *Weights*, *gradients* and the *optimizer's* averages, 4 + 4 + 8 bytes a parameter (Muon keeps 4 where AdamW
keeps 8), do not care about the batch. *Activations* do: whatever forward computed and backward needs again, for all
tokens of one micro-batch. A block keeps, in numbers a token:

    what both norms read and return   4 C          feed-forward's two sides of gelu            2 F
    queries, keys, values, the mix    4 C          dropout's decisions                         2 C
                                                   attention's scores, where it is not fused   3 H T

The last is the surprise: attention with dropout on a CPU, and any on Apple's GPU, keeps tables of all scores.
*Working* memory is what one place needs for itself, mostly the loss: it comes when all activations are there, with its
tiles and the gradient of the vocabulary's table. Autocast (CUDA) halves what stands inside a block and adds copies of
its weights. With activation checkpointing only the inputs of blocks are kept, C a token, and one block in full.

**How exact.** Parameters, operations, gradients and averages to the number; activations and the greatest memory on a
CPU to a few percent, as tests measure. For GPUs only autocast's halving is measured, on a CPU. PyTorch itself,
fragments, and the text in memory come on top.
**Chosen.** Formulas, though a model on the meta device counts parameters too: they show which setting to turn. Not
chosen: a time from the peak, which no small model comes near; `seconds` extrapolates measured steps.

Papers: 6N, arXiv 2001.08361, section 2.1; utilisation, arXiv 2204.02311, appendix B; activations, arXiv 2205.05198.
Read before: trainer.py. The memory of generation: kv_cache.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from transformer.config import ModelConfig, TrainConfig
from transformer.loss import BUFFER_NUMBERS, TILED_FROM_VOCAB

Shapes = dict[str, list[tuple[int, ...]]]

FLOAT = 4
"""Bytes of a float32 number, which weights, gradients and averages are everywhere."""
RECORD_BYTES = 350
"""About what a checkpoint spends on naming and aligning one tensor."""
CONTENTS_BYTES = 2_000
"""About what a checkpoint spends on its settings."""
RANDOM_BYTES = 5_500
"""About what a training state spends on PyTorch's random state."""
ENTRY_BYTES = 31
"""About what a checkpoint spends on an entry of a trained vocabulary; named encodings are stored as a name."""


@dataclass(frozen=True)
class Cost:
    """What a run takes: memory of one process; steps, tokens and files of the whole run."""

    config: TrainConfig
    device: str
    world_size: int
    parameters: dict[str, int]
    """Trained numbers by part, as the model's parameter_counts() gives them."""
    flops: dict[str, int]
    """Operations of one token, forward and backward, by part."""
    memory: dict[str, int]
    """Bytes by use; not all are in use at the same moment."""
    memory_bytes: int
    """The most that is in use at any moment."""
    checkpoint_bytes: int
    """Size of one epoch's checkpoint."""
    state_bytes: int
    """Size of the one training state, which is written again and again."""
    disk: dict[str, int]
    """Bytes by kind of file, at most."""
    generation_bytes: int
    """Key-value cache of one text of max_seq_len tokens, in float32."""
    steps_per_epoch: int
    steps: int
    tokens_per_step: int
    """Tokens of one update, over all processes."""
    evaluations: int
    """How often the validation text is measured."""

    @property
    def flops_per_token(self) -> int:
        """Operations of one token, forward and backward."""
        return sum(self.flops.values())

    @property
    def tokens(self) -> int:
        """Tokens that the run learns from."""
        return self.steps * self.tokens_per_step

    @property
    def disk_bytes(self) -> int:
        """All that the run takes on the disk, at most."""
        return sum(self.disk.values())


def cost(config: TrainConfig, tokens_per_epoch: int | None = None, device: str = "cpu", world_size: int = 1) -> Cost:
    """Returns what the run takes on "cpu", "cuda" or "mps", where each process has a device of its own.

    `tokens_per_epoch` is TextData's once the text is open; without it the config's counts, for local text the most
    possible. The config's vocab_size must be the encoding's. Nothing is allocated. ValueError for another device.
    """
    if device not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device={device!r} is not cpu, cuda or mps: pick_device() says which one 'auto' is")
    model = config.model
    shapes = parameter_shapes(model)
    memory = _memory(config, shapes, device)
    tokens_per_step = config.tokens_per_step * world_size
    steps_per_epoch = max(1, (tokens_per_epoch or config.data.tokens_per_epoch) // tokens_per_step)
    steps = min(config.epochs * steps_per_epoch, config.max_steps or config.epochs * steps_per_epoch)
    epoch_ends = [min(end, steps) for end in range(steps_per_epoch, steps + steps_per_epoch, steps_per_epoch)]
    most_checkpoints = config.keep_last + 2 if config.keep_last else len(epoch_ends)  # the best one, and a new one
    checkpoint_bytes, state_bytes = _file_bytes(config, shapes, memory)
    if config.shard:
        memory = _shared_out(config, shapes, memory, world_size)
    return Cost(
        config,
        device,
        world_size,
        parameters={part: _numbers(tensors) for part, tensors in shapes.items()},
        flops=flops(model, config.data.seq_length),
        memory=memory,
        memory_bytes=_most_at_once(config, memory),
        checkpoint_bytes=checkpoint_bytes,
        state_bytes=state_bytes,
        disk={
            "checkpoints": min(len(epoch_ends), most_checkpoints) * checkpoint_bytes,
            "states": 2 * state_bytes,  # the new one is written beside the old one, which goes when it is whole
            "text_cache": round(config.data.cache_gb * 1e9) if config.data.is_on_hub else 0,
        },
        generation_bytes=2 * FLOAT * model.num_layers * model.kv_heads * model.head_dim * model.max_seq_len,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        tokens_per_step=tokens_per_step,
        evaluations=steps // config.eval_every + sum(end % config.eval_every != 0 for end in epoch_ends),
    )


def parameter_shapes(model: ModelConfig) -> Shapes:
    """Returns the shape of every trained tensor, by part of the model; a tied head has none of its own."""
    C, F, bias = model.d_model, model.d_ff, model.bias
    norm: list[tuple[int, ...]] = [(C,), (C,)] if bias and model.norm == "layernorm" else [(C,)]

    def linear(out: int, inputs: int) -> list[tuple[int, ...]]:
        return [(out, inputs), (out,)] if bias else [(out, inputs)]

    attention = linear((model.num_heads + 2 * model.kv_heads) * model.head_dim, C) + linear(C, C)
    feed_forward = linear(F, C) * (2 if model.activation == "swiglu" else 1) + linear(C, F)
    table: list[tuple[int, ...]] = [(model.vocab_size, C)]
    positions: list[tuple[int, ...]] = [(model.max_seq_len, C)]
    return {
        "embeddings": table + positions if model.position == "learned" else table,
        "blocks": (norm + attention + norm + feed_forward) * model.num_layers,
        "final_norm": norm,
        "head": [] if model.tie_embeddings else table,
    }


def flops(model: ModelConfig, seq_length: int) -> dict[str, int]:
    """Returns the operations of one token in a row of seq_length, forward and backward, by part."""
    C, L = model.d_model, model.num_layers
    queries_keys_values = (model.num_heads + 2 * model.kv_heads) * model.head_dim
    return {
        "projections": 6 * L * C * (queries_keys_values + C),
        "scores": 12 * L * seq_length * C,
        "feed_forward": 6 * L * C * model.d_ff * (3 if model.activation == "swiglu" else 2),
        "head": 6 * model.vocab_size * C,
    }


def seconds(plan: Cost, step_seconds: float) -> float:
    """Returns how long the run takes at step_seconds a step, evaluations included; forward is a third of the work."""
    evaluated = plan.evaluations * plan.config.data.validation_tokens  # by every process, all of it
    return step_seconds * (plan.steps + evaluated / 3 / plan.config.tokens_per_step)


def problems(plan: Cost, memory_bytes: int | None, disk_bytes: int | None) -> list[str]:
    """Returns a sentence for memory and for disk where the run does not fit into that many bytes; None: not known."""
    found = []
    if memory_bytes is not None and plan.memory_bytes > memory_bytes:
        found.append(
            f"the run needs about {readable(plan.memory_bytes)} of memory and the device has {readable(memory_bytes)}: "
            + _remedy(plan, memory_bytes)
        )
    if disk_bytes is not None and plan.disk_bytes > disk_bytes:
        text = f", and up to {readable(plan.disk['text_cache'])} of text (--cache-gb)" * (plan.disk["text_cache"] > 0)
        found.append(
            f"the run writes about {readable(plan.disk_bytes)} and the disk has {readable(disk_bytes)} left: "
            f"a checkpoint of {readable(plan.checkpoint_bytes)} after each epoch (--epochs, --keep-last), twice a "
            f"training state of {readable(plan.state_bytes)}{text}; --checkpoint-dir may name another disk"
        )
    return found


def smaller_batches(plan: Cost) -> Iterator[Cost]:
    """Yields the same run in ever smaller micro-batches, more of them to a step: the same rows in every step."""
    config = plan.config
    rows = config.batch_size * config.accumulation_steps
    for batch in range(config.batch_size - 1, 0, -1):
        if rows % batch == 0:
            smaller = replace(config, batch_size=batch, accumulation_steps=rows // batch)
            yield cost(smaller, plan.steps_per_epoch * plan.tokens_per_step, plan.device, plan.world_size)


def readable(count: int) -> str:
    """Returns a number of bytes as a person writes it, in powers of 1,000.

    >>> readable(516), readable(999_999), readable(14_240_000_000)
    ('516 bytes', '1.0 MB', '14.2 GB')
    """
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= 0.9995 * size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _remedy(plan: Cost, memory_bytes: int) -> str:
    least = plan.memory_bytes
    for smaller in smaller_batches(plan):
        if smaller.memory_bytes <= memory_bytes:
            flags = f"--batch-size {smaller.config.batch_size} --accumulation-steps {smaller.config.accumulation_steps}"
            return f"{flags} takes the same steps in {readable(smaller.memory_bytes)}"
        least = min(least, smaller.memory_bytes)
    undropped = replace(plan.config, model=replace(plan.config.model, dropout=0.0))
    fused = cost(undropped, plan.steps_per_epoch * plan.tokens_per_step, plan.device, plan.world_size)
    if plan.device == "cpu" and fused.memory_bytes <= memory_bytes:
        return f"--dropout 0 takes {readable(fused.memory_bytes)}, since attention then keeps no tables of scores"
    return (
        f"a smaller --batch-size is not enough ({readable(least)} at best); "
        "lower --num-layers, --d-model or --seq-length, or choose an --encoding of fewer entries"
    )


def _numbers(tensors: list[tuple[int, ...]]) -> int:
    return sum(map(math.prod, tensors))


def _by_muon(config: TrainConfig, shapes: Shapes) -> list[tuple[int, ...]]:
    return [shape for shape in shapes["blocks"] if len(shape) == 2] if config.optimizer.optimizer == "muon" else []


def _memory(config: TrainConfig, shapes: Shapes, device: str) -> dict[str, int]:
    tensors, by_muon = [shape for part in shapes.values() for shape in part], _by_muon(config, shapes)
    weights = FLOAT * _numbers(tensors)
    counters = FLOAT * (len(tensors) - len(by_muon))  # AdamW counts the steps of each tensor
    memory = {
        "weights": weights,
        "gradients": weights,
        "optimizer": 2 * weights - FLOAT * _numbers(by_muon) + counters,
        "activations": _activations(config, device),
        "working": max(_loss_bytes(config, device), _block_bytes(config, device)),
    }
    is_narrow = _inner_bytes(config, device) < FLOAT
    return memory | ({"autocast_copies": 2 * _numbers(shapes["blocks"])} if is_narrow else {})


def _shared_out(config: TrainConfig, shapes: Shapes, memory: dict[str, int], world_size: int) -> dict[str, int]:
    """The memory of one of the processes that share a model: its part of what lasts, and what is gathered for a while.

    Gathered at once are what is in no block, a block, and the next one; their gradients too, before they are shared
    out. With accumulation, all gradients stay whole until the last micro-batch.
    """
    blocks = FLOAT * _numbers(shapes["blocks"])
    gathered = memory["weights"] - blocks + blocks * min(2, config.model.num_layers) // config.model.num_layers
    parts = {use: -(-memory[use] // world_size) for use in ("weights", "gradients", "optimizer")}
    parts["gradients"] = memory["gradients"] if config.accumulation_steps > 1 else parts["gradients"] + gathered
    return {**memory, **parts, "gathered": gathered}


def _most_at_once(config: TrainConfig, memory: dict[str, int]) -> int:
    """The larger of two moments: at the end of forward, all activations; at the end of backward, all gradients.

    Earlier micro-batches of a step have left gradients that forward finds there. A tied table gets one gradient from
    the head and one from the lookup, which are added to each other, and to what is there, only at the very end.
    """
    accumulates = config.accumulation_steps > 1
    forward = memory["gradients"] * accumulates + memory["activations"] + memory["working"]
    table = FLOAT * config.model.vocab_size * config.model.d_model
    backward = memory["gradients"] + table * (config.model.tie_embeddings + accumulates)
    lasting = memory["weights"] + memory["optimizer"] + memory.get("autocast_copies", 0) + memory.get("gathered", 0)
    return lasting + max(forward, backward)


def _file_bytes(config: TrainConfig, shapes: Shapes, memory: dict[str, int]) -> tuple[int, int]:
    """The sizes of an epoch's checkpoint and of the training state."""
    tensors, by_muon = sum(map(len, shapes.values())), len(_by_muon(config, shapes))
    vocabulary = ENTRY_BYTES * config.model.vocab_size if config.data.encoding.startswith("bpe") else 0
    checkpoint_bytes = memory["weights"] + RECORD_BYTES * tensors + CONTENTS_BYTES + vocabulary
    averages = memory["optimizer"] + RECORD_BYTES * (3 * tensors - 2 * by_muon)
    return checkpoint_bytes, checkpoint_bytes + averages + RANDOM_BYTES


def _inner_bytes(config: TrainConfig, device: str) -> int:
    """Bytes of a number inside a block, which autocast makes a narrow one; by itself it does so on CUDA."""
    is_wide = config.precision == "float32" or (config.precision == "auto" and device != "cuda")
    return FLOAT if is_wide else 2


def _keeps_scores(config: TrainConfig, device: str) -> bool:
    """Whether attention keeps tables of scores: see fused_attention. On MPS, PyTorch fuses only without gradients."""
    return device == "mps" or (device == "cpu" and config.model.dropout > 0)


def _activations(config: TrainConfig, device: str) -> int:
    """Bytes that forward keeps for backward, for one micro-batch; what the loss keeps counts as working memory."""
    model, T, inner = config.model, config.data.seq_length, _inner_bytes(config, device)
    C, H, kv = model.d_model, model.num_heads, model.kv_heads * model.head_dim
    norm = FLOAT * (C + (2 if model.norm == "layernorm" else 1))  # its input, and by what it was shifted and divided
    if model.norm == "rmsnorm" and device != "cuda":
        norm += FLOAT * C  # not fused there: the quotient too
    if _keeps_scores(config, device):
        attention = inner * (3 * C + H * T * (3 if model.dropout else 1))  # softmax; what is dropped, and what is left
    else:
        rotated = C + kv if model.position == "rotary" else 0
        attention = inner * (C + 2 * kv + rotated) + FLOAT * H
    hidden = {"relu": 1, "swiglu": 4}.get(model.activation, 2) * model.d_ff
    dropped = (1 if device == "cuda" else FLOAT) * C * (model.dropout > 0)
    block = 2 * norm + 2 * inner * C + attention + inner * C + inner * hidden + 2 * dropped
    head = inner * C * (model.vocab_size < TILED_FROM_VOCAB)
    # With activation checkpointing, every block's input, and the rest of one block while backward is in it.
    blocks = (model.num_layers - 1) * FLOAT * C + block if config.activation_checkpointing else model.num_layers * block
    token = blocks + dropped + norm + head
    return config.batch_size * T * token + _mask_bytes(config, device)


def _mask_bytes(config: TrainConfig, device: str) -> int:
    """Bytes of what is added to the scores or forbids them, so far as backward keeps it."""
    model, T = config.model, config.data.seq_length
    rows = config.batch_size if config.data.mask_documents else 1
    if _keeps_scores(config, device):
        return 0 if model.position == "alibi" else model.num_layers * rows * T * T
    if model.position == "alibi":  # one for all layers, but each layer makes its own in bfloat16
        return model.num_heads * rows * T * T * (2 * model.num_layers if device == "cuda" else FLOAT)
    return model.num_layers * rows * T * T * _inner_bytes(config, device) if config.data.mask_documents else 0


def _loss_bytes(config: TrainConfig, device: str) -> int:
    """Bytes that the loss needs while all activations are there."""
    V, C, inner = config.model.vocab_size, config.model.d_model, _inner_bytes(config, device)
    tokens = config.batch_size * config.data.seq_length
    if V < TILED_FROM_VOCAB:
        return tokens * V * (3 * FLOAT + inner * (inner < FLOAT))  # logarithms, and gradients before and after softmax
    group = math.ceil(tokens / math.ceil(tokens / max(1, BUFFER_NUMBERS // V)))
    return FLOAT * V * C + inner * group * V + (FLOAT + inner) * tokens * C + 4 * FLOAT * group * C


def _block_bytes(config: TrainConfig, device: str) -> int:
    """Bytes that backward needs for itself in the last block, when nearly all activations are still there."""
    model, inner = config.model, _inner_bytes(config, device)
    scores = model.num_heads * config.data.seq_length if _keeps_scores(config, device) else 0
    hidden = (1 if model.activation.startswith("gelu") else 2) * model.d_ff
    return config.batch_size * config.data.seq_length * (FLOAT * model.d_model + inner * max(scores, hidden))
