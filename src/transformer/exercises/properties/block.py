"""Properties of layer_norm(x, weight, bias, eps) and of block(x, ...): two corrections on one residual stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from transformer.exercises.property import Broken, about, difference, expect_tensor, random, readable


def normed(solution: Any, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Returns the solution's norm of vectors (T, C), with eps = 0.01 and by default weight 1 and bias 0."""
    weight = torch.ones(x.shape[1]) if weight is None else weight
    bias = torch.zeros(x.shape[1]) if bias is None else bias
    found = solution.layer_norm(x, weight, bias, 0.01)
    return expect_tensor(found, "layer_norm(x, weight, bias, eps)", T=x.shape[0], C=x.shape[1])


@about(
    "layer_norm",
    hint="The mean and the variance are those of the numbers of one token, over the last dimension; keepdim=True keeps "
    "them in a shape that broadcasts.",
)
def norm_makes_the_mean_of_each_token_0(solution: Any) -> None:
    """Each vector has mean 0 afterwards, whatever the other tokens are."""
    for tokens in (1, 2, 3):
        x = random(tokens, 4) + 3
        means = normed(solution, x).mean(-1)
        if (place := difference(means, torch.zeros(tokens))) is not None:
            raise Broken(f"with {tokens} token(s) of 4 numbers, token {place[0]} has mean {readable(means[place[0]])}")


@about(
    "layer_norm",
    hint="var divides by C here, not by C - 1 (see `correction` or `unbiased` of torch.var), and eps is added to the "
    "variance, inside the root.",
)
def norm_divides_by_the_root_of_variance_and_eps(solution: Any) -> None:
    """Each vector is divided by sqrt(var + eps), where var is the mean of the squared differences from the mean."""
    for numbers in ((1.0, 3.0), (0.0, 2.0, 4.0), (-1.0, -1.0, 3.0, 3.0)):
        x = torch.tensor([numbers])
        centred = x - x.mean()
        variance = centred.square().mean()
        found, wanted = normed(solution, x)[0], (centred / (variance + 0.01).sqrt())[0]
        if difference(found, wanted) is not None:
            others = {
                "var divided by C - 1": centred / (centred.square().sum() / (len(numbers) - 1) + 0.01).sqrt(),
                "eps added outside the root": centred / (variance.sqrt() + 0.01),
                "a division by the variance, without the root": centred / (variance + 0.01),
            }
            said = next((f"; that is {why}" for why, x in others.items() if difference(found, x[0]) is None), "")
            raise Broken(
                f"x = {readable(x[0])} with eps = 0.01 became {readable(found)} instead of {readable(wanted)}{said}"
            )


@about("layer_norm", hint="The last step of the formula: * weight + bias, for each of the C numbers.")
def norm_has_a_weight_and_a_bias(solution: Any) -> None:
    """Afterwards number c is multiplied by weight[c], and bias[c] is added."""
    x = torch.tensor([[1.0, 3.0]])
    plain = normed(solution, x)[0]
    found = normed(solution, x, torch.tensor([2.0, 5.0]), torch.tensor([10.0, 20.0]))[0]
    wanted = plain * torch.tensor([2.0, 5.0]) + torch.tensor([10.0, 20.0])
    if difference(found, wanted) is not None:
        raise Broken(
            f"x = [1, 3], weight = [2, 5], bias = [10, 20]: {readable(found)} instead of {readable(wanted)}, which is "
            f"{readable(plain)} * weight + bias"
        )


@about("layer_norm", hint="Keep tensors all the way: .item(), .detach() and torch.tensor(...) cut the graph.")
def norm_can_be_trained(solution: Any) -> None:
    """The gradients with respect to x, weight and bias are those of the formula."""
    x, weight, bias = (tensor.requires_grad_() for tensor in (random(2, 3), random(3, seed=1), random(3, seed=2)))
    out = normed(solution, x, weight, bias)
    upstream = random(2, 3, seed=3)
    found = (
        torch.autograd.grad(out, (x, weight, bias), upstream, allow_unused=True) if out.requires_grad else [None] * 3
    )
    centred = x - x.mean(-1, keepdim=True)
    formula = centred / (centred.square().mean(-1, keepdim=True) + 0.01).sqrt() * weight + bias
    for name, ours, theirs in zip(
        ("x", "weight", "bias"), found, torch.autograd.grad(formula, (x, weight, bias), upstream), strict=True
    ):
        if ours is None or difference(ours, theirs) is not None:
            raise Broken(f"the gradient with respect to {name} is {'missing' if ours is None else 'another one'}")


def parts(calls: dict[str, Tensor]) -> list[Any]:
    """Returns attention, feed_forward and their norms as functions that note what they read, each different."""

    def noted(name: str, factor: float, added: float) -> Any:
        def part(x: Tensor) -> Tensor:
            calls[name] = x.detach().clone()
            return factor * x + added

        return part

    return [
        noted("attention", 10.0, 0.0), noted("feed_forward", 100.0, 0.0), noted("attention_norm", 0.5, 1.0),
        noted("feed_forward_norm", 0.25, 2.0),
    ]  # fmt: skip


def run(solution: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Returns x, the block's output, and what each part read."""
    x, calls = torch.tensor([[[1.0, 2.0]]]), dict[str, Tensor]()
    out = solution.block(x.clone(), *parts(calls))
    return x, expect_tensor(out, "block(x, ...)", B=1, T=1, C=2), calls


@about("block", hint="attention reads attention_norm(x), a normalised copy of the stream.")
def attention_reads_the_normalised_stream(solution: Any) -> None:
    """Attention reads attention_norm(x)."""
    x, _, calls = run(solution)
    if "attention" not in calls:
        raise Broken("block() did not call attention")
    if difference(calls["attention"], x * 0.5 + 1) is not None:
        what = "x itself, without a norm" if difference(calls["attention"], x) is None else "something else"
        if difference(calls["attention"], x * 0.25 + 2) is None:
            what = "feed_forward_norm(x)"
        raise Broken(f"attention read {what} instead of attention_norm(x)")


@about(
    "block",
    hint="The second part builds on the first: it reads the stream to which attention's correction has been added, "
    "through the other norm.",
)
def feed_forward_reads_the_stream_after_attention(solution: Any) -> None:
    """The feed-forward network reads feed_forward_norm of the stream after attention's correction was added."""
    x, _, calls = run(solution)
    if "feed_forward" not in calls:
        raise Broken("block() did not call feed_forward")
    correction = 10 * (x * 0.5 + 1)
    middle, read = x + correction, calls["feed_forward"]
    others = {
        "the stream without a norm": middle,
        "feed_forward_norm(x), from before attention's correction": x * 0.25 + 2,
        "the normalised output of attention alone: x is missing in x + attention(...)": correction * 0.25 + 2,
        "the stream through attention_norm": middle * 0.5 + 1,
        "a stream to which the correction was added after x had become its norm": (x * 0.5 + 1 + correction) * 0.25 + 2,
    }
    if difference(read, middle * 0.25 + 2) is not None:
        what = next((words for words, other in others.items() if difference(read, other) is None), "something else")
        raise Broken(f"feed_forward read {what}; wanted: feed_forward_norm(x + attention(attention_norm(x)))")


@about("block", hint="The stream is never replaced: x, plus attention's correction, plus the network's.")
def corrections_are_added_to_the_stream(solution: Any) -> None:
    """The result is x plus both corrections; no norm is applied to the stream itself."""
    x, out, _ = run(solution)
    first = 10 * (x * 0.5 + 1)
    second = 100 * ((x + first) * 0.25 + 2)
    others = {
        "the second correction alone: the stream is missing": second,
        "x plus the second correction: attention's is missing": x + second,
        "both corrections without x": first + second,
        "the normalised stream plus the second correction": (x + first) * 0.25 + 2 + second,
        "x plus attention's correction: the second is missing": x + first,
    }
    if difference(out, x + first + second) is not None:
        what = next((words for words, other in others.items() if difference(out, other) is None), readable(out[0, 0]))
        raise Broken(
            f"with simple parts in place of attention and the network, block([1, 2]) is {what}; wanted: x + both "
            f"corrections = {readable((x + first + second)[0, 0])}"
        )


@about("block", hint="x += ... changes the tensor that the caller passed. Write x = x + ... instead.")
def leaves_the_stream_of_the_caller_alone(solution: Any) -> None:
    """The tensor x that the caller passed is the same after the call."""
    x = torch.tensor([[[1.0, 2.0]]])
    solution.block(x, *parts({}))
    if x.tolist() != [[[1.0, 2.0]]]:
        raise Broken(f"x was [1, 2] before the call and {readable(x[0, 0])} after it")


@about("block", hint="Only additions and calls of the parts stand between x and the result.")
def gradient_reaches_the_stream(solution: Any) -> None:
    """The gradient of the result reaches x, both directly and through the parts."""
    x = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
    out = solution.block(x, *parts({}))
    wanted = 1 + 10 * 0.5 + 100 * 0.25 * (1 + 10 * 0.5)
    gradient = torch.autograd.grad(out.sum(), x)[0][0, 0] if out.requires_grad else torch.zeros(2)
    if difference(gradient, torch.full((2,), wanted)) is not None:
        raise Broken(f"the gradient with respect to x is {readable(gradient)} instead of {wanted:g} for each number")


PROPERTIES = (
    norm_makes_the_mean_of_each_token_0, norm_divides_by_the_root_of_variance_and_eps, norm_has_a_weight_and_a_bias,
    norm_can_be_trained, attention_reads_the_normalised_stream, feed_forward_reads_the_stream_after_attention,
    corrections_are_added_to_the_stream, leaves_the_stream_of_the_caller_alone, gradient_reaches_the_stream,
)  # fmt: skip
