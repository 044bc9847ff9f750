"""The validation documents of a text on the hub, kept in a file of their own.

They are the held-out documents of the first shard's first row groups, and of further ones, until there are enough
tokens. The file is never evicted, so they are fetched once, and the training order does not affect them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transformer.data.contracts import Place
from transformer.data.hub.text import HubText, Leases
from transformer.text import Tokenizer, Tokens, is_validation


class ValidationText:
    """The validation documents of a text, for one validation fraction."""

    def __init__(self, text: HubText, fraction: float) -> None:
        self.text, self.fraction = text, fraction
        listing = [(file.path, file.oid) for file in text.files]
        identity = repr((text.hub.repo, listing, text.column, fraction)).encode()
        self.path = text.cache.directory / f"validation_{hashlib.sha256(identity).hexdigest()[:12]}.parquet"

    def tokens(self, tokenizer: Tokenizer, wanted: int) -> Iterator[Tokens]:
        """Yields documents, each with an end-of-text, until they have `wanted` tokens."""
        end = np.uint32(tokenizer.eot_id)
        count = 0
        with contextlib.closing(self.texts()) as texts:
            while count < wanted and (text := next(texts, None)) is not None:
                tokens = np.append(tokenizer.encode_array(text), end)
                count += len(tokens)
                yield tokens

    def texts(self) -> Generator[str]:
        """Yields the documents: those in the file, then the hub's. Closing it stores the new ones in the file."""
        documents, row_groups = self._stored()
        stored = row_groups
        yield from documents
        with contextlib.closing(first_row_groups(self.text, skip=row_groups)) as rest:
            try:
                for row_group in rest:
                    new = [text for text in row_group if is_validation(text, self.fraction)]
                    documents += new
                    row_groups += 1
                    yield from new
            finally:
                if row_groups > stored:
                    self._store(documents, row_groups)

    def _stored(self) -> tuple[list[str], int]:
        """Returns the documents in the file and the number of row groups they come from; none if it is unusable."""
        try:
            table = pq.read_table(self.path, page_checksum_verification=True)
            return table["text"].to_pylist(), int(table.schema.metadata[b"units"])
        except FileNotFoundError:
            return [], 0
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            self.text.notify(f"{self.path} is damaged: reading the validation documents again")
            return [], 0

    def _store(self, documents: list[str], row_groups: int) -> None:
        table = pa.table({"text": pa.array(documents, pa.large_string())})
        table = table.replace_schema_metadata({"units": str(row_groups)})

        def write(file: Any) -> None:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)

        self.text.cache.keep(self.path, write)


def first_row_groups(text: HubText, skip: int = 0) -> Generator[list[str]]:
    """Yields the documents of each row group, in the order of the files, without the first `skip` row groups."""
    leases = Leases(text)
    try:
        for number in range(len(text)):
            row_groups = text.shard(number, patient=True).row_groups
            for row_group in range(min(skip, row_groups), row_groups):
                place = Place(0, number, row_group, number, row_group)
                shard = leases.enter(place)
                leases.release_before(place)
                with text.lock(shard, row_group):
                    column = text.text(shard, row_group)
                yield [document for document in column.to_pylist() if document]
            skip = max(0, skip - row_groups)
    finally:
        leases.close()
