"""Standard errors over documents and batches, and paired differences between models."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from transformer import DecoderOnlyTransformer
from transformer.dataset import validation_rows
from transformer.evaluation.statistics import DocumentScores, LossVariance, common_documents
from transformer.perplexity import Evaluation, evaluate_perplexity

Models = Callable[..., DecoderOnlyTransformer]


def rows_of(length: int, seq_length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = np.random.default_rng(0).integers(0, 17, length).astype(np.uint32)
    return validation_rows(tokens, seq_length, end_of_text=16)


def test_the_standard_error_is_that_of_the_batches_losses(tiny_model: Models) -> None:
    model = tiny_model()
    inputs, targets = rows_of(100)
    variance = LossVariance()
    score = evaluate_perplexity(model, inputs, targets, batch_size=2, on_batch=lambda _, *sums: variance.add(*sums))
    with torch.no_grad():
        parts = [model.loss(a, b) for a, b in zip(inputs.split(2), targets.split(2), strict=True)]
    residuals = sum((nats.item() - score.loss * int(count)) ** 2 for nats, count in parts)
    expected = math.sqrt(len(parts) / (len(parts) - 1) * residuals) / score.tokens
    assert len(parts) > 2
    assert variance.loss_error(score) == pytest.approx(expected, rel=1e-6)
    assert LossVariance().loss_error(score) is None


def drawn(documents: int, seed: int = 0, model: float = 0.0) -> DocumentScores:
    """Documents of all lengths, each of its own difficulty; `model` nats a token more for another model."""
    chance = torch.Generator().manual_seed(seed)
    tokens = torch.randint(20, 400, (documents,), generator=chance)
    hardness = 3 + 0.5 * torch.randn(documents, generator=chance, dtype=torch.float64) + model
    return DocumentScores(tokens * hardness, tokens, 4 * tokens + torch.randint(0, 50, (documents,), generator=chance))


def part(scores: DocumentScores, chosen: torch.Tensor) -> DocumentScores:
    return DocumentScores(scores.nats[chosen], scores.tokens[chosen], scores.text_bytes[chosen])


def test_scores_add_up_to_an_evaluation() -> None:
    scores = DocumentScores(torch.tensor([10.0, 2.0]).double(), torch.tensor([4, 2]), torch.tensor([9, 3]))
    assert scores.evaluation == Evaluation(12.0, 6, 12)
    assert len(scores) == 2


def test_the_error_over_documents_by_hand() -> None:
    scores = DocumentScores(torch.tensor([10.0, 2.0]).double(), torch.tensor([4, 2]), torch.tensor([9, 3]))
    # Loss 2: the documents are off by 10 - 2 * 4 = 2 and 2 - 2 * 2 = -2; sqrt(2 / 1 * 8) / 6.
    assert scores.loss_error == pytest.approx(4 / 6)
    assert scores.perplexity_error == pytest.approx(math.exp(2) * 4 / 6)


@pytest.mark.parametrize("seed", range(3))
def test_the_errors_agree_with_the_jackknife(seed: int) -> None:
    scores, count = drawn(200, seed), 200
    without = [part(scores, torch.arange(count) != left_out).evaluation for left_out in range(count)]
    for name, error in (("loss", scores.loss_error), ("bits_per_byte", scores.bits_per_byte_error)):
        values = torch.tensor([getattr(evaluation, name) for evaluation in without])
        jackknife = math.sqrt((count - 1) ** 2 / count * values.double().var().item())
        assert error == pytest.approx(jackknife, rel=0.03)


def test_the_error_is_the_standard_deviation_of_the_loss_over_draws_of_documents() -> None:
    population, chance = drawn(20_000), torch.Generator().manual_seed(1)
    draws = [part(population, torch.randint(0, 20_000, (60,), generator=chance)) for _ in range(1_000)]
    deviation = torch.tensor([scores.evaluation.loss for scores in draws]).std().item()
    mean_error = sum(scores.loss_error or 0 for scores in draws) / len(draws)
    assert mean_error == pytest.approx(deviation, rel=0.06)
    real = population.evaluation.loss
    covered = sum(abs(scores.evaluation.loss - real) < 2 * (scores.loss_error or 0) for scores in draws)
    assert 0.92 < covered / len(draws) < 0.97


@pytest.mark.parametrize("documents", [0, 1])
def test_fewer_than_two_documents_have_no_error(documents: int) -> None:
    scores = drawn(documents)
    assert (scores.loss_error, scores.perplexity_error, scores.bits_per_byte_error) == (None, None, None)
    assert scores.minus(scores).error is None


def test_pairing_by_document_finds_differences_below_the_unpaired_errors() -> None:
    first, second = drawn(50), drawn(50, model=0.01)
    difference = second.minus(first)
    assert difference.bits_per_byte == pytest.approx(
        second.evaluation.bits_per_byte - first.evaluation.bits_per_byte, rel=1e-9
    )
    assert difference.error is not None
    assert first.bits_per_byte_error is not None
    assert difference.bits_per_byte > 10 * difference.error
    assert difference.bits_per_byte < first.bits_per_byte_error / 4
    assert first.minus(first) == (0.0, 0.0)
    assert first.minus(second).bits_per_byte == -difference.bits_per_byte


def test_scores_of_other_documents_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same documents"):
        drawn(5).minus(drawn(5, seed=1))
    with pytest.raises(ValueError, match="same documents"):
        drawn(5).minus(drawn(6))


def test_scores_are_cut_to_the_documents_that_all_have_whole() -> None:
    long, short = drawn(9), part(drawn(9), torch.arange(6))
    short.text_bytes[5] -= 1  # a limit in tokens cut the sixth document
    cut = common_documents([long, short])
    assert [len(scores) for scores in cut] == [5, 5]
    assert torch.equal(cut[0].nats, long.nats[:5])
    assert common_documents([long])[0].evaluation == long.evaluation
    assert len(common_documents([long, drawn(3, seed=1)])[0]) == 0
    assert common_documents([]) == []
