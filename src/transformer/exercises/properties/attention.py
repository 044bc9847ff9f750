"""Properties of attention(q, k, v, mask): softmax(q k^T / sqrt(D)) v over what the mask lets a query see."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from transformer.attention import attention_weights, causal_mask
from transformer.exercises.property import Broken, about, difference, expect_tensor, is_close, random, readable


def attended(solution: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the output of the solution, of the right shape; the default mask is causal."""
    sizes = dict(zip("BHTD", q.shape, strict=True))
    mask = causal_mask(q.shape[2], k.shape[2]) if mask is None else mask
    out = solution.attention(q.clone(), k.clone(), v.clone(), mask.clone())  # whatever it does to them in place
    return expect_tensor(out, "attention(q, k, v, mask)", **sizes)


def column(*numbers: float) -> Tensor:
    """One text, one head, a vector of one number for each token: (1, 1, T, 1)."""
    return torch.tensor(numbers).view(1, 1, -1, 1)


@about(
    "attention",
    hint="Write the shape behind each line: the scores are (B, H, T, S). k has to be transposed in its last two "
    "dimensions; batch and heads stay where they are.",
)
def has_the_shape_of_the_queries(solution: Any) -> None:
    """The output has the shape of the queries, (B, H, T, D), also with more keys than queries."""
    attended(solution, random(2, 3, 4, 6), random(2, 3, 5, 6), random(2, 3, 5, 6))


@about(
    "attention",
    hint="Each query has weights of its own, one for each key. Over which dimension of (B, H, T, S) do they sum to 1? "
    "And what happens to the sum if weights are removed after the softmax?",
)
def has_weights_that_sum_to_one(solution: Any) -> None:
    """The weights of each query sum to 1."""
    for tokens in range(1, 5):
        q, k = random(1, 1, tokens, 2, seed=1), random(1, 1, tokens, 2, seed=2)
        out = attended(solution, q, k, torch.ones(1, 1, tokens, 2))
        for position, total in enumerate(out[0, 0, :, 0].tolist()):
            if not is_close(total, 1):
                hidden = "; a softmax over -inf alone is nan: is everything hidden from it?" * math.isnan(total)
                raise Broken(
                    f"with {tokens} token{'s' * (tokens > 1)} and values of 1, the output is the sum of the weights: "
                    f"those of query {position} sum to {readable(total)}{hidden}"
                )


@about(
    "attention",
    hint="The mask is True where a query MAY attend. The scores of the others must become a number that softmax maps "
    "to exactly 0, whatever the other scores are.",
)
def hides_what_the_mask_hides(solution: Any) -> None:
    """A token that the mask hides from a query changes nothing in its output; one that it shows does."""
    for tokens in range(2, 5):
        q, k, v = (random(1, 1, tokens, 2, seed=seed) for seed in range(3))
        before = attended(solution, q, k, v)
        for changed in range(1, tokens):
            other_k, other_v = k.clone(), v.clone()
            other_k[:, :, changed] += 1
            other_v[:, :, changed] -= 9
            after = attended(solution, q, other_k, other_v)
            moved = [difference(after[:, :, at], before[:, :, at]) is not None for at in range(tokens)]
            for position in range(tokens):
                if moved[position] and position < changed:
                    raise Broken(f"with {tokens} tokens, position {position} changed when token {changed} changed")
                if not moved[position] and position >= changed:
                    raise Broken(
                        f"with {tokens} tokens, position {position} stayed the same when token {changed} changed, "
                        "which it may attend to"
                    )


@about("attention", hint="Equal scores give equal weights. The output is the sum of weight times value.")
def averages_the_values_if_scores_are_equal(solution: Any) -> None:
    """If all scores are equal, the output is the mean of the values that the query sees."""
    for values in ((5.0,), (2.0, 4.0), (2.0, 4.0, 9.0)):
        v = column(*values)
        out = attended(solution, torch.ones_like(v), torch.ones_like(v), v).flatten().tolist()
        for position, found in enumerate(out):
            wanted = sum(values[: position + 1]) / (position + 1)
            if not is_close(found, wanted):
                seen = readable(list(values[: position + 1]))
                raise Broken(
                    f"equal queries and keys, values {readable(v.flatten())}: the output of position {position} is "
                    f"{readable(found)} instead of {readable(wanted)}, the mean of {seen}"
                )


@about(
    "attention",
    hint="Formula 1 of arXiv 1706.03762: the scores are divided before the softmax, by the square root of the width of "
    "one head, D: the last dimension of q.",
)
def divides_scores_by_the_root_of_the_width(solution: Any) -> None:
    """The scores are divided by the square root of D, the width of a head."""
    for width in (4, 16):
        size = math.sqrt(width) * math.log(3)
        q, k, v = torch.zeros(3, 1, 1, 2, width)
        q[..., 0], k[..., 0, 0], v[..., 0, 0] = size, 1, 1  # scores of query 1: size and 0; values 1 and 0
        found = attended(solution, q, k, v)[0, 0, 1, 0].item()
        if is_close(found, 0.75):
            continue
        guesses = {"without a division": 1.0, "with a division by D": width, "with a division by sqrt(T)": math.sqrt(2)}
        said = next((words for words, by in guesses.items() if is_close(found, sigmoid(size / by))), "")
        raise Broken(
            f"D = {width}, scores {readable(size)} and 0 before the division: the weights must be 3/4 and 1/4, but "
            f"the first is {readable(found)}" + f", as {said}" * bool(said)
        )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@about("attention", hint="Compare with the formula of the lesson, step by step, in the order that it has.")
def equals_the_formula(solution: Any) -> None:
    """The output is the formula's, for every number of texts, heads, queries and keys, and for masks (B, 1, T, S)."""
    for batch, heads, queries, keys in ((1, 1, 1, 1), (1, 1, 2, 2), (1, 2, 2, 3), (2, 1, 1, 3), (2, 2, 3, 4)):
        q = random(batch, heads, queries, 3, seed=1)
        k, v = random(2, batch, heads, keys, 3, seed=2)
        mask = causal_mask(queries, keys)
        for allowed in (mask, mask & (torch.arange(batch).view(-1, 1, 1, 1) < torch.arange(1, keys + 1))):
            wanted = attention_weights(q, k, allowed) @ v
            if (place := difference(attended(solution, q, k, v, allowed), wanted)) is not None:
                text, head, query, _ = place
                raise Broken(
                    f"B = {batch}, H = {heads}, T = {queries}, S = {keys}, D = 3 and a mask of shape "
                    f"{tuple(allowed.shape)}: the output of query {query} in head {head} of text {text} is not the "
                    "formula's"
                )


@about("attention", hint="exp(1000) is infinite in a float. torch.softmax subtracts the largest score first.")
def stays_finite(solution: Any) -> None:
    """Scores of millions give finite numbers."""
    q, k, v = random(3, 1, 1, 3, 4)
    if not attended(solution, 1e4 * q, 1e4 * k, v).isfinite().all():
        raise Broken("with queries and keys ten thousand times as large, the output is nan or infinite")


@about("attention", hint="Names that end in _, and +=, change a tensor in place; the caller still needs q, k and v.")
def leaves_its_arguments_alone(solution: Any) -> None:
    """q, k and v are the same after the call."""
    given = [*random(3, 1, 2, 3, 4), causal_mask(3, 3)]
    copies = [tensor.clone() for tensor in given]
    solution.attention(*given)
    for name, tensor, copy in zip(("q", "k", "v", "mask"), given, copies, strict=True):
        if not torch.equal(tensor, copy):
            raise Broken(f"attention(q, k, v, mask) changed the numbers of {name}, which the caller passed")


@about("attention", hint="Keep tensors all the way: .item(), .detach(), .tolist() and torch.tensor(...) cut the graph.")
def has_the_gradients_of_the_formula(solution: Any) -> None:
    """The gradients with respect to q, k and v are the formula's, so a model can train with it."""
    mask, given = causal_mask(3, 3), [tensor.requires_grad_() for tensor in random(3, 1, 2, 3, 4)]
    out = solution.attention(*given, mask)
    if not out.requires_grad:
        raise Broken("the output has no gradient: it does not depend on q, k and v any more")
    upstream = random(1, 2, 3, 4, seed=1)
    q, k, v = given
    wanted = torch.autograd.grad(attention_weights(q, k, mask) @ v, given, upstream)
    found = torch.autograd.grad(out, given, upstream, allow_unused=True)
    for name, ours, theirs in zip("qkv", found, wanted, strict=True):
        if ours is None or difference(ours, theirs) is not None:
            raise Broken(f"the gradient with respect to {name} is {'missing' if ours is None else 'another one'}")


PROPERTIES = (
    has_the_shape_of_the_queries, has_weights_that_sum_to_one, hides_what_the_mask_hides,
    averages_the_values_if_scores_are_equal, divides_scores_by_the_root_of_the_width, equals_the_formula, stays_finite,
    leaves_its_arguments_alone, has_the_gradients_of_the_formula,
)  # fmt: skip
CAUSAL = (
    hides_what_the_mask_hides, averages_the_values_if_scores_are_equal, divides_scores_by_the_root_of_the_width,
    stays_finite,
)  # fmt: skip
"""Those that call it with the causal mask only, which a faster version may know without being given it."""
