"""The validation documents of a text on the hub, kept in a file of their own.

They are the held-out documents of the first shard's first row groups, and of further ones, until there are enough
tokens. The file is never evicted, so they are fetched once, and the training order does not affect them. Row group i of
the file has the held-out documents of the i-th row group of the text.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Iterator

import numpy as np
import pyarrow as pa

from transformer.data.contracts import Place
from transformer.data.hub.ahead import Leases
from transformer.data.hub.text import HubText
from transformer.text import Tokenizer, Tokens, is_validation


class ValidationText:
    """The validation documents of a text, for one validation fraction."""

    def __init__(self, text: HubText, fraction: float) -> None:
        self.text, self.fraction = text, fraction
        listing = [(file.path, file.oid) for file in text.files]
        identity = hashlib.sha256(repr((text.hub.repo, listing, text.column, fraction)).encode()).hexdigest()
        self.identity = {"validation": identity}
        self.name = f"validation_{identity[:12]}.parquet"

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
    with contextlib.closing(Leases(text)) as leases:
        for number in range(len(text)):
            row_groups = text.shard(number, patient=True).row_groups
            for row_group in range(min(skip, row_groups), row_groups):
                place = Place(0, number, row_group, number, row_group)
                shard = leases.enter(place)
                leases.release_before(place)
                with text.lock(shard, row_group):
                    documents = text.documents(shard, row_group)
                yield [document for document in documents if document]
            skip = max(0, skip - row_groups)
