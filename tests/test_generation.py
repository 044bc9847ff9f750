"""The generation loop: the cache changes no token, the window moves by half, and the model is left unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import ConfigError, DecoderOnlyTransformer, SamplingConfig
from transformer.generation import generate, window_start

Models = Callable[..., DecoderOnlyTransformer]

POSITIONS = ["learned", "sinusoidal", "rotary", "alibi"]
STRATEGIES = ["greedy", "multinomial", "top_k", "top_p", "top_k_top_p"]
PROMPT = torch.tensor([[1, 2, 3], [7, 8, 9]])

# The models compute in float64, so that rounding does not decide between two close logits.


def generated_by_hand(model: DecoderOnlyTransformer, prompt: torch.Tensor, new: int) -> torch.Tensor:
    """Greedy generation as the lesson describes it, without any state from one token to the next."""
    text, limit = prompt, model.config.max_seq_len
    for _ in range(new):
        start = 0
        while text.shape[1] - start > limit:
            start += max(1, limit // 2)
        with torch.no_grad():
            text = torch.cat([text, model(text[:, start:])[:, -1].argmax(-1, keepdim=True)], 1)
    return text


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("position", POSITIONS)
def test_greedy_generation_equals_the_loop_by_hand(model_of: Models, position: str, use_cache: bool) -> None:
    model = model_of(position)
    tokens = model.generate(PROMPT, max_new_tokens=25, use_cache=use_cache)  # eight windows of six
    assert torch.equal(tokens, generated_by_hand(model, PROMPT, 25))


@given(
    position=st.sampled_from(POSITIONS), kv_heads=st.sampled_from([4, 1]), limit=st.integers(1, 8),
    batch=st.integers(1, 3), prompt=st.integers(1, 20), new=st.integers(0, 20), strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60)
def test_the_cache_changes_no_token_for_any_number_of_windows(
    model_of: Models, position: str, kv_heads: int, limit: int, batch: int, prompt: int, new: int, strategy: str,
    seed: int,
) -> None:  # fmt: skip
    model = model_of(position, limit, num_kv_heads=kv_heads)
    tokens = torch.randint(0, 17, (batch, prompt), generator=torch.Generator().manual_seed(seed))
    texts = [
        model.generate(
            tokens, max_new_tokens=new, sampling_strategy=strategy, use_cache=use_cache, top_k=5,
            generator=torch.Generator().manual_seed(seed),
        )
        for use_cache in (True, False)
    ]  # fmt: skip
    assert torch.equal(*texts)
    assert texts[0].shape == (batch, prompt + new)
    assert torch.equal(texts[0][:, :prompt], tokens)


@given(st.integers(1, 200), st.integers(1, 20))
def test_the_window_fits_ends_at_the_text_and_moves_by_half(length: int, limit: int) -> None:
    start = window_start(length, limit)
    assert 0 <= start < length
    assert length - start <= limit
    assert start % max(1, limit // 2) == 0
    if length > limit:
        assert length - start >= limit - limit // 2  # at least half of the context is left
    assert window_start(length + 1, limit) in (start, start + max(1, limit // 2))


def test_max_length_counts_the_prompt_and_max_new_tokens_only_what_is_new(model_of: Models) -> None:
    model = model_of()
    assert model.generate(PROMPT, max_length=5).shape == (2, 5)
    assert model.generate(PROMPT, max_new_tokens=5).shape == (2, 8)
    assert torch.equal(model.generate(PROMPT, max_length=3), PROMPT)
    assert torch.equal(model.generate(PROMPT, max_new_tokens=0), PROMPT)


def test_a_prompt_longer_than_max_length_and_two_limits_at_once_are_refused(model_of: Models) -> None:
    """The prompt was once returned unchanged, without an error."""
    model = model_of()
    with pytest.raises(ValueError, match="the prompt has 3 tokens, more than max_length=1: raise max_length"):
        model.generate(PROMPT, max_length=1)
    for length in (9, 100):  # 100 is the default
        with pytest.raises(ValueError, match=f"max_length={length} and max_new_tokens=2 are both given: give one"):
            model.generate(PROMPT, max_length=length, max_new_tokens=2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_temperature_0_is_greedy(model_of: Models, strategy: str) -> None:
    model = model_of()
    cold = model.generate(PROMPT, max_new_tokens=12, sampling_strategy=strategy, temperature=0.0)
    assert torch.equal(cold, model.generate(PROMPT, max_new_tokens=12, sampling_strategy="greedy"))


def test_top_k_above_the_vocabulary_keeps_all_tokens(model_of: Models) -> None:
    model = model_of()
    texts = [
        model.generate(
            PROMPT, max_new_tokens=12, sampling_strategy=s, top_k=10**6, generator=torch.Generator().manual_seed(3)
        )
        for s in ("top_k", "multinomial")
    ]
    assert torch.equal(*texts)


def test_the_same_generator_state_gives_the_same_text(model_of: Models) -> None:
    model = model_of()
    texts = [
        model.generate(
            PROMPT, max_new_tokens=20, sampling_strategy="multinomial", generator=torch.Generator().manual_seed(seed)
        )
        for seed in (3, 3, 4)
    ]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_finished_row_repeats_its_stop_id_until_all_rows_are_finished(model_of: Models, use_cache: bool) -> None:
    model = model_of()
    free = model.generate(PROMPT, max_new_tokens=15)
    stop = [int(free[0, 5]), int(free[1, 9])]
    first = [next(i for i in range(3, 18) if int(row[i]) in stop) for row in free]
    stopped = model.generate(PROMPT, max_new_tokens=15, stop_ids=stop, use_cache=use_cache)
    assert stopped.shape[1] == max(first) + 1  # the stop id is part of the output, nothing comes after the last one
    for row, unstopped, end in zip(stopped, free, first, strict=True):
        assert torch.equal(row[: end + 1], unstopped[: end + 1])
        assert (row[end:] == row[end]).all()


def test_a_stop_id_in_the_prompt_stops_nothing(model_of: Models) -> None:
    model = model_of()
    free = model.generate(PROMPT, max_new_tokens=8)
    unused = next(i for i in range(17) if not (free[:, 3:] == i).any())
    prompt = PROMPT.clone()
    prompt[:, -1] = unused
    free = model.generate(prompt, max_new_tokens=4)
    if not (free[:, 3:] == unused).any():
        assert torch.equal(model.generate(prompt, max_new_tokens=4, stop_ids=[unused]), free)


def test_without_stop_ids_all_tokens_are_generated(model_of: Models) -> None:
    assert model_of().generate(PROMPT, max_new_tokens=30, stop_ids=()).shape == (2, 33)


@pytest.mark.parametrize("shape", [(1, 0), (3,)])
@pytest.mark.parametrize("use_cache", [True, False])
def test_an_empty_or_flat_prompt_is_an_error(model_of: Models, shape: tuple[int, ...], use_cache: bool) -> None:
    prompt = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match="at least one token"):
        generate(model_of(), prompt, 3, SamplingConfig(), use_cache=use_cache)


def test_an_empty_prompt_is_an_error_in_generate_too(model_of: Models) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        model_of().generate(torch.zeros(2, 0, dtype=torch.int64))


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ("ROMEO:", TypeError, "of type str, not a tensor of token ids: .*tokenizer.encode"),
        ([[1, 2]], TypeError, "of type list"),
        (torch.ones(1, 3), TypeError, "dtype torch.float32, not torch.int64"),
        (torch.tensor([1, 2]), ValueError, r"shape \(2,\), not \(batch, tokens\).*add a batch dimension"),
        (torch.tensor([[3, 17]]), ValueError, "the id 17, but the model's ids are 0 to 16"),
        (torch.tensor([[-1]]), ValueError, "the id -1"),
    ],
)
def test_a_prompt_that_is_not_the_models_ids_is_an_error(
    model_of: Models, prompt: Any, error: type[Exception], message: str
) -> None:
    """These once ended in PyTorch's IndexError, or in AttributeError."""
    with pytest.raises(error, match=message):
        model_of().generate(prompt, max_new_tokens=1)
    with pytest.raises(error, match=message):
        generate(model_of(), prompt, 1, SamplingConfig())


def test_a_misspelt_setting_is_an_error(model_of: Models) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'temprature'; did you mean 'temperature'"):
        model_of().generate(PROMPT, temprature=0.5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_that_are_nan_are_an_error_with_every_strategy(tiny_model: Models, strategy: str) -> None:
    """Greedy generation once gave token 0 for ever."""
    model = tiny_model()
    model.head.weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="row 0 has no probabilities to draw from: its logits are not finite"):
        model.generate(PROMPT, max_new_tokens=3, sampling_strategy=strategy)


def test_impossible_sampling_settings_are_refused_before_the_first_token(model_of: Models) -> None:
    model = model_of()
    with pytest.raises(ConfigError, match="did you mean 'top_k'"):
        model.generate(PROMPT, sampling_strategy="topk")
    with pytest.raises(ConfigError, match="temperature"):
        generate(model, PROMPT, 3, SamplingConfig(temperature=-1.0))


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_comes_back(tiny_model: Models, training: bool) -> None:
    model = tiny_model(dropout=0.5).train(training)
    expected = tiny_model(dropout=0.5).eval().generate(PROMPT, max_new_tokens=6)
    assert torch.equal(model.generate(PROMPT, max_new_tokens=6), expected)  # no dropout during generation
    assert {module.training for module in model.modules()} == {training}


def test_the_models_mode_comes_back_after_an_error(tiny_model: Models) -> None:
    model = tiny_model().train()
    model.final_norm.weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="not finite"):
        model.generate(PROMPT, max_new_tokens=1)
    assert model.training


@pytest.mark.parametrize("use_cache", [True, False])
def test_no_gradient_is_recorded(tiny_model: Models, use_cache: bool) -> None:
    model = tiny_model()
    recorded: list[bool] = []
    model.final_norm.register_forward_hook(lambda *call: recorded.append(call[-1].requires_grad))
    model.generate(PROMPT, max_new_tokens=4, use_cache=use_cache)
    assert recorded == [False] * 4


def test_with_the_cache_each_token_is_processed_once(tiny_model: Models) -> None:
    model = tiny_model()
    lengths: list[int] = []
    model.embeddings.register_forward_hook(lambda *call: lengths.append(call[1][0].shape[1]))
    model.generate(PROMPT, max_new_tokens=5)
    assert lengths == [3, 1, 1, 1, 1]
    lengths.clear()
    model.generate(PROMPT, max_new_tokens=5, use_cache=False)
    assert lengths == [3, 4, 5, 6, 7]


def test_only_the_last_row_is_projected_to_logits(tiny_model: Models) -> None:
    model = tiny_model()
    shapes: list[torch.Size] = []
    model.head.register_forward_hook(lambda *call: shapes.append(call[-1].shape))
    model.generate(PROMPT, max_new_tokens=2)
    assert shapes == [(2, 17), (2, 17)]


def test_each_row_gives_what_it_gives_alone(model_of: Models) -> None:
    model = model_of()
    alone = torch.cat([model.generate(row[None], max_new_tokens=10) for row in PROMPT])
    assert torch.equal(model.generate(PROMPT, max_new_tokens=10), alone)


def test_the_prompt_given_is_not_changed(model_of: Models) -> None:
    prompt = PROMPT.clone()
    model_of().generate(prompt, max_new_tokens=10)
    assert torch.equal(prompt, PROMPT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_generate_too(tiny_model: Models, dtype: torch.dtype) -> None:
    assert tiny_model(dtype=dtype).generate(PROMPT, max_new_tokens=12).shape == (2, 15)


def test_generation_works_under_autocast(tiny_model: Models) -> None:
    model = tiny_model(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.generate(PROMPT, max_new_tokens=12).shape == (2, 15)
