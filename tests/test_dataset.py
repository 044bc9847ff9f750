"""Packed rows are the documents and nothing else, each token once; any state leads to exactly the remaining batches."""

from __future__ import annotations

import copy
import itertools
import json
from collections import Counter
from collections.abc import Generator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transformer.config import IGNORE
from transformer.data.contracts import DataState, Place
from transformer.dataset import PackedBatches, ReadOrder, TokenDocuments, validation_rows

END = 0
# Documents of 0 to 7 tokens; each token's id is its own, so that a row says where it comes from.
LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=6)
SHARDS = st.integers(0, 4)  # 0: the documents as TokenDocuments has them


def documents_of(lengths: Sequence[int]) -> list[list[int]]:
    ids = itertools.count(1)
    return [[next(ids) for _ in range(length)] for length in lengths]


class Shards(TokenDocuments):
    """Documents distributed to shards, one of which is empty."""

    def __init__(self, documents: Sequence[Sequence[int]], count: int) -> None:
        super().__init__(documents, END)
        self.shards = [self.documents[number::count] for number in range(count)] + [[]]

    def __len__(self) -> int:
        return len(self.shards)

    def row_groups(self, shard: int) -> int:
        return len(self.shards[shard])

    def stream(self, seed: int, start: DataState) -> Generator[tuple[Place, np.ndarray]]:
        for place in ReadOrder(self, seed, start):
            yield place, np.append(self.shards[place.shard][place.row_group], np.uint32(END))


def packed(documents: Sequence[Sequence[int]], shards: int = 0, **settings_: object) -> PackedBatches:
    source = Shards(documents, shards) if shards else TokenDocuments(documents, END)
    return PackedBatches(source, **{"seed": 3, **settings_})  # type: ignore[arg-type]


def first(batches: PackedBatches, count: int) -> list[tuple[Tensor, Tensor, DataState]]:
    return list(itertools.islice(batches, count))


def in_order(documents: Sequence[Sequence[int]], seq_length: int, rows: int, seed: int = 3, shards: int = 0) -> Tensor:
    """The first rows (rows, T + 1) of the stream: windows of a single row leave nothing to shuffle."""
    batches = packed(documents, shards, seq_length=seq_length, batch_size=1, window_rows=1, seed=seed)
    return torch.cat([torch.cat([inputs, targets[:, -1:]], 1) for inputs, targets, _ in first(batches, rows)])


def stream_of(rows: Tensor) -> list[int]:
    return [*rows[0].tolist(), *rows[1:, 1:].flatten().tolist()]


def first_token_apart(documents: Sequence[Sequence[int]]) -> dict[int, int]:
    """How often a first epoch's targets hold the token that starts each epoch: the first row cannot predict its first
    token, and the last row predicts the next epoch's."""
    stream = stream_of(in_order(documents, 4, 100))
    return {} if stream[0] == stream[400] else {stream[0]: 0, stream[400]: 2}


def assert_same(ours: Sequence[tuple[Tensor, ...]], theirs: Sequence[tuple[Tensor, ...]]) -> None:
    for (inputs, targets, state), (other_inputs, other_targets, other_state) in zip(ours, theirs, strict=True):
        assert torch.equal(inputs, other_inputs)
        assert torch.equal(targets, other_targets)
        assert state == other_state


def test_packing_by_hand() -> None:
    rows = in_order([[1, 2, 3, 4, 5]], seq_length=4, rows=3)  # one document, over and over
    assert rows.tolist() == [[1, 2, 3, 4, 5], [5, 0, 1, 2, 3], [3, 4, 5, 0, 1]]


def test_batches_are_int64_pairs_one_token_apart() -> None:
    inputs, targets, _ = first(packed([[1, 2, 3], [4]], seq_length=3, batch_size=2), 1)[0]
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.shape == targets.shape == (2, 3)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


@given(LENGTHS, st.integers(1, 5), st.integers(0, 50), SHARDS)
@settings(max_examples=80)
def test_rows_put_back_in_order_give_the_stream(lengths: list[int], seq_length: int, seed: int, shards: int) -> None:
    documents = documents_of(lengths)
    epoch = sum(lengths) + len(lengths)
    rows = in_order(documents, seq_length, rows=-(-2 * epoch // seq_length), seed=seed, shards=shards)
    assert torch.equal(rows[:-1, -1], rows[1:, 0])  # each row starts with the last target of the one before
    stream = stream_of(rows)
    for start in (0, epoch):  # in each epoch all documents, an end-of-text after each, in some order
        text = stream[start : start + epoch]
        ends = [i for i, token in enumerate(text) if token == END]
        assert len(ends) == len(documents)
        found = [text[a + 1 : b] for a, b in zip([-1, *ends], ends, strict=False)]
        assert sorted(found) == sorted(documents)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 3), st.integers(1, 12), st.integers(0, 50))
@settings(max_examples=80)
def test_each_token_is_an_input_once_and_a_target_once(
    lengths: list[int], seq_length: int, batch_size: int, window_rows: int, seed: int
) -> None:
    documents = documents_of(lengths)
    shape = {"seq_length": seq_length, "batch_size": batch_size}
    batches = packed(documents, **shape, window_rows=window_rows * batch_size, seed=seed)
    count = 3 * window_rows  # three windows of whole batches
    drawn = first(batches, count)
    stream = stream_of(in_order(documents, seq_length, count * batch_size, seed))
    inputs = torch.cat([inputs for inputs, _, _ in drawn])
    targets = torch.cat([targets for _, targets, _ in drawn])
    assert Counter(inputs.flatten().tolist()) == Counter(stream[:-1])
    assert Counter(targets.flatten().tolist()) == Counter(stream[1:])


@given(LENGTHS, st.integers(1, 4), st.integers(1, 3), st.integers(1, 12))
@settings(max_examples=60)
def test_rows_are_shuffled_within_their_window_only(
    lengths: list[int], seq_length: int, batch_size: int, window_rows: int
) -> None:
    documents = documents_of(lengths)
    size = window_rows * batch_size
    batches = packed(documents, seq_length=seq_length, batch_size=batch_size, window_rows=size)
    drawn = torch.cat([inputs for inputs, _, _ in first(batches, 3 * size // batch_size)])
    ordered = in_order(documents, seq_length, 3 * size)[:, :-1]
    for window in range(3):
        ours, theirs = (rows[window * size : (window + 1) * size].tolist() for rows in (drawn, ordered))
        assert sorted(ours) == sorted(theirs)


def test_rows_and_documents_come_in_another_order_each_epoch_and_seed() -> None:
    documents = documents_of([5] * 40)  # 240 tokens an epoch
    ordered = stream_of(in_order(documents, 6, 80))
    assert ordered[:240] != ordered[240:480]
    assert ordered[:240] != stream_of(in_order(documents, 6, 40, seed=4))[:240]
    drawn = first(packed(documents, seq_length=6, batch_size=1, window_rows=20), 20)
    assert [inputs[0].tolist() for inputs, _, _ in drawn] != in_order(documents, 6, 20)[:, :-1].tolist()


def test_the_same_seed_gives_the_same_batches() -> None:
    make = lambda: packed(documents_of([3, 0, 7, 2]), seq_length=3, batch_size=2, window_rows=6)  # noqa: E731
    assert_same(first(make(), 30), first(make(), 30))


def test_a_window_as_long_as_the_text_is_read_whole_before_any_of_it_is_read_again() -> None:
    documents = documents_of([3] * 100)  # 400 tokens, 100 rows: the window that the trainer asks for
    drawn = first(packed(documents, seq_length=4, batch_size=4, window_rows=100), 25)
    targets = torch.cat([targets for _, targets, _ in drawn]).flatten()
    once = dict.fromkeys(range(1, 301), 1)
    assert Counter(targets.tolist()) == Counter({END: 100, **once, **first_token_apart(documents)})


@given(LENGTHS, st.integers(1, 5), st.integers(1, 3), st.integers(1, 12), st.integers(0, 25), SHARDS)
@settings(max_examples=80)
def test_a_state_fed_back_gives_exactly_the_remaining_batches(
    lengths: list[int], seq_length: int, batch_size: int, window_rows: int, done: int, shards: int
) -> None:
    shape = {"seq_length": seq_length, "batch_size": batch_size, "window_rows": window_rows, "shards": shards}
    drawn = first(packed(documents_of(lengths), **shape), done + 15)
    state = drawn[done - 1][2] if done else DataState()
    restored = DataState.from_dict(json.loads(json.dumps(state.to_dict())))  # as a checkpoint stores it
    assert_same(first(packed(documents_of(lengths), state=restored, **shape), 15), drawn[done:])


def test_iterating_again_continues_where_it_stopped() -> None:
    shape = {"seq_length": 3, "batch_size": 2, "window_rows": 6}
    whole = first(packed(documents_of([3, 5, 2]), **shape), 10)
    batches = packed(documents_of([3, 5, 2]), **shape)
    assert_same(first(batches, 4) + first(batches, 6), whole)
    assert batches.state == whole[-1][2]


class PatientDocuments(TokenDocuments):
    """Documents that can be read 1,000 times, so that an endless search ends."""

    def stream(self, seed: int, start: DataState) -> Generator[tuple[Place, np.ndarray]]:
        yield from itertools.islice(super().stream(seed, start), 1_000)
        raise TimeoutError("1,000 reads without a batch")


def test_a_run_can_continue_with_another_batch_size() -> None:
    """A state whose row is no multiple of the new batch size once led into an endless search for the window's end."""
    old = PackedBatches(TokenDocuments(documents_of([5] * 4), END), 2, batch_size=4, seed=3, window_rows=8)
    state = first(old, 1)[0][2]
    new = PackedBatches(PatientDocuments(documents_of([5] * 4), END), 2, 3, seed=3, state=state, window_rows=8)
    assert [inputs.shape for inputs, _, _ in first(new, 3)] == [(3, 2)] * 3


@given(LENGTHS, st.integers(1, 4), st.integers(1, 2), st.integers(1, 24))
@settings(max_examples=40)
def test_the_number_of_processes_changes_no_global_batch(
    lengths: list[int], seq_length: int, rows_each_of_four: int, window_rows: int
) -> None:
    global_batch = 4 * rows_each_of_four
    batches = {}
    for world_size in (1, 2, 4):
        by_rank = [
            first(
                packed(
                    documents_of(lengths), seq_length=seq_length, batch_size=global_batch // world_size,
                    window_rows=window_rows, rank=rank, world_size=world_size,
                ),
                8,
            )
            for rank in range(world_size)
        ]  # fmt: skip
        batches[world_size] = []
        for step in zip(*by_rank, strict=True):
            assert len({state for _, _, state in step}) == 1  # every process would resume at the same place
            rows = torch.empty(global_batch, seq_length, dtype=torch.int64)
            for rank, (inputs, _, _) in enumerate(step):
                rows[rank::world_size] = inputs  # rank r of W takes rows r::W
            batches[world_size].append((rows, step[0][2]))
    for world_size in (2, 4):
        for (ours, state), (whole, expected) in zip(batches[world_size], batches[1], strict=True):
            assert torch.equal(ours, whole)
            assert state == expected


def test_end_of_text_separates_documents_and_comes_after_the_last() -> None:
    source = TokenDocuments([[1, 2], [], [3]], END)
    assert [tokens.tolist() for tokens in source] == [[1, 2, END], [END], [3, END]]
    assert source.num_tokens == 6


def test_ids_above_65535_survive() -> None:
    rows = in_order([[100_276, 65_536, 70_000]], seq_length=3, rows=1)
    assert rows.tolist() == [[100_276, 65_536, 70_000, END]]


def test_a_text_shorter_than_a_row_is_repeated_not_refused() -> None:
    assert in_order([[1]], seq_length=5, rows=1).tolist() == [[1, 0, 1, 0, 1, 0]]


def test_no_documents_are_an_error() -> None:
    for shards in (0, 2):
        with pytest.raises(ValueError, match="no document"):
            next(iter(packed([], shards, seq_length=3, batch_size=2)))


def test_documents_without_a_token_are_an_error_not_an_endless_search() -> None:
    class Empty(TokenDocuments):
        def stream(self, seed: int, start: DataState) -> Generator[tuple[Place, np.ndarray]]:
            return ((place, np.empty(0, np.uint32)) for place in ReadOrder(self, seed, start))

    with pytest.raises(ValueError, match="no training document with text"):
        next(iter(PackedBatches(Empty([[], []], END), 3, 2, seed=1)))


def test_a_read_order_visits_every_row_group_once_a_pass_shard_by_shard_in_new_orders() -> None:
    source = Shards(documents_of([1] * 60), 5)
    places = list(itertools.islice(ReadOrder(source, seed=1), 120))
    every = {(shard, group) for shard in range(5) for group in range(12)}
    for number, one_pass in enumerate((places[:60], places[60:])):
        assert {(place.shard, place.row_group) for place in one_pass} == every
        assert {place.epoch for place in one_pass} == {number}
        assert len(list(itertools.groupby(one_pass, key=lambda place: place.shard))) == 5  # a shard at a time
    orders = [[(place.shard, place.row_group) for place in one] for one in (places[:60], places[60:])]
    assert orders[0] != orders[1]
    assert orders[0] != [(p.shard, p.row_group) for p in itertools.islice(ReadOrder(source, seed=2), 60)]


@given(st.integers(0, 130), SHARDS.filter(bool))
def test_a_read_order_from_any_place_is_the_rest_of_the_whole_order(done: int, shards: int) -> None:
    source = Shards(documents_of([1] * 60), shards)
    whole = list(itertools.islice(ReadOrder(source, seed=1), done + 20))
    at = whole[done]
    state = DataState(at.epoch, at.shards_before, at.row_groups_before)
    assert list(itertools.islice(ReadOrder(source, 1, state), 20)) == whole[done:]


def test_a_copy_of_a_read_order_is_independent_and_an_error_does_not_move_it() -> None:
    class Failing(Shards):
        fails = False

        def row_groups(self, shard: int) -> int:
            if self.fails:
                raise OSError("no network")
            return super().row_groups(shard)

    source = Failing(documents_of([1] * 6), 3)
    order = ReadOrder(source, seed=1)
    ahead = list(itertools.islice(copy.copy(order), 8))
    found = [next(order), next(order)]  # the first shard has two row groups; the next shard must be counted
    source.fails = True
    for _ in range(2):
        with pytest.raises(OSError, match="no network"):
            next(order)
    source.fails = False
    assert found + list(itertools.islice(order, 6)) == ahead


def test_validation_rows_by_hand() -> None:
    inputs, targets = validation_rows(np.array([5, 6, 7, 8, 9], dtype=np.uint32), 3, END)
    assert inputs.tolist() == [[END, 5, 6], [7, 8, 9]]
    assert targets.tolist() == [[5, 6, 7], [8, 9, IGNORE]]


@given(st.lists(st.integers(1, 100_276), max_size=40), st.integers(1, 9))
@settings(max_examples=60)
def test_validation_counts_each_token_exactly_once(tokens: list[int], seq_length: int) -> None:
    inputs, targets = validation_rows(np.array(tokens, dtype=np.uint32), seq_length, END)
    assert inputs.shape == targets.shape == (-(-len(tokens) // seq_length), seq_length)
    assert inputs.dtype == targets.dtype == torch.int64
    counted = targets.flatten() != IGNORE
    assert targets.flatten()[counted].tolist() == tokens
    assert counted.sum() == len(tokens)
    assert inputs.flatten()[: len(tokens)].tolist() == [END, *tokens][: len(tokens)]
    assert (inputs >= 0).all()  # padding is a token that the model can read


def test_a_state_of_an_earlier_version_is_read() -> None:
    """Row groups were once called units."""
    state = DataState(epoch=1, shard=2, row_group=3, offset=4, row=5, window_rows=6)
    old = {"epoch": 1, "shard": 2, "unit": 3, "offset": 4, "row": 5, "window_rows": 6}
    assert DataState.from_dict(old) == DataState.from_dict(state.to_dict()) == state
