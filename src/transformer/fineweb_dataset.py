r"""FineWeb-Edu: ten billion tokens of web text, without downloading them first.

**The problem.** A language model needs more text than a laptop can store. The sample-10BT of HuggingFaceFW/fineweb-edu
is 14 files of about 2 GB, web pages that a classifier selected for their educational value. Downloading all of it
before the first step would take hours, and resuming by reading the stream again from its start would take as long as
the interrupted training did.

**The idea.** A parquet file is a sequence of *row groups*, about a thousand documents each, with a table of contents
at its end. Any row group can therefore be read on its own, and of its columns only the text is fetched:

    file 0   [row group 0][row group 1] ... [row group 730] [footer: the position of each row group's columns]
              shard 0 ................. shard 5 .........
    file 1   [row group 0] ...

A *shard* is a run of row groups, about 400 MB: the amount that the cache keeps or removes, and that an epoch reads
before it continues elsewhere. Training starts when the first row group has arrived. From then on three stages run
concurrently, each a little ahead of the next:

    fetch ahead          hub --text column of a row group--> cache   4 at a time, to the end of the next shard
    tokenize ahead       cache --documents--> ids --> cache          on all cores, a few row groups ahead
    train                ids --> rows (dataset.py) --> steps         waits only if the other stages are slower

**The cache** (data/cache/), in data/fineweb_cache, keeps the most recently used shards, and with each shard its token
ids. Tokenizing is slow; a second pass or a second run reads the ids from disk. The cache stores all documents and,
for each, the hash that decides its side of the split. So runs with another validation_fraction use the same files.

**The split.** 10% of the documents, chosen by a hash of their text, are never trained on. The validation text consists
of such documents from the first row groups of the first shard. It is kept in a file of its own, which is never evicted,
so that all runs and epochs are evaluated on the same text.

**Reproducible.** A new run resolves the hub's branch to a commit. The checkpoint stores the commit, and a resumed run
reads it again even if files have been uploaded since. Files are requested by commit and verified by their hash. A
failing request is retried for network_patience seconds. Text that is in the cache needs no network.

By hand, a file of two row groups, the first with the texts "ab" and "c", the second with "d" and "ef":

>>> from transformer.text import load_tokenizer
>>> byte = load_tokenizer("byte")
>>> first, second = encode_row_group(["ab", "c"], byte), encode_row_group(["d", None, "ef"], byte)
>>> second.ids.tolist(), second.lengths.tolist()               # d, end-of-text, e, f, end-of-text
([100, 256, 101, 102, 256], [2, 3])
>>> len(second.side(0.5, validation=True)) + len(second.side(0.5, validation=False))
5

**Cost.** In memory: the text and ids of a few row groups, and dataset.py's window. On disk: cache_gb. From the network:
the text column of each row group once, while its shard stays in the cache.
**Not chosen.** The datasets library's streaming, which resumes by reading again from the start of a file. Downloading
everything. Storing ids instead of text: another encoding would need the text again.
**Is it working?** `commands/test_fineweb.py` shows what is fetched, how long it takes, and a decoded sample. Resuming
at any batch gives that batch: tests/test_fineweb_dataset.py.

Papers: FineWeb-Edu, arXiv 2406.17557. Read before: dataset.py. Next: trainer.py.
"""

from __future__ import annotations

import copy
import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from transformer.data.cache.token_files import RowGroupTokens
from transformer.data.contracts import DataState, Place
from transformer.data.hub.ahead import CONNECTIONS, FetchAhead, Leases
from transformer.data.hub.errors import HubError
from transformer.data.hub.text import HubText
from transformer.data.hub.validation_cache import first_row_groups
from transformer.dataset import ReadOrder
from transformer.text import Tokenizer, Tokens, is_validation, text_digest
from transformer.text.cores import usable_cores

LOADERS = 2
"""Row groups loaded at once: while one waits for its text or is stored, the other is tokenized on all cores."""
AHEAD_TOKENS, MAX_AHEAD = 8_000_000, 8
"""Approximate number of tokens, and maximum number of row groups, that are prepared in memory before their use."""

SAMPLE_CHARS = 10_000_000
"""Characters of text on which a vocabulary of the dataset's own ("bpe8192") is trained."""


class HubSource:
    """A TokenSource: the training documents of a text on the hub."""

    def __init__(self, text: HubText, tokenizer: Tokenizer, fraction: float, workers: int | None = None) -> None:
        """`fraction` of the documents is held out for validation; `workers` threads tokenize (None: one per core).

        If `fetches_ahead` is set to False, row groups are fetched only when they are read.
        """
        self.text, self.tokenizer, self.fraction = text, tokenizer, fraction
        self._encoders = ThreadPoolExecutor(workers or usable_cores(), thread_name_prefix="tokenize")
        self.encoding = encoding_id(tokenizer)
        self.fetches_ahead = True
        self._stops: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self.text)

    def row_groups(self, shard: int) -> int:
        return self.text.shard(shard).row_groups

    def stream(self, seed: int, start: DataState) -> Generator[tuple[Place, Tokens]]:
        order = ReadOrder(self, seed, start)
        leases = Leases(self.text)
        ahead = FetchAhead(self.text, copy.copy(order), leases, CONNECTIONS if self.fetches_ahead else 0)
        pool = ThreadPoolExecutor(LOADERS, thread_name_prefix="load")
        self._stops += [leases.close, ahead.join, pool.shutdown]  # run in reverse order by close()
        waiting: deque[tuple[Place, Future[Tokens]]] = deque()
        wanted = LOADERS
        try:
            while True:
                # 1. Keep `wanted` row groups loading.
                while len(waiting) < wanted and (upcoming := self.next_place(order, patient=not waiting)):
                    waiting.append((upcoming, pool.submit(self._training_tokens, upcoming, leases)))
                # 2. Take the oldest, and let the other stages know how far the reader is.
                place, future = waiting.popleft()
                ahead.reader = place
                leases.release_before(place)
                tokens = future.result()
                # 3. Small row groups are loaded further ahead than large ones.
                wanted = max(LOADERS, min(MAX_AHEAD, AHEAD_TOKENS // max(1, len(tokens))))
                yield place, tokens
        finally:  # nothing waits here: close() waits, after it has cut the network requests short
            ahead.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            leases.close()

    def close(self) -> None:
        self.text.stop()
        while self._stops:
            self._stops.pop()()
        self._encoders.shutdown()
        self.text.close()

    def next_place(self, order: ReadOrder, patient: bool) -> Place | None:
        """Returns the next place of an order that reads this source.

        If the row groups of the next shard cannot be counted, the network is retried if `patient`; else the result is
        None, and the next call tries the same shard again.
        """
        try:
            return next(order)
        except HubError:
            if not patient:
                return None
        self.text.shard(order.next_shard, patient=True)
        return next(order)

    def load(self, place: Place, leases: Leases) -> RowGroupTokens:
        """Returns all documents of a row group: ids from the cache, or new ones, which are then stored."""
        shard = leases.enter(place)
        with self.text.lock(shard, place.row_group):
            tokens = self.text.cache.tokens(shard, place.row_group, self.encoding)
            if tokens is None:
                documents = self.text.documents(shard, place.row_group)
                tokens = encode_row_group(documents, self.tokenizer, self._encoders)
                self.text.cache.put_tokens(shard, place.row_group, self.encoding, tokens)
        return tokens

    def _training_tokens(self, place: Place, leases: Leases) -> Tokens:
        return self.load(place, leases).side(self.fraction, validation=False)


def encode_row_group(
    texts: Iterable[str | None], tokenizer: Tokenizer, pool: ThreadPoolExecutor | None = None
) -> RowGroupTokens:
    """Tokenizes documents, with an end-of-text after each. Missing and empty texts are skipped.

    All row groups share one pool: in each new thread tiktoken's regular expressions are slow at first.
    """
    documents = [text for text in texts if text]
    end = np.array([tokenizer.eot_id], np.uint32)
    parts = [part for tokens in tokenizer.encode_batch(documents, pool) for part in (tokens, end)]
    ids = np.concatenate(parts) if parts else np.empty(0, np.uint32)
    lengths = np.array([len(part) + 1 for part in parts[::2]], np.uint32)
    return RowGroupTokens(ids, lengths, np.array([text_digest(text) for text in documents], np.uint64))


def encoding_id(tokenizer: Tokenizer) -> str:
    """Returns the encoding's name in the cache, with a hash of its vocabulary unless the name says which that is."""
    state = tokenizer.state()
    if state["kind"] in ("byte", "named"):
        return tokenizer.name
    return f"{tokenizer.name}-{hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()[:12]}"


def sample_texts(text: HubText, fraction: float) -> list[str]:
    """Returns the first training documents, about SAMPLE_CHARS of them, on which a vocabulary is trained."""
    texts: list[str] = []
    size = 0
    for documents in first_row_groups(text):
        train = [document for document in documents if not is_validation(document, fraction)]
        texts += train
        size += sum(map(len, train))
        if size >= SAMPLE_CHARS:
            break
    return texts
