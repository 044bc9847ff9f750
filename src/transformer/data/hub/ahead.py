"""Text fetched before it is read: the rest of the shard that is being read and, after half of it, the next one."""

from __future__ import annotations

import threading

from transformer.data.cache import Shard
from transformer.data.contracts import Place
from transformer.data.hub.errors import Closed, HubError, first_line
from transformer.data.hub.text import HubText
from transformer.dataset import ReadOrder

CONNECTIONS = 4
"""Row groups fetched at once, so that the network's latency is not paid for each in turn."""

PAUSE_SECONDS = 1.0, 60.0
"""First and longest pause of fetching ahead after failures. The reader itself does not pause."""


class Leases:
    """The shards that a stream reads or will soon read. They stay in the cache until the reader has passed them."""

    def __init__(self, text: HubText) -> None:
        self.text = text
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int], Shard] = {}
        self._closed = False

    def enter(self, place: Place) -> Shard:
        """Returns the place's shard, and leases it if this stream has not done so."""
        shard = self.text.shard(place.shard)
        with self._lock:
            if _visit(place) not in self._held and not self._closed:
                self.text.lease(shard)
                self._held[_visit(place)] = shard
        return shard

    def release_before(self, place: Place) -> None:
        """Releases the shards that were read before the place's."""
        with self._lock:
            for visit in [visit for visit in self._held if visit < _visit(place)]:
                self.text.cache.release(self._held.pop(visit))

    def close(self) -> None:
        """Releases all shards; later calls of `enter` lease none."""
        with self._lock:
            self._closed = True
            while self._held:
                self.text.cache.release(self._held.popitem()[1])


def _visit(place: Place) -> tuple[int, int]:
    """A shard is visited once in each epoch: the epoch, and the shards before it."""
    return place.epoch, place.shards_before


class FetchAhead:
    """Threads that bring the row groups of a read order into the cache, until they are stopped."""

    def __init__(self, text: HubText, order: ReadOrder, leases: Leases, connections: int) -> None:
        self.text, self.order, self.leases = text, order, leases
        self.reader: Place | None = None
        """The position of the reader, from which `_is_near` decides how far to fetch."""
        self._next: Place | None = None
        self._next_lock = threading.Lock()
        self._stopped = threading.Event()
        self._is_failing = False
        self._threads = [threading.Thread(target=self._run, name=f"fetch-{n}") for n in range(connections)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets each thread end after its current request."""
        self._stopped.set()

    def join(self) -> None:
        """Stops and waits for the threads to end; HubText.stop() makes that quick."""
        self.stop()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        pause, longest = PAUSE_SECONDS
        while not self._stopped.is_set():
            try:
                place = self._take()
                self.text.ensure(self.leases.enter(place), place.row_group)
                self._is_failing = False
                pause, _ = PAUSE_SECONDS
            except Closed:
                return
            except (
                Exception
            ) as error:  # not fatal: the reader fetches the row group, or meets the error, when it needs it
                if not self._is_failing:
                    reason = error if isinstance(error, HubError) else first_line(error)
                    self.text.notify(f"fetching ahead fails, continuing with the text in the cache: {reason}")
                self._is_failing = True
                self._stopped.wait(pause)
                pause = min(2 * pause, longest)

    def _take(self) -> Place:
        """Returns the next place as soon as it is near enough to the reader. Raises Closed after stop()."""
        with self._next_lock:
            self._next = self._next or next(self.order)
            while not self._is_near(self._next):
                if self._stopped.wait(0.02):
                    raise Closed
            place, self._next = self._next, None
            return place

    def _is_near(self, place: Place) -> bool:
        """Whether the place is in the reader's shard or, once half of that shard is read, in the next one."""
        if self.reader is None:
            return _visit(place) == (self.order.start.epoch, self.order.start.shard)
        epoch, shard = _visit(self.reader)
        half_read = self.reader.row_groups_before * 2 >= self.text.shard(self.reader.shard).row_groups
        following = (epoch, shard + 1) if shard + 1 < len(self.text) else (epoch + 1, 0)
        return _visit(place) <= (following if half_read else (epoch, shard))
