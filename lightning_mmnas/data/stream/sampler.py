"""The order in which training reads shards: a few at a time, each rank its own."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DistributedSampler

from lightning_mmnas.data.samples import Part, seeded


class ShardSampler(DistributedSampler[Any]):
    """Shuffles shards, gives each rank a run of them, and shuffles the samples of a few shards with one another.

    The order depends on seed, epoch, pass and rank alone, whatever the number of workers; the global random state is
    neither read nor changed. Only the shards of one window have to be at hand at a time. As with
    `DistributedSampler`, all ranks have equally many samples: where they do not divide, the first fill up the last
    rank's. Lightning leaves it as it is.

    Args:
        part: What is sampled from.
        starts: Number of the first sample of each shard in the part's source, and that of all.
        seed: Same seed, same orders.
        window: Shards whose samples are shuffled with one another.
        ranks: Number of ranks.
        rank: Number of this one.
    """

    def __init__(
        self, part: Part, starts: Sequence[int], seed: int = 0, window: int = 8, ranks: int = 1, rank: int = 0
    ) -> None:
        super().__init__(part, ranks, rank, True, seed)
        self.window = window
        self.passes = self._skipped = 0
        bounds = torch.searchsorted(part.indices, torch.tensor(starts))  # the part's samples are in ascending order
        self._runs = [(a, b) for a, b in zip(bounds.tolist(), bounds.tolist()[1:], strict=False) if b > a]

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order the next pass has."""
        if epoch != self.epoch:
            self.epoch, self.passes = epoch, 0

    def skip_batches(self, batches: int, of_pass: int, batch_size: int) -> None:
        """Lets the next pass begin where a loader stands after some batches of an epoch, without reading them.

        Args:
            batches: How many; more than `of_pass` where the loader began anew.
            of_pass: Batches of a pass.
            batch_size: Samples of a batch.
        """
        passes, rest = divmod(batches, of_pass)
        self.passes += passes
        self._skipped = rest * batch_size

    def __iter__(self) -> Iterator[int]:
        # Lazy on purpose: Lightning creates the iterator of an epoch before it calls set_epoch.
        numbers, skipped = (self.seed, self.epoch, self.passes), self._skipped
        self.passes, self._skipped = self.passes + 1, 0
        yield from islice(self._order(numbers), skipped, None)

    def _order(self, numbers: tuple[int, ...]) -> Iterator[int]:
        runs = [self._runs[i] for i in torch.randperm(len(self._runs), generator=seeded(*numbers)).tolist()]
        mine = list(self._share(runs))
        generator = seeded(*numbers, self.rank)
        for first in range(0, len(mine), self.window):
            samples = torch.cat([torch.arange(a, b) for a, b in mine[first : first + self.window]])
            yield from samples[torch.randperm(len(samples), generator=generator)].tolist()

    def _share(self, runs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """This rank's stretch of the runs, laid end to end and begun anew at the end."""
        skip, left = self.rank * self.num_samples, self.num_samples
        while left:
            for a, b in runs:
                begin = a + min(skip, b - a)
                end = min(b, begin + left)
                skip -= begin - a
                if end > begin:
                    left -= end - begin
                    yield begin, end
                if not left:
                    return
