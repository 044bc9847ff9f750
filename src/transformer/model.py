r"""The model: a decoder-only transformer, assembled from its parts.

**The problem.** Given the tokens so far, give every token of the vocabulary a probability of being the next one.

**The whole model**, with the shapes (B texts, T tokens, C = d_model, V = vocab_size):

    tokens (B, T)
      |   embeddings: token vectors and positions                (B, T, C)   embeddings.py
      |   num_layers blocks: attention, feed-forward network     (B, T, C)   block.py
      |   final norm                                             (B, T, C)   = hidden()
      |   output projection: compare with the row of each token  (B, T, V)   = forward(), the logits
      v
    softmax: probabilities of the next token, at every position at once

Training uses all T predictions of a pass. Generation needs only the last, so next_logits() projects one position.

**Output projection.** Row v of the (V, C) matrix is a direction; a hidden vector along it gets a high logit for token
v. With *tied* embeddings this matrix is the token table itself. At V = 100,277 and C = 256 that saves 25.7M of what
would be 56M parameters.

**Counting parameters**, default config: token table V C = 25.67M, positions 128 * 256 = 0.03M, a block 4 C^2 + 2 C d_ff
and its biases and norms = 0.79M, six of them 4.74M, final norm 512 (device="meta": shapes without memory):

>>> sum(DecoderOnlyTransformer(device="meta").parameter_counts().values())
30442752

**Initialisation** (GPT-2's). Matrices start as normal noise with standard deviation 0.02, biases at 0, norms at 1. Each
block adds two corrections to the residual stream, 2 num_layers in all, and their variances add up. So the two matrices
of a block that write to the stream start smaller by sqrt(2 num_layers). The logits start small too: after the final
norm a logit is a sum of C products of numbers near 1 and weights of standard deviation 0.02, so its own standard
deviation is 0.02 sqrt(C) = 0.3 at C = 256. (With tied embeddings the input token's own logit is larger, since the
stream still contains its row.) So almost every token starts at about 1/V, and the first loss is near ln V (loss.py).

**Cost** of a forward pass in FLOPs, where a multiply-add is two: a token takes about 2 for each parameter in a matrix
that it is multiplied by (a tied table counts once, as output projection), plus attention's 4 S C per layer. Training
takes three times that: for each product of the forward pass, backward computes two.

**Is it working?** The model can memorise one batch, down to a loss near 0; if not, something above is broken.

Papers: GPT-2, Radford et al. 2019; arXiv 1706.03762; tied embeddings, arXiv 1608.05859. Read before: block.py. Next:
loss.py; read generate() after generation.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from transformer import activations
from transformer.attention import Context
from transformer.block import Block, norm
from transformer.config import ModelConfig, SamplingConfig
from transformer.embeddings import INIT_STD, Embeddings, alibi_bias, alibi_slopes, rotary_table
from transformer.generation import eval_mode, generate
from transformer.generation_inputs import check_prompt, count_new_tokens
from transformer.kv_cache import KVCache
from transformer.loss import next_token_loss
from transformer.sampling import Filter, filter_logits


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
        self.config = config = config.check() if config is not None else ModelConfig.from_dict(settings)
        with torch.device(device or torch.get_default_device()):
            self.embeddings = Embeddings(config)
            self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
            self.final_norm = norm(config)
            self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
            if config.tie_embeddings:
                self.head.weight = self.embeddings.token.weight
            rotary = (config.head_dim, config.rope_theta, config.rotary_fraction, config.rope_scaling)
            table = rotary_table(config.max_seq_len, *rotary) if config.position == "rotary" else None
            slopes = alibi_slopes(config.num_heads) if config.position == "alibi" else None
        self.register_buffer("rotary", table, persistent=False)
        self.register_buffer("slopes", slopes, persistent=False)
        # Attributes, so that kernels/ can put faster versions in their place.
        self.next_token_loss: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = next_token_loss
        self.filter_logits: Filter = filter_logits  # for generate()
        self.initialise()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.final_norm.weight.device

    @property
    def layers(self) -> list[Block]:
        """The same as `blocks`, as a list whose type is known."""
        return cast(list[Block], list(self.blocks))

    def initialise(self) -> None:
        """Draws fresh weights, as GPT-2 does, from torch's global generator; norms keep PyTorch's ones and zeros."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_STD)  # a tied table is drawn twice, which does no harm
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.layers:
            for projection in (block.attention.out, block.feedforward.down):  # the two that write to the stream
                nn.init.normal_(projection.weight, std=INIT_STD / math.sqrt(2 * self.config.num_layers))

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Returns the logits of the next token at every position: tokens (B, T) int64 -> (B, T, V)."""
        return self.head(self.hidden(tokens, cache))

    def hidden(self, tokens: Tensor, cache: KVCache | None = None, context: Context | None = None) -> Tensor:
        """Returns the vectors that the output projection reads: tokens (B, T) int64 -> (B, T, C).

        With a cache, the tokens continue its text, and it is advanced by T. Errors are those of context().
        """
        context = self.context(tokens, cache) if context is None else context
        x = self.embeddings(tokens, context.positions)  # (B, T, C)
        for block in self.blocks:
            x = block(x, context, cache)  # (B, T, C)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.final_norm(x)

    def context(
        self, tokens: Tensor, cache: KVCache | None = None, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Context:
        """Returns what all blocks share: positions, rotations, and the mask. On a first reading: for tokens alone.

        `mask` is bool and broadcasts to (B, H, T, S): True where a query may attend. It must itself hide later tokens.
        `positions` (B, T) int64 is needed if rows do not all begin at position 0. Raises ValueError for tokens of
        another shape than (B, T), and if they end beyond max_seq_len.
        """
        if tokens.ndim != 2:
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}, not (batch, tokens): add a batch dimension")
        past = 0 if cache is None else cache.length
        new, end = tokens.shape[1], past + tokens.shape[1]
        if end > self.config.max_seq_len:
            raise ValueError(f"{end} tokens do not fit the context of max_seq_len={self.config.max_seq_len}")
        if positions is None:
            positions = torch.arange(past, end, device=tokens.device)  # (T,)
        rotary = None
        if self.rotary is not None:
            rotary = self.rotary[:, positions].unsqueeze(-3)  # (2, 1, T, D) or (2, B, 1, T, D)
        if self.slopes is not None:
            bias = alibi_bias(self.slopes, new, end)[None]  # (1, H, T, S): PyTorch's attention is slow for 3 dimensions
            mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)  # (1 or B, H, T, S)
        return Context(positions, rotary, mask)

    def next_logits(self, tokens: Tensor, cache: KVCache | None = None, context: Context | None = None) -> Tensor:
        """Returns the logits that follow the last token only: tokens (B, T) int64 -> (B, V)."""
        return self.head(self.hidden(tokens, cache, context)[:, -1])

    def allocate_cache(self, batch_size: int, max_len: int | None = None) -> KVCache:
        """Returns an empty cache on the device of the model, for max_len tokens per row (default: max_seq_len)."""
        dtype = self.embeddings.token.weight.dtype
        return KVCache.allocate(self.config, batch_size, max_len, self.device, dtype)

    def loss(self, tokens: Tensor, targets: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the summed loss in nats and the number of targets counted, both (); tokens, targets (B, T) int64.

        `mask` is as in context().
        """
        hidden = self.hidden(tokens, context=self.context(tokens, mask=mask))  # (B, T, C)
        return self.next_token_loss(hidden.flatten(0, 1), self.head.weight, targets.flatten())

    def generate(
        self,
        start_tokens: Tensor,
        max_length: int | None = None,
        sampling_strategy: str = "greedy",
        use_cache: bool = True,
        *,
        max_new_tokens: int | None = None,
        stop_ids: Iterable[int] = (),
        generator: torch.Generator | None = None,
        **settings: Any,
    ) -> Tensor:
        """Continues each row of start_tokens (B, T) int64 to max_length ids, prompt included (default: 100).

        Or give max_new_tokens, which counts only the new ones. `settings` are those of SamplingConfig, for example
        temperature=0.8; greedy ignores all but repetition_penalty. Errors are those of generation_inputs.py.
        """
        check_prompt(self.config, start_tokens)
        new_tokens = count_new_tokens(start_tokens.shape[1], max_length, max_new_tokens)
        sampling = SamplingConfig.from_dict(dict(strategy=sampling_strategy, **settings))
        return generate(self, start_tokens, new_tokens, sampling, stop_ids, use_cache, generator, self.filter_logits)

    def run_with_cache(
        self,
        tokens: Tensor,
        names: Collection[str] | None = None,
        cache: KVCache | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the logits (B, T, V) and the activations inside, by name: activations.py."""
        return activations.run_with_cache(self, tokens, names, cache, context)

    def run_with_hooks(
        self,
        tokens: Tensor,
        functions: Mapping[str, activations.Function],
        cache: KVCache | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """Returns the logits (B, T, V) while functions read or change activations, by name: activations.py."""
        return activations.run_with_hooks(self, tokens, functions, cache, context)

    @torch.no_grad()
    def attention_weights(self, tokens: Tensor) -> list[Tensor]:
        """Returns the attention weights of every layer, (B, H, T, T) each, without dropout; tokens (B, T) int64."""
        with eval_mode(self), activations.recorded(self, ["blocks.*.attention.weights"]) as found:
            self.hidden(tokens)
        return list(found.values())

    def parameter_counts(self) -> dict[str, int]:
        """Returns the number of trained parameters by part; shared ones count once, where they come first."""
        seen: set[nn.Parameter] = set()
        counts: dict[str, int] = {}
        for name, part in self.named_children():  # embeddings, blocks, final_norm, head
            new = set(part.parameters()) - seen
            counts[name] = sum(parameter.numel() for parameter in new)
            seen |= new
        return counts
