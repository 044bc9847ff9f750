"""The shard cache: text and tokens kept on disk, shared by threads and processes, bounded in shards and bytes.

    shard_00012.parquet                 a finished shard, one row group a unit
    shard_00012.parts/00003.parquet     units of a shard that is still coming, merged when the last one is there
    shard_00012.ENCODING/00003.tokens   tokens of a unit
    cache_metadata.json                 what each shard is, its last use, and listings of remote files
    cache.lock  .locks/  .processes/    who is at work

A *unit* is one row group of a remote parquet file, a *shard* a run of them. Units arrive one at a time, in any order.

A name holds all of a file or none of it. What a file holds, it says itself and proves with checksums: one that is
damaged, or holds another text than is wanted, is told in one line, removed, and as if never there. So the metadata may
be lost, too; it is made again from the files. A thread holds one unit's lock at most, cache.lock is taken last, and
nobody copies or compresses while holding it. What goes first is what was used longest ago; pin what must stay. On a
full disk nothing is stored and all goes on. While parts are merged, they lie there twice.
"""

from .cache import ShardCache
from .files import Shard
from .index import InUseError, ShardEntry

__all__ = ["InUseError", "Shard", "ShardCache", "ShardEntry"]
