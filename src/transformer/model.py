r"""The model: a decoder-only transformer, put together.

**The problem.** Given the tokens so far, give every token of the vocabulary a probability of being the next. That one
skill, applied again and again to its own output, writes text.

**The whole of it**, with the shapes (B texts, T tokens, C = d_model, V = vocab_size):

    tokens (B, T)
      |   embeddings: token vectors, and positions               (B, T, C)   embeddings.py
      |   N blocks: gather (attention), work (feed-forward)       (B, T, C)   block.py
      |   final norm                                             (B, T, C)   = hidden()
      |   output projection: compare with every token's row       (B, T, V)   = forward(), the logits
      v
    softmax: probabilities of the next token, at every position at once

Training uses all T predictions of a text in one pass, since the causal mask keeps each from seeing its answer.
Generation needs only the last: next_logits() projects one row instead of T.

**Output projection.** Row v of the (V, C) matrix is a direction; a hidden vector pointing along it scores high for v.
With *tied* embeddings it is the token table itself: a vector that means "cat" at the bottom is what predicts "cat" at
the top. At V = 100,277 and C = 256 that saves 25.7M of what would be 56M parameters.

**Counting parameters**, default config: token table V*C = 25.67M, positions 128*256 = 0.03M, a block
4 C^2 + 2 C d_ff and its biases and norms = 0.79M, six of them 4.74M. In all 30.4M:

>>> sum(count for _, count in DecoderOnlyTransformer(num_layers=6, device="meta").parameter_counts().items())
30442752

**Initialisation** (GPT-2's). All matrices start normal with spread 0.02, biases at 0, norms at 1. Each of the 2N
corrections adds variance to the residual stream, so the two matrices of a block that write to it start smaller by
sqrt(2N). Logits then start near 0, every token at about 1/V, and the first loss near ln V. A loss that starts much
higher would be spent on un-learning random confidence.

**Context limit.** The model reads at most max_seq_len tokens, whatever the kind of position, and says so with an error.
What to do at the limit is up to whoever generates; generation.py slides the window.

**Cost** of a forward pass: about 2 floating-point operations a token for each parameter in a matrix, plus attention's
4 S C a layer; training takes three times that, backward being two more products for each.

With *activation checkpointing* training keeps only what enters each block and computes the block again when backward
comes to it, dropout's decisions included: a fourth pass's work for the memory of about one block (arXiv 1604.06174).

**Chosen.** forward() always returns logits, one type. The loss is a method of its own, since it must not build all the
logits (loss.py). The cache is an argument (kv_cache.py).
**Is it working?** Before training, loss near ln V. Then it must be able to learn one batch by heart, down to nearly 0:
if it cannot, something above is broken.

Papers: GPT-2, Radford et al. 2019; arXiv 1706.03762; tied embeddings, arXiv 1608.05859. Read before: block.py. Next:
loss.py, then generation.py or trainer.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from transformer.attention import causal_mask, document_mask, padding_mask
from transformer.block import Block, norm
from transformer.config import ModelConfig, SamplingConfig
from transformer.embeddings import Embeddings, alibi_bias, alibi_slopes, rotary_table
from transformer.generation import generate
from transformer.kernels.cpu_linear import Linear
from transformer.kv_cache import KVCache
from transformer.loss import next_token_loss

PREFILL_CHUNK = 512
"""Tokens of a prompt that are read at once: more are no faster, and hold more activations."""


class DecoderOnlyTransformer(nn.Module):
    """A GPT. Built from a ModelConfig, or from its settings as keywords; `.config` holds them.

    model(tokens (B, T) int64, cache=None) -> logits (B, T, V). Raises ConfigError for a shape that cannot be built.
    """

    rotary: Tensor | None
    slopes: Tensor | None

    def __init__(
        self, config: ModelConfig | None = None, *, device: torch.device | str | None = None, **settings: Any
    ) -> None:
        super().__init__()
        if config is not None and settings:
            raise TypeError(f"give a config or settings, not both: {', '.join(settings)}")
        self.config = config.check() if config is not None else ModelConfig.from_dict(settings)
        config = self.config
        with torch.device(device) if device is not None else torch.device(torch.get_default_device()):
            self.embeddings = Embeddings(config)
            self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
            self.final_norm = norm(config)
            self.head = Linear(config.d_model, config.vocab_size, bias=False)
            if config.tie_embeddings:
                self.head.weight = self.embeddings.token.weight
            rotary = config.position == "rotary"
            table = rotary_table(config.max_seq_len, config.head_dim, config.rope_theta) if rotary else None
            slopes = alibi_slopes(config.num_heads) if config.position == "alibi" else None
        self.activation_checkpointing = False
        """Whether training keeps only the blocks' inputs and computes the rest again in backward."""
        self.register_buffer("rotary", table, persistent=False)
        self.register_buffer("slopes", slopes, persistent=False)
        self.initialise()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.final_norm.weight.device  # type: ignore[return-value]

    @property
    def layers(self) -> list[Block]:
        """The blocks, as what they are."""
        return cast(list[Block], list(self.blocks))

    def initialise(self) -> None:
        """Draws fresh weights, as GPT-2 does, from torch's global generator."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.layers:
            for projection in (block.attention.out, block.feedforward.down):
                nn.init.normal_(projection.weight, std=0.02 / math.sqrt(2 * self.config.num_layers))

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns the logits of the next token at every position: tokens (B, T) int64 -> (B, T, V)."""
        return self.head(self.hidden(tokens, cache))  # type: ignore[no-any-return]

    def hidden(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        mask: Tensor | None = None,
        padding: Tensor | None = None,
    ) -> Tensor:
        """Returns what the output projection reads: tokens (B, T) int64 -> (B, T, C), after the final norm.

        With a cache, the tokens continue what it holds, and it is advanced by T. `mask` is bool, causal itself and
        broadcasts to (B, H, T, S): True where a query may look; None is all that came before. `padding` (B,) int64 says
        how many tokens at the left of each row, cached ones included, are filler that nobody sees and no position
        counts: what comes out for them has no meaning. ValueError beyond max_seq_len, for tokens of another shape, and
        for mask and padding together.
        """
        if tokens.ndim != 2:
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}, not (batch, tokens): add a batch dimension")
        past = 0 if cache is None else cache.length
        new = tokens.shape[1]
        end = past + new
        if end > self.config.max_seq_len:
            raise ValueError(f"{end} tokens do not fit the context of max_seq_len={self.config.max_seq_len}")
        positions = None
        if padding is not None:
            if mask is not None:
                raise ValueError("mask and padding cannot be given together")
            columns = torch.arange(past, end, device=tokens.device)
            positions = (columns - padding[:, None]).clamp(min=0)  # (B, T)
            mask = padding_mask(padding, new, end)  # (B, 1, T, S)
        rotary = None
        if self.rotary is not None:  # (2, T, D), or (2, B, 1, T, D)
            rotary = self.rotary[:, past:end] if positions is None else self.rotary[:, positions][:, :, None]
        if self.slopes is not None:
            # Given three dimensions, PyTorch's attention takes its slow way on a CPU.
            bias = alibi_bias(self.slopes, new, end)[None]  # (1, H, T, S)
            mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)  # (1 or B, H, T, S)
        elif mask is None and 1 < new < end:
            mask = causal_mask(new, end, tokens.device)  # (T, S), made once for all layers
        x = self.embeddings(tokens, past, positions)  # (B, T, C)
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            if recompute:
                x = checkpoint(block, x, rotary, mask, use_reentrant=False)
            else:
                x = block(x, rotary, mask, cache)  # (B, T, C)
        if cache is not None:
            cache.advance(new)
        return self.final_norm(x)  # type: ignore[no-any-return]

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None, padding: Tensor | None = None) -> Tensor:
        """Returns the logits that follow the last token only: tokens (B, T) -> (B, V). `padding` is as in hidden().

        With a cache, a long prompt is read PREFILL_CHUNK tokens at a time, so that what is held for it stays small.
        """
        *earlier, last = tokens.split(PREFILL_CHUNK if cache is not None else max(1, tokens.shape[1]), dim=1)
        for chunk in earlier:
            self.hidden(chunk, cache, padding=padding)
        return self.head(self.hidden(last, cache, padding=padding)[:, -1])  # type: ignore[no-any-return]

    def allocate_cache(self, batch_size: int, max_len: int | None = None) -> KVCache:
        """Returns an empty cache where the model is, for max_len tokens a row (default: the whole context)."""
        dtype = self.embeddings.token.weight.dtype
        return KVCache.allocate(self.config, batch_size, max_len, self.device, dtype)

    def loss(self, tokens: Tensor, targets: Tensor, end_of_text: int | None = None) -> tuple[Tensor, Tensor]:
        """Returns the summed loss in nats and the number of targets counted; tokens and targets (B, T) int64.

        Given the id of end-of-text, which begins a document, attention stays within documents.
        """
        mask = None if end_of_text is None else document_mask(tokens, end_of_text)  # (B, 1, T, T)
        hidden = self.hidden(tokens, mask=mask)  # (B, T, C)
        return next_token_loss(hidden.flatten(0, 1), self.head.weight, targets.flatten())

    def generate(
        self,
        start_tokens: Tensor,
        max_length: int = 100,
        sampling_strategy: str = "greedy",
        use_cache: bool = True,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 0.9,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop_ids: Iterable[int] = (),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continues each row of start_tokens (B, T) int64; returns (B, length) ids, prompt included.

        `max_length` counts the prompt, `max_new_tokens` only what is new and wins where both are given. The cache
        changes speed, never output. See generation.py for stop_ids, generator and
        the context limit, sampling.py for the other settings, and inference/batch.py for prompts of unequal length.
        """
        sampling = SamplingConfig.from_dict(
            {
                "strategy": sampling_strategy, "temperature": temperature, "top_k": top_k, "top_p": top_p,
                "min_p": min_p, "repetition_penalty": repetition_penalty,
            }
        )  # fmt: skip
        if max_new_tokens is None:
            max_new_tokens = max(0, max_length - start_tokens.shape[1])
        return generate(self, start_tokens, max_new_tokens, sampling, stop_ids, use_cache, generator)

    @torch.no_grad()
    def attention_weights(self, tokens: Tensor) -> list[Tensor]:
        """Returns what every layer attends to, one (B, H, T, T) tensor a layer, each row summing to 1."""
        recorded: list[Tensor] = []
        for block in self.layers:
            block.attention.recorded = recorded
        try:
            self.hidden(tokens)
        finally:
            for block in self.layers:
                block.attention.recorded = None
        return recorded

    def parameter_counts(self) -> dict[str, int]:
        """Returns the number of trained parameters by part; shared ones count once, where they come first."""
        parts = {
            "embeddings": self.embeddings,
            "blocks": self.blocks,
            "final_norm": self.final_norm,
            "head": self.head,
        }
        seen: set[int] = set()
        counts = dict.fromkeys(parts, 0)
        for name, part in parts.items():
            for parameter in part.parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    counts[name] += parameter.numel()
        return counts
