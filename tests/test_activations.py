"""Activations by name: what is recorded is what the formulas give, and a function changes it and what follows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transformer import DecoderOnlyTransformer
from transformer.activations import HookedAttention, activation_names, hooked, is_hooked, recorded
from transformer.embeddings import rotate
from transformer.inference.padding import next_logits, pad, padded_context
from transformer.kernels import accelerate, round_weights
from transformer.kernels import decode_step as steps
from variants import variants

Models = Callable[..., DecoderOnlyTransformer]
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


def scale_norm(norm: Any, x: Tensor) -> Tensor:
    """LayerNorm or RMSNorm by their formulas, over as many numbers as the norm has weights."""
    if isinstance(norm, torch.nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
    scaled = x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight
    return scaled + norm.bias if getattr(norm, "bias", None) is not None else scaled


def attended(
    model: DecoderOnlyTransformer, layer: int, x: Tensor, mask: Tensor, positions: Tensor
) -> dict[str, Tensor]:
    """The activations inside attention for its input x, one text and one head at a time."""
    part, config = model.layers[layer].attention, model.config
    width, groups = config.head_dim, config.num_heads // config.kv_heads
    q, k, v = F.linear(x, part.qkv.weight, part.qkv.bias).split(part.widths, dim=-1)
    heads: dict[str, list[Tensor]] = {"queries": [], "keys": [], "values": [], "scores": [], "weights": [], "heads": []}

    def normed(rows: Tensor, norm: Any) -> Tensor:
        if norm is None:
            return rows
        return scale_norm(norm, rows.unflatten(-1, (-1, len(norm.weight)))).flatten(-2)

    q, k = normed(q, part.q_norm), normed(k, part.k_norm)
    turn = (lambda a: a) if model.rotary is None else (lambda a: rotate(a, model.rotary[:, positions]))
    for head in range(config.num_heads):
        kv = head // groups
        query = turn(q[..., head * width : (head + 1) * width])  # (B, T, D)
        key, value = turn(k[..., kv * width : (kv + 1) * width]), v[..., kv * width : (kv + 1) * width]
        scores = torch.einsum("btd,bsd->bts", query, key) / math.sqrt(width)
        if model.slopes is not None:
            scores = scores - model.slopes[head] * (positions[:, None] - positions)
        scores = scores.masked_fill(~mask, -math.inf)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        found = {"queries": query, "scores": scores, "weights": weights, "heads": weights @ value}
        found |= {"keys": key, "values": value} if head % groups == 0 else {}
        for name, tensor in found.items():
            heads[name].append(tensor)
    return {name: torch.stack(tensors, dim=1) for name, tensors in heads.items()}


def recomputed(model: DecoderOnlyTransformer, tokens: Tensor) -> dict[str, Tensor]:
    """All activations of one pass, by the formulas."""
    length, config, positions = tokens.shape[1], model.config, torch.arange(tokens.shape[1])
    mask = positions[:, None] >= positions
    x = model.embeddings.token.weight[tokens]
    if model.embeddings.position is not None:
        x = x + model.embeddings.position.weight[:length]
    found = {"embeddings": x}
    for layer, block in enumerate(model.layers):
        name, start, network = f"blocks.{layer}.", x, block.feedforward
        read = x if block.norms_after else scale_norm(block.attention_norm, x)
        found |= {name + "residual_before": x, name + "attention_norm": read}
        inner = attended(model, layer, read, mask, positions)
        found |= {f"{name}attention.{part}": tensor for part, tensor in inner.items()}
        added = F.linear(
            inner["heads"].transpose(1, 2).flatten(2), block.attention.out.weight, block.attention.out.bias
        )
        added = scale_norm(block.attention_norm, added) if block.norms_after else added
        middle = x + added
        reads = start if config.parallel_blocks else middle
        read = reads if block.norms_after else scale_norm(block.feedforward_norm, reads)
        up = F.linear(read, network.up.weight, network.up.bias)
        hidden = F.gelu(up) if network.gate is None else F.silu(network.gate(read)) * up
        output = F.linear(hidden, network.down.weight, network.down.bias)
        output = scale_norm(block.feedforward_norm, output) if block.norms_after else output
        x = middle + output
        found |= {name + "attention.output": added, name + "residual_mid": middle, name + "feedforward_norm": read}
        found |= {name + "feedforward.hidden": hidden, name + "feedforward.output": output, name + "residual_after": x}
    found["final_norm"] = scale_norm(model.final_norm, x)
    return found | {"logits": F.linear(found["final_norm"], model.head.weight)}


@given(settings_=variants(), tied=st.booleans(), length=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=12)
@torch.no_grad()
def test_activations_are_those_of_the_formulas(
    tiny_model: Models, settings_: dict[str, Any], tied: bool, length: int, seed: int
) -> None:
    model = tiny_model(seed=seed, tie_embeddings=tied, **settings_)
    tokens = torch.randint(17, (2, length), generator=torch.Generator().manual_seed(seed))
    logits, found = model.run_with_cache(tokens)
    expected = recomputed(model, tokens)
    assert list(found) == activation_names(model)
    for name, activation in found.items():
        torch.testing.assert_close(activation, expected[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    assert set(expected) - set(found) <= {
        name for name in expected if name.endswith("residual_mid" if model.config.parallel_blocks else "_norm")
    }
    torch.testing.assert_close(logits, model(tokens), rtol=1e-10, atol=1e-10)
    for layer in range(2):  # what is added to the stream
        added = found[f"blocks.{layer}.attention.output"] + found[f"blocks.{layer}.feedforward.output"]
        total = found[f"blocks.{layer}.residual_before"] + added
        torch.testing.assert_close(found[f"blocks.{layer}.residual_after"], total, rtol=0, atol=1e-10)


@given(settings_=variants(), seed=st.integers(0, 99))
@settings(max_examples=6)
@torch.no_grad()
def test_an_activation_replaced_by_itself_changes_nothing_and_by_another_changes_the_logits(
    tiny_model: Models, settings_: dict[str, Any], seed: int
) -> None:
    model = tiny_model(seed=seed, **settings_)
    plain = model(TOKENS)
    for name in activation_names(model):
        same = model.run_with_hooks(TOKENS, {name: lambda x: x.clone()})
        explicit = 1e-10 if name.endswith(("scores", "weights")) else 0  # attention is computed in another way
        torch.testing.assert_close(same, plain, rtol=0, atol=explicit)
        other = model.run_with_hooks(TOKENS, {name: lambda x: x * torch.linspace(1, 2, x.shape[-1])})
        assert not torch.allclose(other, plain), name
        if name in ("embeddings", "blocks.1.residual_before", "final_norm", "logits"):  # all later ones follow from it
            donor = model.run_with_cache(TOKENS.flip(0), [name])[1][name]
            replaced = model.run_with_hooks(TOKENS, {name: lambda _, donor=donor: donor})
            torch.testing.assert_close(replaced, plain.flip(0), rtol=0, atol=1e-10)


@given(settings_=variants(), seed=st.integers(0, 99))
@settings(max_examples=6)
@torch.no_grad()
def test_a_replaced_stream_is_what_the_rest_of_the_model_reads(
    tiny_model: Models, settings_: dict[str, Any], seed: int
) -> None:
    model = tiny_model(seed=seed, **settings_)
    for name in activation_names(model):
        if "residual" in name:
            other = torch.randn(2, 8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            with hooked(model, {name: lambda _, other=other: other}):
                _, found = model.run_with_cache(TOKENS)
            assert torch.equal(found[name], other), name
            block = name.split(".")[1]
            if name.endswith("residual_mid"):
                total = other + found[f"blocks.{block}.feedforward.output"]
                torch.testing.assert_close(found[f"blocks.{block}.residual_after"], total, rtol=0, atol=1e-10)


@given(settings_=variants(), chunks=st.lists(st.integers(1, 2), min_size=1, max_size=4))
@settings(max_examples=6)
@torch.no_grad()
def test_with_a_cache_and_padding_activations_are_those_of_each_text_alone(
    tiny_model: Models, settings_: dict[str, Any], chunks: list[int]
) -> None:
    model = tiny_model(**settings_)
    texts = [TOKENS[0, : sum(chunks)].tolist(), TOKENS[1, : max(1, sum(chunks) - 2)].tolist()]
    tokens, padding = pad(texts)
    cache, parts = model.allocate_cache(2), []
    for chunk in tokens.split(chunks, dim=1):
        context = padded_context(model, chunk, cache, padding)
        parts.append(model.run_with_cache(chunk, cache=cache, context=context)[1])
    for row, text in enumerate(texts):
        alone, skipped = model.run_with_cache(torch.tensor([text]))[1], int(padding[row])
        for name, expected in alone.items():
            if name.endswith(("scores", "weights")):
                last = parts[-1][name][row, :, -1:, skipped:]
                torch.testing.assert_close(last, expected[0, :, -1:], rtol=1e-9, atol=1e-9)
            elif name.endswith(("keys", "values")):  # the cache's, all so far
                torch.testing.assert_close(parts[-1][name][row, :, skipped:], expected[0], rtol=1e-9, atol=1e-9)
            else:
                axis = -2
                whole = torch.cat([part[name][row] for part in parts], dim=axis)
                text_part = whole.narrow(axis, skipped, len(text))
                torch.testing.assert_close(text_part, expected[0], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_function_may_change_an_activation_in_place_without_touching_the_cache(tiny_model: Models) -> None:
    model = tiny_model(position="rotary", num_kv_heads=2)
    cache = model.allocate_cache(2)
    model.run_with_hooks(TOKENS, {"blocks.0.attention.keys": lambda keys: keys.zero_()}, cache)
    _, found = model.run_with_cache(TOKENS, ["blocks.0.attention.keys"])
    assert torch.equal(cache.keys[0][:, :, :8], found["blocks.0.attention.keys"])
    cache.truncate(0)
    kept = model.run_with_cache(TOKENS, ["blocks.0.attention.values"], cache)[1]["blocks.0.attention.values"].clone()
    cache.values[0].zero_()
    assert kept.abs().sum() > 0
    for name in activation_names(model):
        if not name.endswith("scores"):
            in_place = model.run_with_hooks(TOKENS, {name: lambda x: x.mul_(2)})
            returned_nothing = model.run_with_hooks(TOKENS, {name: lambda x: x.mul_(2) is None or None})
            new = model.run_with_hooks(TOKENS, {name: lambda x: x * 2})
            torch.testing.assert_close(in_place, new, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(returned_nothing, new, rtol=1e-9, atol=1e-9)


def state_of(model: DecoderOnlyTransformer) -> list[object]:
    """Everything that hooked() may change."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return [hooks, [block.attention.attend for block in model.layers]]


@pytest.mark.parametrize("faster", [False, True])
def test_everything_is_restored_also_after_an_error_and_when_nested(tiny_model: Models, faster: bool) -> None:
    model = tiny_model()
    if faster:
        accelerate(model)
    before, plain = state_of(model), model(TOKENS)
    assert sum(before[0]) == 0  # type: ignore[call-overload]
    with recorded(model):
        with hooked(model, {"blocks.*": torch.zeros_like}), pytest.raises(ZeroDivisionError):
            model.run_with_hooks(TOKENS, {"blocks.1.attention.heads": lambda _: 1 // 0})
        assert is_hooked(model)
        assert isinstance(model.layers[0].attention.attend, HookedAttention)
    with pytest.raises(ZeroDivisionError):
        model.run_with_hooks(TOKENS, {"logits": lambda _: 1 // 0})
    with pytest.raises(ValueError, match="no activation"), recorded(model, ["logits", "nothing"]):
        pass
    model.attention_weights(TOKENS)
    assert state_of(model) == before
    assert all(a is b for a, b in zip(state_of(model)[1], before[1], strict=True))  # type: ignore[call-overload]
    assert torch.equal(model(TOKENS), plain)
    assert not is_hooked(model)


def test_nested_functions_run_from_the_outer_to_the_inner(tiny_model: Models) -> None:
    model = tiny_model()
    for name in activation_names(model):
        called: list[str] = []
        with hooked(model, {name: lambda x: called.append("outer") or x * 2}), recorded(model, [name]) as found:  # noqa: B023
            nested = model.run_with_hooks(TOKENS, {name: lambda x: called.append("inner") or x + 1})  # noqa: B023
        assert called == ["outer", "inner"], name
        together = model.run_with_hooks(TOKENS, {name: lambda x: x * 2 + 1})
        torch.testing.assert_close(nested, together, rtol=1e-9, atol=1e-9)
        plain = model.run_with_cache(TOKENS, [name])[1][name]
        assert torch.equal(found[name], plain * 2), name


def test_gradients_reach_activations(tiny_model: Models) -> None:
    model = tiny_model(num_kv_heads=2)
    logits, found = model.run_with_cache(TOKENS)
    gradients = torch.autograd.grad(logits[:, -1].square().sum(), list(found.values()))
    assert all(gradient.any() for gradient in gradients)
    # The gradient is the change of the logits for a small change of the activation.
    for (name, activation), gradient in zip(found.items(), gradients, strict=True):
        if not name.endswith("scores"):  # -inf has no finite difference
            direction = torch.randn(activation.shape, dtype=activation.dtype)
            with torch.no_grad():
                up, down = (
                    model.run_with_hooks(TOKENS, {name: lambda x, s=sign, d=direction: x + s * 1e-6 * d})
                    for sign in (1, -1)
                )
            change = (up[:, -1].square().sum() - down[:, -1].square().sum()) / 2e-6
            torch.testing.assert_close((gradient * direction).sum(), change, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_prepared_decode_step_gives_way_to_hooks_and_is_used_again_after_them(
    tiny_model: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny_model(dtype=torch.float32)
    model = accelerate(copy.deepcopy(plain))
    taken: list[int] = []
    step = steps.DecodeStep.__call__
    monkeypatch.setattr(steps.DecodeStep, "__call__", lambda *args: taken.append(1) or step(*args))

    def decode(faster: DecoderOnlyTransformer) -> list[Tensor]:
        cache, found = faster.allocate_cache(2), []
        faster.next_logits(TOKENS[:, :4], cache)
        for column, name in ((4, None), (5, "blocks.0.attention.weights"), (6, "blocks.1.residual_mid"), (7, None)):
            zeroed = {} if name is None else {name: torch.zeros_like}
            with hooked(faster, zeroed):
                found.append(faster.next_logits(TOKENS[:, column : column + 1], cache))
        return found

    torch.testing.assert_close(decode(model), decode(plain), rtol=1e-4, atol=1e-4)
    assert len(taken) == 2  # the columns 4 and 7


@pytest.mark.parametrize("weights", ["int8", "float16"])
@torch.no_grad()
def test_rounded_weights_have_the_same_names(tiny_model: Models, weights: Any) -> None:
    model = tiny_model(dtype=torch.float32, d_model=32, num_heads=4)
    exact = model.run_with_cache(TOKENS)[1]
    round_weights(accelerate(model), weights)
    logits, found = model.run_with_cache(TOKENS)
    torch.testing.assert_close(logits, model(TOKENS), rtol=1e-4, atol=1e-4)
    assert list(found) == list(exact)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in exact.items()}


def test_generation_and_loss_run_with_hooks(tiny_model: Models) -> None:
    model = tiny_model()
    with hooked(model, {"logits": lambda logits: logits.index_fill(-1, torch.tensor([11]), 1e6)}):
        assert model.generate(TOKENS[:, :2], 6).tolist() == [[3, 1, 11, 11, 11, 11], [2, 7, 11, 11, 11, 11]]
    with recorded(model, ["blocks.1.attention.weights"]) as found:
        nats, _ = model.loss(TOKENS[:, :-1], TOKENS[:, 1:])
    torch.testing.assert_close(nats, model.loss(TOKENS[:, :-1], TOKENS[:, 1:])[0])
    torch.testing.assert_close(found["blocks.1.attention.weights"], model.attention_weights(TOKENS[:, :-1])[1])


def test_patterns_choose_names_and_unknown_names_are_refused_with_the_nearest(tiny_model: Models) -> None:
    model = tiny_model()
    with torch.no_grad():
        found = model.run_with_cache(TOKENS, ["logits", "blocks.*.attention.weights"])[1]
    assert list(found) == ["blocks.0.attention.weights", "blocks.1.attention.weights", "logits"]
    assert [name for name in activation_names(tiny_model(parallel_blocks=True)) if "mid" in name] == []
    assert [name for name in activation_names(tiny_model(norm_position="after")) if "_norm" in name] == ["final_norm"]
    with pytest.raises(ValueError, match=r"'blocks.2.residual_mid'; nearest: blocks.1.residual_mid, blocks.0.resid"):
        model.run_with_cache(TOKENS, ["blocks.2.residual_mid"])
    with pytest.raises(TypeError, match=r"a collection of names: \['logits'\]"):
        model.run_with_cache(TOKENS, "logits")


@pytest.mark.parametrize("result", [torch.zeros(16), 0.0])
def test_a_result_of_another_shape_is_refused(tiny_model: Models, result: Any) -> None:
    with pytest.raises(ValueError, match=r"embeddings returned .*, not a tensor of \(2, 8, 16\)"):
        tiny_model().run_with_hooks(TOKENS, {"embeddings": lambda _: result})


def test_padded_batches_generate_with_hooks(tiny_model: Models) -> None:
    model = accelerate(tiny_model(dtype=torch.float32))
    tokens, padding = pad([[1, 2, 3], [4]])
    with torch.no_grad(), recorded(model, ["blocks.0.attention.weights"]) as found:
        cache = model.allocate_cache(2)
        next_logits(model, tokens, cache, padding)
        next_logits(model, tokens[:, -1:], cache, padding)
    weights = found["blocks.0.attention.weights"]  # (B, H, 1, S)
    assert weights.shape == (2, 4, 1, 4)
    assert not weights[1, :, 0, :2].any()
