"""The types that the parts of the data path share: a source of tokens, a position in it, and a dataset ready to train.

A *row group* is the piece of text that is read and tokenized at once: a row group of a parquet file, or one document of
a text on this machine. A *shard* is a run of row groups of one file; a local text is a single shard.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from transformer.text.tokenizer import Tokenizer, Tokens

OLD_NAMES = {"unit": "row_group"}
"""Fields of DataState as checkpoints of earlier versions spell them."""


class Place(NamedTuple):
    """A row group, and how much of the source is read before it."""

    epoch: int
    """Complete passes over the source."""
    shards_before: int
    """Shards read before this one in the pass."""
    row_groups_before: int
    """Row groups read before this one in the shard."""
    shard: int
    """Number of the shard in the source."""
    row_group: int
    """Number of the row group in the shard."""


@dataclass(frozen=True)
class DataState:
    """The position of the next batch: the first token of its window, and the rows of the window already used."""

    epoch: int = 0
    shard: int = 0
    """Shards read before this one in the epoch's order."""
    row_group: int = 0
    """Row groups read before this one in the shard's order."""
    offset: int = 0
    """Tokens of the row group before the window."""
    row: int = 0
    """Rows of the window already used."""
    window_rows: int = 0
    """Rows in the window. A changed setting applies from the next window on. 0: the window has not been started."""

    def to_dict(self) -> dict[str, int]:
        """Returns the state as a checkpoint stores it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, int]) -> DataState:
        """Returns the state that `to_dict` stored, in this version or an earlier one."""
        return cls(**{OLD_NAMES.get(name, name): value for name, value in values.items()})


class TokenSource(Protocol):
    """Text as numbered shards of numbered row groups. Each row group can be read without those before it."""

    def __len__(self) -> int:
        """The number of shards."""

    def row_groups(self, shard: int) -> int:
        """The number of row groups in a shard."""

    def stream(self, seed: int, start: DataState) -> Generator[tuple[Place, Tokens]]:
        """Yields row groups without end, in the order of dataset.ReadOrder, each with all its tokens.

        End-of-text follows each document. Later row groups may be prepared in the background; the reader closes the
        generator to stop that.
        """

    def close(self) -> None:
        """Stops all work in the background."""


@dataclass(frozen=True)
class TextData:
    """A dataset ready for training: tokenizer, training text, and a fixed validation text."""

    tokenizer: Tokenizer
    train: TokenSource
    tokens_per_epoch: int
    validation: tuple[Tensor, Tensor]
    """Inputs and targets, (rows, T) int64 each."""
    validation_bytes: int
    """Bytes of text that the validation targets encode."""
    revision: str | None = None
    """The commit from which a hub dataset is read."""
    digest: str | None = None
    """Identifies the documents of a text on this machine; None for a hub dataset, which has its revision."""
    description: str = ""
    """The number of files, documents and bytes of a text on this machine."""

    def close(self) -> None:
        """Stops all work in the background."""
        self.train.close()


@dataclass(frozen=True)
class FetchProgress:
    """Progress of fetching a shard from the hub."""

    shard: int
    fetched_row_groups: int
    row_groups: int
    bytes_per_second: float
    cache_bytes: int


Notify = Callable[[str | FetchProgress], None]
"""A callback that receives one-line messages for the user (a retry, a damaged file) and progress, from any thread."""


def silent(message: str | FetchProgress) -> None:
    """A Notify that ignores its messages."""
