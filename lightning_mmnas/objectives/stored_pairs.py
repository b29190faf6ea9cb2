"""Views of a whole part of the data, of which few are in memory at a time."""

import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import overload

import torch
from torch import Tensor

Pair = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]

KEPT = 2**28
"""Bytes of views that stay in memory."""


class StoredPairs(Sequence[Pair]):
    """Pairs of views, batch by batch: the first ones in memory, the others in a temporary file, read when asked for.

    Args:
        pairs: Features of two views of every batch; each is made once, and they are let go of one by one.
        kept: Bytes that stay in memory, on the pairs' own device.
    """

    def __init__(self, pairs: Iterable[Pair], kept: int | None = None) -> None:
        self._left = KEPT if kept is None else kept
        self._pairs: list[Pair | tuple[int, int, torch.device]] = []  # or its place in the file, and its device
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed by the finalizer)
        weakref.finalize(self, self._file.close)
        for pair in pairs:
            self._pairs.append(self._stored(pair))

    def _stored(self, pair: Pair) -> Pair | tuple[int, int, torch.device]:
        values = [value for view in pair for value in view.values()]
        self._left -= sum(value.numel() * value.element_size() for value in values)
        if self._left >= 0 or not values:
            return pair
        content = BytesIO()
        torch.save([dict(view) for view in pair], content)
        start = self._file.tell()
        return start, self._file.write(content.getbuffer()), values[0].device

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...

    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        """One pair or several, on the device they were made on."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        found = self._pairs[index]
        if len(found) == 2:
            return found
        start, size, device = found
        self._file.seek(start)
        first, second = torch.load(BytesIO(self._file.read(size)), map_location=device, weights_only=True)
        return first, second

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._pairs)


class DerivedPairs(Iterable[Pair]):
    """What is made of stored pairs, made anew whenever it is iterated over.

    Args:
        pairs: The stored pairs.
        derive: What is made of one pair.
    """

    def __init__(self, pairs: Iterable[Pair], derive: Callable[[Pair], Iterable[Pair]]) -> None:
        self._given = pairs
        self._derive = derive

    def __iter__(self) -> Iterator[Pair]:
        """Pair by pair."""
        for pair in self._given:
            yield from self._derive(pair)


def derived(pairs: Iterable[Pair], derive: Callable[[Pair], Iterable[Pair]]) -> Iterable[Pair]:
    """What is made of pairs: a list of lists, else one pair at a time."""
    made = DerivedPairs(pairs, derive)
    return list(made) if isinstance(pairs, list) else made
