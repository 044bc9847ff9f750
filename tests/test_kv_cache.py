"""The cache changes no logit, for any split of a text into chunks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transformer import DecoderOnlyTransformer, KVCache, ModelConfig

Configs = Callable[..., ModelConfig]
Models = Callable[..., DecoderOnlyTransformer]

POSITIONS = ["learned", "sinusoidal", "rotary", "alibi"]
LENGTH = 9


def numbered(config: ModelConfig, tokens: int, start: int = 0, batch: int = 2) -> Tensor:
    """Keys (batch, K, tokens, D) that hold the number of their token."""
    numbers = torch.arange(start, start + tokens, dtype=torch.float32).view(1, 1, -1, 1)
    return numbers.expand(batch, config.kv_heads, tokens, config.head_dim)


def filled(config: ModelConfig, tokens: int, batch: int = 2) -> KVCache:
    cache = KVCache.allocate(config, batch)
    for layer in range(config.num_layers):
        cache.update(layer, numbered(config, tokens, batch=batch), -numbered(config, tokens, batch=batch))
    cache.advance(tokens)
    return cache


def test_each_layer_holds_batch_heads_seq_len_d_k(tiny_config: Configs) -> None:
    config = tiny_config(num_layers=3)
    cache = KVCache.allocate(config, batch_size=2, max_len=7)
    assert len(cache.keys) == len(cache.values) == 3
    keys, values = cache.update(1, numbered(config, 5), numbered(config, 5))
    assert keys.shape == values.shape == (2, config.num_heads, 5, config.d_model // config.num_heads)


@pytest.mark.parametrize(("dtype", "number_bytes"), [(torch.float32, 4), (torch.float64, 8), (torch.bfloat16, 2)])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_bytes_follow_the_documented_formula(
    tiny_config: Configs, dtype: torch.dtype, number_bytes: int, kv_heads: int
) -> None:
    """SURFACE L3: memory per layer is 2 x heads x seq_len x d_k x bytes per number, for each text of the batch."""
    config = tiny_config(num_kv_heads=kv_heads, num_layers=3)
    cache = KVCache.allocate(config, batch_size=2, dtype=dtype)
    assert cache.nbytes == 0
    for seq_len in (1, 5, 12):
        cache.length = seq_len
        assert cache.nbytes == 3 * 2 * (2 * kv_heads * seq_len * config.head_dim * number_bytes)
    assert cache.capacity_bytes == cache.nbytes == sum(t.numel() * number_bytes for t in cache.keys + cache.values)


def test_the_default_length_is_max_seq_len(tiny_config: Configs) -> None:
    assert KVCache.allocate(tiny_config(max_seq_len=11), 1).max_len == 11
    assert KVCache.allocate(tiny_config(), 1, max_len=5).max_len == 5


def test_allocation_takes_device_and_dtype(tiny_config: Configs) -> None:
    cache = KVCache.allocate(tiny_config(), 1, device="meta", dtype=torch.float16)
    assert cache.keys[0].device.type == "meta"
    assert cache.values[0].dtype == torch.float16


def test_update_returns_all_tokens_so_far_in_order(tiny_config: Configs) -> None:
    config = tiny_config()
    cache = filled(config, 3)
    keys, values = cache.update(0, numbered(config, 2, start=3), -numbered(config, 2, start=3))
    assert keys[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4]
    assert values[1, -1, :, -1].tolist() == [0, -1, -2, -3, -4]


def test_update_returns_views_not_copies(tiny_config: Configs) -> None:
    cache = filled(tiny_config(), 3)
    keys, values = cache.update(1, numbered(tiny_config(), 1), numbered(tiny_config(), 1))
    assert keys.data_ptr() == cache.keys[1].data_ptr()
    assert values.data_ptr() == cache.values[1].data_ptr()


def test_the_length_grows_once_for_all_layers(tiny_config: Configs, tiny_model: Models) -> None:
    model = tiny_model(num_layers=3)
    cache = KVCache.allocate(model.config, 1, dtype=torch.float64)
    cache.update(0, numbered(model.config, 2, batch=1), numbered(model.config, 2, batch=1))
    assert cache.length == 0
    model(torch.tensor([[1, 2, 3]]), cache)
    assert cache.length == 3
    model(torch.tensor([[4]]), cache)
    assert cache.length == 4


def test_tokens_that_do_not_fit_are_an_error(tiny_config: Configs) -> None:
    config = tiny_config()
    cache = filled(config, 10)
    with pytest.raises(ValueError, match=r"13 tokens do not fit the cache of max_len=12: allocate a longer one"):
        cache.update(0, numbered(config, 3), numbered(config, 3))
    assert cache.length == 10
    assert cache.keys[0][0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0]


def test_a_cache_shorter_than_the_text_is_an_error_in_the_model(tiny_model: Models) -> None:
    model = tiny_model()
    cache = KVCache.allocate(model.config, 1, max_len=4, dtype=torch.float64)
    with pytest.raises(ValueError, match="do not fit the cache of max_len=4"):
        model(torch.tensor([[1, 2, 3, 4, 5]]), cache)


def test_a_longer_cache_does_not_extend_max_seq_len(tiny_model: Models) -> None:
    model = tiny_model()
    cache = KVCache.allocate(model.config, 1, max_len=20, dtype=torch.float64)
    model(torch.zeros(1, 12, dtype=torch.int64), cache)
    with pytest.raises(ValueError, match="max_seq_len=12"):
        model(torch.zeros(1, 1, dtype=torch.int64), cache)
    assert cache.length == 12


def test_truncate_removes_the_end_only(tiny_config: Configs) -> None:
    config = tiny_config()
    cache = filled(config, 6)
    cache.truncate(4)
    keys, _ = cache.update(0, numbered(config, 1, start=9), numbered(config, 1, start=9))
    assert keys[0, 0, :, 0].tolist() == [0, 1, 2, 3, 9]


@pytest.mark.parametrize("length", [-1, 7])
def test_truncate_cannot_lengthen(tiny_config: Configs, length: int) -> None:
    cache = filled(tiny_config(), 6)
    with pytest.raises(ValueError, match="the cache holds 6"):
        cache.truncate(length)


@pytest.mark.parametrize("position", POSITIONS)
def test_after_truncate_another_text_can_continue(tiny_model: Models, position: str) -> None:
    model = tiny_model(position=position)
    cache = KVCache.allocate(model.config, 1, dtype=torch.float64)
    model(torch.tensor([[1, 2, 3, 4, 5]]), cache)
    cache.truncate(2)
    logits = model(torch.tensor([[9, 8]]), cache)
    torch.testing.assert_close(logits, model(torch.tensor([[1, 2, 9, 8]]))[:, 2:], rtol=1e-9, atol=1e-9)


def test_two_caches_are_independent(tiny_model: Models) -> None:
    model = tiny_model()
    caches = [KVCache.allocate(model.config, 1, dtype=torch.float64) for _ in range(2)]
    for index in range(4):  # two texts in alternation
        for text, cache in enumerate(caches):
            last = model(torch.tensor([[index + 5 * text]]), cache)
            whole = model(torch.arange(5 * text, 5 * text + index + 1)[None])
            torch.testing.assert_close(last, whole[:, -1:], rtol=1e-9, atol=1e-9)


@functools.cache
def chunk_case(make: Models, position: str, kv_heads: int) -> tuple[DecoderOnlyTransformer, Tensor, Tensor]:
    model = make(position=position, num_kv_heads=kv_heads)
    tokens = torch.randint(0, 17, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model, tokens, model(tokens)


@given(
    position=st.sampled_from(POSITIONS),
    kv_heads=st.sampled_from([4, 2, 1]),
    batch=st.integers(1, 3),
    cuts=st.sets(st.integers(1, LENGTH - 1)),
)
@settings(max_examples=100)
def test_any_split_into_chunks_gives_the_same_logits(
    tiny_model: Models, position: str, kv_heads: int, batch: int, cuts: set[int]
) -> None:
    model, tokens, whole = chunk_case(tiny_model, position, kv_heads)
    cache = KVCache.allocate(model.config, batch, dtype=torch.float64)
    edges = [0, *sorted(cuts), LENGTH]
    with torch.no_grad():
        parts = [model(tokens[:batch, a:b], cache) for a, b in itertools.pairwise(edges)]
    torch.testing.assert_close(torch.cat(parts, 1), whole[:batch], rtol=1e-9, atol=1e-9)
    assert cache.length == LENGTH


@pytest.mark.parametrize("position", POSITIONS)
def test_every_split_of_five_tokens_gives_the_same_logits(tiny_model: Models, position: str) -> None:
    model, tokens, whole = chunk_case(tiny_model, position, 2)
    with torch.no_grad():
        for split in range(2**4):  # bit i: a cut after token i
            edges = [0, *(i + 1 for i in range(4) if split >> i & 1), 5]
            cache = KVCache.allocate(model.config, 3, dtype=torch.float64)
            parts = [model(tokens[:, a:b], cache) for a, b in itertools.pairwise(edges)]
            torch.testing.assert_close(torch.cat(parts, 1), whole[:, :5], rtol=1e-9, atol=1e-9)


def test_old_contents_of_the_memory_do_not_matter(tiny_model: Models) -> None:
    model = tiny_model()
    cache = KVCache.allocate(model.config, 1, dtype=torch.float64)
    for tensor in cache.keys + cache.values:
        tensor.fill_(float("nan"))
    tokens = torch.tensor([[1, 2, 3, 4]])
    parts = [model(tokens[:, :3], cache), model(tokens[:, 3:], cache)]
    torch.testing.assert_close(torch.cat(parts, 1), model(tokens), rtol=1e-9, atol=1e-9)
