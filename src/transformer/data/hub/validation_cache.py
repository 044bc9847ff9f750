"""The validation documents of remote text, and the first documents of it in general.

They are those that the split holds out, from the first units of the first shard on, as many as have the tokens that are
asked for. They are kept in a small file of their own, so that they never have to be fetched again, and so that
no order of training and no eviction changes them.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transformer.data.contracts import Place
from transformer.data.hub.text import HubText, Leases
from transformer.text import Tokenizer, Tokens, is_validation


class ValidationText:
    """The validation documents of a text under a split."""

    def __init__(self, text: HubText, fraction: float) -> None:
        self.text, self.fraction = text, fraction
        listing = [(file.path, file.oid) for file in text.files]
        identity = repr((text.hub.repo, listing, text.column, fraction)).encode()
        self.path = text.cache.directory / f"validation_{hashlib.sha256(identity).hexdigest()[:12]}.parquet"

    def tokens(self, tokenizer: Tokenizer, wanted: int) -> list[Tokens]:
        """Returns documents, an end-of-text after each: until there are `wanted` tokens, or all there are."""
        end = np.array([tokenizer.eot_id], np.uint32)
        found: list[Tokens] = []
        count = 0
        with contextlib.closing(self.texts()) as texts:
            while count < wanted and (text := next(texts, None)) is not None:
                found.append(np.concatenate([tokenizer.encode_array(text), end]))
                count += len(found[-1])
        return found

    def texts(self) -> Generator[str]:
        """Yields the documents: those in the file, then the hub's. To be closed, which keeps what came from there."""
        documents, units = self._stored()
        known = units
        yield from documents
        with contextlib.closing(first_row_groups(self.text, skip=units)) as rest:
            try:
                for unit in rest:
                    new = [text for text in unit if is_validation(text, self.fraction)]
                    documents += new
                    units += 1
                    yield from new
            finally:
                if units > known:
                    self._store(documents, units)

    def _stored(self) -> tuple[list[str], int]:
        """Returns the documents in the file and how many units they are from; none where the file is of no use."""
        try:
            table = pq.read_table(self.path, page_checksum_verification=True)
            return table["text"].to_pylist(), int(table.schema.metadata[b"units"])
        except FileNotFoundError:
            return [], 0
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            self.text.notify(f"{self.path} is damaged: reading the validation documents anew")
            return [], 0

    def _store(self, documents: list[str], units: int) -> None:
        table = pa.table({"text": pa.array(documents, pa.large_string())})
        table = table.replace_schema_metadata({"units": str(units)})

        def write(file: Any) -> None:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)

        self.text.cache.keep(self.path, write)


def first_row_groups(text: HubText, skip: int = 0) -> Generator[list[str]]:
    """Yields the documents of each unit, in the order of the files, from the one after `skip` units on."""
    pins = Leases(text)
    try:
        for number in range(len(text)):
            units = text.shard(number, patient=True).row_groups
            for unit in range(min(skip, units), units):
                place = Place(0, number, unit, number, unit)
                shard = pins.enter(place)
                pins.release_before(place)
                with text.lock(shard, unit):
                    column = text.text(shard, unit)
                yield [document for document in column.to_pylist() if document]
            skip = max(0, skip - units)
    finally:
        pins.close()
