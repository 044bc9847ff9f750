"""The memory of one process during training, in bytes, by formula.

*Weights*, *gradients* and the *optimizer state* take 4 + 4 + 8 bytes per parameter (Muon's state is 4 where AdamW's is
8), whatever the batch is. *Activations* are all values that the forward pass keeps for the backward pass, for every
token of one micro-batch. A block keeps, in numbers per token:

    input and output of both norms               4 C    input and output of the activation function    2 F
    queries, keys, values, weighted sum          4 C    dropout masks                                  2 C
                                                        attention scores, if not fused                 3 H T

The last entry is the one that surprises: attention with dropout on a CPU, and any attention on Apple's GPU, keeps the
tables of all scores. *Working* memory is the largest temporary of a single operation, usually the loss: it is in use
while all activations are. Autocast halves what is inside a block and adds reduced-precision copies of its
weights. With activation checkpointing only the input of each block is kept, C per token, and one block in full.

Tests compare these formulas with real models: weights, gradients and optimizer state exactly, activations and the
maximum on a CPU to a few percent. Not counted: PyTorch itself, fragmentation, and the text in memory.
"""

from __future__ import annotations

import functools
import math

import torch

from transformer.config import ModelConfig, TrainConfig
from transformer.kernels.tiled_loss import TILED_FROM_VOCAB, positions_at_once, tile_width
from transformer.model import DecoderOnlyTransformer
from transformer.processor import choices

FLOAT = 4
"""Bytes of a float32 number: weights, gradients and optimizer state are float32 everywhere."""


@functools.lru_cache(maxsize=4)
def shapes_only(model: ModelConfig) -> DecoderOnlyTransformer:
    """Returns the model without memory for its weights."""
    return DecoderOnlyTransformer(model, device="meta")


def optimizer_bytes(config: TrainConfig) -> int:
    """Returns the size of the optimizer state of the whole model."""
    model = shapes_only(config.model)
    by_muon = [p for p in model.blocks.parameters() if p.ndim == 2] if config.optimizer.optimizer == "muon" else []
    tensors = list(model.parameters())
    step_counters = len(tensors) - len(by_muon)  # AdamW counts the steps of each tensor
    return FLOAT * (2 * sum(p.numel() for p in tensors) - sum(p.numel() for p in by_muon) + step_counters)


def memory_by_use(config: TrainConfig, device: str, world_size: int) -> dict[str, int]:
    """Returns the bytes of one process, by use; not all are in use at the same time."""
    parameters = shapes_only(config.model).parameter_counts()
    weights = FLOAT * sum(parameters.values())
    memory = {
        "weights": weights,
        "gradients": weights,
        "optimizer": optimizer_bytes(config),
        "activations": _activations(config, device),
        "working": max(_loss_bytes(config, device) - _recomputed(config, device), _block_bytes(config, device)),
    }
    if _inner_bytes(config, device) < FLOAT:
        memory["autocast_copies"] = 2 * parameters["blocks"]
    return _sharded(config, FLOAT * parameters["blocks"], memory, world_size) if config.shard else memory


def _sharded(config: TrainConfig, blocks: int, memory: dict[str, int], world_size: int) -> dict[str, int]:
    """The memory of one process of a sharded model: its shards, and what is gathered from the others for a while.

    `blocks`: bytes of the blocks' weights. Gathered at the same time are the parameters outside the blocks, one block
    and the next one, and their gradients before they are reduced. With accumulation, gradients are not sharded until
    the last micro-batch.
    """
    gathered = memory["weights"] - blocks + blocks * min(2, config.model.num_layers) // config.model.num_layers
    parts = {use: -(-memory[use] // world_size) for use in ("weights", "gradients", "optimizer")}
    parts["gradients"] = memory["gradients"] if config.accumulation_steps > 1 else parts["gradients"] + gathered
    return {**memory, **parts, "gathered": gathered}


def peak_bytes(config: TrainConfig, memory: dict[str, int]) -> int:
    """Returns the maximum in use: at the end of forward (all activations) or of backward (all gradients).

    During forward, the gradients of earlier micro-batches exist. A tied table gets one gradient from the head and one
    from the lookup; both, and the accumulated one, exist until they are added at the end of backward.
    """
    accumulates = config.accumulation_steps > 1
    forward = memory["gradients"] * accumulates + memory["activations"] + memory["working"]
    table = FLOAT * config.model.vocab_size * config.model.d_model
    backward = memory["gradients"] + table * (config.model.tie_embeddings + accumulates)
    lasting = memory["weights"] + memory["optimizer"] + memory.get("autocast_copies", 0) + memory.get("gathered", 0)
    return lasting + max(forward, backward)


def _inner_bytes(config: TrainConfig, device: str) -> int:
    """Bytes of a number inside a block: 2 under autocast, which "auto" enables on CUDA and on some CPUs."""
    automatic = {"cuda": "bfloat16", "cpu": choices(config.kernels).training}.get(device, "float32")
    return FLOAT if (automatic if config.precision == "auto" else config.precision) == "float32" else 2


def _keeps_scores(config: TrainConfig, device: str) -> bool:
    """Whether attention keeps the tables of scores. On MPS, PyTorch fuses attention only without gradients."""
    return device == "mps" or (device == "cpu" and config.model.dropout > 0)


def _activations(config: TrainConfig, device: str) -> int:
    """Bytes that forward keeps for backward, for one micro-batch, without the loss, which is working memory."""
    model, C = config.model, config.model.d_model
    block, norm, dropped = _per_token(config, device)
    head = _inner_bytes(config, device) * C * (model.vocab_size < TILED_FROM_VOCAB)
    # With activation checkpointing: the input of every block, and all of the block that backward is in.
    blocks = (model.num_layers - 1) * FLOAT * C + block if config.activation_checkpointing else model.num_layers * block
    token = blocks + dropped + norm + head
    tables = 2 * FLOAT * config.data.seq_length * model.head_dim * (model.position == "rotary")  # cosines and sines
    return config.batch_size * config.data.seq_length * token + tables + _mask_bytes(config, device)


def _per_token(config: TrainConfig, device: str) -> tuple[int, int, int]:
    """Bytes for a token that a whole block, a norm, and a dropout keep for backward."""
    model, T, inner = config.model, config.data.seq_length, _inner_bytes(config, device)
    C, H, heads, kv = model.d_model, model.num_heads, model.num_heads * model.head_dim, model.kv_heads * model.head_dim
    norm = FLOAT * (C + (2 if model.norm == "layernorm" else 1))  # its input, and the mean and scale of each row
    if model.norm == "rmsnorm" and device != "cuda":
        norm += FLOAT * C  # not fused there: the normalised input too
    if _keeps_scores(config, device):
        attention = inner * (3 * heads + H * T * (3 if model.dropout else 1))  # softmax, dropout mask, product
    else:
        new = heads + kv if model.position == "rotary" or model.qk_norm != "none" else 0  # rotated or normalised
        attention = inner * (heads + 2 * kv + new) + FLOAT * H
    hidden = {"relu": 1, "swiglu": 4}.get(model.activation, 2) * model.d_ff
    dropped = (1 if device == "cuda" else FLOAT) * C * (model.dropout > 0)
    if model.qk_norm != "none":  # the scale of each row and, where it is not fused, the normalised input
        scales = H + model.kv_heads if model.qk_norm == "head" else 2
        attention += FLOAT * (scales + (heads + kv) * (device != "cuda"))
        if inner < FLOAT:
            attention += FLOAT * (heads + kv)  # its input, in float32
        elif _keeps_scores(config, device):
            attention += inner * (heads + 2 * kv)  # its input; otherwise counted above
    block = 2 * norm + 2 * inner * C + attention + inner * heads + inner * hidden + 2 * dropped
    if model.parallel_blocks:
        block -= FLOAT * C  # both norms have the same input
    return block, norm, dropped


def _recomputed(config: TrainConfig, device: str) -> int:
    """Bytes of the block that backward recomputes; they do not exist yet while the loss runs."""
    if not config.activation_checkpointing:
        return 0
    return config.batch_size * config.data.seq_length * (_per_token(config, device)[0] - FLOAT * config.model.d_model)


def _mask_bytes(config: TrainConfig, device: str) -> int:
    """Bytes of the attention masks and biases that backward keeps."""
    model, T = config.model, config.data.seq_length
    rows = config.batch_size if config.data.mask_documents else 1
    if _keeps_scores(config, device):
        return 0 if model.position == "alibi" else model.num_layers * rows * T * T
    if model.position == "alibi":  # shared by all layers; each layer makes a copy in bfloat16
        return model.num_heads * rows * T * T * (2 * model.num_layers if device == "cuda" else FLOAT)
    return model.num_layers * rows * T * T * _inner_bytes(config, device) if config.data.mask_documents else 0


def _loss_bytes(config: TrainConfig, device: str) -> int:
    """Working memory of the loss, while all activations exist."""
    V, C, inner = config.model.vocab_size, config.model.d_model, _inner_bytes(config, device)
    tokens = config.batch_size * config.data.seq_length
    if V < TILED_FROM_VOCAB:
        return tokens * V * (3 * FLOAT + inner * (inner < FLOAT))  # log-probabilities and two gradients
    dtype = torch.float32 if inner == FLOAT else torch.bfloat16
    group, tile = positions_at_once(tokens, V, dtype, device), tile_width(V, dtype, device)
    # Each core has its own sum of vectors, and sums a tile of bfloat16 exponentials in a float32 copy. A GPU has a copy
    # of the weight.
    cores = min(torch.get_num_threads(), math.ceil(V / tile)) if device == "cpu" else 1
    own = FLOAT * group * (C + tile * (inner < FLOAT)) if device == "cpu" else FLOAT * group * C + inner * V * C
    return FLOAT * V * C + inner * group * V + (FLOAT + inner) * tokens * C + 3 * FLOAT * group * C + cores * own


def _block_bytes(config: TrainConfig, device: str) -> int:
    """Working memory of backward in the last block, while nearly all activations exist."""
    model, inner = config.model, _inner_bytes(config, device)
    # A recomputed block frees its scores before backward makes their gradient.
    has_scores = _keeps_scores(config, device) and not config.activation_checkpointing
    scores = model.num_heads * config.data.seq_length if has_scores else 0
    hidden = (1 if model.activation.startswith("gelu") else 2) * model.d_ff
    return config.batch_size * config.data.seq_length * (FLOAT * model.d_model + inner * max(scores, hidden))
