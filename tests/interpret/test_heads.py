"""Scores of attention heads: what each habit counts, and an even head beside it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transformer import DecoderOnlyTransformer
from transformer.interpret import heads
from transformer.interpret.heads import HABITS, head_habits, score_habits, strongest


def rows_of(*texts: str) -> Tensor:
    return torch.tensor([[ord(letter) for letter in text] for text in texts])


def keys(habit: str, text: str) -> dict[int, list[int]]:
    """Returns the keys of each query that has any."""
    found = HABITS[habit](rows_of(text))[0]
    return {query: row.nonzero().flatten().tolist() for query, row in enumerate(found) if row.any()}


def one_hot(*attended: int) -> Tensor:
    """Returns the weights (1, 1, T, T) of a head whose query i attends only to attended[i]."""
    return torch.eye(len(attended))[list(attended)][None, None]


def even(length: int, batch: int = 1, count: int = 1) -> Tensor:
    """Returns the weights (B, H, T, T) of heads that attend evenly to all keys up to the query."""
    weights = torch.ones(length, length).tril()
    return (weights / weights.sum(-1, keepdim=True)).expand(batch, count, -1, -1)


def test_the_keys_of_each_habit_are_those_of_the_lesson() -> None:
    assert keys("previous token", "abcab") == {1: [0], 2: [1], 3: [2], 4: [3]}
    assert keys("first token", "abcab") == {1: [0], 2: [0], 3: [0], 4: [0]}
    assert keys("duplicate token", "abcab") == {3: [0], 4: [1]}
    assert keys("induction", "abcab") == {3: [1], 4: [2]}


def test_a_token_that_occurred_twice_has_two_keys_of_induction() -> None:
    assert keys("induction", "axaya") == {2: [1], 4: [1, 3]}


def test_a_repeated_letter_is_no_induction_to_itself() -> None:
    """In "aa" the key after the first "a" is the query."""
    assert keys("induction", "aa") == {}
    assert keys("induction", "aab") == {}
    assert keys("induction", "aaa") == {2: [1]}


def test_a_head_that_attends_to_the_previous_token_scores_one_for_that_habit_only() -> None:
    habits = score_habits([one_hot(0, 0, 1, 2, 3)], rows_of("abcab"))
    assert habits["previous token"].score.item() == 1
    assert habits["first token"].score.item() == 0.25  # query 1, whose previous token is the first
    assert habits["induction"].score.item() == habits["duplicate token"].score.item() == 0


@given(text=st.text("abc", min_size=2, max_size=12))
def test_an_even_head_scores_exactly_the_even_score(text: str) -> None:
    for habit in score_habits([even(len(text))], rows_of(text)).values():
        assert habit.score.item() == pytest.approx(habit.even, nan_ok=True)


def test_without_a_query_that_could_show_a_habit_its_score_is_nan() -> None:
    habit = score_habits([even(3)], rows_of("abc"))["induction"]
    assert habit.queries == 0
    assert math.isnan(habit.score.item())
    assert math.isnan(habit.even)
    assert strongest(habit) == (0, 0)


def test_a_score_is_a_mean_over_queries_not_over_rows() -> None:
    """The first row has one query of induction, which the head serves, the second has two, which it does not."""
    weights = torch.cat([one_hot(0, 0, 1, 0), one_hot(0, 0, 0, 0)])
    habit = score_habits([weights], rows_of("abac", "abab"))["induction"]
    assert habit.queries == 3
    assert habit.score.item() == pytest.approx(1 / 3)


def test_the_error_is_that_of_a_mean_over_rows_with_equally_many_queries() -> None:
    """Three rows score 1, 1 and 0: their standard deviation is sqrt(1/3), the error of their mean that / sqrt(3)."""
    weights = torch.cat([one_hot(0, 0, 1, 2), one_hot(0, 0, 1, 2), one_hot(0, 1, 2, 3)])
    habit = score_habits([weights], rows_of("abcd", "abcd", "abcd"))["previous token"]
    assert habit.score.item() == pytest.approx(2 / 3)
    assert habit.error.item() == pytest.approx(1 / 3)


def test_a_single_row_has_no_error() -> None:
    assert score_habits([even(3)], rows_of("aba"))["induction"].error.isnan().all()


@pytest.mark.parametrize("settings", [{}, {"position": "alibi"}, {"position": "rotary", "num_kv_heads": 2}])
def test_head_habits_scores_the_weights_of_the_model_in_batches(
    tiny_model: Callable[..., DecoderOnlyTransformer], settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = tiny_model(**settings), torch.randint(17, (5, 12))
    expected = score_habits(model.attention_weights(rows), rows)
    monkeypatch.setattr(heads, "WEIGHTS_AT_ONCE", 2 * 2 * 4 * 12 * 12)
    done: list[tuple[int, int]] = []
    found = head_habits(model, rows, lambda *progress: done.append(progress))
    assert done == [(2, 5), (4, 5), (5, 5)]
    for name, habit in expected.items():
        torch.testing.assert_close(found[name].score, habit.score, rtol=0, atol=1e-6)
        torch.testing.assert_close(found[name].error, habit.error, rtol=0, atol=1e-6)
        assert (found[name].even, found[name].queries) == (pytest.approx(habit.even), habit.queries)
        assert found[name].score.shape == (2, 4)


def test_the_strongest_head_is_named_by_layer_and_head() -> None:
    layers = [even(4, count=2), torch.cat([even(4), one_hot(0, 0, 1, 2)], dim=1)]
    assert strongest(score_habits(layers, rows_of("abcd"))["previous token"]) == (1, 1)
