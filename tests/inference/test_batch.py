"""Rows of a batch are independent: each gives what its prompt gives alone, whatever the others are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import ConfigError, DecoderOnlyTransformer, SamplingConfig
from transformer.generation import generate
from transformer.inference.batch import generate_batch, stream_tokens
from transformer.inference.padding import pad, padded_context

Models = Callable[..., DecoderOnlyTransformer]

POSITIONS = ["learned", "sinusoidal", "rotary", "alibi"]
STRATEGIES = ["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"]
LIMIT = 6
PROMPT = torch.tensor([[1, 2, 3], [7, 8, 9]])


@given(
    position=st.sampled_from(POSITIONS), limit=st.integers(1, 8), batch=st.integers(1, 3), prompt=st.integers(1, 20),
    new=st.integers(0, 20), strategy=st.sampled_from(STRATEGIES), use_cache=st.booleans(),
    stop_ids=st.sets(st.integers(0, 16), max_size=2), penalty=st.sampled_from([1.0, 1.5]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60)
def test_equal_prompts_give_the_ids_of_the_core_loop(
    model_of: Models, position: str, limit: int, batch: int, prompt: int, new: int, strategy: str, use_cache: bool,
    stop_ids: set[int], penalty: float, seed: int,
) -> None:  # fmt: skip
    model = model_of(position, limit)
    tokens = torch.randint(0, 17, (batch, prompt), generator=torch.Generator().manual_seed(seed))
    sampling = SamplingConfig(strategy, top_k=5, repetition_penalty=penalty)  # type: ignore[arg-type]
    core, batched = (
        function(model, tokens, new, sampling, stop_ids, use_cache, torch.Generator().manual_seed(seed))
        for function in (generate, generate_batch)
    )
    assert torch.equal(core, batched)


def test_the_models_mode_is_restored_between_tokens_and_after_a_closed_stream(tiny_model: Models) -> None:
    model = tiny_model(dropout=0.5).train()
    stream = stream_tokens(model, PROMPT, 10, SamplingConfig())
    next(stream)
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert all(module.training for module in model.modules())


def test_training_between_two_tokens_is_possible(tiny_model: Models) -> None:
    model = tiny_model().train()
    stream = stream_tokens(model, PROMPT, 3, SamplingConfig())
    next(stream)
    model.loss(PROMPT, PROMPT)[0].backward()
    assert next(stream).shape == (2,)


def test_a_stream_yields_what_generate_returns(model_of: Models) -> None:
    model = model_of()
    streamed = torch.stack(list(stream_tokens(model, PROMPT, 9, SamplingConfig())), 1)
    assert torch.equal(torch.cat([PROMPT, streamed], 1), generate(model, PROMPT, 9, SamplingConfig()))


def generators(count: int, seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + row) for row in range(count)]


@given(
    position=st.sampled_from(POSITIONS), kv_heads=st.sampled_from([4, 1]), limit=st.integers(1, 8),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4), new=st.integers(0, 15),
    strategy=st.sampled_from(STRATEGIES), use_cache=st.booleans(), penalty=st.sampled_from([1.0, 1.5]),
    stop_ids=st.sets(st.integers(0, 16), max_size=2), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=80)
def test_each_of_several_unequal_prompts_gives_what_it_gives_alone(
    model_of: Models, position: str, kv_heads: int, limit: int, lengths: list[int], new: int, strategy: str,
    use_cache: bool, penalty: float, stop_ids: set[int], seed: int,
) -> None:  # fmt: skip
    model = model_of(position, limit, num_kv_heads=kv_heads)
    random = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(0, 17, (length,), generator=random).tolist() for length in lengths]
    tokens, padding = pad(prompts)
    sampling = SamplingConfig(strategy, top_k=5, repetition_penalty=penalty)  # type: ignore[arg-type]
    together = generate_batch(
        model, tokens, new, sampling, stop_ids, use_cache, generators(len(prompts), seed), padding
    )
    for row, prompt in enumerate(prompts):
        generator = torch.Generator().manual_seed(seed + row)
        alone = generate(model, torch.tensor([prompt]), new, sampling, stop_ids, generator=generator)[0]
        mine = together[row, padding[row] :]
        assert torch.equal(mine[: len(alone)], alone)
        assert (mine[len(alone) :] == alone[-1]).all()  # finished before the others: it repeats its stop id


@pytest.mark.parametrize("position", POSITIONS)
def test_padding_changes_no_logit_of_the_text_after_it(model_of: Models, position: str) -> None:
    model = model_of(position)
    tokens_ = torch.tensor([[16, 16, 16, 1, 2], [0, 5, 6, 7, 8]])
    with torch.no_grad():
        padded = model.head(model.hidden(tokens_, context=padded_context(model, tokens_, None, torch.tensor([3, 1]))))
        torch.testing.assert_close(padded[0, 3:], model(tokens_[:1, 3:])[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(padded[1, 1:], model(tokens_[1:, 1:])[0], rtol=0, atol=1e-12)


def test_prompts_are_padded_on_the_left_with_their_own_first_token() -> None:
    tokens, padding = pad([[4], [1, 2, 3]])
    assert (tokens.tolist(), padding.tolist()) == ([[4, 4, 4], [1, 2, 3]], [2, 0])
    for nothing in ([], [[1], []]):
        with pytest.raises(ValueError, match="at least one"):
            pad(nothing)


@pytest.mark.parametrize("padding", [[3, 0], [-1, 0], [0]])
def test_padding_that_leaves_no_token_or_has_another_length_is_an_error(model_of: Models, padding: list[int]) -> None:
    with pytest.raises(ValueError, match="padding"):
        stream_tokens(model_of(), PROMPT, 3, SamplingConfig(), padding=torch.tensor(padding))


def test_the_caller_can_mark_a_row_as_finished(model_of: Models) -> None:
    model = model_of()
    free = model.generate(PROMPT, max_new_tokens=10)[:, 3:]
    steps: list[torch.Tensor] = []

    def is_finished() -> torch.Tensor:
        return torch.tensor([len(steps) >= 2, len(steps) >= 5])

    for token in stream_tokens(model, PROMPT, 10, SamplingConfig(), is_finished=is_finished):
        steps.append(token)
    rows = torch.stack(steps, 1)
    assert rows.shape == (2, 5)
    assert torch.equal(rows[1], free[1, :5])
    assert rows[0].tolist() == [*free[0, :2].tolist(), *[int(free[0, 1])] * 3]


@given(limit=st.integers(1, 9), prompt=st.integers(1, 20), chunk=st.integers(1, 10), ragged=st.booleans())
@settings(max_examples=30)
def test_a_prompt_processed_in_chunks_gives_the_same_tokens(
    model_of: Models, limit: int, prompt: int, chunk: int, ragged: bool
) -> None:
    model = model_of("learned", limit)
    tokens = torch.randint(0, 17, (2, prompt), generator=torch.Generator().manual_seed(prompt))
    padding = torch.tensor([0, (prompt - 1) // 2]) if ragged else None
    expected = generate_batch(model, tokens, 5, SamplingConfig(), padding=padding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformer.inference.padding.PREFILL_CHUNK", chunk)
        assert torch.equal(generate_batch(model, tokens, 5, SamplingConfig(), padding=padding), expected)


@pytest.mark.parametrize("shape", [(1, 0), (3,)])
@pytest.mark.parametrize("use_cache", [True, False])
def test_an_empty_or_flat_prompt_is_an_error_before_the_first_token(
    model_of: Models, shape: tuple[int, ...], use_cache: bool
) -> None:
    prompt = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match="at least one token"):
        stream_tokens(model_of(), prompt, 3, SamplingConfig(), use_cache=use_cache)


def test_impossible_sampling_settings_are_refused_before_the_first_token(model_of: Models) -> None:
    with pytest.raises(ConfigError, match="temperature"):
        stream_tokens(model_of(), PROMPT, 3, SamplingConfig(temperature=-1.0))
