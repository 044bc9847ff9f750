"""The validation documents of a text on the hub, kept in a file of their own.

They are the held-out documents of the first shard's first row groups, and of further ones, until there are enough
tokens. The file is never evicted, so they are fetched once, and the training order does not affect them. Row group i of
the file has the held-out documents of the i-th row group of the text.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator

import pyarrow as pa

from transformer.data.hub.text import HubText
from transformer.text import is_validation


class ValidationText:
    """The validation documents of a text, for one validation fraction."""

    def __init__(self, text: HubText, fraction: float) -> None:
        self.text, self.fraction = text, fraction
        listing = [(file.path, file.oid) for file in text.files]
        identity = hashlib.sha256(repr((text.hub.repo, listing, text.column, fraction)).encode()).hexdigest()
        self.identity = {"validation": identity}
        self.name = f"validation_{identity[:12]}.parquet"

    def texts(self) -> Generator[str]:
        """Yields the documents: those in the file, then the hub's. Closing it stores the new ones in the file."""
        columns = self.text.cache.documents(self.name, self.identity)
        stored = len(columns)
        for column in columns:
            yield from column.to_pylist()
        with contextlib.closing(first_row_groups(self.text, skip=stored)) as rest:
            try:
                for row_group in rest:
                    new = [text for text in row_group if is_validation(text, self.fraction)]
                    columns.append(pa.array(new, pa.large_string()))
                    yield from new
            finally:
                if len(columns) > stored:
                    self.text.cache.put_documents(self.name, self.identity, columns)


def first_row_groups(text: HubText, skip: int = 0) -> Generator[list[str]]:
    """Yields the documents of each row group, in the order of the files, without the first `skip` row groups."""
    for number in range(len(text)):
        shard = text.shard(number, patient=True)
        if skip < shard.row_groups:
            with text.leased(shard):
                for row_group in range(skip, shard.row_groups):
                    with text.lock(shard, row_group):
                        documents = text.documents(shard, row_group)
                    yield [document for document in documents if document]
        skip = max(0, skip - shard.row_groups)
