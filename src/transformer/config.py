"""Every setting of the project, its default and its meaning, in one place.

The dataclasses below are frozen: a setting is chosen once, checked once, stored in the checkpoint and never
changed behind anybody's back. Command-line flags, help texts and checkpoints are derived from them, so a
default is written here and nowhere else. settings.py has what all of them can do.

Only the standard library is imported here: any part of the project may import this file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from transformer.config_base import Config, ConfigError, between, near_miss, positive, seed_problems

__all__ = [
    "IGNORE",
    "PRESETS",
    "SAMPLING_PRESETS",
    "Config",
    "ConfigError",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "SamplingConfig",
    "TrainConfig",
    "near_miss",
    "seed_problems",
]

IGNORE = -100
"""A target with this value is not predicted and not counted, PyTorch's convention."""


@dataclass(frozen=True)
class ModelConfig(Config):
    """The shape of the model. Two models with equal configs have equal parameter names and shapes."""

    vocab_size: int = 100_277
    """Number of token ids the model can read and predict; cl100k_base has 100,277."""
    d_model: int = 256
    """Width of the residual stream: the length of the vector that stands for a token between blocks."""
    num_heads: int = 4
    """Attention heads a block; each looks at d_model / num_heads numbers of every token."""
    num_layers: int = 6
    """Blocks, one after the other."""
    d_ff: int = 1024
    """Width of the feed-forward network's hidden layer."""
    max_seq_len: int = 128
    """Longest context in tokens: what the model can look back on."""
    dropout: float = 0.1
    """Share of activations zeroed at random in training, against overfitting; never in generation."""
    num_kv_heads: int | None = None
    """Heads that keys and values have (grouped-query attention); None: as many as num_heads."""
    position: Literal["learned", "sinusoidal", "rotary", "alibi"] = "learned"
    """How the model knows the order of tokens."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation before attention, before the feed-forward network, and before the output."""
    norm_eps: float = 1e-5
    """Added to the variance before its square root, so that a constant vector divides by no zero."""
    activation: Literal["gelu", "gelu_tanh", "relu", "swiglu"] = "gelu"
    """Non-linearity of the feed-forward network."""
    bias: bool = True
    """Whether linear layers and layer norms add a learned constant."""
    tie_embeddings: bool = True
    """Whether the output projection is the token embedding's own matrix."""
    rope_theta: float = 10_000.0
    """Base of the rotary wavelengths: the slowest pair turns once in about 2 pi theta tokens."""

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
        if not found:
            found = self._shape_problems()
        return found + positive(self, "norm_eps", "rope_theta") + between(self, 0, 1, "dropout")

    def _shape_problems(self) -> list[str]:
        found = []
        if self.d_model % self.num_heads:
            near = self.d_model - self.d_model % self.num_heads
            fits = ", ".join(str(n) for n in (near, near + self.num_heads) if n)
            found.append(f"d_model={self.d_model} is not divisible by num_heads={self.num_heads}; nearest: {fits}")
        elif self.position == "rotary" and self.head_dim % 2:
            found.append(f"position='rotary' turns pairs of numbers, so d_model/num_heads={self.head_dim} must be even")
        if self.position == "sinusoidal" and self.d_model % 2:
            found.append(f"position='sinusoidal' pairs sines with cosines, so d_model={self.d_model} must be even")
        if self.num_heads % self.kv_heads:
            fits = ", ".join(str(n) for n in range(1, self.num_heads + 1) if self.num_heads % n == 0)
            found.append(f"num_kv_heads={self.kv_heads} does not divide num_heads={self.num_heads}; possible: {fits}")
        return found


@dataclass(frozen=True)
class DataConfig(Config):
    """Which text the model learns from, and how it is cut."""

    dataset: str = "fineweb"
    """fineweb (streamed from the hub), hf:OWNER/NAME (another one there), shakespeare (bundled), or your own text."""
    encoding: str = "cl100k_base"
    """cl100k_base, p50k_base, byte, or bpeN: a vocabulary of N entries trained on the dataset itself."""
    seq_length: int = 128
    """Tokens in a training row."""
    tokens_per_epoch: int = 100_000_000
    """Tokens that count as one epoch; never more than the whole of a local text once."""
    shuffle_rows: int = 8_192
    """Rows that are mixed with one another; more mix better and take 4 bytes a token of memory."""
    mask_documents: bool = False
    """Whether attention stops at end-of-text, so that no document sees the one before it in its row."""
    validation_fraction: float = 0.1
    """Share of the documents kept for validation, chosen by a hash of their text."""
    validation_tokens: int = 200_000
    """Validation stops after this many tokens, always the same ones."""
    subset: str | None = None
    """Which part of a hub dataset, its config; None: FineWeb-Edu's sample-10BT, or a dataset's default."""
    split: str = "train"
    """Which split of a hub dataset is the text; the validation part is taken from it by validation_fraction."""
    revision: str = "main"
    """Which version of a hub dataset; a run keeps the commit that it began with."""
    text_column: str = "text"
    """The field or column that holds the text in jsonl and parquet files."""
    cache_dir: str | None = None
    """Where text from the hub is kept; None: data/fineweb_cache, or data/OWNER_NAME_cache for another dataset."""
    cache_shards: int = 5
    """Shards that stay on disk: the most recently used ones."""
    cache_gb: float = 2.5
    """Most disk space for shards and their token ids, in units of 10**9 bytes; ids go first, as they can be remade."""
    shard_mb: float = 400.0
    """About how much of a remote file is one shard, in units of 10**6 bytes."""
    num_workers: int | None = None
    """Threads that tokenize ahead of a streamed run; None: one for each core."""
    network_patience: float = 300.0
    """Seconds for which a failing network is tried again before the run stops."""

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
    """adamw for everything, or muon for the matrices inside the blocks and adamw for the rest."""
    learning_rate: float = 6e-4
    """AdamW's step size after warm-up."""
    muon_learning_rate: float = 0.02
    """Muon's step size after warm-up, for the matrices that it moves."""
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    """After the warm-up: down a cosine, at the peak to the end, or at the peak and down in a line at the end."""
    decay_fraction: float = 0.2
    """Share of all steps in which wsd comes down."""
    min_lr_ratio: float = 0.1
    """Share of the learning rate that is left at the end of the way down."""
    warmup_fraction: float = 0.02
    """Share of all steps in which the learning rate climbs to its full value."""
    weight_decay: float = 0.1
    """Pull of matrices towards zero; biases, norms and other vectors are never decayed."""
    beta1: float = 0.9
    """Memory of AdamW's mean of gradients."""
    beta2: float = 0.95
    """Memory of AdamW's mean of squared gradients."""
    grad_clip: float = 1.0
    """Longest gradient allowed, as a norm over all parameters; 0 turns clipping off."""

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
    """A training run: model, data, optimizer, and how long and how often."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 10
    """Epochs; after each comes a summary and a checkpoint."""
    max_steps: int | None = None
    """Stops after this many optimizer steps, where that comes before the epochs end."""
    batch_size: int = 8
    """Rows in a micro-batch: what goes through the model at once."""
    accumulation_steps: int = 16
    """Micro-batches whose gradients are added up before one optimizer step."""
    eval_every: int = 500
    """Optimizer steps between validations; one more follows every epoch."""
    log_every: int = 10
    """Optimizer steps between metric lines."""
    sample_tokens: int = 60
    """Tokens that the model writes at each validation, to be looked at; 0: none."""
    sample_prompt: str = ""
    """What it continues then; empty: it begins a text."""
    patience: int = 0
    """Looks at validation after the lowest loss, at least 4, that end the run unless it surely falls; 0: never."""
    save_every_minutes: float = 10.0
    """Minutes after which the state to resume from is saved, if no validation has saved it before."""
    save_every_steps: int = 0
    """Optimizer steps after which the state is saved as well; 0: only after minutes and at validations."""
    keep_last: int = 0
    """Epoch checkpoints that stay, the best one besides; older ones are removed. 0: all stay."""
    init_from: str | None = None
    """A checkpoint whose weights, shape and encoding a new run begins with; None: fresh weights."""
    seed: int = 1
    """Fixes the initial weights, dropout and the order of the data."""
    checkpoint_dir: str = "checkpoints"
    """Where checkpoints, metrics and the loss curve go."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes CUDA, then MPS, then the CPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Numbers that matrix products read; auto: bfloat16 on CUDA, float16 where it lacks that, float32 elsewhere."""
    kernels: Literal["auto", "plain"] = "auto"
    """auto: faster versions of loss, dropout and linear layers where they pay. plain: the code of the core files."""
    activation_checkpointing: bool = False
    """Keeps only the input of each block and computes the rest again in backward: less memory, a third more work."""
    compile: bool = False
    """Translates the model for the device before the first step (torch.compile): a minute's wait, then faster steps."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    """What keeps the curves, besides metrics.jsonl; the flag without a name: nothing."""
    shard: bool = False
    """Spreads the model over the processes that torchrun starts, each keeping its part; else each keeps all of it."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step learns from."""
        return self.batch_size * self.accumulation_steps * self.data.seq_length

    def problems(self) -> list[str]:
        found = self.model.problems() + self.data.problems() + self.optimizer.problems()
        found += positive(self, "epochs", "max_steps", "batch_size", "accumulation_steps", "eval_every", "log_every")
        for name in ("patience", "save_every_steps", "keep_last", "sample_tokens"):
            if getattr(self, name) < 0:
                found.append(f"{name}={getattr(self, name)} must not be below 0")
        found += positive(self, "save_every_minutes") + seed_problems(self.seed)
        if self.shard and self.compile:
            found.append("compile translates the model as one piece, and shard takes it apart: choose one of them")
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
    """greedy takes the likeliest token; the others draw at random from all, or from the likeliest, tokens."""
    temperature: float = 1.0
    """Divides the logits: below 1 favours likely tokens, above 1 evens out; 0 is greedy."""
    top_k: int = 50
    """With top_k and top_k_top_p: how many of the likeliest tokens stay."""
    top_p: float = 0.9
    """With top_p and top_k_top_p: the likeliest tokens stay until their probabilities add up to this."""
    min_p: float = 0.0
    """Tokens below this share of the likeliest one's probability go, with every strategy but greedy; 0: none."""
    repetition_penalty: float = 1.0
    """Above 1, what the text already has becomes less likely, with every strategy, greedy too; 1: off."""

    def problems(self) -> list[str]:
        found = positive(self, "top_k") + between(self, 1e-6, 1e6, "repetition_penalty")
        if self.temperature < 0:
            found.append(f"temperature={self.temperature} must not be below 0 (0 is greedy)")
        elif self.temperature:
            found += between(self, 1e-6, 1e6, "temperature")  # beyond these, float32 overflows
        if not 0 < self.top_p <= 1:
            found.append(f"top_p={self.top_p} must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            found.append(f"min_p={self.min_p} must be from 0 to 1")
        return found


SAMPLING_PRESETS: dict[str, SamplingConfig] = {
    "greedy": SamplingConfig("greedy"),
    "precise": SamplingConfig("top_k_top_p", temperature=0.5, top_k=20, top_p=0.8),
    "balanced": SamplingConfig("top_k_top_p", temperature=0.8, top_k=50, top_p=0.9),
    "creative": SamplingConfig("top_p", temperature=1.0, top_p=0.95),
    "very-creative": SamplingConfig("top_p", temperature=1.2, top_p=0.98),
}


def _preset(model: ModelConfig, directory: str, **settings: Any) -> TrainConfig:
    return TrainConfig(model=model, checkpoint_dir=f"checkpoints{directory}", **settings)


_QUICK = ModelConfig(d_model=128, num_layers=4, d_ff=512)
_TINY = ModelConfig(vocab_size=257, d_model=32, num_heads=2, num_layers=2, d_ff=64, max_seq_len=32)
_DEMO = ModelConfig(4096, 128, 4, 2, 512, dropout=0.0, position="alibi", activation="relu", bias=False)
_GPT2 = ModelConfig(50_281, 768, 12, 12, 3072, max_seq_len=1024, activation="gelu_tanh")
_MODERN = ModelConfig(
    d_model=512, num_heads=8, num_layers=8, d_ff=1408, max_seq_len=512, dropout=0.0, num_kv_heads=2,
    position="rotary", norm="rmsnorm", activation="swiglu", bias=False,
)  # fmt: skip

PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(),
    "quick": _preset(_QUICK, "_quick", data=DataConfig(tokens_per_epoch=10_000_000)),
    "tiny": _preset(
        _TINY, "_tiny", accumulation_steps=1, epochs=1, max_steps=100, eval_every=50,
        data=DataConfig("shakespeare", "byte", 32, validation_tokens=4_096),
    ),
    "demo": _preset(
        _DEMO, "_demo", data=DataConfig("shakespeare", "bpe4096"),
        optimizer=OptimizerConfig("muon", learning_rate=0.01, muon_learning_rate=0.02, warmup_fraction=0.05),
        batch_size=16, accumulation_steps=1, max_steps=600, eval_every=200,
    ),
    "gpt2": _preset(
        _GPT2, "_gpt2", batch_size=4, accumulation_steps=128, data=DataConfig(encoding="p50k_base", seq_length=1024)
    ),
    "modern": _preset(_MODERN, "_modern", data=DataConfig(seq_length=512)),
}  # fmt: skip
