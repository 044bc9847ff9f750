"""Typical mistakes: each a wrong version of one function, and what the check must say about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from exercises import solutions
from exercises.solutions import copies, merge_heads
from transformer.attention import causal_mask
from transformer.config import IGNORE


class Wrong(NamedTuple):
    """A mistake in an exercise."""

    exercise: str
    mistake: str
    says: str
    """A part of the message."""
    functions: dict[str, Any]


WRONG: list[Wrong] = []


def wrong(exercise: str, mistake: str, says: str, **functions: Any) -> None:
    WRONG.append(Wrong(exercise, mistake, says, functions))


# causal mask


def ones(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool)


wrong("causal_mask", "hides the token itself", "causal_mask(1, 1): query 0 cannot attend to itself",
      causal_mask=lambda t, s: ones(t, s).tril(s - t - 1))  # fmt: skip
wrong("causal_mask", "shows one token too many", "causal_mask(2, 2): query 0 may attend to key 1, which comes later",
      causal_mask=lambda t, s: ones(t, s).tril(s - t + 1))  # fmt: skip
wrong("causal_mask", "is transposed", "query 0 may attend to key 1, which comes later",
      causal_mask=lambda t, s: ones(t, s).triu(s - t))  # fmt: skip
wrong("causal_mask", "means the opposite", "query 0 cannot attend to itself",
      causal_mask=lambda t, s: ~ones(t, s).tril(s - t))  # fmt: skip
wrong("causal_mask", "is aligned to the top left",
      "causal_mask(1, 2): query 0 is the token at position 1 of 2, but it cannot attend to key 1",
      causal_mask=lambda t, s: ones(t, s).tril())  # fmt: skip
wrong("causal_mask", "has keys as rows", "the shape is (3, 2), that is (S, T), instead of (T, S) = (2, 3)",
      causal_mask=lambda t, s: ones(s, t))  # fmt: skip
wrong("causal_mask", "holds numbers to add", "holds numbers (torch.float32)",
      causal_mask=lambda t, s: torch.zeros(t, s).masked_fill(~causal_mask(t, s), -math.inf))  # fmt: skip
wrong("causal_mask", "has no return", "returned nothing: does the function end with `return`?",
      causal_mask=lambda t, s: None)  # fmt: skip


# attention


def attend(scale: Callable[[Tensor, Tensor], float] = lambda q, k: math.sqrt(q.shape[-1]), dim: int = -1,
           hidden: float = -math.inf, after: bool = False, weigh: Callable[[Tensor, int], Tensor] = torch.softmax,
           ) -> Callable[..., Tensor]:  # fmt: skip
    """Attention with one of these things changed."""

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        scores = q @ k.transpose(-2, -1) / scale(q, k)
        if after:
            return weigh(scores, dim).masked_fill(~mask, 0.0) @ v
        return weigh(scores.masked_fill(~mask, hidden), dim) @ v

    return attention


wrong("attention", "does not scale", "the first is 0.9, as without a division", attention=attend(lambda q, k: 1.0))
wrong("attention", "scales by D", "as with a division by D", attention=attend(lambda q, k: q.shape[-1]))
wrong("attention", "scales by the number of tokens", "as with a division by sqrt(T)",
      attention=attend(lambda q, k: math.sqrt(k.shape[-2])))  # fmt: skip
wrong("attention", "normalises over queries", "with 2 tokens and values of 1, the output is the sum of the weights: "
      "those of query 0 sum to", attention=attend(dim=-2))  # fmt: skip
wrong("attention", "hides after the softmax", "those of query 0 sum to", attention=attend(after=True))
wrong("attention", "hides with 0", "with 2 tokens, position 0 changed when token 1 changed", attention=attend(hidden=0))
wrong("attention", "ignores the mask", "with 2 tokens, position 0 changed when token 1 changed",
      attention=lambda q, k, v, mask: attend()(q, k, v, torch.ones_like(mask)))  # fmt: skip
wrong("attention", "hides what it may see", "is everything hidden from it?",
      attention=lambda q, k, v, mask: attend()(q, k, v, ~mask | torch.eye(*mask.shape[-2:], dtype=torch.bool) & (
          torch.arange(mask.shape[-2]) == 0).view(-1, 1) & (torch.arange(mask.shape[-1]) < 0)
          if mask.shape[-1] > 1 else mask))  # fmt: skip
wrong("attention", "overflows", "with queries and keys ten thousand times as large, the output is nan or infinite",
      attention=attend(weigh=lambda scores, dim: scores.exp() / scores.exp().sum(dim, keepdim=True)))  # fmt: skip
wrong("attention", "changes the queries", "changed the numbers of q",
      attention=lambda q, k, v, mask: attend(lambda q, k: 1.0)(q.div_(math.sqrt(q.shape[-1])), k, v, mask))  # fmt: skip
wrong("attention", "returns the weights", "the shape is (2, 3, 4, 5)",
      attention=lambda q, k, v, mask: attend()(q, k, torch.eye(k.shape[-2]), mask))  # fmt: skip
wrong("attention", "is causal whatever the mask says", "a mask of shape (2, 1, 1, 3)",
      attention=lambda q, k, v, mask: attend()(q, k, v, causal_mask(q.shape[2], k.shape[2])))  # fmt: skip
wrong("attention", "cuts the graph", "the output has no gradient",
      attention=lambda q, k, v, mask: attend()(q.detach(), k.detach(), v.detach(), mask))  # fmt: skip


# heads

wrong("heads", "splits with a view", "head 0 of token 1 is [1] instead of [10]",
      split_heads=lambda x, h: x.reshape(len(x), h, x.shape[1], -1))  # fmt: skip
wrong("heads", "leaves the tokens in front", "that is (B, T, H, D), instead of (B, H, T, D)",
      split_heads=lambda x, h: x.unflatten(-1, (h, -1)))  # fmt: skip
wrong("heads", "takes every H-th number", "head 0 of token 0 is [0, 2] instead of [0, 1]",
      split_heads=lambda x, h: x.unflatten(-1, (-1, h)).permute(0, 3, 1, 2))  # fmt: skip
wrong("heads", "merges with a view", "token 0 of text 0 is [0, 10] instead of [0, 1]",
      merge_heads=lambda x: x.reshape(len(x), x.shape[2], -1))  # fmt: skip
wrong("heads", "merges the heads in the other order", "is [2, 3, 0, 1] instead of [0, 1, 2, 3]",
      merge_heads=lambda x: merge_heads(x.flip(1)))  # fmt: skip


# cache


class CacheOf:
    """A cache that appends; the mistakes change one method of it."""

    def __init__(self, batch_size: int, heads: int, max_len: int, head_dim: int) -> None:
        self.max_len = max_len
        self.k = self.v = torch.zeros(batch_size, heads, 0, head_dim)

    def positions(self, new: int) -> Tensor:
        return torch.arange(new) + self.k.shape[2]

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.k.shape[2] + k.shape[2] > self.max_len:
            raise ValueError("full")
        self.k, self.v = torch.cat([self.k, k], 2), torch.cat([self.v, v], 2)
        return self.k, self.v


class Forgets(CacheOf):
    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k, v


class StoresAtTheStart(CacheOf):
    def __init__(self, batch_size: int, heads: int, max_len: int, head_dim: int) -> None:
        self.keys = torch.zeros(batch_size, heads, max_len, head_dim)
        self.values, self.length = self.keys.clone(), 0

    def positions(self, new: int) -> Tensor:
        return torch.arange(new) + self.length

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        new = k.shape[2]
        self.keys[:, :, :new], self.values[:, :, :new] = k, v
        self.length += new
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class NewestFirst(CacheOf):
    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.k, self.v = torch.cat([k, self.k], 2), torch.cat([v, self.v], 2)
        return self.k, self.v


class PositionsFromZero(CacheOf):
    def positions(self, new: int) -> Tensor:
        return torch.arange(new)


class CountsCalls(CacheOf):
    calls = 0

    def positions(self, new: int) -> Tensor:
        return torch.arange(new) + self.calls

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return super().update(k, v)


class OneForAll(CacheOf):
    """Its lists belong to the class."""

    chunks: list[tuple[Tensor, Tensor]] = []  # noqa: RUF012

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.chunks.append((k, v))
        keys, values = zip(*self.chunks, strict=True)
        return torch.cat(keys, 2)[:, :, -2:], torch.cat(values, 2)[:, :, -2:]


class Drops(CacheOf):
    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.k = torch.cat([self.k, k], 2)[:, :, : self.max_len]
        self.v = torch.cat([self.v, v], 2)[:, :, : self.max_len]
        return self.k, self.v


class MixesUp(CacheOf):
    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, _ = super().update(k, v)
        return keys, keys


wrong("cache", "forgets", "the keys of the tokens [1] instead of [0, 1]", Cache=Forgets)
wrong("cache", "stores at position 0", "the keys of the tokens [1, 0] instead of [0, 1]", Cache=StoresAtTheStart)
wrong("cache", "puts the newest first", "the keys of the tokens [1, 0] instead of [0, 1]", Cache=NewestFirst)
wrong("cache", "starts positions from 0 again", "with 1 token stored, cache.positions(1) is [0] instead of [1]",
      Cache=PositionsFromZero)  # fmt: skip
wrong("cache", "counts calls, not tokens", "with 3 tokens stored, cache.positions(1) is [1] instead of [3]",
      Cache=CountsCalls)  # fmt: skip
wrong("cache", "shares its lists with all others", "token 0 was stored in one cache, token 7 in another: the other "
      "returned", Cache=OneForAll)  # fmt: skip
wrong("cache", "drops what does not fit", "the fourth token raised no ValueError", Cache=Drops)
wrong("cache", "returns keys as values", "returned the keys as values", Cache=MixesUp)


# positions


def rotate(pairs: str = "halves", sign: int = 1, exponent: float = 2.0, one_angle: bool = False, start: int = 0,
           ) -> Callable[..., Tensor]:  # fmt: skip
    """Rotary positions with one of these things changed."""

    def turned(x: Tensor, positions: Tensor, theta: float = 10_000.0) -> Tensor:
        width = x.shape[-1]
        powers = torch.zeros(width // 2) if one_angle else torch.arange(width // 2) * exponent / width
        angles = (positions + start)[:, None] / theta**powers
        cos, sin = angles.cos(), sign * angles.sin()
        if pairs == "neighbours":
            a, b = x[..., ::2], x[..., 1::2]
            return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        a, b = x.chunk(2, dim=-1)
        if pairs == "unrotated":
            return torch.cat([a * cos + a * sin, b * cos + b * sin], dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    return turned


def unwritten(*_: object) -> Tensor:
    raise NotImplementedError


def table(angle: Callable[[Tensor, int], Tensor] = lambda i, c: 2 * i / c, first: str = "sin") -> Callable[..., Tensor]:
    def sinusoidal_table(max_len: int, d_model: int) -> Tensor:
        angles = torch.arange(max_len)[:, None] / 10_000 ** angle(torch.arange(d_model // 2), d_model)
        parts = [angles.sin(), angles.cos()]
        if first == "halves":
            return torch.cat(parts, dim=-1)
        return torch.stack(parts if first == "sin" else parts[::-1], dim=-1).flatten(-2)

    return sinusoidal_table


wrong("positions", "pairs neighbours", "D = 4, and only number 0 is not 0: the rotation mixed it with number 1",
      rotate=rotate("neighbours"))  # fmt: skip
wrong("positions", "rotates backwards", "That is the rotation in the other direction.", rotate=rotate(sign=-1))
wrong("positions", "gives all pairs one angle", "pair 1 was rotated by 1 radians instead of 0.25",
      rotate=rotate(one_angle=True))  # fmt: skip
wrong("positions", "has the exponent i / D", "pair 1 was rotated by 0.5 radians", rotate=rotate(exponent=1.0))
wrong("positions", "counts positions from 1", "[1, 2, 3, 4] at position 0 became", rotate=rotate(start=1))
wrong("positions", "mixes a number with itself", "instead of [cos 1, sin 1]", rotate=rotate("unrotated"))
wrong("positions", "has the sines first, then the cosines", "is [0, 0, 1, 1] instead of [0, 1, 0, 1]",
      rotate=unwritten, sinusoidal_table=table(first="halves"))  # fmt: skip
wrong("positions", "has cosines in even columns", "the row of position 0 is [1, 0] instead of [0, 1]",
      rotate=unwritten, sinusoidal_table=table(first="cos"))  # fmt: skip
wrong("positions", "has the exponent i / C", "instead of sin(1 / 10000^(2/4))",
      rotate=unwritten, sinusoidal_table=table(lambda i, c: i / c))  # fmt: skip


# block


def norm(x: Tensor, w: Tensor, b: Tensor, eps: float, dim: int = -1, unbiased: bool = False, outside: bool = False,
         ) -> Tensor:  # fmt: skip
    centred, var = x - x.mean(dim, keepdim=True), x.var(dim, unbiased=unbiased, keepdim=True)
    return centred / (var.sqrt() + eps if outside else (var + eps).sqrt()) * w + b


wrong("block", "norms over the tokens", "with 1 token(s) of 4 numbers, token 0 has mean 0",
      layer_norm=lambda *x: norm(*x, dim=0) + 0.01)  # fmt: skip
wrong("block", "divides the variance by C - 1", "that is var divided by C - 1",
      layer_norm=lambda *x: norm(*x, unbiased=True))  # fmt: skip
wrong("block", "adds eps outside the root", "that is eps added outside the root",
      layer_norm=lambda *x: norm(*x, outside=True))  # fmt: skip
wrong("block", "forgets weight and bias", "which is [-0.995, 0.995] * weight + bias",
      layer_norm=lambda x, w, b, eps: norm(x, torch.ones(x.shape[-1]), torch.zeros(x.shape[-1]), eps))  # fmt: skip

wrong("block", "cuts the graph in the norm", "the gradient with respect to x is missing",
      layer_norm=lambda x, w, b, eps: norm(x.detach(), w, b, eps))  # fmt: skip
wrong("block", "cuts the graph in the stream", "the gradient with respect to x is [0, 0] instead of 156",
      block=lambda x, *parts: solutions.block(x.detach(), *parts))  # fmt: skip


def norm_on_the_stream(x: Tensor, attention: Any, network: Any, norm1: Any, norm2: Any) -> Tensor:
    x = norm1(x)
    x = x + attention(x)
    x = norm2(x)
    return x + network(x)


def post_norm(x: Tensor, attention: Any, network: Any, norm1: Any, norm2: Any) -> Tensor:
    x = norm1(x + attention(x))
    return norm2(x + network(x))


def no_second_residual(x: Tensor, attention: Any, network: Any, norm1: Any, norm2: Any) -> Tensor:
    x = x + attention(norm1(x))
    return network(norm2(x))


def no_first_residual(x: Tensor, attention: Any, network: Any, norm1: Any, norm2: Any) -> Tensor:
    x = attention(norm1(x))
    return x + network(norm2(x))


def parallel(x: Tensor, attention: Any, network: Any, norm1: Any, norm2: Any) -> Tensor:
    return x + attention(norm1(x)) + network(norm2(x))


def one_norm(x: Tensor, attention: Any, network: Any, norm1: Any, norm2: Any) -> Tensor:
    x = x + attention(norm1(x))
    return x + network(norm1(x))


def second_from_x(x: Tensor, attention: Any, network: Any, norm1: Any, norm2: Any) -> Tensor:
    return x + network(norm2(x + attention(norm1(x))))


def in_place(x: Tensor, attention: Any, network: Any, norm1: Any, norm2: Any) -> Tensor:
    x += attention(norm1(x))
    x += network(norm2(x))
    return x


wrong("block", "replaces the stream by its norm", "a stream to which the correction was added after x had become",
      block=norm_on_the_stream)  # fmt: skip
wrong("block", "norms after the sums", "attention read x itself, without a norm", block=post_norm)
wrong("block", "has no second residual", "the second correction alone: the stream is missing", block=no_second_residual)
wrong("block", "has no first residual", "x is missing in x + attention(...)", block=no_first_residual)
wrong("block", "runs both parts at once", "from before attention's correction", block=parallel)
wrong("block", "uses one norm twice", "feed_forward read the stream through attention_norm", block=one_norm)
wrong("block", "loses attention's correction", "attention's is missing", block=second_from_x)
wrong("block", "changes x in place", "x was [1, 2] before the call", block=in_place)


# loss


def nats(mean: bool = False, ignore: int = IGNORE, shift: int = 0, base: float = math.e, stable: bool = True,
         count_all: bool = False, dim: int = -1, sign: int = 1) -> Callable[..., tuple[Tensor, Tensor]]:  # fmt: skip
    def next_token_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = hidden @ weight.T
        if shift:
            logits, targets = logits[:-1], targets[1:]
        logp = logits.log_softmax(dim) if stable else (logits.exp() / logits.exp().sum(dim, keepdim=True)).log()
        total = sign * F.nll_loss(logp, targets, ignore_index=ignore, reduction="mean" if mean else "sum")
        counted = targets != (IGNORE if not count_all else 10**6)
        return total / math.log(base), counted.sum()

    return next_token_loss


def without_graph(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return nats()(hidden.detach(), weight, targets)


def zero_for_padding(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return nats()(hidden, weight, targets.clamp(min=0))


wrong("loss", "takes the mean", "that is the mean", next_token_loss=nats(mean=True))
wrong("loss", "shifts the targets again", "over 2 targets instead of about 0 over 3",
      next_token_loss=lambda h, w, t: nats(shift=len(t) > 1)(h, w, t))  # fmt: skip
wrong("loss", "takes bits", "its base is 2", next_token_loss=nats(base=2.0))
wrong("loss", "has the wrong sign", "its sign is wrong", next_token_loss=nats(sign=-1))
wrong("loss", "counts padding in the number", "the count is 2 instead of 1", next_token_loss=nats(count_all=True))
wrong("loss", "counts padding in the sum", f"the second with target {IGNORE}: the loss is",
      next_token_loss=zero_for_padding)  # fmt: skip
wrong("loss", "overflows", "logits [1000, 0] with target 1: the loss is", next_token_loss=nats(stable=False))
wrong("loss", "normalises over positions", "the loss is 0 instead of 1.386",
      next_token_loss=nats(dim=0))  # fmt: skip
wrong("loss", "cuts the graph", "the loss has no gradient", next_token_loss=without_graph)
wrong("loss", "shifts by two", "the targets are [[]] instead of [[6]]",
      inputs_and_targets=lambda rows: (rows[:, :-1], rows[:, 2:]))  # fmt: skip
wrong("loss", "does not shift", "the targets are [[5]] instead of [[6]]",
      inputs_and_targets=lambda rows: (rows[:, :-1], rows[:, :-1]))  # fmt: skip
wrong("loss", "returns one number", "returned a Tensor instead of two values: return nats, count",
      next_token_loss=lambda h, w, t: nats()(h, w, t)[0])  # fmt: skip


# sampling


def top_k_by_index(logits: Tensor, k: int) -> Tensor:
    best = logits.topk(min(k, logits.shape[-1]))
    return torch.full_like(logits, -math.inf).scatter(-1, best.indices, best.values)


def top_p(after: bool = False, ascending: bool = False, scattered: bool = True) -> Callable[[Tensor, float], Tensor]:
    def keep_top_p(logits: Tensor, p: float) -> Tensor:
        probs, order = logits.softmax(-1).sort(descending=not ascending)
        total = probs.cumsum(-1)
        goes = total > p + 1e-6 if after else total - probs > p
        if not scattered:
            return logits.masked_fill(goes, -math.inf)
        return logits.masked_fill(torch.zeros_like(goes).scatter(-1, order, goes), -math.inf)

    return keep_top_p


def sampled(order: str) -> Callable[..., Tensor]:
    def filter_logits(logits: Tensor, temperature: float, top_k: int | None, p: float) -> Tensor:
        keep = solutions.SOLUTIONS["sampling"]
        for step in order:
            if step == "t":
                logits = logits / temperature
            if step == "T":
                logits = logits * temperature
            if step == "k" and top_k is not None:
                logits = keep.keep_top_k(logits, top_k)
            if step == "p":
                logits = keep.keep_top_p(logits, p)
        return logits

    return filter_logits


wrong("sampling", "top-k breaks ties", "k = 1: kept [0] instead of [0, 1]", keep_top_k=top_k_by_index)
wrong("sampling", "top-k fails above the vocabulary", "2 tokens, k = 5: RuntimeError instead of all tokens",
      keep_top_k=lambda x, k: x.masked_fill(x < x.topk(k).values[..., -1:], -math.inf))  # fmt: skip
wrong("sampling", "top-k sets 0", "the logit of token 1 was -1.204 and is 0",
      keep_top_k=lambda x, k: x.masked_fill(x < x.topk(k).values[..., -1:], 0.0))  # fmt: skip
wrong("sampling", "top-k keeps one too few", "kept [] instead of [0]",
      keep_top_k=lambda x, k: x.masked_fill(x <= x.topk(k).values[..., -1:], -math.inf))  # fmt: skip
wrong("sampling", "top-p excludes the token that crosses p", "p = 0.5: kept the tokens [], whose sum is 0",
      keep_top_p=top_p(after=True))  # fmt: skip
wrong("sampling", "top-p sorts upwards", "whose sum is", keep_top_p=top_p(ascending=True))
wrong("sampling", "top-p forgets where tokens were", "p = 0.55: kept the tokens [0] instead of [1]",
      keep_top_p=top_p(scattered=False))  # fmt: skip
wrong("sampling", "filters a batch together", "keep_top_k of two rows: row 0",
      keep_top_k=lambda x, k: x.masked_fill(x < x.flatten().topk(min(k, x.shape[-1])).values[-1], -math.inf)
      )  # fmt: skip
wrong("sampling", "applies the temperature last", "temperature 0.5, top_p = 0.75: kept [0, 1, 2] instead of [0, 1]",
      filter_logits=sampled("kpt"))  # fmt: skip
wrong("sampling", "multiplies by the temperature", "temperature 0.5 and no filter", filter_logits=sampled("Tkp"))
wrong("sampling", "applies top-p before top-k", "top_k = 2, top_p = 0.6: kept [0, 1] instead of [0]",
      filter_logits=sampled("tpk"))  # fmt: skip


# perplexity


def batch_loss(logits: Tensor, targets: Tensor) -> tuple[float, int]:
    found, count = nats()(logits, torch.eye(logits.shape[-1]), targets)
    return float(found), int(count)


def mean_of_exponentials(batches: Any) -> float:
    each = [math.exp(total / count) for total, count in (batch_loss(*batch) for batch in batches)]
    return sum(each) / len(each)


def exponential_of_means(batches: Any) -> float:
    each = [total / count for total, count in (batch_loss(*batch) for batch in batches)]
    return math.exp(sum(each) / len(each))


def mean_over_tokens_of_exponentials(batches: Any) -> float:
    each = torch.cat([F.cross_entropy(logits, targets, reduction="none").exp() for logits, targets in batches])
    return float(each.mean())


def padding_in_the_count(batches: Any) -> float:
    pairs = [(batch_loss(*batch)[0], len(batch[1])) for batch in batches]
    return math.exp(sum(total for total, _ in pairs) / sum(count for _, count in pairs))


wrong("perplexity", "averages perplexities of batches", "that is the mean of the batches' perplexities",
      perplexity=mean_of_exponentials)  # fmt: skip
wrong("perplexity", "averages the means of batches", "that is the exponential of the mean of the batches' means",
      perplexity=exponential_of_means)  # fmt: skip
wrong("perplexity", "averages exponentials of tokens", "5 is the mean of the exponentials",
      perplexity=mean_over_tokens_of_exponentials)  # fmt: skip
wrong("perplexity", "returns the loss", "that is the loss",
      perplexity=lambda batches: math.log(solutions.perplexity(batches)))  # fmt: skip
wrong(
    "perplexity", "counts padding", f"the second target {IGNORE}: 1.414 instead of 2", perplexity=padding_in_the_count
)
wrong("perplexity", "mixes base 2 and base e", "instead of 2",
      perplexity=lambda batches: 2 ** math.log(solutions.perplexity(batches)))  # fmt: skip
wrong("perplexity", "multiplies by ln 2", "bits_per_byte(0.6931, 1) is 0.4805 instead of 1",
      bits_per_byte=lambda nats, size: nats * math.log(2) / size)  # fmt: skip


# accumulation


def accumulate(divide: Callable[[Any, int, Any], Any], clear: bool = False, add: bool = True, graph: bool = False,
               ) -> Callable[..., Any]:  # fmt: skip
    def accumulate_gradients(objective: Any, batches: Any, divisor: Any) -> Any:
        total: Any = torch.zeros(())
        tokens: Any = torch.zeros((), dtype=torch.int64)
        if not add:
            objective.zero_grad()
        for inputs, targets in batches:
            if clear:
                objective.zero_grad()
            loss, count = objective(inputs, targets)
            (divide(loss, len(batches) if isinstance(batches, list) else 1, count) / divisor).backward()
            total, tokens = total + (loss if graph else loss.detach()), tokens + count
        return total, tokens

    return accumulate_gradients


def without_division(objective: Any, batches: Any, divisor: Any) -> Any:
    return solutions.accumulate_gradients(objective, batches, 1)


def all_at_once(objective: Any, batches: Any, divisor: Any) -> Any:
    nats, counts = zip(*(objective(tokens, targets) for tokens, targets in batches), strict=True)
    (sum(nats) / divisor).backward()
    return sum(nats).detach(), sum(counts)


def mean_of_means(objective: Any, batches: Any, divisor: Any) -> Any:
    return accumulate(lambda loss, number, count: loss * divisor / count.clamp(min=1) / number)(
        objective, batches, divisor
    )


wrong("accumulation", "does not divide", "that is the sum, without a division", accumulate_gradients=without_division)
wrong("accumulation", "divides by the micro-batches", "that is the sum divided by the number of micro-batches",
      accumulate_gradients=lambda o, b, d: accumulate(lambda loss, n, c: loss * d / n)(o, b, d))  # fmt: skip
wrong("accumulation", "takes the mean of means", "that is the mean of the micro-batches' means",
      accumulate_gradients=mean_of_means)  # fmt: skip
wrong("accumulation", "clears in the loop", "that is the gradient of the last micro-batch alone",
      accumulate_gradients=accumulate(lambda loss, n, c: loss, clear=True))  # fmt: skip
wrong("accumulation", "clears at the start", ".grad was 10, and the micro-batch adds 3: afterwards it is 3",
      accumulate_gradients=accumulate(lambda loss, n, c: loss, add=False))  # fmt: skip
wrong("accumulation", "returns the graph", "the returned nats require a gradient",
      accumulate_gradients=accumulate(lambda loss, n, c: loss, graph=True))  # fmt: skip
wrong("accumulation", "keeps all graphs", "micro-batch 1 was read before the gradient of micro-batch 0 was computed",
      accumulate_gradients=all_at_once)  # fmt: skip
wrong("accumulation", "counts padding", "count_targets is 6 instead of 4",
      count_targets=lambda batches: sum(targets.numel() for _, targets in batches))  # fmt: skip
wrong("accumulation", "returns the mean", "returned 3 nats and 2 tokens instead of 6 and 2",
      accumulate_gradients=lambda o, b, d: (
          (found := solutions.accumulate_gradients(o, b, d))[0] / d, found[1]))  # fmt: skip


# schedule


def schedule(first: int = 1, floor: bool = True, stays: bool = True, wave: float = 1.0, line: bool = False,
             early: int = 0) -> Callable[..., float]:  # fmt: skip
    def lr_scale(step: int, total: int, warmup: int, low: float) -> float:
        if step < warmup:
            return (step + first) / warmup
        t = (step - warmup + 1) / max(1, total - warmup + 1 + early)
        t = min(1.0, t) if stays else t
        height = 1 - t if line else (1 + math.cos(wave * math.pi * t)) / 2
        return low * floor + (1 - low * floor) * height

    return lr_scale


wrong("schedule", "starts the warm-up at 0", "2 steps, 1 of warm-up: step 0 has 0 instead of 1/1",
      lr_scale=schedule(first=0))  # fmt: skip
wrong("schedule", "ends above the minimum", "after the end, has", lr_scale=schedule(early=1))
wrong("schedule", "rises after the end", "step 3, after the end, has 0.5 instead of 0", lr_scale=schedule(stays=False))
wrong(
    "schedule", "falls to 0", "low = 0.1: step 3, after the end, has 0 instead of 0.1", lr_scale=schedule(floor=False)
)
wrong("schedule", "falls in a line", "3 steps, 0 of warm-up, low = 0.1: step 0 has", lr_scale=schedule(line=True))
wrong("schedule", "takes a whole period", "after the end, has 1 instead of 0", lr_scale=schedule(wave=2.0))
wrong("schedule", "divides by a warm-up of 0", "ZeroDivisionError",
      lr_scale=lambda s, n, w, low: solutions.scale(s, n, w, low) if s / w >= 0 else 0.0)  # fmt: skip


# induction


def looking_back(shift: int, strength: float) -> Callable[[int, int], tuple[Tensor, Tensor]]:
    def previous_token_head(vocab: int, length: int) -> tuple[Tensor, Tensor]:
        qk, ov = solutions.previous_token_head(vocab, length)
        qk = torch.zeros_like(qk)
        for position in range(length):
            if 0 <= position + shift < length:
                qk[vocab + position, vocab + position + shift] = strength
        return qk, ov

    return previous_token_head


def matching(query: str, key: str, copied: str, to: str) -> Callable[[int, int], tuple[Tensor, Tensor]]:
    def induction_head(vocab: int, length: int) -> tuple[Tensor, Tensor]:
        at = {"token": 0, "previous": vocab + length, "prediction": 2 * vocab + length}
        width = 3 * vocab + length
        return copies(width, at[query], at[key], vocab, 20.0), copies(width, at[copied], at[to], vocab, 1.0)

    return induction_head


wrong("induction", "attends to itself", "position 1 attends to the positions 0 to 1 with the weights",
      previous_token_head=looking_back(0, 20.0))  # fmt: skip
wrong("induction", "is transposed", "wanted: 0.9 or more for position 0", previous_token_head=looking_back(1, 20.0))
wrong("induction", "is too weak", "with the weights [0.7311, 0.2689]", previous_token_head=looking_back(-1, 1.0))
wrong("induction", "matches the token itself", "token 1 at position 2 was at position 1 before",
      induction_head=matching("token", "token", "token", "prediction"))  # fmt: skip
wrong("induction", "asks with the previous token",
      "with the weights [1.031e-09, 0.5, 0.5]; wanted: 0.9 or more for position 2",
      induction_head=matching("previous", "token", "token", "prediction"))  # fmt: skip
wrong("induction", "copies the previous token", "`predicted token` is",
      induction_head=matching("token", "previous", "previous", "prediction"))  # fmt: skip
wrong("induction", "overwrites the token", "`predicted token` is [0, 0]",
      induction_head=matching("token", "previous", "token", "token"))  # fmt: skip
wrong("induction", "writes elsewhere", "the part `previous token` of position 1 is [0, 0] instead of [1, 0]",
      previous_token_head=lambda v, t: (solutions.previous_token_head(v, t)[0], copies(3 * v + t, 0, 2 * v + t, v, 1.0))
      )  # fmt: skip
