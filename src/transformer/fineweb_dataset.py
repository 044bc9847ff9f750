r"""FineWeb-Edu: ten billion tokens of the web, without downloading them first.

**The problem.** A language model wants more text than a laptop wants to store. HuggingFaceFW/fineweb-edu's sample-10BT
is 14 files of about 2 GB, chosen from the web for being worth learning from (a classifier scored every page for it).
Fetching all before the first step would take hours, and reading a stream from its start to find a place in its middle
takes as long as training up to there did.

**The idea.** A parquet file is a row of *row groups*, some hundreds or thousands of documents each, with a table of
contents at its end. So the text can be addressed like pages of a book, and only the text column of the wanted page is
fetched:

    file 0   [row group 0][row group 1] ... [footer: where each group's columns lie]
    file 1   [row group 0] ...                  unit u  =  (file, row group)

Row groups are the *units* of dataset.TokenSource: numbered, independent, visited in an order that the seed and the
epoch fix. Stopping and going on costs one row group, wherever the run stood.

    hub  --text column of a row group-->  documents  --hash split-->  training documents  --encode-->  tokens

**The split.** 10% of the documents, chosen by a hash of their text, are never trained on. The validation text is made
of such documents from the first row groups, always the same ones, so that every run and every epoch is measured alike.

By hand, a file of two row groups with two documents each:

>>> import pyarrow as pa
>>> from fsspec.implementations.memory import MemoryFileSystem
>>> from transformer.text import load_tokenizer
>>> files = MemoryFileSystem()
>>> with files.open("/page.parquet", "wb") as file:
...     pq.write_table(pa.table({"text": ["ab", "c", "d", "ef"]}), file, row_group_size=2)
>>> source = FineWebSource(files, ["/page.parquet"], load_tokenizer("byte"), validation_fraction=0.0)
>>> len(source), source[1].tolist()                      # d, end-of-text, e, f, end-of-text
(2, [100, 256, 101, 102, 256])

**Cost.** A row group's text is some megabytes; it is fetched when the rows of its window are wanted, and the run waits
for it. The last few units read stay in memory.
**Chosen.** Row groups as units, so that no state is ever more than four numbers. Not chosen: the datasets library's
streaming, which goes on by reading again from the start; a full download.
**Is it working?** `commands/test_fineweb.py` shows what is fetched, how long it takes, and decodes a sample. Resuming
at a batch gives that batch, which a test holds for any batch.

Papers: FineWeb-Edu, arXiv 2406.17557. Read before: dataset.py. Next: trainer.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from transformer.config import DataConfig
from transformer.dataset import TextData, Tokens, text_data
from transformer.text import Tokenizer, is_validation

FILES = "datasets/HuggingFaceFW/fineweb-edu/sample/10BT/*.parquet"
OFFLINE = "without a network, train on the bundled text with --dataset shakespeare, or on your own with --dataset PATH"


class FineWebSource:
    """Row groups of parquet files as units of tokens: the training documents of unit u are source[u]."""

    def __init__(
        self,
        files: Any,
        paths: Sequence[str],
        tokenizer: Tokenizer,
        validation_fraction: float,
        text_field: str = "text",
    ) -> None:
        """`files` is an fsspec file system; `paths` are parquet files in it with a column `text_field`.

        Reads the footers only. Raises ValueError where a file has no such column.
        """
        self.files, self.tokenizer = files, tokenizer
        self.fraction, self.text_field = validation_fraction, text_field
        with ThreadPoolExecutor(8) as pool:
            groups = list(pool.map(self._row_groups, paths))
        self.units = [(path, group) for path, count in zip(paths, groups, strict=True) for group in range(count)]
        self._documents = lru_cache(maxsize=4)(self._read)

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, unit: int) -> Tokens:
        """The unit's training documents, an end-of-text after each."""
        return self._documents(unit)[0]

    def held_out(self) -> Iterator[Tokens]:
        """Yields the validation documents of each unit in turn."""
        for unit in range(len(self)):
            yield self._documents(unit)[1]

    def _read(self, unit: int) -> tuple[Tokens, Tokens]:
        path, group = self.units[unit]
        with self._open(path) as file:
            column = pq.ParquetFile(file).read_row_group(group, columns=[self.text_field])[self.text_field]
        train: list[str] = []
        held_out: list[str] = []
        for text in column.to_pylist():
            if text:
                (held_out if is_validation(text, self.fraction) else train).append(text)
        return self._encode(train), self._encode(held_out)

    def _encode(self, texts: list[str]) -> Tokens:
        end = [self.tokenizer.eot_id]
        documents = self.tokenizer.encode_batch(texts)
        return np.fromiter(itertools.chain.from_iterable(itertools.chain(d, end) for d in documents), dtype=np.uint32)

    def _row_groups(self, path: str) -> int:
        with self._open(path) as file:
            footer = pq.ParquetFile(file)
            names = footer.schema_arrow.names
            if self.text_field not in names:
                raise ValueError(f"{path} has no column {self.text_field!r}; its columns: {', '.join(names)}")
            return int(footer.num_row_groups)

    def _open(self, path: str) -> Any:
        return self.files.open(path, "rb", cache_type="none")  # parquet asks for exact ranges: read nothing ahead


def open_fineweb(config: DataConfig, tokenizer: Tokenizer) -> TextData:
    """Opens FineWeb-Edu's sample-10BT on the hub. Raises ValueError, in one line, where it cannot be reached."""
    from huggingface_hub import HfFileSystem

    try:
        files = HfFileSystem()
        paths = sorted(files.glob(FILES))
        if not paths:
            raise ValueError(f"FineWeb-Edu is not on the hub as expected: no file matches {FILES}; {OFFLINE}")
        source = FineWebSource(files, paths, tokenizer, config.validation_fraction, config.text_field)
        return text_data(config, tokenizer, source, config.tokens_per_epoch, source.held_out())
    except ValueError:
        raise
    except Exception as error:  # the hub library's HTTP client, and so the type of its errors, changes with its version
        reason = str(error).strip().splitlines()[0][:100] if str(error).strip() else type(error).__name__
        raise ValueError(f"FineWeb-Edu cannot be reached ({reason}); {OFFLINE}") from error
