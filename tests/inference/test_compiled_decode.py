"""The compiled decode step writes what the plain one writes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from transformer import DecoderOnlyTransformer
from transformer.config import SamplingConfig
from transformer.inference.batch import generate_batch, pad
from transformer.inference.compiled_decode import CompiledDecoder
from transformer.kernels.int8 import quantise

Models = Callable[..., DecoderOnlyTransformer]
POSITIONS = ["learned", "sinusoidal", "rotary", "alibi"]
TOKENS, PADDING = pad([[1, 2, 3], [4, 5, 6, 7, 8], [9]])


def check(model: DecoderOnlyTransformer, backend: str) -> None:
    """Writes one text and three unequal ones over several windows, twice, so that the cache is used again."""
    compiled = CompiledDecoder(model, backend)
    for prompt, padding in [(TOKENS[:1], None), (TOKENS, PADDING), (TOKENS[1:2], None)]:
        expected = generate_batch(model, prompt, 14, SamplingConfig(), padding=padding)
        assert torch.equal(generate_batch(compiled, prompt, 14, SamplingConfig(), padding=padding), expected)


@pytest.mark.parametrize("position", POSITIONS)
def test_the_traced_step_writes_the_same_text(tiny_model: Models, position: str) -> None:
    torch._dynamo.reset()
    check(tiny_model(position=position, max_seq_len=8, num_kv_heads=2), "eager")


def test_the_traced_step_of_a_quantised_model_writes_the_same_text(tiny_model: Models) -> None:
    torch._dynamo.reset()
    model = tiny_model(dtype=torch.float32, d_model=32, max_seq_len=8)
    quantise(model)
    check(model, "eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("position", POSITIONS)
def test_the_compiled_step_writes_the_same_text(tiny_model: Models, position: str) -> None:
    torch._dynamo.reset()
    check(tiny_model(position=position, max_seq_len=8), "inductor")


def test_texts_of_any_length_use_one_translation(tiny_model: Models) -> None:
    """Each length of text has tokens with another stride, and was translated anew until there were too many."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = CompiledDecoder(tiny_model(max_seq_len=24), "eager")
    for length in range(3, 8):
        generate_batch(compiled, TOKENS[1:2, :2], length, SamplingConfig())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_full_cache_and_the_models_mode_are_minded(tiny_model: Models) -> None:
    model = tiny_model(max_seq_len=4).train()
    compiled = CompiledDecoder(model, "eager")
    cache = compiled.allocate_cache(1)
    with torch.no_grad():
        compiled.next_logits(TOKENS[:1, :4], cache)
        with pytest.raises(ValueError, match="do not fit"):
            compiled.next_logits(TOKENS[:1, :1], cache)
    generate_batch(compiled, TOKENS[:1], 3, SamplingConfig())
    assert model.training
