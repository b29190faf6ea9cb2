"""Data sets of multimodal samples, their parts, and the order in which training reads them."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, RandomSampler, default_collate

from lightning_mmnas.data.spec import ModalitySpec, Task
from lightning_mmnas.errors import DataError

LABEL = "label"

Batch = dict[str, Tensor]
Place = int | tuple[int, ...]
"""A sample's index; or it and the numbers of some of its stored views."""


class Samples(Dataset[Batch], ABC):
    """All the samples of one split: dicts keyed by modality, plus `"label"` where there is one.

    Subclasses implement `__len__` and `__getitem__`; those that can fetch many samples at once
    also override `batch`.

    Attributes:
        labels: Class of each sample, shape (n,), or (n, num_classes) where multi-label; -1
            (everywhere in the row) where a sample is unlabelled. Of a regression the standardised
            target, float32 of shape (n, 1), NaN where a sample is unlabelled; see
            `MultimodalDataModule.target_scale`. None where the data are unlabelled.
        groups: Recording (session, subject, ...) of each sample, shape (n,). Samples of one group
            overlap or resemble each other, so a group is never divided between the two parts of
            an architecture search. A number is the same group in every split. None: each sample is a
            group of its own.
    """

    labels: Tensor | None = None
    groups: Tensor | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Batch: ...

    def batch(self, indices: Tensor) -> Batch:
        """Returns the samples at `indices` (shape (b,)), collated."""
        batch: Batch = default_collate([self[i] for i in indices.tolist()])
        return batch

    def select(self, keys: Sequence[str], indices: Tensor) -> Batch:
        """Returns some keys of the samples at `indices`, collated; override it to read only those."""
        batch = self.batch(indices)
        return {key: batch[key] for key in keys}

    def select_views(self, keys: Sequence[str], indices: Tensor, views: Tensor) -> Batch:
        """Returns stored views (shape (b, v)) of the samples at `indices`; only cached samples have any."""
        raise DataError("these samples have no stored views")

    def fingerprint(self) -> Iterator[str]:
        """Lines of text that change when a sample does; here from the values, for files from their times of change."""
        for index in range(len(self)):
            for key, value in self[index].items():
                yield f"{key} {tensor_digest(value)}"

    def means(self, modalities: Mapping[str, ModalitySpec]) -> dict[str, Tensor]:
        """Mean of each modality, in the unit of its views; here zeros, right for standardised data."""
        return {name: torch.zeros(spec.shape) for name, spec in modalities.items()}


class TensorSamples(Samples):
    """Samples held in memory; a batch is one `index_select` per modality.

    Args:
        tensors: One tensor per modality, shape (n, *sample), and optionally `"label"`.
        groups: Group of each sample, shape (n,); see `Samples`.

    Raises:
        DataError: The tensors do not have the same number of samples.

    Examples:
        >>> samples = TensorSamples({"x": torch.zeros(3, 2), "label": torch.tensor([0, 1, 0])})
        >>> samples.batch(torch.tensor([0, 2]))["label"]
        tensor([0, 0])
    """

    def __init__(self, tensors: Mapping[str, Tensor], groups: Tensor | None = None) -> None:
        self.tensors = dict(tensors)
        self.labels = self.tensors.get(LABEL)
        self.groups = groups
        sizes = {name: len(tensor) for name, tensor in self.tensors.items()}
        if groups is not None:
            sizes["groups"] = len(groups)
        if len(set(sizes.values())) != 1:
            raise DataError(f"all tensors need the same number of samples, got {sizes}")
        self._size = next(iter(sizes.values()))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Batch:
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    def batch(self, indices: Tensor) -> Batch:
        """Returns the samples at `indices` (shape (b,)), collated."""
        return {name: tensor.index_select(0, indices) for name, tensor in self.tensors.items()}


class Part(Dataset[Batch]):
    """Some samples and some modalities of a split, with or without their labels.

    The only door through which samples reach a `DataLoader`: without `labels`, the key `"label"`
    is removed here.

    Args:
        source: The samples of the whole split.
        indices: Which samples belong to the part, shape (n,).
        modalities: Which modalities belong to it.
        labels: Whether its samples carry `"label"`.

    Attributes:
        stored_views: Views of a sample that its source has stored; 0: none.
        drawn_views: Views of a sample that a training batch has; 0: the sample as it is.
    """

    def __init__(self, source: Samples, indices: Tensor, modalities: Sequence[str], labels: bool) -> None:
        self.source = source
        self.indices = indices
        self.stored_views = self.drawn_views = 0
        self.keys = (*modalities, LABEL) if labels else tuple(modalities)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Place) -> Batch:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[Place]) -> Batch:
        """Returns a whole batch, already collated; `DataLoader` prefers this to `__getitem__`.

        Args:
            indices: Which samples; or tuples of a sample and which of its stored views.
        """
        places = torch.as_tensor(indices, dtype=torch.long)
        if places.ndim == 1:
            return self.source.select(self.keys, self.indices[places])
        return self.source.select_views(self.keys, self.indices[places[:, 0]], places[:, 1:])

    def draw_views(self, indices: Tensor) -> list[Place]:
        """The places of a training batch of some samples, with stored views drawn by torch's global generator."""
        if not self.drawn_views:
            return cast(list[Place], indices.tolist())
        views = torch.rand(len(indices), self.stored_views).argsort(1)[:, : self.drawn_views]
        return [(int(i), *row) for i, row in zip(indices.tolist(), views.tolist(), strict=True)]

    @property
    def labels(self) -> Tensor | None:
        """Labels of the part's samples; None where the part carries none."""
        if LABEL not in self.keys or self.source.labels is None:
            return None
        return self.source.labels[self.indices]

    @property
    def groups(self) -> Tensor | None:
        """Groups of the part's samples."""
        return None if self.source.groups is None else self.source.groups[self.indices]

    def subset(self, indices: Tensor) -> "Part":
        """Returns the part that holds the samples at `indices` of this one."""
        part = Part.__new__(Part)
        part.source, part.indices, part.keys = self.source, self.indices[indices], self.keys
        part.stored_views, part.drawn_views = self.stored_views, self.drawn_views
        return part


def labelled_rows(labels: Tensor, task: Task | None) -> Tensor:
    """Which samples have a label, (n,): those of a class from 0 on, or whose target is a number.

    Args:
        labels: See `Samples`.
        task: The task.

    Examples:
        >>> labelled_rows(torch.tensor([2, -1, 0]), "multiclass").tolist()
        [True, False, True]
        >>> labelled_rows(torch.tensor([[-1.0], [torch.nan]]), "regression").tolist()
        [True, False]
    """
    first = labels.flatten(1)[:, 0] if labels.ndim > 1 else labels
    return ~first.isnan() if task == "regression" else first >= 0


def tensor_digest(values: Tensor) -> str:
    """Hash of a tensor's type, shape and values."""
    content = values.detach().cpu().contiguous()
    state = hashlib.blake2b(f"{content.dtype} {tuple(content.shape)}".encode(), digest_size=16)
    state.update(content.flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def collate(samples: Any) -> Any:
    """Passes a batch from `Part.__getitems__` on as it is; collates a list of samples."""
    return default_collate(samples) if isinstance(samples, list) else samples


class EpochSampler(RandomSampler):
    """Shuffles by seed and epoch alone, as `DistributedSampler` does.

    The global random state is neither read nor changed, so a resumed run finds the order of its
    epoch again. Lightning calls `set_epoch`. Further passes within one epoch (the shorter half of
    a `CombinedLoader`, or a plain Python loop that never calls `set_epoch`) get orders of their
    own.

    Args:
        data_source: What is sampled from.
        seed: Same seed, same orders.
    """

    def __init__(self, data_source: Dataset[Any], seed: int = 0) -> None:
        super().__init__(data_source)  # type: ignore[arg-type]
        self.seed = seed
        self.epoch = 0
        self.passes = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order the next pass has."""
        if epoch != self.epoch:
            self.epoch, self.passes = epoch, 0

    def __iter__(self) -> Iterator[int]:
        # Lazy on purpose: Lightning creates the iterator of an epoch before it calls set_epoch.
        generator = seeded(self.seed, self.epoch, self.passes)
        self.passes += 1
        yield from torch.randperm(self.num_samples, generator=generator).tolist()


class ViewSampler(DistributedSampler[Any]):
    """Draws samples as `EpochSampler` does, each with different stored views, by seed, epoch and pass alone.

    It divides the samples among ranks itself: Lightning leaves a `DistributedSampler` as it is.

    Args:
        part: What is sampled from; knows how many views are stored and how many are drawn.
        seed: Same seed, same orders and views.
        shuffle: Whether the samples are shuffled; views are drawn in any case.
        ranks: Number of ranks.
        rank: Number of this one.
    """

    def __init__(self, part: Part, seed: int = 0, shuffle: bool = True, ranks: int = 1, rank: int = 0) -> None:
        super().__init__(part, ranks, rank, shuffle, seed)
        self.part = part
        self.passes = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order the next pass has."""
        if epoch != self.epoch:
            self.epoch, self.passes = epoch, 0

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        generator = seeded(self.seed, self.epoch, self.passes)
        self.passes += 1
        size, stored, drawn = len(self.part), self.part.stored_views, self.part.drawn_views
        order = torch.randperm(size, generator=generator) if self.shuffle else torch.arange(size)
        views = torch.rand(size, stored, generator=generator).argsort(1)[:, :drawn]  # different ones
        # As DistributedSampler: the first samples fill up the last round.
        mine = torch.arange(self.num_samples * self.num_replicas)[self.rank :: self.num_replicas] % size
        yield from map(tuple, torch.cat([order[mine, None], views[mine]], dim=1).tolist())


def unshard(sampler: DistributedSampler[Any]) -> None:
    """Has a sampler give all the samples from now on, not only those of its rank."""
    count = len(cast(Sized, sampler.dataset))
    sampler.num_replicas, sampler.rank, sampler.num_samples, sampler.total_size = 1, 0, count, count


def seeded(*numbers: int) -> torch.Generator:
    """A random generator of its own for any numbers, such as a seed and an epoch."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number) % 2**63
    return torch.Generator().manual_seed(mixed)
