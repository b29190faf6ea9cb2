"""The shards of one split: records by their number."""

import zlib
from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from typing import Any

import numpy as np

from lightning_mmnas.data.spec import Split
from lightning_mmnas.data.stream.index import SHARD_INDEX, StoredSplit, read_shard_index
from lightning_mmnas.data.stream.source import ShardSource
from lightning_mmnas.errors import DataError, DatasetNotFoundError

_OPEN = 64
"""Shards that a process has mapped into memory at once."""
_TRIES = 3

_Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Shards:
    """The records of one split, in shards as LitData writes them.

    A shard is the number of its records, the place of each and of the end (all uint32), and the records, each of
    one leaf: its length and its bytes. It is mapped into memory; its length and its checksum are verified once in a
    process before anything is read from it.

    Args:
        source: Where the shards lie.
        split: Which split.
        stored: What `stream.json` says of it.

    Attributes:
        starts: Number of the first record of each shard, and that of all records.

    Raises:
        DataError: The split's index is damaged, or does not fit `stream.json`.
    """

    def __init__(self, source: ShardSource, split: Split, stored: StoredSplit) -> None:
        self.source = source
        self.split = split
        self.checksums = stored.checksums
        name = f"{split}/{SHARD_INDEX}"
        self.files = read_shard_index(source.fetch(name)[0], source.place(name), stored)
        self.starts = list(accumulate((file.chunk_size for file in self.files), initial=0))
        self._open: OrderedDict[int, _Bytes] = OrderedDict()
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return self.starts[-1]

    def record(self, index: int) -> bytes:
        """The bytes of one record.

        Raises:
            DataError: The shard is missing or damaged; names it.
        """
        shard = bisect_right(self.starts, index) - 1
        content = self._content(shard)
        place = 4 + 4 * (index - self.starts[shard])
        begin, end = (int(number) for number in content[place : place + 8].view("<u4"))
        if not place + 8 <= begin <= end - 4 <= len(content) - 4 or int(content[begin : begin + 4].view("<u4")[0]) != (
            end - begin - 4
        ):
            raise self._damaged(shard, f"its record {index - self.starts[shard]} lies nowhere in it")
        return content[begin + 4 : end].tobytes()

    def place(self, index: int) -> str:
        """What to call a record in messages."""
        shard = bisect_right(self.starts, index) - 1
        return f"{self.source.place(self._name(shard))}, record {index - self.starts[shard]}"

    def __getstate__(self) -> dict[str, Any]:
        """Leaves mapped shards behind on the way to a worker process."""
        return {**self.__dict__, "_open": OrderedDict()}

    def _name(self, shard: int) -> str:
        return f"{self.split}/{self.files[shard].filename}"

    def _content(self, shard: int) -> _Bytes:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        content = self._verify(shard, self._map(shard))
        self._open[shard] = content
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return content

    def _map(self, shard: int) -> _Bytes:
        for _ in range(_TRIES):
            path, new = self.source.fetch(self._name(shard))
            if new:
                self._verified.discard(shard)
            try:
                return np.memmap(path, np.uint8, mode="r")
            except FileNotFoundError:  # another process made room just now
                continue
            except (OSError, ValueError) as error:  # also an empty file
                raise self._damaged(shard, str(error)) from None
        raise DatasetNotFoundError(
            f"{self.source.place(self._name(shard))} is deleted as soon as it is downloaded; give a larger "
            "data.init_args.cache_bytes"
        )

    def _verify(self, shard: int, content: _Bytes) -> _Bytes:
        file = self.files[shard]
        if shard in self._verified and len(content) == file.chunk_bytes:
            return content
        if len(content) != file.chunk_bytes:
            raise self._damaged(shard, f"it has {len(content)} bytes instead of {file.chunk_bytes}")
        if zlib.crc32(content.data) != self.checksums[shard]:
            raise self._damaged(shard, "its checksum is another")
        records = int(content[:4].view("<u4")[0]) if len(content) >= 4 else 0
        if records != file.chunk_size or len(content) < 8 + 4 * records:
            raise self._damaged(shard, f"it has {records} records instead of {file.chunk_size}")
        self._verified.add(shard)
        return content

    def _damaged(self, shard: int, reason: str) -> DataError:
        self.source.forget(self._name(shard))
        return DataError(
            f"{self.source.place(self._name(shard))} is damaged: {reason}; copy it again, or write the shards again"
        )
