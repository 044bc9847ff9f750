r"""The dataset: from documents to rows that a model can learn from.

**The problem.** Documents have all lengths; a batch needs rows of one length. Cutting the ends off, padding them, or
leaving short documents out wastes text or time. Worse, a run that is stopped must go on at exactly the next row, and
a document of the validation part must never have been learnt from.

**Packing.** Write all documents one after another, an end-of-text token after each, and cut the stream into rows:

    documents    A A A   B B   C C C C C
    stream       A A A | B B | C C C C C |            |: end-of-text
    rows of 4    [A A A |] [B B | C] [C C C C] ...

A row of T inputs needs T targets, each the token after its input, so a row reads T + 1 tokens and the next row starts
with the last of them. Every token is an input once and a target once; nothing is dropped. End-of-text teaches the
model where texts end, and that what follows has nothing to do with what came before:

>>> source = TokenDocuments([np.array([1, 2, 3]), np.array([4, 5])], end_of_text=0)
>>> batches = PackedBatches(source, seq_length=3, batch_size=2, seed=0, window_rows=2)
>>> inputs, targets, state = next(iter(batches))
>>> sorted(zip(inputs.tolist(), targets.tolist()))              # the stream 1 2 3 0 4 5 0 | 4 5 0 1 ...
[([0, 4, 5], [4, 5, 0]), ([1, 2, 3], [2, 3, 0])]

**Shuffling.** Neighbouring rows come from one document and resemble each other; a batch of them is a poor sample of
the whole. Three things mix them. The text stands in *shards* (a run of a remote file; a local text is one shard) made
of *units* (a row group; a document of a local text): every pass over the text visits the shards in a new order, and
in each shard the units in a new order; then rows are shuffled within a window of window_rows. A wider window mixes
better and holds more in memory: window_rows * (T + 1) * 4 bytes, twice while it is shuffled (4 MiB at 8,192 rows of
128). All three follow from the seed and from nothing else. No text comes twice before all of it has come once.

**State.** Where a run stands is six whole numbers: pass, shard and unit in that pass's order, tokens into the unit at
which the window starts, rows of the window already used, and its size. Units are addressed by number, so going on never
means reading everything before. Each batch comes with the state that leads to the next one.

**Split.** text/ decides by a keyed hash of a document's text whether it is for validation: the same document lands on
the same side in every run, on every machine, in any order, and an exact duplicate lands with it.

**Many processes.** All of them walk the same global batches of batch_size * world_size rows; process r takes rows r,
r + world_size, ... So the number of processes changes who computes a row, not which rows make up a step.
**Cost.** Packing copies each token a few times; tokenising is the slow part and happens once, when the data is loaded.
**Not chosen.** Sampling random offsets, as nanoGPT does: simple, but some text is seen twice before other text is seen
once. Filling rows up with padding, so that none holds two documents: short documents would leave most of a row empty.
**An option.** A token may look at all that stands before it in its row, the end of another document too; end-of-text
teaches it to make nothing of that. With mask_documents attention stops there instead (attention.py).
**Is it working?** Rows put back in order give the stream; `state` fed back gives the same next batch; tests do both.

Read before: text/. Next: fineweb_dataset.py, trainer.py.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from transformer.config import IGNORE, DataConfig
from transformer.text import (
    Tokenizer,
    Tokens,
    load_shakespeare,
    load_tokenizer,
    read_documents,
    split_documents,
    train_bpe,
)

Batch = tuple[Tensor, Tensor, "DataState"]


class Place(NamedTuple):
    """A unit on a walk through a source: how far the walk is, and which unit it has come to."""

    epoch: int
    """Passes over the whole source before this one."""
    shards_before: int
    """Shards visited before this one in the pass."""
    units_before: int
    """Units visited before this one in the shard."""
    shard: int
    unit: int


class TokenSource(Protocol):
    """Text as numbered shards of numbered units, each unit a run of tokens that can be read on its own."""

    def __len__(self) -> int:
        """The number of shards."""

    def units(self, shard: int) -> int:
        """The number of units in a shard."""

    def stream(self, walk: Walk) -> Generator[tuple[Place, Tokens]]:
        """The units that the walk comes to, in its order: all their documents' tokens, an end-of-text after each.

        It may walk ahead and prepare what comes next. To be closed by whoever reads it.
        """

    def close(self) -> None:
        """Ends what goes on in the background."""


class TokenDocuments:
    """A TokenSource in memory: one shard, in which each document is a unit."""

    def __init__(self, documents: Sequence[Sequence[int] | Tokens], end_of_text: int) -> None:
        self.end_of_text = end_of_text
        self.documents = [np.asarray(document, dtype=np.uint32) for document in documents]

    def __len__(self) -> int:
        return 1

    def units(self, shard: int) -> int:
        return len(self.documents)

    def stream(self, walk: Walk) -> Generator[tuple[Place, Tokens]]:
        for place in walk:
            yield place, np.append(self.documents[place.unit], np.uint32(self.end_of_text))

    def close(self) -> None:
        pass

    def __iter__(self) -> Iterator[Tokens]:
        """Each document's tokens and an end-of-text, in the order given."""
        return (np.append(document, np.uint32(self.end_of_text)) for document in self.documents)

    @property
    def num_tokens(self) -> int:
        """Tokens in all documents, end-of-text included."""
        return sum(map(len, self.documents)) + len(self.documents)


@dataclass(frozen=True)
class DataState:
    """Where the next batch begins: the window's first token, and the rows of the window already used."""

    epoch: int = 0
    shard: int = 0
    unit: int = 0
    offset: int = 0
    row: int = 0
    window_rows: int = 0
    """Rows in the window, which a changed setting must not change before its end; 0: the window is not begun."""

    def to_dict(self) -> dict[str, int]:
        """The state as a checkpoint stores it; DataState(**values) is the way back."""
        return asdict(self)


class Walk:
    """The order in which a source is read, from a state on, pass after pass without end.

    A copy (copy.copy) walks on by itself. Where the source cannot tell a shard's units, its error comes out of next(),
    and the next try is at the same place. Raises ValueError where the source has no unit.
    """

    def __init__(self, source: TokenSource, seed: int, state: DataState | None = None) -> None:
        self.source, self.seed, self.start = source, seed, state or DataState()
        self._ahead = (self.start.epoch, self.start.shard, self.start.unit)
        self._shards = self._order(self.start.epoch)
        self._units: tuple[object, npt.NDArray[np.int64]] = (None, np.empty(0, np.int64))
        self.asked = 0
        """The shard whose units were asked for last."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Place:
        epoch, shard, unit = self._ahead
        while True:
            if shard == len(self._shards):
                if epoch > self._ahead[0]:  # a whole pass without a unit
                    raise ValueError("there is no document to train on")
                epoch, shard = epoch + 1, 0
                self._shards = self._order(epoch)
                continue
            order = self._unit_order(epoch, int(self._shards[shard]))
            if unit < len(order):
                break
            shard, unit = shard + 1, 0
        self._ahead = (epoch, shard, unit + 1)
        return Place(epoch, shard, unit, int(self._shards[shard]), int(order[unit]))

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch, 0, 1]).permutation(len(self.source))

    def _unit_order(self, epoch: int, shard: int) -> npt.NDArray[np.int64]:
        if self._units[0] != (epoch, shard):
            self.asked = shard
            order = np.random.default_rng([self.seed, epoch, shard]).permutation(self.source.units(shard))
            self._units = ((epoch, shard), order)
        return self._units[1]


class PackedBatches:
    """Endless shuffled batches from a source; iterating goes on from `state`.

    Yields inputs (B, T) int64, targets (B, T) int64 and the DataState after them. `rank` of `world_size` processes
    gets its share of each global batch. Iterating raises ValueError where the source is empty.
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
        state = self.state
        with contextlib.closing(self._windows(state)) as windows:
            rows, following = next(windows)
            while True:
                parts: list[Tokens] = []
                missing = self.global_batch
                while missing:
                    if state.row == len(rows):
                        state = following
                        rows, following = next(windows)
                    parts.append(rows[state.row : state.row + missing])
                    missing -= len(parts[-1])
                    state = replace(state, row=state.row + len(parts[-1]), window_rows=len(rows))
                mine = np.concatenate(parts)[self.rank :: self.world_size]
                batch = torch.from_numpy(mine.astype(np.int64))  # (B, T + 1)
                self.state = state
                yield batch[:, :-1], batch[:, 1:], state

    def _windows(self, state: DataState) -> Generator[tuple[Tokens, DataState]]:
        """Yields each window's shuffled rows (rows, T + 1), from the state's on, and the state of the next window."""
        with contextlib.closing(self.source.stream(Walk(self.source, self.seed, state))) as stream:
            place, tokens = next(stream)
            while True:
                wanted = (state.window_rows or self.window_rows) * self.seq_length + 1  # the last row's last target too
                offset = state.offset
                parts: list[Tokens] = []
                while True:
                    parts.append(tokens[offset : offset + wanted])
                    wanted -= len(parts[-1])
                    offset += len(parts[-1])
                    if wanted == 0:
                        break
                    (place, tokens), offset = next(stream), 0
                    if place.epoch > state.epoch + 1 and not any(map(len, parts)):
                        raise ValueError("the training documents hold no token")
                stretch = np.concatenate(parts)
                rows = np.lib.stride_tricks.sliding_window_view(stretch, self.seq_length + 1)[:: self.seq_length]
                random = np.random.default_rng([self.seed, state.epoch, state.unit, state.offset, state.shard])
                # The last token read is a target only; as an input it begins the next window.
                state = DataState(place.epoch, place.shards_before, place.units_before, offset - 1)
                yield rows[random.permutation(len(rows))], state


@dataclass(frozen=True)
class TextData:
    """A dataset, ready for training: its encoding, the training text in tokens, and a fixed validation text."""

    tokenizer: Tokenizer
    train: TokenSource
    tokens_per_epoch: int
    validation: tuple[Tensor, Tensor]
    """Inputs and targets, (rows, T) int64 each."""
    validation_bytes: int
    """Bytes of the text that the validation targets spell."""
    revision: str | None = None
    """The commit that a hub dataset is read from."""

    def close(self) -> None:
        """Ends what goes on in the background."""
        self.train.close()


@dataclass(frozen=True)
class FetchProgress:
    """How far the fetching of remote text is."""

    shard: int
    fetched_units: int
    units: int
    bytes_per_second: float
    cache_bytes: int


Tell = Callable[[str | FetchProgress], None]
"""Gets a line for a person (a retry, a damaged file), or progress; from any thread."""


def say_nothing(news: str | FetchProgress) -> None:
    """The Tell of those who do not ask."""


def open_dataset(config: DataConfig, tokenizer: Tokenizer | None = None, tell: Tell = say_nothing) -> TextData:
    """Loads the dataset that the config names; `tokenizer` is a resumed run's, else the config's encoding is used.

    Raises ValueError, in one line, for a text that is missing, unreadable or too short. To be closed after use.
    """
    if config.is_on_hub:
        from transformer.fineweb_dataset import open_hub_dataset

        return open_hub_dataset(config, tokenizer, tell)
    train, held_out = split_documents(local_documents(config), config.validation_fraction)
    tokenizer = tokenizer or make_tokenizer(config.encoding, train)
    source = TokenDocuments(tokenizer.encode_batch(train), tokenizer.eot_id)
    text_tokens = source.num_tokens - len(source.documents)
    if text_tokens <= config.seq_length:
        raise ValueError(
            f"the training text has {text_tokens} tokens, too few for one row of {config.seq_length} and its target: "
            "give more text, or a smaller seq_length"
        )
    held_out_tokens = TokenDocuments(tokenizer.encode_batch(held_out), tokenizer.eot_id)
    return text_data(config, tokenizer, source, min(config.tokens_per_epoch, source.num_tokens), iter(held_out_tokens))


def local_documents(config: DataConfig) -> Iterable[str]:
    """Returns the documents of a dataset on this machine. Raises ValueError as read_documents does."""
    if config.dataset == "shakespeare":
        return load_shakespeare()
    return read_documents(Path(config.dataset), config.text_column)


def make_tokenizer(encoding: str, texts: Sequence[str]) -> Tokenizer:
    """Returns the encoding of that name; "bpeN" is trained on the texts, with a vocabulary of N entries."""
    if match := re.fullmatch(r"bpe(\d+)", encoding):
        return train_bpe(texts, int(match[1]))
    return load_tokenizer(encoding)


def text_data(
    config: DataConfig, tokenizer: Tokenizer, train: TokenSource, tokens_per_epoch: int, held_out: Iterator[Tokens]
) -> TextData:
    """Puts a training source and the first validation_tokens of the held-out text together."""
    parts: list[Tokens] = []
    while sum(map(len, parts)) < config.validation_tokens and (part := next(held_out, None)) is not None:
        parts.append(part)
    tokens = np.concatenate(parts)[: config.validation_tokens]
    text_bytes = len(tokenizer.decode_bytes(tokens[tokens != tokenizer.eot_id].tolist()))
    rows = validation_rows(tokens, config.seq_length, tokenizer.eot_id)
    return TextData(tokenizer, train, tokens_per_epoch, rows, text_bytes)


def validation_rows(tokens: Tokens, seq_length: int, end_of_text: int) -> tuple[Tensor, Tensor]:
    """Cuts a stream into rows in which every token is a target exactly once: inputs and targets (rows, T) int64.

    An end-of-text stands before the first token, so that it is predicted too; the last row is filled up with
    targets of IGNORE, which do not count.
    """
    count = len(tokens)
    rows = -(-count // seq_length)
    stream = np.full(rows * seq_length + 1, end_of_text, dtype=np.int64)
    stream[1 : count + 1] = tokens
    targets = stream[1:].copy()
    targets[count:] = IGNORE
    shape = (rows, seq_length)
    return torch.from_numpy(stream[:-1].reshape(shape)), torch.from_numpy(targets.reshape(shape))
