"""The compiled decode step gives the tokens of the plain one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from transformer import DecoderOnlyTransformer
from transformer.activations import hooked
from transformer.config import SamplingConfig
from transformer.inference.batch import generate_batch, stream_tokens
from transformer.inference.compiled_decode import CompiledDecoder
from transformer.inference.padding import pad
from transformer.kernels import round_weights
from transformer.kernels.float16 import Float16Linear
from transformer.kernels.int8 import quantise

Models = Callable[..., DecoderOnlyTransformer]
POSITIONS = ["learned", "sinusoidal", "rotary", "alibi"]
TOKENS, PADDING = pad([[1, 2, 3], [4, 5, 6, 7, 8], [9]])


def check(model: DecoderOnlyTransformer, backend: str) -> None:
    """Continues one prompt, three unequal ones and another one over several windows; the caches are used again."""
    compiled = CompiledDecoder(model, backend)
    for prompt, padding in [(TOKENS[:1], None), (TOKENS, PADDING), (TOKENS[1:2], None)]:
        expected = generate_batch(model, prompt, 14, SamplingConfig(), padding=padding)
        assert torch.equal(generate_batch(compiled, prompt, 14, SamplingConfig(), padding=padding), expected)


@pytest.mark.slow
@pytest.mark.parametrize("position", POSITIONS)
def test_the_traced_step_gives_the_same_tokens(tiny_model: Models, position: str) -> None:
    torch._dynamo.reset()
    check(tiny_model(position=position, max_seq_len=8, num_kv_heads=2), "eager")


@pytest.mark.parametrize(
    "settings",
    [
        {"head_width": 6, "qk_norm": "head", "parallel_blocks": True, "rotary_fraction": 1 / 3},
        pytest.param(
            {"qk_norm": "all", "norm_position": "after", "rope_scaling": "llama3:4:0.1:0.3:8", "qkv_bias": False},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_traced_step_follows_the_settings_of_every_family(tiny_model: Models, settings: dict[str, Any]) -> None:
    torch._dynamo.reset()
    check(tiny_model(position="rotary", max_seq_len=8, num_kv_heads=2, norm="rmsnorm", **settings), "eager")


@pytest.mark.slow
def test_the_traced_step_of_a_quantised_model_gives_the_same_tokens(tiny_model: Models) -> None:
    torch._dynamo.reset()
    model = tiny_model(dtype=torch.float32, d_model=32, max_seq_len=8)
    quantise(model)
    check(model, "eager")


@torch.no_grad()
def test_a_compiled_step_gives_way_to_hooks(tiny_model: Models) -> None:
    torch._dynamo.reset()
    plain = tiny_model(dtype=torch.float32)
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9]])
    model, logits = CompiledDecoder(plain, backend="eager"), []
    cache = model.allocate_cache(1)
    model.next_logits(tokens[:, :4], cache)
    with hooked(plain, {"logits": torch.zeros_like}):
        logits.append(model.next_logits(tokens[:, 4:5], cache))
    logits.append(model.next_logits(tokens[:, 5:], cache))
    assert not logits[0].any()
    torch.testing.assert_close(logits[1], plain(tokens)[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("position", POSITIONS)
def test_the_compiled_step_gives_the_same_tokens(tiny_model: Models, position: str) -> None:
    torch._dynamo.reset()
    check(tiny_model(position=position, max_seq_len=8), "inductor")


def test_texts_of_any_length_are_compiled_once(tiny_model: Models) -> None:
    """Tokens of another text length have another stride, and were once compiled again, until the limit was reached."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = CompiledDecoder(tiny_model(max_seq_len=24), "eager")
    for length in range(3, 8):
        generate_batch(compiled, TOKENS[1:2, :2], length, SamplingConfig())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_float16_weights_on_a_cpu_are_refused(tiny_model: Models) -> None:
    model = tiny_model(dtype=torch.float32)
    round_weights(model, "float16")
    if isinstance(model.head, Float16Linear) and model.head.packed is None:
        pytest.skip("this build of PyTorch has no FBGEMM, so nothing is packed")
    with pytest.raises(ValueError, match="leave out --compile"):
        CompiledDecoder(model, "eager")


def test_a_full_cache_is_an_error_and_the_models_mode_comes_back(tiny_model: Models) -> None:
    model = tiny_model(max_seq_len=4).train()
    compiled = CompiledDecoder(model, "eager")
    cache = compiled.allocate_cache(1)
    with torch.no_grad():
        compiled.next_logits(TOKENS[:1, :4], cache)
        with pytest.raises(ValueError, match="do not fit"):
            compiled.next_logits(TOKENS[:1, :1], cache)
    generate_batch(compiled, TOKENS[:1], 3, SamplingConfig())
    assert model.training


def test_two_interleaved_streams_of_one_batch_size_are_an_error(tiny_model: Models) -> None:
    """Both streams once had the same cache and overwrote each other without an error."""
    torch._dynamo.reset()
    compiled = CompiledDecoder(tiny_model(max_seq_len=12), "eager")
    older, newer = (stream_tokens(compiled, TOKENS[:1, start:], 6, SamplingConfig()) for start in (0, 2))
    next(older)
    expected = generate_batch(compiled.model, TOKENS[:1, 2:], 6, SamplingConfig())[0, 3:]
    found = [int(next(newer)) for _ in range(2)]
    with pytest.raises(ValueError, match="a newer batch of 1 uses the cache of this compiled decoder: finish one"):
        list(older)
    assert [*found, *map(int, newer)] == expected.tolist()


def test_streams_of_different_batch_sizes_can_alternate(tiny_model: Models) -> None:
    torch._dynamo.reset()
    model = tiny_model(max_seq_len=12)
    compiled = CompiledDecoder(model, "eager")
    streams = [stream_tokens(compiled, TOKENS[:rows], 6, SamplingConfig()) for rows in (1, 2)]
    for rows, tokens in zip((1, 2), zip(*zip(*streams, strict=True), strict=True), strict=True):
        expected = generate_batch(model, TOKENS[:rows], 6, SamplingConfig())[:, TOKENS.shape[1] :]
        assert torch.equal(torch.stack(tokens, 1), expected)
