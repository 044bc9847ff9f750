"""Rankings: the decision which checkpoint is best, its error rate, and the plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transformer.evaluation.ranking import Measured, Ranking, effective_documents, rank, threshold
from transformer.evaluation.statistics import DocumentScores, students_t
from transformer.reporting.ranking_plot import draw, save_ranking


def scored(name: str, nats: torch.Tensor, text_bytes: torch.Tensor, tokens: int = 100, epoch: int = 1) -> Measured:
    return Measured(Path(name), "byte", epoch, tokens, DocumentScores(nats, text_bytes + 1, text_bytes))


def drawn(levels: list[float], documents: int, noise: float, chance: torch.Generator) -> list[Measured]:
    """Checkpoints of these levels on documents of which some are hard, each model with a noise of its own."""
    text_bytes = torch.randint(100, 5000, (documents,), generator=chance)
    hard = torch.rand(documents, dtype=torch.float64, generator=chance)
    return [
        scored(f"run/model_epoch_{number}_byte.pt",
               text_bytes * (level + hard + noise * torch.randn(documents, dtype=torch.float64, generator=chance)),
               text_bytes, tokens=number, epoch=number)
        for number, level in enumerate(levels, start=1)
    ]  # fmt: skip


@pytest.mark.parametrize(("checkpoints", "documents"), [(2, 5), (3, 40), (12, 20)])
def test_of_equal_models_none_is_called_best_more_often_than_the_rule_says(checkpoints: int, documents: int) -> None:
    chance = torch.Generator().manual_seed(checkpoints)
    tries = 500
    called = sum(
        rank("text", drawn([1.0] * checkpoints, documents, 0.05, chance)).best is not None for _ in range(tries)
    )
    # Of two equal ones either may come first, so twice 0.025; of many, one has to be ahead of all, which is rarer.
    assert called / tries < 0.05 + 3 * (0.05 * 0.95 / tries) ** 0.5


def test_a_difference_far_below_the_standard_deviation_of_documents_is_found() -> None:
    chance = torch.Generator().manual_seed(0)
    ranking = rank("text", drawn([1.04, 1.0, 1.02], 60, 0.005, chance))
    assert ranking.best is not None
    assert [row.measured.epoch for row in ranking.rows] == [2, 3, 1]
    error = ranking.rows[0].measured.scores.bits_per_byte_error
    assert error is not None
    assert ranking.rows[1].behind.bits_per_byte < error  # unpaired, the difference would not be significant


def test_the_same_checkpoint_twice_is_a_tie() -> None:
    one = scored("a/m.pt", torch.tensor([3.0, 5.0, 9.0]).double(), torch.tensor([4, 5, 8]))
    ranking = rank("text", [one, scored("b/m.pt", one.scores.nats, one.scores.text_bytes)])
    assert ranking.best is None
    assert [row.is_tied for row in ranking.rows] == [True, True]
    assert ranking.rows[1].behind == (0.0, 0.0)


def test_one_document_or_one_checkpoint_gives_no_verdict() -> None:
    sizes = torch.tensor([10])
    pair = [scored("a", torch.tensor([1.0]).double(), sizes), scored("b", torch.tensor([9.0]).double(), sizes)]
    assert rank("text", pair).best is None
    assert rank("text", pair).threshold == float("inf")
    three = torch.tensor([10, 20, 30])
    assert rank("text", [scored("a", three.double(), three)]).best is None


def test_documents_of_other_sizes_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="not evaluated on the same documents"):
        rank("text", [scored("a", torch.ones(2).double(), torch.tensor([1, n])) for n in (1, 2)])


def test_a_change_is_since_the_checkpoint_before_in_the_same_run() -> None:
    sizes = torch.tensor([100, 200, 300])
    nats = {("a", 1): 5.0, ("a", 2): 4.0, ("a", 5): 4.5, ("b", 3): 3.0}
    ranking = rank("text", [
        scored(f"{folder}/model_epoch_{epoch}_byte.pt", sizes * level, sizes, tokens=epoch * 10, epoch=epoch)
        for (folder, epoch), level in nats.items()
    ])  # fmt: skip
    found = {
        (row.measured.path.parent.name, row.measured.epoch): (row.before and row.before.epoch, row.change)
        for row in ranking.rows
    }
    assert {key: before for key, (before, _) in found.items()} == {
        ("a", 1): None, ("a", 2): 1, ("a", 5): 2, ("b", 3): None,
    }  # fmt: skip
    change = found["a", 5][1]
    assert change is not None
    assert change.bits_per_byte == pytest.approx(0.5 / np.log(2))


@given(st.floats(0.0005, 0.4), st.integers(1, 60))
def test_students_t_is_exceeded_as_often_as_it_says(chance: float, freedom: int) -> None:
    t = torch.distributions.StudentT(torch.tensor(float(freedom), dtype=torch.float64))
    limit = students_t(chance, freedom)
    grid = torch.linspace(-limit, limit, 200_001, dtype=torch.float64)
    assert torch.trapezoid(t.log_prob(grid).exp(), grid).item() == pytest.approx(1 - 2 * chance, abs=2e-3)


def test_unequal_documents_count_as_fewer() -> None:
    """With five documents of very unequal sizes the bar for five was passed by luck in 8% of tries, not in 5%."""
    assert effective_documents(scored("a", torch.ones(4), torch.tensor([7, 7, 7, 7])).scores) == 4
    assert effective_documents(scored("a", torch.ones(3), torch.tensor([1000, 1, 1])).scores) == pytest.approx(
        1.004, abs=1e-4
    )


def test_the_bar_rises_with_checkpoints_and_falls_with_documents() -> None:
    assert threshold(2, 10**4) == 2.0
    by_checkpoints = [threshold(n, 30) for n in (2, 3, 10, 100)]
    by_documents = [threshold(10, n) for n in (2, 3, 10, 100)]
    assert by_checkpoints == sorted(by_checkpoints)
    assert by_documents == sorted(by_documents, reverse=True)
    assert threshold(1, 5) == threshold(2, 5)


# The picture


def picture_of(ranking: Ranking, folder: Path) -> str:
    save_ranking([ranking], folder / "p.png", folder / "p.svg")
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")
    return (folder / "p.svg").read_text(encoding="utf-8")


def test_a_bar_reaches_the_dotted_line_exactly_if_the_difference_is_not_significant() -> None:
    chance = torch.Generator().manual_seed(3)
    ranking = rank("text", drawn([1.0, 1.006, 1.012, 1.02, 1.03, 1.06], 30, 0.03, chance))
    ties = [row.is_tied for row in ranking.rows]
    assert True in ties[1:]
    assert False in ties
    axes = draw([ranking]).axes[0]
    segments = next(c for c in axes.collections if hasattr(c, "get_segments")).get_segments()
    low = {round(x): min(y, top) for (x, y), (_, top) in segments}
    first = ranking.rows[0].measured.scores.evaluation.bits_per_byte
    assert [low[row.measured.tokens] <= first for row in ranking.rows] == ties


@pytest.mark.parametrize("documents", [1, 2, 30])
@pytest.mark.parametrize("checkpoints", [1, 5])
def test_any_ranking_can_be_drawn(tmp_path: Path, documents: int, checkpoints: int) -> None:
    ranking = rank("a $text_", drawn([1.0 + 0.1 * n for n in range(checkpoints)], documents, 0.01, torch.Generator()))
    assert " document" in picture_of(ranking, tmp_path)


def test_many_runs_of_very_different_lengths_are_named_beside_the_panel(tmp_path: Path) -> None:
    sizes = torch.tensor([100, 200, 300])
    runs = [scored(f"_run{n}$/m.pt", sizes * (1.0 + n / 10), sizes, tokens=10 ** (2 + n % 5)) for n in range(15)]
    text = picture_of(rank("text", runs), tmp_path)
    assert all(f"_run{n}$" in text for n in range(15))
