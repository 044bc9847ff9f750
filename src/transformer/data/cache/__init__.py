"""The shard cache: text and token ids on disk, shared by threads and processes, limited in shards and bytes.

shard_00012.parquet                 a complete shard, one row group after another
shard_00012.parts/00003.parquet     a row group of an incomplete shard; the last one to arrive merges them
shard_00012.ENCODING/00003.npz      token ids of a row group
cache_metadata.json                 listings of files on the hub, so that a run can start without a network
cache.lock  .locks/  .processes/    locks, and the files of running processes
"""

from .cache import ShardCache
from .shard_files import Shard

__all__ = ["Shard", "ShardCache"]
