"""Every setting of the project, its default and its meaning, in one place.

Each group of settings is a frozen dataclass. The text below a field is its help text: command-line flags, `--help` and
checkpoints are derived from these classes, so a default is written here and nowhere else. A checkpoint carries all of
its run's settings.

>>> ModelConfig(d_model=512, num_heads=8).head_dim
64
>>> ModelConfig(d_model=130).check()
Traceback (most recent call last):
transformer.config_base.ConfigError: d_model=130 is not divisible by num_heads=4; nearest: 128, 132

config_base.py has what all groups can do: check themselves, become a plain dict, and come back from one. Only the
standard library is imported. Read next: embeddings.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from transformer.config_base import Config, ConfigError, between, near_miss, positive, seed_problems

__all__ = [
    "IGNORE", "PRESETS", "SAMPLING_PRESETS", "Config", "ConfigError", "DataConfig", "ModelConfig", "OptimizerConfig",
    "SamplingConfig", "TrainConfig", "near_miss", "seed_problems",
]  # fmt: skip

IGNORE = -100
"""A target with this value is neither predicted nor counted (PyTorch's convention)."""


@dataclass(frozen=True)
class ModelConfig(Config):
    """The shape of the model. Two models with equal configs have equal parameter names and shapes."""

    vocab_size: int = 100_277
    """Number of token ids; 100,277 for cl100k_base."""
    d_model: int = 256
    """Width of the residual stream: the length of each token's vector."""
    num_heads: int = 4
    """Attention heads in each block; each has d_model / num_heads dimensions."""
    num_layers: int = 6
    """Number of blocks."""
    d_ff: int = 1024
    """Width of the hidden layer of the feed-forward network."""
    max_seq_len: int = 128
    """Context length: the most tokens that the model can process at once."""
    dropout: float = 0.1
    """Probability of zeroing an activation during training, to reduce overfitting."""
    num_kv_heads: int | None = None
    """Key and value heads (grouped-query attention). None: num_heads."""
    position: Literal["learned", "sinusoidal", "rotary", "alibi"] = "learned"
    """Position encoding."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation layer."""
    norm_eps: float = 1e-5
    """Added to the variance before the square root, to avoid division by zero."""
    activation: Literal["gelu", "gelu_tanh", "relu", "swiglu"] = "gelu"
    """Activation function of the feed-forward network."""
    bias: bool = True
    """Add a learned bias in linear layers and layer norms."""
    tie_embeddings: bool = True
    """Use the token embedding matrix as the output projection."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies: the slowest pair rotates once in about 2 pi rope_theta tokens."""

    @property
    def head_dim(self) -> int:
        """Width of one head, d_k in the papers."""
        return self.d_model // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads, with the default resolved."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    def problems(self) -> list[str]:
        sizes = ("vocab_size", "d_model", "num_heads", "num_layers", "d_ff", "max_seq_len", "num_kv_heads")
        found = positive(self, *sizes)
        if not found:  # the rules about shapes divide by these
            found = self._shape_problems()
        return found + positive(self, "norm_eps", "rope_theta") + between(self, 0, 1, "dropout")

    def _shape_problems(self) -> list[str]:
        found = []
        if self.d_model % self.num_heads:
            near = self.d_model - self.d_model % self.num_heads
            fits = ", ".join(str(n) for n in (near, near + self.num_heads) if n)
            found.append(f"d_model={self.d_model} is not divisible by num_heads={self.num_heads}; nearest: {fits}")
        elif self.position == "rotary" and self.head_dim % 2:
            found.append(f"position='rotary' rotates pairs, so d_model/num_heads={self.head_dim} must be even")
        if self.position == "sinusoidal" and self.d_model % 2:
            found.append(f"position='sinusoidal' pairs sines with cosines, so d_model={self.d_model} must be even")
        if self.num_heads % self.kv_heads:
            fits = ", ".join(str(n) for n in range(1, self.num_heads + 1) if self.num_heads % n == 0)
            found.append(f"num_kv_heads={self.kv_heads} does not divide num_heads={self.num_heads}; possible: {fits}")
        return found


@dataclass(frozen=True)
class DataConfig(Config):
    """The text that the model learns from, and how it is cut into rows."""

    dataset: str = "fineweb"
    """fineweb (streamed), hf:OWNER/NAME (any dataset on the hub), shakespeare (bundled), or a path to your own text."""
    encoding: str = "cl100k_base"
    """Tokenizer: cl100k_base, p50k_base, byte, or bpeN (N entries, trained on the dataset)."""
    seq_length: int = 128
    """Tokens in a training row."""
    tokens_per_epoch: int = 100_000_000
    """Tokens per epoch; for a local text, at most one pass over it."""
    shuffle_rows: int = 8_192
    """Size of the shuffle buffer in rows, at 4 bytes a token."""
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
    """Most shards kept on disk; the least recently used are deleted first."""
    cache_gb: float = 2.5
    """Most disk space for shards and their token ids, in units of 10**9 bytes."""
    shard_mb: float = 400.0
    """Approximate size of a shard, in units of 10**6 bytes."""
    num_workers: int | None = None
    """Tokenizer threads of a streamed run. None: one for each core."""
    network_patience: float = 300.0
    """Seconds to retry a failing network before the run stops."""

    @property
    def is_on_hub(self) -> bool:
        """Whether the dataset is streamed from the hub."""
        return self.dataset == "fineweb" or self.dataset.startswith("hf:")

    def problems(self) -> list[str]:
        found = positive(self, "seq_length", "tokens_per_epoch", "shuffle_rows", "validation_tokens")
        found += positive(self, "cache_shards", "cache_gb", "shard_mb", "num_workers", "network_patience")
        if not 0 < self.validation_fraction < 1:
            found.append(f"validation_fraction={self.validation_fraction} must be above 0 and below 1")
        if not self.dataset:
            found.append("dataset is empty: give fineweb, shakespeare, or a path to your own text")
        if self.dataset.startswith("hf:") and not re.fullmatch(r"hf:[\w.-]+/[\w.-]+", self.dataset):
            found.append(f"dataset={self.dataset!r} is not hf:OWNER/NAME, for example hf:Salesforce/wikitext")
        return found


@dataclass(frozen=True)
class OptimizerConfig(Config):
    """How the weights follow the gradient."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw for all parameters, or muon for the matrices in the blocks and adamw for the rest."""
    learning_rate: float = 6e-4
    """Peak learning rate of AdamW."""
    muon_learning_rate: float = 0.02
    """Peak learning rate of Muon."""
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    """Learning rate after warm-up: cosine decay, constant, or constant with a linear decay at the end (WSD)."""
    decay_fraction: float = 0.2
    """Fraction of all steps in the decay of wsd."""
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
        found = positive(self, "learning_rate", "muon_learning_rate")
        found += between(self, 0, 1, "beta1", "beta2", "warmup_fraction")
        for name in ("weight_decay", "grad_clip"):
            if getattr(self, name) < 0:
                found.append(f"{name}={getattr(self, name)} must not be below 0")
        if not 0 < self.decay_fraction <= 1:
            found.append(f"decay_fraction={self.decay_fraction} must be above 0 and at most 1")
        if not 0 <= self.min_lr_ratio <= 1:
            found.append(f"min_lr_ratio={self.min_lr_ratio} must be from 0 to 1")
        return found


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
    patience: int = 0
    """Stop after this many evaluations without a new best validation loss (minimum 4). 0 disables early stopping."""
    save_every_minutes: float = 10.0
    """Save the training state if the last save is this many minutes old."""
    save_every_steps: int = 0
    """Also save the training state every this many optimizer steps; 0 disables it."""
    keep_last: int = 0
    """Number of epoch checkpoints to keep, in addition to the best one; 0 keeps all."""
    init_from: str | None = None
    """Start a new run from this checkpoint's weights, model shape and encoding. None: random weights."""
    seed: int = 1
    """Random seed of initial weights, dropout and data order."""
    checkpoint_dir: str = "checkpoints"
    """Directory for checkpoints, metrics and plots."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto: CUDA if available, else MPS, else CPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of matrix products. auto: bfloat16 on CUDA (float16 on older GPUs), float32 elsewhere."""
    kernels: Literal["auto", "plain"] = "auto"
    """auto: use faster versions of loss, dropout, attention and linear layers. plain: run the core files as printed."""
    activation_checkpointing: bool = False
    """Recompute activations in backward instead of storing them: less memory, a third more computation."""
    compile: bool = False
    """Compile the model with torch.compile: about a minute before the first step, then faster steps."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """Where to log metrics in addition to metrics.jsonl; the flag without a value: nowhere else."""
    shard: bool = False
    """Shard the model across processes (FSDP) instead of replicating it (DDP)."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step, of one process."""
        return self.batch_size * self.accumulation_steps * self.data.seq_length

    def problems(self) -> list[str]:
        found = self.model.problems() + self.data.problems() + self.optimizer.problems()
        found += positive(self, "epochs", "max_steps", "batch_size", "accumulation_steps", "eval_every", "log_every")
        for name in ("patience", "save_every_steps", "keep_last", "sample_tokens"):
            if getattr(self, name) < 0:
                found.append(f"{name}={getattr(self, name)} must not be below 0")
        found += positive(self, "save_every_minutes") + seed_problems(self.seed)
        if self.shard and self.compile:
            found.append("compile and shard cannot be combined: choose one of them")
        if self.data.seq_length > self.model.max_seq_len:
            found.append(
                f"seq_length={self.data.seq_length} is longer than max_seq_len={self.model.max_seq_len}: "
                f"set max_seq_len to {self.data.seq_length} as well"
            )
        return found


@dataclass(frozen=True)
class SamplingConfig(Config):
    """How the next token is chosen from the model's probabilities."""

    strategy: Literal["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"] = "greedy"
    """greedy: the most likely token. The others sample from all tokens (multinomial) or from the most likely ones."""
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
        found = positive(self, "top_k") + between(self, 1e-6, 1e6, "repetition_penalty")
        if self.temperature < 0:
            found.append(f"temperature={self.temperature} must not be below 0 (0 is greedy)")
        elif self.temperature:
            found += between(self, 1e-6, 1e6, "temperature")  # float32 overflows outside this range
        if not 0 < self.top_p <= 1:
            found.append(f"top_p={self.top_p} must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            found.append(f"min_p={self.min_p} must be from 0 to 1")
        return found


SAMPLING_PRESETS: dict[str, SamplingConfig] = {
    "greedy": SamplingConfig(strategy="greedy"),
    "precise": SamplingConfig(strategy="top_k_top_p", temperature=0.5, top_k=20, top_p=0.8),
    "balanced": SamplingConfig(strategy="top_k_top_p", temperature=0.8, top_k=50, top_p=0.9),
    "creative": SamplingConfig(strategy="top_p", temperature=1.0, top_p=0.95),
    "very-creative": SamplingConfig(strategy="top_p", temperature=1.2, top_p=0.98),
}


def _preset(model: ModelConfig, directory: str, **settings: Any) -> TrainConfig:
    return TrainConfig(model=model, checkpoint_dir=f"checkpoints{directory}", **settings)


_QUICK = ModelConfig(d_model=128, num_layers=4, d_ff=512)
_TINY = ModelConfig(vocab_size=257, d_model=32, num_heads=2, num_layers=2, d_ff=64, max_seq_len=32)
_DEMO = ModelConfig(
    vocab_size=4096, d_model=128, num_heads=4, num_layers=2, d_ff=512, dropout=0.0, position="alibi",
    activation="relu", bias=False,
)  # fmt: skip
_GPT2 = ModelConfig(
    vocab_size=50_281, d_model=768, num_heads=12, num_layers=12, d_ff=3072, max_seq_len=1024, activation="gelu_tanh"
)
_MODERN = ModelConfig(
    d_model=512, num_heads=8, num_layers=8, d_ff=1408, max_seq_len=512, dropout=0.0, num_kv_heads=2,
    position="rotary", norm="rmsnorm", activation="swiglu", bias=False,
)  # fmt: skip

PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(),
    "quick": _preset(_QUICK, "_quick", data=DataConfig(tokens_per_epoch=10_000_000)),
    "tiny": _preset(
        _TINY, "_tiny", accumulation_steps=1, epochs=1, max_steps=100, eval_every=50,
        data=DataConfig(dataset="shakespeare", encoding="byte", seq_length=32, validation_tokens=4_096),
    ),
    "demo": _preset(
        _DEMO, "_demo", data=DataConfig(dataset="shakespeare", encoding="bpe4096"),
        optimizer=OptimizerConfig("muon", learning_rate=0.01, muon_learning_rate=0.02, warmup_fraction=0.05),
        batch_size=16, accumulation_steps=1, max_steps=600, eval_every=200,
    ),
    "gpt2": _preset(
        _GPT2, "_gpt2", batch_size=4, accumulation_steps=128, data=DataConfig(encoding="p50k_base", seq_length=1024)
    ),
    "modern": _preset(_MODERN, "_modern", data=DataConfig(seq_length=512)),
}  # fmt: skip
