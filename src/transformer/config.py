"""Every setting of the project, its default and its meaning; and first, what the model does.

A *token* is a piece of text: a word or a part of one. A *tokenizer* such as cl100k_base gives each token a number, its
id, from 0 to 100,276. The model reads the ids of a text and gives every token of the vocabulary a score, its *logit*,
for being the next one. *Softmax*, exp(z_i) / sum_j exp(z_j), maps scores z to probabilities. To write text, draw a
token, append it, and read again. It is a *decoder-only* transformer: each token is computed from itself and earlier
ones. The first transformer translated, and had a second network for the source text.

Each group of settings is a frozen dataclass. The text below a field is its help text, which the program reads from this
file: command-line flags, `--help` and checkpoints are derived from these classes.

>>> ModelConfig(d_model=512, num_heads=8).head_dim
64
>>> ModelConfig(d_model=130).check()
Traceback (most recent call last):
transformer.config_base.ConfigError: d_model=130 is not divisible by num_heads=4; nearest: 128, 132

config_base.py has what all groups can do (check themselves, become a plain dict, come back from one), config_checks.py
the rules that they must follow. The hour needs only ModelConfig and SamplingConfig. Read next: embeddings.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transformer import config_checks
from transformer.config_base import Config, ConfigError, near_miss, seed_problems

__all__ = [
    "IGNORE", "SAMPLING_PRESETS", "Config", "ConfigError", "DataConfig", "Kernels", "ModelConfig", "OptimizerConfig",
    "SamplingConfig", "TrainConfig", "Weights", "near_miss", "seed_problems",
]  # fmt: skip

Weights = Literal["float32", "float16", "int8"]
"""The number formats of weight matrices, for generation and evaluation."""
Kernels = Literal["auto", "plain", "amd-avx512-bf16", "amd-avx2", "intel-amx"]
"""Which versions of the core's code run: the fastest for this processor, the core itself, or those for that kind."""
IGNORE = -100
"""A target (the token that should come next, see loss.py) with this value adds nothing to the loss, as in PyTorch."""


@dataclass(frozen=True)
class ModelConfig(Config):
    """The shape of the model."""

    vocab_size: int = 100_277
    """Number of token ids; 100,277 for cl100k_base."""
    d_model: int = 256
    """Length of each token's vector (C in the shapes)."""
    num_heads: int = 4
    """Attention heads in each block (H in the shapes)."""
    num_layers: int = 6
    """Number of blocks."""
    d_ff: int = 1024
    """Width of the hidden layer of the feed-forward network."""
    max_seq_len: int = 128
    """Context length: the maximum number of tokens that the model can process at once."""
    dropout: float = 0.1
    """Probability of zeroing an activation during training, to reduce overfitting."""
    num_kv_heads: int | None = None
    """Key and value heads, fewer for grouped-query attention (attention.py). None: num_heads."""
    position: Literal["learned", "sinusoidal", "rotary", "alibi"] = "learned"
    """Position encoding (embeddings.py)."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation layer (block.py)."""
    norm_eps: float = 1e-5
    """Added to the variance (rmsnorm: the mean square) before the square root, to avoid division by zero."""
    activation: Literal["gelu", "gelu_tanh", "relu", "swiglu"] = "gelu"
    """Activation function of the feed-forward network."""
    bias: bool = True
    """Add a learned bias in linear layers and layer norms; the output projection never has one."""
    tie_embeddings: bool = True
    """Use the token embedding matrix as the output projection."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies (embeddings.py)."""
    # On a first reading skip the rest: what models of other families have (Llama 3.1, Qwen, OLMo 2, GPT-NeoX).
    head_width: int | None = None
    """Width of each attention head (D in the shapes). None: d_model / num_heads."""
    qkv_bias: bool | None = None
    """Add a learned bias to queries, keys and values. None: as the other linear layers (bias)."""
    qk_norm: Literal["none", "head", "all"] = "none"
    """RMS norm of queries and keys: none, of each head alone, or of all heads together (attention.py)."""
    norm_position: Literal["before", "after"] = "before"
    """Normalise the input or the output of attention and of the feed-forward network (block.py)."""
    parallel_blocks: bool = False
    """Attention and the feed-forward network read the same vectors, instead of one after the other (block.py)."""
    rotary_fraction: float = 1.0
    """Fraction of each head's pairs that rotary positions rotate (embeddings.py)."""
    rope_scaling: str = ""
    """Lower the rotary frequencies for a longer context: linear:FACTOR, or llama3:FACTOR:LOW:HIGH:ORIGINAL
    (embeddings.py). Empty: unchanged."""

    @property
    def head_dim(self) -> int:
        """Width of one head, with the default resolved: D in the shapes, d_k in the papers."""
        return self.d_model // self.num_heads if self.head_width is None else self.head_width

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads, with the default resolved."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def has_qkv_bias(self) -> bool:
        """Whether queries, keys and values have a bias, with the default resolved."""
        return self.bias if self.qkv_bias is None else self.qkv_bias

    def problems(self) -> list[str]:
        return config_checks.model_problems(self)


@dataclass(frozen=True)
class SamplingConfig(Config):
    """How the next token is chosen from the model's probabilities."""

    strategy: Literal["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"] = "greedy"
    """greedy: the most likely token, ignoring temperature, top_k, top_p, min_p. multinomial: sample from all tokens."""
    temperature: float = 1.0
    """Divides the logits: below 1 sharpens the distribution, above 1 flattens it; 0 is greedy."""
    top_k: int = 50
    """For top_k and top_k_top_p: the number of most likely tokens to keep."""
    top_p: float = 0.9
    """For top_p and top_k_top_p: keep the most likely tokens until their probabilities add up to this."""
    min_p: float = 0.0
    """Remove tokens with less than this fraction of the highest probability; 0 disables it."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that the text already contains become less likely, with greedy too; 1 disables it."""

    def problems(self) -> list[str]:
        return config_checks.sampling_problems(self)


SAMPLING_PRESETS: dict[str, SamplingConfig] = {
    "greedy": SamplingConfig(strategy="greedy"),
    "precise": SamplingConfig(strategy="top_k_top_p", temperature=0.5, top_k=20, top_p=0.8),
    "balanced": SamplingConfig(strategy="top_k_top_p", temperature=0.8, top_k=50, top_p=0.9),
    "creative": SamplingConfig(strategy="top_p", temperature=1.0, top_p=0.95),
    "very-creative": SamplingConfig(strategy="top_p", temperature=1.2, top_p=0.98),
}


# The hour may stop here: continue with embeddings.py. The rest is about training.


@dataclass(frozen=True)
class DataConfig(Config):
    """The text that the model learns from, and how it is cut into rows."""

    dataset: str = "fineweb"
    """fineweb (streamed), hf:OWNER/NAME (any dataset on the hub), shakespeare (bundled), repeats (parts of it
    among repeated random letters), refrains (all of it among repeated words and lines), or a path to your own
    text."""
    encoding: str = "cl100k_base"
    """Tokenizer: cl100k_base, p50k_base, byte, or bpeN (N entries, trained on the dataset)."""
    seq_length: int = 128
    """Tokens in a training row."""
    tokens_per_epoch: int = 100_000_000
    """Tokens per epoch; for a local text, at most one pass over it."""
    shuffle_rows: int = 8_192
    """Rows that are shuffled together, at 4 bytes per token."""
    mask_documents: bool = False
    """Restrict attention to the document of each token, instead of the whole row."""
    validation_fraction: float = 0.1
    """Fraction of the documents held out for validation, chosen by a hash of their text."""
    validation_tokens: int = 200_000
    """Validation tokens; every evaluation uses the same ones."""
    subset: str | None = None
    """Subset (config) of a hub dataset. None: FineWeb-Edu's sample-10BT, or the dataset's default."""
    split: str = "train"
    """Split of a hub dataset to use; validation documents are taken from it too."""
    revision: str = "main"
    """Branch, tag or commit of a hub dataset; a resumed run keeps the commit it began with."""
    text_column: str = "text"
    """Field or column with the text, in jsonl and parquet files."""
    cache_dir: str | None = None
    """Cache directory for hub data. None: data/fineweb_cache, or data/OWNER_NAME_cache for other datasets."""
    cache_shards: int = 5
    """Maximum number of shards on disk; the least recently used are deleted first."""
    cache_gb: float = 2.5
    """Maximum disk space for shards and their token ids, in units of 10**9 bytes."""
    shard_mb: float = 400.0
    """Approximate size of a shard, in units of 10**6 bytes."""
    num_workers: int | None = None
    """Tokenizer threads of a streamed run. None: one per core."""
    network_patience: float = 300.0
    """Seconds to retry a failing network before the run stops."""

    @property
    def is_on_hub(self) -> bool:
        """Whether the dataset is streamed from the hub."""
        return self.dataset == "fineweb" or self.dataset.startswith("hf:")

    @property
    def is_bundled(self) -> bool:
        """Whether the dataset comes with the project."""
        return self.dataset in ("shakespeare", "repeats", "refrains")

    def problems(self) -> list[str]:
        return config_checks.data_problems(self)


@dataclass(frozen=True)
class OptimizerConfig(Config):
    """Optimizer, learning-rate schedule and gradient clipping."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw for all parameters, or muon for the matrices in the blocks and adamw for the rest."""
    learning_rate: float = 6e-4
    """Peak learning rate of AdamW."""
    muon_learning_rate: float = 0.02
    """Peak learning rate of Muon."""
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    """Learning rate after warm-up: cosine decay, constant, or constant with a linear decay at the end (WSD)."""
    decay_fraction: float = 0.2
    """For wsd: the last fraction of all steps, in which the rate decays."""
    min_lr_ratio: float = 0.1
    """Final learning rate, as a fraction of the peak."""
    warmup_fraction: float = 0.02
    """Fraction of all steps in the linear warm-up."""
    weight_decay: float = 0.1
    """Weight decay of matrices; biases, norms and other vectors have none."""
    beta1: float = 0.9
    """Decay rate of AdamW's mean of gradients."""
    beta2: float = 0.95
    """Decay rate of AdamW's mean of squared gradients."""
    grad_clip: float = 1.0
    """Maximum gradient norm; 0 disables clipping."""

    def problems(self) -> list[str]:
        return config_checks.optimizer_problems(self)


@dataclass(frozen=True)
class TrainConfig(Config):
    """A training run: model, data, optimizer, and everything about the run itself."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 10
    """Number of epochs; a summary and a checkpoint follow each."""
    max_steps: int | None = None
    """Stop after this many optimizer steps, even within an epoch."""
    batch_size: int = 8
    """Rows in a micro-batch, which is processed at once."""
    accumulation_steps: int = 16
    """Micro-batches whose gradients are added up for one optimizer step."""
    eval_every: int = 500
    """Optimizer steps between evaluations; another follows every epoch."""
    log_every: int = 10
    """Optimizer steps between lines of metrics."""
    sample_tokens: int = 60
    """Length of the sample text written at each evaluation, in tokens; 0 disables samples."""
    sample_prompt: str = ""
    """Prompt of the sample text; empty: begin a new text."""
    watch_inside: bool = False
    """At steps 0, 1, 2, 4, 8, ... and at each evaluation, measure the habits of the attention heads, the loss on random
    tokens repeated once, and the attention weights on one text (docs/training.md)."""
    patience: int = 0
    """Stop after this many evaluations without a new best validation loss, but at least 4; 0 disables it."""
    save_every_minutes: float = 10.0
    """Minutes between saves of the training state."""
    save_every_steps: int = 0
    """Optimizer steps between additional saves; 0 disables them."""
    keep_last: int = 0
    """Number of epoch checkpoints to keep, in addition to the best one; 0 keeps all."""
    init_from: str | None = None
    """Start a new run from the weights, model shape and encoding of this checkpoint, or of the latest of this folder;
    also from hf:OWNER/NAME, a folder with config.json or a .gguf file. None: random weights."""
    seed: int = 1
    """Random seed of initial weights, dropout and data order."""
    checkpoint_dir: str = "checkpoints"
    """Directory for checkpoints, metrics and plots."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto: CUDA if available, else MPS, else CPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of matrix products in training. auto: bfloat16 on CUDA (float16 on older GPUs) and on CPUs on which it
    was measured to be faster, float32 elsewhere."""
    kernels: Kernels = "auto"
    """auto: faster versions of loss, dropout, attention and linear layers, chosen by processor. plain: run the core
    files as they are. A kind of processor: the choices for that kind."""
    activation_checkpointing: bool = False
    """Recompute activations in backward instead of storing them: less memory, a third more computation."""
    compile: bool = False
    """Compile the model with torch.compile before the first step. The first start takes longer."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """Trackers that receive the metrics in addition to metrics.jsonl. No name: none."""
    shard: bool = False
    """Shard the model across processes (FSDP) instead of replicating it (DDP)."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step, of one process."""
        return self.batch_size * self.accumulation_steps * self.data.seq_length

    def problems(self) -> list[str]:
        return config_checks.train_problems(self)
