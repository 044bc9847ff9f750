"""Attention mixes what came before, never what comes after; the fused and the explicit way agree in all they return.

Properties that exercises check too are in src/transformer/exercises/properties/attention.py and causal_mask.py;
tests/exercises/test_properties.py runs them on every version of attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transformer.attention import (
    CausalSelfAttention,
    Context,
    attention_weights,
    causal_mask,
    explicit_attention,
    fused_attention,
)
from transformer.config import ModelConfig
from transformer.embeddings import alibi_bias, alibi_slopes, rotary_table, rotate
from transformer.kv_cache import KVCache

Configs = Callable[..., ModelConfig]

SIZES = [(5, 5), (1, 1), (1, 6), (3, 7)]  # T queries, S keys
GROUPS = [(4, 4), (4, 2), (4, 1)]  # heads, key and value heads
CONTEXT = Context(torch.arange(5))


def random_qkv(
    queries: int, keys: int, heads: int, kv_heads: int, batch: int = 2, width: int = 6, seed: int = 0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, heads, queries, width), (batch, kv_heads, keys, width), (batch, kv_heads, keys, width)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


def mask_called(name: str, queries: int, keys: int, heads: int) -> Tensor | None:
    """Masks of every kind; each lets a query see itself, so that no row is empty."""
    if name == "none":
        return None
    if name == "bool":
        scattered = torch.rand(queries, keys, generator=torch.Generator().manual_seed(1)) < 0.5
        return (scattered | torch.eye(keys, dtype=torch.bool)[keys - queries :]) & causal_mask(queries, keys)
    if name == "documents":  # the last two keys of the second row form a document
        document = torch.arange(keys).expand(2, keys).clamp(max=1) * torch.tensor([[0], [1]])  # (2, S)
        same = document[:, None, keys - queries :, None] == document[:, None, None, :]  # (2, 1, T, S)
        return same & causal_mask(queries, keys)
    if name == "alibi":
        return alibi_bias(alibi_slopes(heads).double(), queries, keys)
    return torch.randn(2, 1, queries, keys, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def assert_equal_in_output_and_gradients(qkv: list[Tensor], mask: Tensor | None) -> None:
    explicit, weights = explicit_attention(*qkv, mask)
    fused = fused_attention(*qkv, mask)
    assert weights.shape == (*qkv[0].shape[:3], qkv[1].shape[2])
    torch.testing.assert_close(fused, explicit, rtol=1e-9, atol=1e-9)
    upstream = torch.randn(explicit.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(fused, qkv, upstream), torch.autograd.grad(explicit, qkv, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_attention_by_hand() -> None:
    q = torch.tensor([[0.0, 0.0], [math.sqrt(2) * math.log(3), 0.0]]).view(1, 1, 2, 2)
    k = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    v = torch.tensor([[1.0, 0.0], [0.0, 4.0]]).view(1, 1, 2, 2)
    out, weights = explicit_attention(q, k, v)  # scores of query 1: ln 3 and 0, after division by the root of D = 2
    torch.testing.assert_close(weights[0, 0], torch.tensor([[1.0, 0.0], [0.75, 0.25]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(out[0, 0], torch.tensor([[1.0, 0.0], [0.75, 1.0]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(fused_attention(q, k, v), out, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("queries", "keys"), SIZES)
@pytest.mark.parametrize(("heads", "kv_heads"), GROUPS)
@pytest.mark.parametrize("mask", ["none", "bool", "documents", "alibi", "float"])
def test_explicit_and_fused_agree_in_output_and_gradients(
    queries: int, keys: int, heads: int, kv_heads: int, mask: str
) -> None:
    qkv = random_qkv(queries, keys, heads, kv_heads)
    assert_equal_in_output_and_gradients(qkv, mask_called(mask, queries, keys, heads))


@given(
    queries=st.integers(1, 6), before=st.integers(0, 6), kv_heads=st.integers(1, 3), groups=st.integers(1, 3),
    batch=st.integers(1, 2), width=st.integers(1, 5), seed=st.integers(0, 99), mask=st.sampled_from(["none", "bool"]),
)  # fmt: skip
@settings(max_examples=50)
def test_explicit_and_fused_agree_for_any_shape(
    queries: int, before: int, kv_heads: int, groups: int, batch: int, width: int, seed: int, mask: str
) -> None:
    qkv = random_qkv(queries, before + queries, kv_heads * groups, kv_heads, batch, width, seed)
    assert_equal_in_output_and_gradients(qkv, mask_called(mask, queries, before + queries, kv_heads * groups))


@pytest.mark.parametrize(("queries", "keys"), SIZES)
def test_weights_sum_to_one_and_are_exactly_zero_ahead(queries: int, keys: int) -> None:
    _, weights = explicit_attention(*random_qkv(queries, keys, 4, 2))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, queries, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (weights.masked_select(~causal_mask(queries, keys)) == 0).all()
    assert (weights.masked_select(causal_mask(queries, keys)) > 0).all()


@pytest.mark.parametrize("attend", [lambda *qkv: explicit_attention(*qkv)[0], fused_attention])
def test_later_keys_and_values_cannot_change_earlier_outputs(attend: Callable[..., Tensor]) -> None:
    q, k, v = random_qkv(5, 5, 4, 2)
    before = attend(q, k, v)
    for first_changed in range(1, 5):
        changed_k, changed_v = k.detach().clone(), v.detach().clone()
        changed_k[:, :, first_changed:] = 100.0
        changed_v[:, :, first_changed:] = -100.0
        after = attend(q, changed_k, changed_v)
        torch.testing.assert_close(after[:, :, :first_changed], before[:, :, :first_changed], rtol=0, atol=1e-12)
        assert not torch.allclose(after[:, :, first_changed:], before[:, :, first_changed:])


def test_a_single_query_sees_every_key() -> None:
    q, k, v = random_qkv(1, 6, 2, 2)
    scores = (q @ k.transpose(-2, -1)) / math.sqrt(6)
    torch.testing.assert_close(fused_attention(q, k, v), scores.softmax(-1) @ v, rtol=1e-9, atol=1e-9)


def test_the_order_of_earlier_tokens_is_invisible_without_positions() -> None:
    q, k, v = random_qkv(1, 6, 2, 2)
    order = [3, 0, 5, 1, 4, 2]
    torch.testing.assert_close(fused_attention(q, k[:, :, order], v[:, :, order]), fused_attention(q, k, v))


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_grouped_queries_equal_repeated_key_and_value_heads(kv_heads: int) -> None:
    q, k, v = random_qkv(3, 5, 4, kv_heads)
    repeated = [
        tensor.repeat_interleave(4 // kv_heads, dim=1) for tensor in (k, v)
    ]  # neighbouring heads use the same keys
    torch.testing.assert_close(fused_attention(q, k, v), fused_attention(q, *repeated), rtol=1e-9, atol=1e-9)


def test_a_bool_mask_equals_minus_infinity_added() -> None:
    q, k, v = random_qkv(3, 5, 4, 4)
    allowed = mask_called("bool", 3, 5, 4)
    assert allowed is not None
    added = torch.zeros(3, 5, dtype=torch.float64).masked_fill(~allowed, -math.inf)
    torch.testing.assert_close(fused_attention(q, k, v, allowed), fused_attention(q, k, v, added))


def test_dropout_drops_weights_and_keeps_their_mean() -> None:
    q, k = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 2_000, 4)
    v = torch.ones(1, 1, 2_000, 1)
    out, weights = explicit_attention(q, k, v, dropout=0.25)
    assert out.item() == pytest.approx(1.0, abs=0.05)  # the dropped quarter is made up for by the rest
    assert out.item() != 1.0
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-4)  # the weights shown are those before dropout


def test_dropout_acts_in_training_only(tiny_config: Configs) -> None:
    attention = CausalSelfAttention(tiny_config(dropout=0.5), layer=0)
    x = torch.randn(1, 5, 16)
    assert not torch.equal(attention(x, CONTEXT), attention(x, CONTEXT))
    attention.eval()
    torch.testing.assert_close(attention(x, CONTEXT), attention(x, CONTEXT), rtol=0, atol=0)


@pytest.mark.parametrize(("kv_heads", "width"), [(4, 48), (2, 32), (1, 24)])
def test_one_matrix_projects_queries_keys_and_values(tiny_config: Configs, kv_heads: int, width: int) -> None:
    attention = CausalSelfAttention(tiny_config(num_kv_heads=kv_heads), layer=0)
    assert attention.qkv.weight.shape == (width, 16)
    x = torch.randn(3, 5, 16)
    q, k, v = attention.project(x)
    assert (q.shape, k.shape, v.shape) == ((3, 4, 5, 4), (3, kv_heads, 5, 4), (3, kv_heads, 5, 4))
    rows = attention.qkv(x)  # (3, 5, 16 + 2 * 4 * kv_heads): queries first, then keys, then values, head by head
    torch.testing.assert_close(q[:, 1], rows[..., 4:8])
    torch.testing.assert_close(k[:, 0], rows[..., 16:20])
    torch.testing.assert_close(v[:, -1], rows[..., -4:])


@pytest.mark.parametrize(("kind", "shapes"), [("head", [(6,), (6,)]), ("all", [(24,), (12,)])])
def test_queries_and_keys_are_normalised_before_they_rotate(
    tiny_config: Configs, kind: str, shapes: list[tuple[int]]
) -> None:
    config = tiny_config(head_width=6, num_kv_heads=2, qk_norm=kind, bias=False)
    attention = CausalSelfAttention(config, layer=0).double()
    assert attention.q_norm is not None
    assert attention.k_norm is not None
    assert [attention.q_norm.weight.shape, attention.k_norm.weight.shape] == shapes
    assert (attention.qkv.weight.shape, attention.out.weight.shape) == ((24 + 2 * 12, 16), (16, 24))
    x, table = torch.randn(2, 5, 16, dtype=torch.float64), rotary_table(5, 6, 100.0).double()
    q, k, v = attention.project(x, table)
    plain = CausalSelfAttention(tiny_config(head_width=6, num_kv_heads=2, bias=False), layer=0).double()
    plain.load_state_dict({name: weight for name, weight in attention.state_dict().items() if "norm" not in name})
    for normed, before in zip((q, k, v), plain.project(x), strict=True):
        together = (1, 3) if kind == "all" else 3  # the mean square of one head's numbers, or of all heads'
        mean_square = before.square().mean(together, keepdim=True) + config.norm_eps
        expected = before if normed is v else rotate(before / mean_square.sqrt(), table)
        torch.testing.assert_close(normed, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["head", "all"])
def test_normalised_queries_keep_the_precision_of_autocast(tiny_config: Configs, kind: str) -> None:
    """The norm computes in float32; all three must be bfloat16 again, or fused attention would refuse them."""
    attention = CausalSelfAttention(tiny_config(qk_norm=kind), layer=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q, k, v = attention.project(torch.randn(2, 5, 16))
    assert {q.dtype, k.dtype, v.dtype} == {torch.bfloat16}


@pytest.mark.parametrize(("bias", "given", "has"), [(False, True, True), (True, False, False), (True, None, True)])
def test_the_bias_of_queries_keys_and_values_can_differ(
    tiny_config: Configs, bias: bool, given: bool | None, has: bool
) -> None:
    attention = CausalSelfAttention(tiny_config(bias=bias, qkv_bias=given), layer=0)
    assert (attention.qkv.bias is not None, attention.out.bias is not None) == (has, bias)


def test_heads_are_put_back_side_by_side(tiny_config: Configs) -> None:
    attention = CausalSelfAttention(tiny_config(bias=False), layer=0).double()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    q, k, v = attention.project(x)
    heads = [explicit_attention(q[:, [h]], k[:, [h]], v[:, [h]])[0][:, 0] for h in range(4)]
    torch.testing.assert_close(
        attention(x, CONTEXT), torch.cat(heads, -1) @ attention.out.weight.T, rtol=1e-9, atol=1e-9
    )


def test_without_bias_nothing_constant_is_added(tiny_config: Configs) -> None:
    attention = CausalSelfAttention(tiny_config(bias=False), layer=0)
    assert [name for name, _ in attention.named_parameters()] == ["qkv.weight", "out.weight"]
    assert (attention(torch.zeros(1, 3, 16), CONTEXT) == 0).all()


def test_the_weights_of_explicit_attention_are_attention_weights() -> None:
    q, k, v = random_qkv(3, 5, 4, 2)
    assert torch.equal(explicit_attention(q, k, v)[1], attention_weights(q, k))


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("rotary", [False, True])
def test_prefill_and_decode_are_one_path(tiny_config: Configs, kv_heads: int, rotary: bool) -> None:
    config = tiny_config(num_kv_heads=kv_heads, num_layers=1)
    attention = CausalSelfAttention(config, layer=0).double()
    table = rotary_table(8, config.head_dim, 100.0).double() if rotary else None
    x = torch.randn(2, 8, 16, dtype=torch.float64)
    cache = KVCache.allocate(config, batch_size=2, dtype=torch.float64)
    parts = []
    for start, end in [(0, 4), (4, 5), (5, 8)]:  # prefill, decode, a chunk
        here = None if table is None else table[:, start:end]
        parts.append(attention(x[:, start:end], Context(torch.arange(start, end), here), cache))
        cache.advance(end - start)
    torch.testing.assert_close(torch.cat(parts, 1), attention(x, Context(torch.arange(8), table)), rtol=1e-9, atol=1e-9)
