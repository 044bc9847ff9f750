r"""The cost of a run, computed from its settings before anything is allocated: parameters, FLOPs, memory, disk, steps.

**The problem.** The commonest way to lose a day is to discover late that a run does not fit: it runs out of memory at
the first step or out of disk after the third epoch, or it takes weeks. All of this follows from the settings by
arithmetic, which also shows which setting to change. Below, C = d_model, F = d_ff, V = vocab_size, T = seq_length,
H heads, L layers.

**Parameters.** The matrices of a block hold 4 C^2 for attention (fewer with grouped queries) and 2 C F for the
feed-forward network (3 C F with swiglu): 12 C^2 if F = 4 C. The token table holds V C, which is most of a small model
with a large vocabulary; a tied table counts once. Norms and biases are negligible.

**FLOPs: the 6N rule.** In the forward pass, each token uses each number of a matrix in one multiplication and one
addition. The backward pass uses it twice as often, for the gradient of the input and for that of the matrix. Hence "6 N
FLOPs per token for N parameters". The rule leaves out some FLOPs and counts some that do not exist:

    attention scores and weighted sums  + 12 L T C    no parameters at all; grows with the context
    the head, tied or not                  6 V C      a tied table is counted once, correctly: a lookup is no product
    tables that are only looked up       - 6 C per row positions, and an untied token table
    norms, softmax, dropout, optimizer                few FLOPs, although not always little time

`flops` counts the matrix products of the model as written, every query with all T keys. This is the convention of
arXiv 2204.02311, so *utilisation*, tokens/s * flops_per_token / peak (hardware.py), is comparable with published
numbers. A fused kernel does less, because it skips most of what the mask excludes, and more, because it computes the
scores again in backward (2 L T C, *recomputation*).

By hand: one block, C = 2, F = 8, V = 3, T = 4, tied, alibi, no biases. Table 6, attention 16, feed-forward 32, three
norms of 2: 60 parameters, so the rule gives 360. A token really costs 6 * 16 + 6 * 32 + 12 * 4 * 2 + 6 * 6 = 420:

>>> from transformer.config import DataConfig
>>> model = ModelConfig(
...     vocab_size=3, d_model=2, num_heads=1, num_layers=1, d_ff=8, max_seq_len=4, dropout=0.0, position="alibi",
...     bias=False,
... )
>>> plan = cost(TrainConfig(model, DataConfig("my_text", seq_length=4), batch_size=1, accumulation_steps=2))
>>> plan.parameters
{'embeddings': 6, 'blocks': 52, 'final_norm': 2, 'head': 0}
>>> plan.flops, plan.flops_per_token
({'projections': 96, 'scores': 96, 'feed_forward': 192, 'head': 36}, 420)
>>> [plan.memory[use] for use in ("weights", "gradients", "optimizer")]     # 4, 4, 8 bytes each, and 8 counters
[240, 240, 512]

Time is not computed from the peak, which no small model comes near: `seconds` extrapolates measured steps.

Papers: 6N, arXiv 2001.08361, section 2.1; utilisation, arXiv 2204.02311, appendix B; activations, arXiv 2205.05198.
Memory: memory.py. Read before: trainer.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from transformer.config import ModelConfig, TrainConfig
from transformer.planning.memory import FLOAT, memory_by_use, optimizer_bytes, peak_bytes, shapes_only


@dataclass(frozen=True)
class Cost:
    """The cost of a run: memory of one process; steps, tokens and files of the whole run."""

    config: TrainConfig
    device: str
    world_size: int
    parameters: dict[str, int]
    """Trained parameters by part of the model, as in the model's parameter_counts()."""
    flops: dict[str, int]
    """FLOPs of one token, forward and backward, by part of the model."""
    memory: dict[str, int]
    """Bytes of one process, by use; not all are in use at the same time."""
    memory_bytes: int
    """The maximum in use at any time."""
    disk: dict[str, int]
    """Bytes by kind of file, at most: "checkpoints", "states", "text_cache"."""
    steps_per_epoch: int
    steps: int
    tokens_per_step: int
    """Tokens of one optimizer step, over all processes."""
    evaluations: int
    """Evaluations on the validation text."""

    @property
    def flops_per_token(self) -> int:
        """FLOPs of one token, forward and backward."""
        return sum(self.flops.values())

    @property
    def tokens(self) -> int:
        """Training tokens of the whole run."""
        return self.steps * self.tokens_per_step

    @property
    def checkpoint_bytes(self) -> int:
        """Size of one epoch's checkpoint, which is the weights."""
        return FLOAT * sum(self.parameters.values())

    @property
    def disk_bytes(self) -> int:
        """All files of the run, at most."""
        return sum(self.disk.values())


def cost(config: TrainConfig, tokens_per_epoch: int | None = None, device: str = "cpu", world_size: int = 1) -> Cost:
    """Returns the cost of the run on "cpu", "cuda" or "mps", if each process has a device of its own.

    `tokens_per_epoch` is TextData's, if the text is open; by default it is the config's, an upper bound for local text.
    The config's vocab_size must be the encoding's. Nothing is allocated. Raises ValueError for another device.
    """
    if device not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device={device!r} is not cpu, cuda or mps: pick_device() resolves 'auto'")
    parameters = shapes_only(config.model).parameter_counts()
    memory = memory_by_use(config, device, world_size)
    tokens_per_step = config.tokens_per_step * world_size
    steps_per_epoch = max(1, (tokens_per_epoch or config.data.tokens_per_epoch) // tokens_per_step)
    steps = min(config.epochs * steps_per_epoch, config.max_steps or config.epochs * steps_per_epoch)
    epochs = -(-steps // steps_per_epoch)
    checkpoints = min(epochs, config.keep_last + 2) if config.keep_last else epochs  # plus the best and the newest
    together = (epochs - 1) // (config.eval_every // math.gcd(config.eval_every, steps_per_epoch))
    epoch_ends = epochs - 1 - together + (steps % config.eval_every != 0)  # evaluations between those of --eval-every
    checkpoint_bytes = FLOAT * sum(parameters.values())
    return Cost(
        config,
        device,
        world_size,
        parameters=parameters,
        flops=flops(config.model, config.data.seq_length),
        memory=memory,
        memory_bytes=peak_bytes(config, memory),
        disk={
            "checkpoints": checkpoints * checkpoint_bytes,
            "states": 2 * (checkpoint_bytes + optimizer_bytes(config)),  # the last one and the one before it
            "text_cache": round(config.data.cache_gb * 1e9) if config.data.is_on_hub else 0,
        },
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        tokens_per_step=tokens_per_step,
        evaluations=steps // config.eval_every + epoch_ends,
    )


def flops(model: ModelConfig, seq_length: int) -> dict[str, int]:
    """Returns the FLOPs of one token in a row of seq_length, forward and backward, by part of the model."""
    C, L, heads = model.d_model, model.num_layers, model.num_heads * model.head_dim
    queries_keys_values = heads + 2 * model.kv_heads * model.head_dim
    return {
        "projections": 6 * L * C * (queries_keys_values + heads),
        "scores": 12 * L * seq_length * heads,
        "feed_forward": 6 * L * C * model.d_ff * (3 if model.activation == "swiglu" else 2),
        "head": 6 * model.vocab_size * C,
    }


def seconds(plan: Cost, step_seconds: float) -> float:
    """Returns the duration of the run at step_seconds per step, evaluations included.

    The processes share the validation text. Its forward pass costs a third of training on the same tokens.
    """
    validation_tokens = plan.evaluations * plan.config.data.validation_tokens
    return step_seconds * (plan.steps + validation_tokens / 3 / plan.tokens_per_step)


def problems(plan: Cost, memory_bytes: int | None, disk_bytes: int | None) -> list[str]:
    """Returns a sentence each for memory and disk if the run exceeds that many bytes. None: not known."""
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
            f"a checkpoint of {readable(plan.checkpoint_bytes)} after each epoch (--epochs, --keep-last), "
            f"{readable(plan.disk['states'])} of training states{text}; --checkpoint-dir selects another disk"
        )
    return found


def smaller_batches(plan: Cost) -> Iterator[Cost]:
    """Yields the same run with smaller and smaller micro-batches, and more of them in a step of the same size."""
    config = plan.config
    rows = config.batch_size * config.accumulation_steps
    for batch in range(config.batch_size - 1, 0, -1):
        if rows % batch == 0:
            yield _with(plan, replace(config, batch_size=batch, accumulation_steps=rows // batch))


def readable(size: int) -> str:
    """Returns a number of bytes with a unit, in powers of 1,000.

    >>> readable(516), readable(999_999), readable(14_240_000_000)
    ('516 bytes', '1.0 MB', '14.2 GB')
    """
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= 0.9995 * scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def _with(plan: Cost, config: TrainConfig) -> Cost:
    """Returns the cost of the same steps with other settings."""
    return cost(config, plan.steps_per_epoch * plan.tokens_per_step, plan.device, plan.world_size)


def _remedy(plan: Cost, memory_bytes: int) -> str:
    least = plan.memory_bytes
    for smaller in smaller_batches(plan):
        if smaller.memory_bytes <= memory_bytes:
            flags = f"--batch-size {smaller.config.batch_size} --accumulation-steps {smaller.config.accumulation_steps}"
            return f"{flags} takes the same steps in {readable(smaller.memory_bytes)}"
        least = min(least, smaller.memory_bytes)
    fused = _with(plan, replace(plan.config, model=replace(plan.config.model, dropout=0.0)))
    if plan.device == "cpu" and fused.memory_bytes <= memory_bytes:
        return f"--dropout 0 takes {readable(fused.memory_bytes)}, because attention then keeps no tables of scores"
    return (
        f"a smaller --batch-size is not enough ({readable(least)} at best); "
        "lower --num-layers, --d-model or --seq-length, or choose an --encoding with a smaller vocabulary"
    )
