"""Generation for many prompts at once: unequal lengths, one generator a row, tokens as they come.

generation.py continues prompts of equal length. A pass reads all weights once, for one row as for eight, so a batch of
eight texts takes little more time than one. Three things are needed for a batch of real prompts:

**Padding.** Rows are padded on the left, so that the next token of every row is in the same column. No token attends to
the padding, and positions count from the row's own first token (padding.py):

    text       . . 5 6 |        padding 2
               7 8 9 3 |        padding 0

**A window for each row.** At the context limit the window of a row moves as in generation.py, by the row's own length
without its padding. In one batch, windows therefore begin at different columns, and a row whose window begins further
right than another's is padded again, up to there. If the window of any row moves, the cache is filled again for all:

    L = 4      a b c d e         row 0: window starts at c
               . . x y z         row 1: window starts at x

**A generator for each row.** A row with its own generator draws the numbers that it would draw alone. Together this
makes each row independent of the others: it gives the tokens that its prompt gives alone, up to rounding.

`stream_tokens` yields each token as soon as it is known. Between two tokens the model is in the mode, train or eval, in
which the caller left it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from transformer.categorical import inverse_cdf, uniform_numbers
from transformer.config import SamplingConfig
from transformer.generation import eval_mode, window_start
from transformer.generation_inputs import check_arguments
from transformer.inference.compiled_decode import CompiledDecoder
from transformer.inference.padding import next_logits
from transformer.inference.reuse import Reuse
from transformer.kv_cache import KVCache
from transformer.model import DecoderOnlyTransformer
from transformer.sampling import Filter, filter_logits, greedy, is_greedy

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator for all rows, in order; one for each row; or None, torch's global CPU generator."""
BatchModel = DecoderOnlyTransformer | CompiledDecoder


def sample_rows(
    logits: Tensor,
    sampling: SamplingConfig,
    generator: Generators = None,
    text: Tensor | None = None,
    filter_with: Filter = filter_logits,
) -> Tensor:
    """As sampling.sample for logits (B, V) -> (B,), but `generator` may be a sequence with one for each row.

    Raises ValueError if the sequence has another length.
    """
    if is_greedy(sampling):
        return greedy(logits, sampling, text)
    logits = filter_with(logits, sampling, text)
    if not isinstance(generator, Sequence):
        uniform = uniform_numbers(len(logits), generator)  # (B,)
    elif len(generator) == len(logits):
        uniform = torch.cat([uniform_numbers(1, own) for own in generator])  # (B,)
    else:
        raise ValueError(f"{len(generator)} generators for {len(logits)} rows: give one for each row, or one for all")
    return inverse_cdf(logits.softmax(-1), uniform)


def stream_tokens(
    model: BatchModel,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    stop_ids: Iterable[int] = (),
    use_cache: bool = True,
    generator: Generators = None,
    padding: Tensor | None = None,
    is_finished: Callable[[], Tensor] | None = None,
    reuse: Reuse | None = None,
) -> Iterator[Tensor]:
    """Yields the next token of every row, (B,) int64, max_new_tokens times or until all rows are finished.

    prompt (B, T) int64; padding (B,) int64 as pad() returns it, or None if all rows are equally long. `is_finished` is
    called after each token and returns the rows, (B,) bool, that are finished for reasons of the caller's. `reuse`,
    for one row with a cache, is that of an earlier text (reuse.py). Raises ValueError for a prompt or padding that
    leaves a row without tokens, and ConfigError for impossible settings.
    """
    check_arguments(model.config, prompt, max_new_tokens, sampling)
    counts = [0] * len(prompt) if padding is None else [int(count) for count in padding]
    if len(counts) != len(prompt) or not all(0 <= count < prompt.shape[1] for count in counts):
        raise ValueError(f"padding={counts} does not leave a token in each of {len(prompt)} rows of {prompt.shape[1]}")
    texts = _Texts(model, prompt, counts, max_new_tokens, use_cache, reuse if len(prompt) == 1 else None)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.int64, device=prompt.device)
    return _stream(model, texts, max_new_tokens, sampling, stops, generator, is_finished)


def _stream(
    model: BatchModel,
    texts: _Texts,
    max_new_tokens: int,
    sampling: SamplingConfig,
    stops: Tensor,
    generator: Generators,
    is_finished: Callable[[], Tensor] | None,
) -> Iterator[Tensor]:
    """The loop of stream_tokens, a function of its own so that errors come before the first token is asked for."""
    finished = torch.zeros_like(texts.tokens[:, 0], dtype=torch.bool)  # (B,)
    for _ in range(max_new_tokens):
        with torch.no_grad(), eval_mode(model):
            token = sample_rows(texts.next_logits(), sampling, generator, texts.tokens, model.filter_logits)  # (B,)
        token = torch.where(finished, texts.tokens[:, -1], token)  # a finished row repeats its last id
        yield token
        finished = finished | torch.isin(token, stops)
        if is_finished is not None:
            finished = finished | is_finished().to(finished.device)
        if (len(stops) or is_finished is not None) and bool(finished.all()):
            return
        texts.append(token)


def generate_batch(
    model: BatchModel,
    prompt: Tensor,
    max_new_tokens: int,
    sampling: SamplingConfig,
    stop_ids: Iterable[int] = (),
    use_cache: bool = True,
    generator: Generators = None,
    padding: Tensor | None = None,
) -> Tensor:
    """As generation.generate, for rows of unequal length: (B, T) -> (B, T + n), n at most max_new_tokens."""
    stream = stream_tokens(model, prompt, max_new_tokens, sampling, stop_ids, use_cache, generator, padding)
    return torch.cat([prompt, *(token[:, None] for token in stream)], dim=1)


class _Texts:
    """The texts of a batch, the window of each, and the cache."""

    def __init__(
        self,
        model: BatchModel,
        prompt: Tensor,
        padding: list[int],
        max_new_tokens: int,
        use_cache: bool,
        reuse: Reuse | None,
    ) -> None:
        batch, self.length = prompt.shape
        self.reuse = reuse
        self.model, self.limit, self.prompt_padding = model, model.config.max_seq_len, padding
        self._all = prompt.new_empty(batch, self.length + max_new_tokens)  # (B, T + n)
        self._all[:, : self.length] = prompt
        self.starts: list[int] = []  # the column at which the window of each row begins
        self.padding: Tensor | None = None  # (B,), from the first of these columns to each of them
        self.use_cache = use_cache
        self.cache: KVCache | None = None  # allocated with the first token

    @property
    def tokens(self) -> Tensor:
        """The texts so far, padding and prompt included, (B, length) int64."""
        return self._all[:, : self.length]

    def append(self, token: Tensor) -> None:
        """Adds token (B,) to the texts."""
        self._all[:, self.length] = token
        self.length += 1

    def next_logits(self) -> Tensor:
        """Returns the logits (B, V) of the token after each text; processes only the tokens not in the cache."""
        starts = [count + window_start(self.length - count, self.limit) for count in self.prompt_padding]
        first = min(starts)
        if starts != self.starts:  # the window of some row moves, so its positions change
            self.starts = starts
            padding = [start - first for start in starts]
            self.padding = torch.tensor(padding, device=self._all.device) if any(padding) else None
            if self.cache is not None:
                self.cache.truncate(0)
            elif self.use_cache:
                self.cache = self.model.allocate_cache(len(starts), min(self.limit, self._all.shape[1]))
            if self.cache is not None and self.reuse is not None:
                self.reuse.begin(self.cache, self._all[0, first:], self.length - first)
        seen = first + (0 if self.cache is None else self.cache.length)
        unseen = self.tokens[:, seen:]
        if isinstance(self.model, CompiledDecoder):
            return self.model.next_logits(unseen, self.cache, self.padding)
        return next_logits(self.model, unseen, self.cache, self.padding)
