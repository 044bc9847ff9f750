"""Properties of Cache(batch_size, heads, max_len, head_dim): keys and values of one layer, for texts that grow."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from transformer.attention import attention_weights
from transformer.exercises.property import (
    Broken,
    about,
    difference,
    expect_pair,
    expect_tensor,
    random,
    readable,
    splits,
)


def numbered(start: int, count: int, batch: int = 1, heads: int = 1, width: int = 1) -> Tensor:
    """Keys (B, K, T, D) that hold the number of their token."""
    return torch.arange(start, start + count).float().view(1, 1, -1, 1).expand(batch, heads, count, width)


def updated(cache: Any, k: Tensor, v: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Returns what cache.update(k, v) returns, of the right shapes for `total` tokens so far."""
    call = "cache.update(k, v)"
    keys, values = expect_pair(cache.update(k, v), call, "keys, values")
    sizes = {"B": k.shape[0], "K": k.shape[1], "S": total, "D": k.shape[3]}
    return expect_tensor(keys, f"the keys of {call}", **sizes), expect_tensor(values, f"the values of {call}", **sizes)


@about("Cache", hint="update() returns two tensors: all keys so far, and all values so far.")
def returns_the_first_tokens(solution: Any) -> None:
    """The first update returns the keys and the values that it was given."""
    cache = solution.Cache(1, 1, 8, 1)
    k, v = random(2, 1, 1, 2, 1)
    keys, values = updated(cache, k, v, total=2)
    if difference(keys, k) is not None:
        raise Broken("an empty cache was given the keys and values of 2 tokens, and returned other keys")
    if difference(values, v) is not None:
        raise Broken(
            "an empty cache was given the keys and values of 2 tokens, and returned "
            + ("the keys as values" if difference(values, k) is None else "other values")
        )


@about(
    "Cache",
    hint="The new tokens belong behind those that are stored, and all of them are returned. The cache must remember "
    "how many it holds.",
)
def keeps_all_tokens_in_order(solution: Any) -> None:
    """Later updates return the tokens of all updates so far, earlier ones first, however the text is cut."""
    for length in range(2, 5):
        for chunks in splits(length):
            cache = solution.Cache(1, 1, length, 1)
            for end, size in zip(accumulate(chunks), chunks, strict=True):
                k = numbered(end - size, size)
                found = expect_pair(cache.update(k, -k), "cache.update(k, v)", "keys, values")
                for name, tensor, sign in zip(("keys", "values"), found, (1, -1), strict=True):
                    check_order(tensor, name, sign, chunks, end)


def check_order(found: object, name: str, sign: int, chunks: list[int], end: int) -> None:
    """Raises Broken unless the tensor holds the tokens 0 to end - 1; those of values are negative."""
    wanted = [sign * number for number in range(end)]
    if isinstance(found, Tensor) and found.flatten().tolist() != wanted:
        shown = [round(sign * number) for number in found.flatten().tolist()]
        raise Broken(
            f"a text in chunks of {' and '.join(map(str, chunks))} tokens: after {end} of them, update() returned the "
            f"{name} of the tokens {readable(shown)} instead of {list(range(end))}"
        )
    expect_tensor(found, f"the {name} of cache.update(k, v)", B=1, K=1, S=end, D=1)


@about(
    "Cache",
    hint="The next tokens continue the text: their positions count from the number of tokens that are stored.",
)
def counts_positions_from_the_stored_tokens(solution: Any) -> None:
    """positions(T) returns the positions of the next T tokens: 0, 1, ... at first, later those after the stored."""
    for chunks in ([2], [1, 1], [3, 1, 2]):
        cache, stored = solution.Cache(1, 1, 8, 1), 0
        for size in chunks:
            found = expect_tensor(cache.positions(size), f"cache.positions({size})", T=size)
            wanted = list(range(stored, stored + size))
            if found.tolist() != wanted:
                after = f"with {stored} token{'' if stored == 1 else 's'} stored"
                raise Broken(f"{after}, cache.positions({size}) is {readable(found)} instead of {wanted}")
            cache.update(numbered(stored, size), numbered(stored, size))
            stored += size


@about("Cache", hint="A list or tensor that is written in the class body, outside __init__, belongs to all caches.")
def shares_nothing_with_another_cache(solution: Any) -> None:
    """Two caches hold two texts."""
    first, second = solution.Cache(1, 1, 4, 1), solution.Cache(1, 1, 4, 1)
    first.update(numbered(0, 1), numbered(0, 1))
    keys, _ = expect_pair(second.update(numbered(7, 1), numbered(7, 1)), "cache.update(k, v)", "keys, values")
    if keys.flatten().tolist() != [7]:
        raise Broken(
            f"token 0 was stored in one cache, token 7 in another: the other returned {readable(keys.flatten())}"
        )


@about("Cache", hint="What does not fit must not be dropped in silence: raise ValueError.")
def refuses_what_does_not_fit(solution: Any) -> None:
    """More than max_len tokens raise ValueError."""
    cache = solution.Cache(1, 1, 3, 1)
    cache.update(numbered(0, 2), numbered(0, 2))
    try:
        cache.update(numbered(2, 2), numbered(2, 2))
    except ValueError:
        return
    except (RuntimeError, IndexError) as error:
        raise Broken(
            f"max_len = 3, and chunks of 2 and 2 tokens: raised {type(error).__name__} instead of ValueError"
        ) from error
    raise Broken("max_len = 3, and chunks of 2 and 2 tokens: the fourth token raised no ValueError")


@about("Cache", hint="Everything above must be true for every text of the batch, every head and every number.")
def changes_no_output_of_attention(solution: Any) -> None:
    """Attention over cached keys, chunk by chunk, gives what attention over the whole text gives."""
    q, k, v = random(3, 2, 3, 4, 2)
    whole = attention_weights(q, k) @ v
    for chunks in splits(4):
        cache, start = solution.Cache(2, 3, 4, 2), 0
        for size in chunks:
            end = start + size
            keys, values = updated(cache, k[:, :, start:end], v[:, :, start:end], total=end)
            out = attention_weights(q[:, :, start:end], keys) @ values
            if (place := difference(out, whole[:, :, start:end])) is not None:
                raise Broken(
                    f"4 tokens in chunks of {' and '.join(map(str, chunks))}: the output of token {start + place[2]} "
                    f"in head {place[1]} of text {place[0]} differs from the one without a cache"
                )
            start = end


PROPERTIES = (
    returns_the_first_tokens, shares_nothing_with_another_cache, keeps_all_tokens_in_order,
    counts_positions_from_the_stored_tokens, refuses_what_does_not_fit, changes_no_output_of_attention,
)  # fmt: skip
