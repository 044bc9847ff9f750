"""Perplexity from sums: the same number however the text is cut into batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer import DecoderOnlyTransformer
from transformer.config import IGNORE
from transformer.data.document_mask import document_mask
from transformer.dataset import validation_rows
from transformer.perplexity import (
    Evaluation,
    calculate_perplexity,
    calculate_perplexity_from_loss,
    evaluate_perplexity,
    unigram_nats,
)

Models = Callable[..., DecoderOnlyTransformer]


def rows_of(length: int, seq_length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = np.random.default_rng(0).integers(0, 17, length).astype(np.uint32)
    return validation_rows(tokens, seq_length, end_of_text=16)


def test_perplexity_of_a_uniform_model_is_the_size_of_the_vocabulary() -> None:
    assert calculate_perplexity(torch.zeros(2, 3, 50), torch.randint(0, 50, (2, 3))) == pytest.approx(50)


def test_perplexity_of_a_perfect_model_is_1() -> None:
    targets = torch.tensor([[1, 2, 0]])
    assert calculate_perplexity(torch.nn.functional.one_hot(targets, 5) * 1e3, targets) == pytest.approx(1)


def test_perplexity_by_hand() -> None:
    logits = torch.tensor([[4.0, 2.0, 1.0, 1.0], [1.0, 1.0, 4.0, 2.0]]).log()  # probabilities in eighths
    # The target tokens have 1/2 and 1/4: the geometric mean of 2 and 4 choices.
    assert calculate_perplexity(logits, torch.tensor([0, 3])) == pytest.approx(math.sqrt(8))


def test_perplexity_is_the_exponential_of_the_loss() -> None:
    assert calculate_perplexity_from_loss(0.0) == 1.0
    assert calculate_perplexity_from_loss(math.log(20)) == pytest.approx(20)


@pytest.mark.parametrize("loss", [701.0, 1e9, math.inf])
def test_a_perplexity_beyond_any_float_is_infinite(loss: float) -> None:
    assert calculate_perplexity_from_loss(loss) == math.inf


def test_a_nan_loss_gives_a_nan_perplexity() -> None:
    assert math.isnan(calculate_perplexity_from_loss(math.nan))


def test_ignored_targets_are_not_counted() -> None:
    logits, targets = torch.randn(6, 9), torch.tensor([1, 2, 3, 4, 5, 6])
    masked = targets.clone()
    masked[3:] = IGNORE
    assert calculate_perplexity(logits, masked) == pytest.approx(calculate_perplexity(logits[:3], targets[:3]))


def test_logits_with_a_gradient_cause_no_warning() -> None:
    """float() of a tensor that requires a gradient warns; .item() does not."""
    logits = torch.zeros(3, 5, requires_grad=True)
    assert calculate_perplexity(logits, torch.tensor([0, 1, 2])) == pytest.approx(5)


def test_an_evaluations_numbers_by_hand() -> None:
    score = Evaluation(nats=80 * math.log(2), tokens=20, text_bytes=40)
    assert score.loss == pytest.approx(4 * math.log(2))
    assert score.perplexity == pytest.approx(16)
    assert score.bits_per_byte == pytest.approx(2)


def test_an_evaluation_of_no_tokens_is_nan() -> None:
    nothing = Evaluation(nats=0.0, tokens=0)
    assert math.isnan(nothing.loss)
    assert math.isnan(nothing.perplexity)
    assert math.isnan(nothing.bits_per_byte)


def test_an_evaluation_equals_the_loss_of_all_rows_at_once(tiny_model: Models) -> None:
    model = tiny_model()
    inputs, targets = rows_of(100)
    score = evaluate_perplexity(model, inputs, targets, text_bytes=300)
    nats, count = model.loss(inputs, targets)
    assert score.nats == pytest.approx(nats.item(), rel=1e-12)
    assert score.tokens == int(count) == 100
    assert score.bits_per_byte == pytest.approx(score.nats / math.log(2) / 300)
    assert score.perplexity == pytest.approx(calculate_perplexity(model(inputs).detach(), targets))


def test_attention_stays_within_documents_if_end_of_text_is_given(tiny_model: Models) -> None:
    model = tiny_model()
    inputs, targets = rows_of(100)
    assert (inputs[:, 1:-1] == 16).any()
    kept_apart = evaluate_perplexity(model, inputs, targets, batch_size=2, end_of_text=16)
    assert kept_apart.nats == pytest.approx(model.loss(inputs, targets, document_mask(inputs, 16))[0].item(), rel=1e-12)
    assert kept_apart.nats != pytest.approx(evaluate_perplexity(model, inputs, targets).nats, rel=1e-3)


@given(batch_size=st.integers(1, 12), length=st.integers(1, 60))
@settings(max_examples=30)
def test_the_batch_size_changes_nothing(tiny_model: Models, batch_size: int, length: int) -> None:
    model = tiny_model()
    inputs, targets = rows_of(length)
    whole, cut = (evaluate_perplexity(model, inputs, targets, batch_size=size) for size in (1_000, batch_size))
    assert cut.tokens == whole.tokens == length
    assert cut.nats == pytest.approx(whole.nats, rel=1e-12)


def test_a_mean_of_batch_means_is_another_number(tiny_model: Models) -> None:
    model = tiny_model()
    inputs, targets = rows_of(13)  # the second row counts a single token
    means = [evaluate_perplexity(model, inputs[[i]], targets[[i]]).loss for i in range(2)]
    assert abs(sum(means) / 2 - evaluate_perplexity(model, inputs, targets).loss) > 1e-3


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_models_mode_comes_back(tiny_model: Models, training: bool) -> None:
    model = tiny_model(dropout=0.5).train(training)
    scores = {evaluate_perplexity(model, *rows_of(30)).nats for _ in range(2)}
    assert scores == {evaluate_perplexity(tiny_model(), *rows_of(30)).nats}
    assert {module.training for module in model.modules()} == {training}


def test_no_gradient_is_recorded_and_none_is_lost(tiny_model: Models) -> None:
    model = tiny_model()
    model.loss(*rows_of(12))[0].backward()
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    evaluate_perplexity(model, *rows_of(30))
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert torch.is_grad_enabled()


def test_an_untrained_model_scores_about_the_size_of_the_vocabulary() -> None:
    model = DecoderOnlyTransformer(vocab_size=17, d_model=16, num_heads=2, num_layers=1, d_ff=32, max_seq_len=12)
    assert evaluate_perplexity(model, *rows_of(200)).perplexity == pytest.approx(17, rel=0.05)


def test_an_empty_text_has_no_nats_and_no_tokens(tiny_model: Models) -> None:
    score = evaluate_perplexity(tiny_model(), *rows_of(0))
    assert (score.nats, score.tokens) == (0.0, 0)


# The unigram baseline


def test_the_unigram_baseline_of_equally_frequent_tokens_is_uniform() -> None:
    assert unigram_nats(torch.tensor([3, 3, 3, 3])) == pytest.approx(math.log(4))
    assert unigram_nats(torch.tensor([5, 0, 1]), known=torch.tensor([7, 7, 7])) == pytest.approx(math.log(3))


@given(counts=st.lists(st.integers(0, 50), min_size=2, max_size=20).filter(any), seed=st.integers(0, 9))
def test_no_unigram_model_beats_the_texts_own_frequencies(counts: list[int], seed: int) -> None:
    known = torch.randint(0, 60, (len(counts),), generator=torch.Generator().manual_seed(seed))
    assert unigram_nats(torch.tensor(counts)) <= unigram_nats(torch.tensor(counts), known) + 1e-12


def test_an_unseen_token_is_not_impossible() -> None:
    assert unigram_nats(torch.tensor([0, 1]), known=torch.tensor([8, 0])) == pytest.approx(math.log(10))
