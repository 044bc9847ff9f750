r"""FineWeb-Edu: ten billion tokens of the web, without downloading them first.

**The problem.** A language model wants more text than a laptop wants to store. HuggingFaceFW/fineweb-edu's sample-10BT
is 14 files of about 2 GB, chosen from the web for being worth learning from (a classifier scored every page for it).
Fetching all of it before the first step would take hours, and reading a stream from its start to find a place in its
middle takes as long as training up to there did.

**The idea.** A parquet file is a row of *row groups*, about a thousand documents each, with a table of contents at its
end. So the text can be addressed like the pages of a book, and only the text column of the wanted page is fetched:

    file 0   [row group 0][row group 1] ... [row group 730] [footer: where each group's columns lie]
              shard 0 ................. shard 5 .........
    file 1   [row group 0] ...

A row group is a *unit* of dataset.TokenSource and a run of them, about 400 MB, a *shard*: what the cache keeps and what
the order of an epoch is made of. Training starts when the first unit is there. From then on three things go on side by
side, each a little ahead of the next:

    fetch ahead          hub --text column of a unit--> cache        4 at a time, to the end of the next shard
    tokenize ahead       cache --documents--> ids --> cache          on all cores, a few units ahead
    train                ids --> rows (dataset.py) --> steps         waits only if the others are slower

**The cache**, data/fineweb_cache, keeps the most recently used shards (shard_cache/), and beside each shard its token
ids: tokenizing is the slow part, and a second pass or a second run reads ids at the disk's speed. What is stored is
all documents, with the hash that decides each one's side of the split; so a run with another validation_fraction
reads the same files.

**The split.** 10% of the documents, chosen by a hash of their text, are never trained on. The validation text is made
of such documents from the first units of the first shard, always the same ones, kept in a file of their own, so that
every run and every epoch is measured alike, and no eviction can change it.

**Nothing lost.** The hub's branch is resolved to a commit when a run begins; the checkpoint stores it, and a resumed
run reads that commit, whatever has been uploaded since. Files are requested by commit and known by their checksum.
A network that fails is tried again for network_patience seconds; what the cache holds needs no network at all.

By hand, a file of two row groups, the texts in the first ab and c, in the second d and ef, is two units:

>>> from transformer.text import load_tokenizer
>>> first, second = (encode_unit(texts, load_tokenizer("byte")) for texts in (["ab", "c"], ["d", None, "ef"]))
>>> second.ids.tolist(), second.lengths.tolist()               # d, end-of-text, e, f, end-of-text
([100, 256, 101, 102, 256], [2, 3])
>>> len(second.side(0.5, validation=True)) + len(second.side(0.5, validation=False))
5

**Cost.** In memory: a few units' text and ids, and dataset.py's window. On disk: cache_gb. From the network: each text
once, as long as it stays in the cache, and nothing but the text column.
**Chosen.** Row groups as units, so that no state is ever more than six numbers. Not chosen: the datasets library's
streaming, which goes on by reading again from the start of a file; a full download; a file of ids in place of the text,
which would have to be fetched again for another encoding.
**Is it working?** `commands/test_fineweb.py` shows what is fetched, how long it takes, and decodes a sample. Resuming
at a batch gives that batch, which a test holds for any batch.

Papers: FineWeb-Edu, arXiv 2406.17557. Read before: dataset.py. Next: trainer.py.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from transformer.config import DataConfig
from transformer.data.cache.token_files import UnitTokens
from transformer.data.hub.errors import HubError
from transformer.data.hub.text import CONNECTIONS, FetchAhead, Pins, RemoteText, open_remote_text
from transformer.data.hub.validation_cache import HeldOut, first_units
from transformer.dataset import Place, Tell, TextData, Walk, make_tokenizer, say_nothing, text_data
from transformer.text import Tokenizer, Tokens, is_validation, text_digest

LOADERS = 2
"""Units loaded at once: one waits for its text or is stored while the other is tokenized, on all cores."""
AHEAD_TOKENS, MOST_AHEAD = 8_000_000, 8
"""Tokens that may wait for their turn in memory, about, and units."""

SAMPLE_CHARS = 10_000_000
"""Characters of text that a vocabulary of one's own ("bpe8192") is trained on."""


class HubSource:
    """A TokenSource: the training documents of remote text."""

    def __init__(self, text: RemoteText, tokenizer: Tokenizer, fraction: float, workers: int | None = None) -> None:
        """`fraction` of the documents are for validation, and left out; `workers` threads tokenize.

        `fetches_ahead` may be set to False: then only what is asked for is fetched.
        """
        self.text, self.tokenizer, self.fraction = text, tokenizer, fraction
        self._encoders = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="tokenize")
        self.encoding = encoding_id(tokenizer)
        self.fetches_ahead = True
        self._running: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self.text)

    def units(self, shard: int) -> int:
        return self.text.shard(shard).units

    def stream(self, walk: Walk) -> Generator[tuple[Place, Tokens]]:
        pins = Pins(self.text)
        ahead = FetchAhead(self.text, copy.copy(walk), pins, CONNECTIONS if self.fetches_ahead else 0)
        pool = ThreadPoolExecutor(LOADERS, thread_name_prefix="load")
        self._running += [pins.close, ahead.join, pool.shutdown]  # in the other direction
        waiting: deque[tuple[Place, Future[Tokens]]] = deque()
        wanted = LOADERS
        try:
            while True:
                while len(waiting) < wanted:
                    try:
                        place = next(walk)
                    except HubError:  # it was about which units walk.asked has
                        if waiting:  # go on with these; the walk will be at the same place
                            break
                        self.text.shard(walk.asked, patient=True)
                        continue
                    waiting.append((place, pool.submit(self._training_part, place, pins)))
                place, future = waiting.popleft()
                ahead.reader_at(place)
                pins.leave_before(place)
                tokens = future.result()
                wanted = max(LOADERS, min(MOST_AHEAD, AHEAD_TOKENS // max(1, len(tokens))))
                yield place, tokens
        finally:  # nothing is waited for here: close() does that, and makes it quick
            ahead.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            pins.close()

    def close(self) -> None:
        self.text.close()
        while self._running:
            self._running.pop()()
        self._encoders.shutdown()
        self.text.cache.close()

    def load(self, place: Place, pins: Pins) -> UnitTokens:
        """All documents of a unit: ids from the cache, or made from its text and stored."""
        shard = pins.enter(place)
        with self.text.lock(shard, place.unit):
            tokens = self.text.cache.tokens(shard, place.unit, self.encoding)
            if tokens is None:
                tokens = encode_unit(self.text.text(shard, place.unit).to_pylist(), self.tokenizer, self._encoders)
                self.text.cache.put_tokens(shard, place.unit, self.encoding, tokens)
        return tokens

    def _training_part(self, place: Place, pins: Pins) -> Tokens:
        return self.load(place, pins).side(self.fraction, validation=False)


def encode_unit(
    texts: Iterable[str | None], tokenizer: Tokenizer, pool: ThreadPoolExecutor | None = None
) -> UnitTokens:
    """Tokenizes documents, an end-of-text after each; missing and empty ones are none.

    One pool for all units, rather than a new one for each: tiktoken's regular expressions are slow until they have
    warmed up, thread by thread.
    """
    documents = [text for text in texts if text]
    end = np.array([tokenizer.eot_id], np.uint32)
    parts = [part for tokens in tokenizer.encode_batch(documents, pool) for part in (tokens, end)]
    ids = np.concatenate(parts) if parts else np.empty(0, np.uint32)
    lengths = np.array([len(part) + 1 for part in parts[::2]], np.uint32)
    return UnitTokens(ids, lengths, np.array([text_digest(text) for text in documents], np.uint64))


def encoding_id(tokenizer: Tokenizer) -> str:
    """Returns the encoding's name as token files carry it; one that was trained on a text has its hash in it too."""
    state = tokenizer.state()
    if state["kind"] != "bpe":
        return tokenizer.name
    return f"{tokenizer.name}-{hashlib.sha256(repr(sorted(state.items())).encode()).hexdigest()[:12]}"


def sample_texts(text: RemoteText, fraction: float) -> list[str]:
    """Returns the first training documents, for a vocabulary of their own."""
    texts: list[str] = []
    size = 0
    for unit in first_units(text):
        train = [document for document in unit if not is_validation(document, fraction)]
        texts += train
        size += sum(map(len, train))
        if size >= SAMPLE_CHARS:
            break
    return texts


def open_hub_dataset(config: DataConfig, tokenizer: Tokenizer | None = None, tell: Tell = say_nothing) -> TextData:
    """Opens a dataset of the hub: FineWeb-Edu's sample-10BT for "fineweb", or hf:OWNER/NAME.

    Raises ValueError, in one line, where neither the hub nor the cache gives what is needed to start.
    """
    text = open_remote_text(config, tell)
    try:
        held_out = HeldOut(text, config.validation_fraction)
        if tokenizer is None:
            sample = sample_texts(text, config.validation_fraction) if config.encoding.startswith("bpe") else []
            tokenizer = make_tokenizer(config.encoding, sample)
        source = HubSource(text, tokenizer, config.validation_fraction, config.num_workers)
        documents = held_out.tokens(tokenizer, config.validation_tokens)
        data = text_data(config, tokenizer, source, config.tokens_per_epoch, iter(documents))
        return replace(data, revision=text.commit)
    except BaseException:
        text.close()
        text.cache.close()
        raise
