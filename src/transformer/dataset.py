r"""The dataset: from documents to rows that a model can learn from.

**The problem.** Documents have all lengths; a batch needs rows of one length. Truncating documents, padding them or
leaving short ones out wastes text or time. A stopped run must also resume at exactly the next row, and a validation
document must never be trained on.

**Packing.** Write all documents one after another, an end-of-text token after each, and cut the stream into rows:

    documents    A A A   B B   C C C C C
    stream       A A A . B B . C C C C C .              a dot: end-of-text
    inputs       [A A A .] [B B . C] [C C C C] ...      rows of T = 4 tokens
    targets      [A A . B] [B . C C] [C C C .] ...      the token after each input

A row of T inputs needs T targets, each the token after its input. So a row reads T + 1 tokens, and the next row starts
with the last of them. Every token is an input once and a target once; nothing is dropped. From end-of-text the model
learns where texts end, and that the text after it is unrelated to the text before it:

>>> source = TokenDocuments([np.array([1, 2, 3]), np.array([4, 5])], end_of_text=0)
>>> batches = PackedBatches(source, seq_length=3, batch_size=2, seed=0, window_rows=2)
>>> inputs, targets, state = next(iter(batches))
>>> sorted(zip(inputs.tolist(), targets.tolist()))              # the stream 1 2 3 0 4 5 0, then a new pass
[([0, 4, 5], [4, 5, 0]), ([1, 2, 3], [2, 3, 0])]

**Shuffling.** Neighbouring rows come from one document and resemble each other, so a batch of neighbours is a poor
sample of the text. A *row group* is the piece of text that is read and tokenized at once, for a local text one
document; a *shard* is a run of row groups of one file, and a local text is a single shard. Each pass over the text
reads the shards in a new random order, and within each shard the row groups in a new order. Then the rows of each
window of window_rows (`shuffle_rows` in the config) are shuffled. A larger window shuffles better and takes
window_rows * (T + 1) * 4 bytes (4 MiB for 8,192 rows of 128), twice while it is shuffled. The seed alone decides all
three orders. No text is repeated within a pass.

**State.** Six integers describe the position of a run: epoch, shard and row group in that epoch's order, the tokens of
the row group before the window, the rows of the window already used, and the window's size. A row group is read by its
number, so resuming never reads the text from its start. Each batch comes with the state of the batch after it.

**Split.** A keyed hash of a document's text decides whether it is a validation document (text/corpus.py). The same
document is on the same side in every run, on every machine and in any order, and so are its exact duplicates.

**Many processes.** All processes read the same global batches of batch_size * world_size rows; process r takes rows
r, r + world_size, ... The number of processes does not change which rows make up a step.

**Cost.** Packing copies each token a few times. Tokenizing is slower; it happens once, when the text is loaded.
**Not chosen.** Sampling random offsets, as nanoGPT does: simple, but some text is seen twice before other text is seen
once. Padding each document to a row of its own: short documents would leave most of a row empty.
**An option.** By default a token attends to all earlier tokens of its row, those of other documents included. With
mask_documents, attention stops at end-of-text (data/document_mask.py).
**Is it working?** Rows in their original order give the stream again, and any saved state gives the same next batch:
tests/test_dataset.py checks both.

Read before: training_utils.py; text/ makes the tokens. Next: trainer.py; fineweb_dataset.py reads from the hub.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transformer.config import IGNORE
from transformer.data.contracts import DataState, Place, TokenSource
from transformer.text.tokenizer import Tokens

Batch = tuple[Tensor, Tensor, DataState]
Order = npt.NDArray[np.int64]
Rows = npt.NDArray[np.uint32]


class TokenDocuments:
    """A TokenSource in memory: one shard, in which each document is a row group."""

    def __init__(self, documents: Sequence[Sequence[int] | Tokens], end_of_text: int) -> None:
        self.end_of_text = end_of_text
        self.documents = [np.asarray(document, dtype=np.uint32) for document in documents]

    def __len__(self) -> int:
        return 1

    def row_groups(self, shard: int) -> int:
        return len(self.documents)

    def stream(self, seed: int, start: DataState) -> Generator[tuple[Place, Tokens]]:
        for place in ReadOrder(self, seed, start):
            yield place, np.append(self.documents[place.row_group], np.uint32(self.end_of_text))

    def close(self) -> None:
        pass

    def __iter__(self) -> Iterator[Tokens]:
        """Yields each document's tokens with an end-of-text, in the order given."""
        return (np.append(document, np.uint32(self.end_of_text)) for document in self.documents)

    @property
    def num_tokens(self) -> int:
        """Tokens in all documents, end-of-text included."""
        return sum(map(len, self.documents)) + len(self.documents)


class ReadOrder:
    """The endless order in which the row groups of a source are read, from `start` on.

    A copy (copy.copy) continues independently. If counting the row groups of `next_shard` fails, next() raises that
    error and the following next() tries the same shard again. Raises ValueError if the source has no row group.
    """

    def __init__(self, source: TokenSource, seed: int, start: DataState | None = None) -> None:
        self.source, self.seed, self.start = source, seed, start or DataState()
        self._position = (self.start.epoch, self.start.shard, self.start.row_group)
        self._shards: tuple[int, Order] = (-1, np.empty(0, np.int64))  # epoch, and its order of shards
        self._row_groups: tuple[tuple[int, int], Order] = ((-1, -1), np.empty(0, np.int64))  # of (epoch, shard)
        self.next_shard = 0
        """The shard whose row groups were last counted."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Place:
        epoch, shards_before, groups_before = self._position
        while True:
            if shards_before == len(self.source):  # the pass is complete
                if epoch > self._position[0]:
                    raise ValueError("there is no document to train on")
                epoch, shards_before = epoch + 1, 0
                continue
            shard = int(self._shard_order(epoch)[shards_before])
            order = self._row_group_order(epoch, shard)
            if groups_before < len(order):
                break
            shards_before, groups_before = shards_before + 1, 0  # the shard is complete, or empty
        self._position = (epoch, shards_before, groups_before + 1)
        return Place(epoch, shards_before, groups_before, shard, int(order[groups_before]))

    def _shard_order(self, epoch: int) -> Order:
        if self._shards[0] != epoch:  # the seed's last 0, 1 keep it apart from the seeds of row groups
            self._shards = (epoch, np.random.default_rng([self.seed, epoch, 0, 1]).permutation(len(self.source)))
        return self._shards[1]

    def _row_group_order(self, epoch: int, shard: int) -> Order:
        if self._row_groups[0] != (epoch, shard):
            self.next_shard = shard
            count = self.source.row_groups(shard)  # for a shard on the hub this may need the network, and fail
            self._row_groups = ((epoch, shard), np.random.default_rng([self.seed, epoch, shard]).permutation(count))
        return self._row_groups[1]


class TokenReader:
    """The tokens of a stream of row groups, as many at a time as wanted."""

    def __init__(self, stream: Iterator[tuple[Place, Tokens]], offset: int) -> None:
        """`offset`: tokens of the first row group to skip."""
        self.stream, self.offset = stream, offset
        self.place, self.tokens = next(stream)

    def take(self, count: int) -> Tokens:
        """Returns the next `count` tokens (count,). Raises ValueError if a whole pass has none."""
        first_epoch, parts = self.place.epoch, list[Tokens]()
        while True:
            part = self.tokens[self.offset : self.offset + count]
            parts.append(part)
            count -= len(part)
            self.offset += len(part)
            if count == 0:
                return np.concatenate(parts)
            (self.place, self.tokens), self.offset = next(self.stream), 0
            if self.place.epoch > first_epoch + 1 and not any(map(len, parts)):
                raise ValueError(
                    "there is no training document with text: all are held out; give a smaller --validation-fraction"
                )

    def step_back(self) -> DataState:
        """Returns the last token to the reader, and the position before it."""
        self.offset -= 1
        return DataState(self.place.epoch, self.place.shards_before, self.place.row_groups_before, self.offset)


class PackedBatches:
    """Endless shuffled batches from a source; iterating continues from `state`.

    Yields inputs (B, T) int64, targets (B, T) int64 and the DataState after them. Process `rank` of `world_size`
    receives its rows of each global batch. Iterating raises ValueError if the source is empty.
    """

    def __init__(
        self,
        source: TokenSource,
        seq_length: int,
        batch_size: int,
        seed: int,
        state: DataState | None = None,
        window_rows: int = 8_192,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.source, self.seq_length, self.seed = source, seq_length, seed
        self.rank, self.world_size = rank, world_size
        self.global_batch = batch_size * world_size
        self.window_rows = window_rows
        self.state = state or DataState()

    def __iter__(self) -> Generator[Batch]:
        with contextlib.closing(self.source.stream(self.seed, self.state)) as stream:
            windows = self._windows(TokenReader(stream, self.state.offset))
            rows, state = next(windows)
            while True:
                parts, missing = list[Rows](), self.global_batch  # every process reads the global batch
                while missing:
                    if state.row == len(rows):  # the window is used up: the batch continues in the next one
                        rows, state = next(windows)
                    parts.append(rows[state.row : state.row + missing])
                    missing -= len(parts[-1])
                    state = replace(state, row=state.row + len(parts[-1]), window_rows=len(rows))
                own = np.concatenate(parts)[self.rank :: self.world_size]  # and keeps its rows of it
                packed = torch.from_numpy(own.astype(np.int64))  # (B, T + 1)
                self.state = state
                yield packed[:, :-1], packed[:, 1:], state

    def _windows(self, reader: TokenReader) -> Iterator[tuple[Rows, DataState]]:
        """Yields the shuffled rows of each window (window_rows, T + 1), and the state at which they start."""
        state = self.state
        while True:
            # 1. Read a window. Its last row needs a target after its last input, hence the extra token.
            window_rows = state.window_rows or self.window_rows
            text = reader.take(window_rows * self.seq_length + 1)
            # 2. Cut it: a row starts at every T-th token, and its last token is the next row's first. No copy is made.
            rows = np.lib.stride_tricks.sliding_window_view(text, self.seq_length + 1)[:: self.seq_length]
            # 3. Shuffle it. The seed is the window's position, so that a resumed run shuffles it the same way; its
            # first state has row > 0, after the rows that it has used.
            seed = [self.seed, state.epoch, state.row_group, state.offset, state.shard]
            yield rows[np.random.default_rng(seed).permutation(window_rows)], state
            # 4. The window's last token was only a target. As an input it starts the next window.
            state = reader.step_back()


def validation_rows(tokens: Tokens, seq_length: int, end_of_text: int) -> tuple[Tensor, Tensor]:
    """Cuts tokens into rows in which every token is a target exactly once: inputs and targets (rows, T) int64.

    An end-of-text before the first token makes that token a target too. The last row is padded; its padded targets are
    IGNORE and do not count.
    """
    count = len(tokens)
    rows = -(-count // seq_length)  # rounded up
    stream = np.full(rows * seq_length + 1, end_of_text, dtype=np.int64)
    stream[1 : count + 1] = tokens
    targets = stream[1:].copy()
    targets[count:] = IGNORE
    shape = (rows, seq_length)
    return torch.from_numpy(stream[:-1].reshape(shape)), torch.from_numpy(targets.reshape(shape))
