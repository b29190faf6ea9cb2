"""What is in a data set: sizes, labels, damage, and what two splits share."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.columns.column import ColumnSamples
from lightning_mmnas.data.guard import look_at_data
from lightning_mmnas.data.samples import Samples, labelled_rows, tensor_digest
from lightning_mmnas.data.spec import Split, unscaled
from lightning_mmnas.errors import DamagedFilesError, DataError

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass
class SplitSummary:
    """One split.

    Attributes:
        samples: Number of samples, unlabelled ones included.
        unlabelled: Number of samples without a label; None where labels are off.
        groups: Number of groups; None where each sample is its own.
        labels: Samples of each class.
        duplicates: Samples, by modality, whose content another sample of the split has too.
        targets: Of a regression: least, mean, greatest and standard deviation of the targets by name.
    """

    samples: int
    unlabelled: int | None = None
    groups: int | None = None
    labels: dict[str, int] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)


@dataclass
class Overlap:
    """What two splits share.

    Attributes:
        splits: The two.
        modality: Which modality, or "group".
        count: Number of different contents (or groups) that occur in both.
        examples: Where the first of them lie, once in each split.
    """

    splits: tuple[Split, Split]
    modality: str
    count: int
    examples: list[tuple[str, str]]


@dataclass
class DataSummary:
    """A data set.

    Attributes:
        modalities: Kind, shape and type of each.
        splits: The splits that can be read.
        missing: Why the others cannot.
        damaged: Damaged files and what is wrong with them.
        overlaps: What splits share; splits should share nothing.
        looks: What looks wrong with some decoded samples; see `look_at_data`.
        notes: What was read in a way that somebody may not expect; see `MultimodalDataModule.notes`.
    """

    modalities: dict[str, dict[str, Any]]
    splits: dict[Split, SplitSummary] = field(default_factory=dict)
    missing: dict[Split, str] = field(default_factory=dict)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def summarise(data: MultimodalDataModule, advance: Callable[[int], None] = lambda done: None) -> DataSummary:
    """Reads all of a data set and says what is in it.

    Args:
        data: The data; every split that can be built is built, the test split too.
        advance: Called with the number of samples read since the last call, for a progress bar.
    """
    found = DataSummary(
        {
            name: {"kind": spec.kind, "shape": list(spec.shape), "dtype": str(spec.dtype).removeprefix("torch.")}
            for name, spec in data.modalities.items()
        }
    )
    contents: dict[Split, dict[str, dict[str, list[int]]]] = {}
    for split in SPLITS:
        try:
            data.build(split)
            samples = data.source(split)
        except DamagedFilesError as error:
            found.damaged += error.files
            continue
        except DataError as error:
            found.missing[split] = str(error)
            continue
        contents[split] = _contents(samples, list(data.modalities), found.damaged, advance)
        found.splits[split] = _split(data, samples, contents[split])
    readable = list(found.splits)
    for place, first in enumerate(readable):
        for second in readable[place + 1 :]:
            found.overlaps += _overlaps(data, first, second, contents)
    found.looks = look_at_data(data, readable)
    with suppress(DataError):  # it is among the missing or the damaged
        found.notes = data.notes
    return found


def _split(data: MultimodalDataModule, samples: Samples, contents: dict[str, dict[str, list[int]]]) -> SplitSummary:
    summary = SplitSummary(len(samples))
    if samples.groups is not None:
        summary.groups = len(set(samples.groups.tolist()))
    if data.labels and samples.labels is not None:
        labelled = labelled_rows(samples.labels, data.task)
        summary.unlabelled = int((~labelled).sum())
        if data.task == "regression":
            summary.targets = _target_range(unscaled(samples.labels[labelled], data.target_scale))
        else:
            summary.labels = _label_counts(samples.labels[labelled], data.class_names)
    for modality, places in contents.items():
        summary.duplicates[modality] = sum(len(indices) for indices in places.values() if len(indices) > 1)
    return summary


def _target_range(targets: Tensor) -> dict[str, float]:
    if not len(targets):
        return {}
    found = {"least": targets.min(), "mean": targets.mean(), "greatest": targets.max()}
    return {name: float(value) for name, value in {**found, "std": targets.std(unbiased=False)}.items()}


def _label_counts(labels: Tensor, names: list[str]) -> dict[str, int]:
    if labels.ndim == 1:
        counts = Counter(labels.tolist())
        return {name: counts.get(index, 0) for index, name in enumerate(names)}
    return dict(zip(names, map(int, labels.sum(0).tolist()), strict=True))


def _contents(
    samples: Samples, modalities: list[str], damaged: list[tuple[str, str]], advance: Callable[[int], None]
) -> dict[str, dict[str, list[int]]]:
    """Samples by the hash of their content, for each modality."""
    found: dict[str, dict[str, list[int]]] = {name: defaultdict(list) for name in modalities}
    for index in range(len(samples)):
        try:
            for name, digest in _digests(samples, modalities, index):
                found[name][digest].append(index)
        except DamagedFilesError as error:
            damaged += error.files
        advance(1)
    return found


def _digests(samples: Samples, modalities: list[str], index: int) -> Iterator[tuple[str, str]]:
    if isinstance(samples, ColumnSamples):
        yield from ((name, samples.columns[name].digest(index)) for name in modalities)
    else:
        sample = samples[index]
        yield from ((name, tensor_digest(sample[name])) for name in modalities)


def _overlaps(
    data: MultimodalDataModule, first: Split, second: Split, contents: dict[Split, dict[str, dict[str, list[int]]]]
) -> Iterator[Overlap]:
    one, other = data.source(first), data.source(second)
    for modality, places in contents[first].items():
        common = [digest for digest in places if digest in contents[second][modality]]
        if common:
            examples = [
                (_place(one, modality, places[d][0]), _place(other, modality, contents[second][modality][d][0]))
                for d in common[:3]
            ]
            yield Overlap((first, second), modality, len(common), examples)
    if one.groups is not None and other.groups is not None:
        shared = sorted(set(one.groups.tolist()) & set(other.groups.tolist()))
        if shared:
            yield Overlap((first, second), "group", len(shared), [(str(g), str(g)) for g in shared[:3]])


def _place(samples: Samples, modality: str, index: int) -> str:
    return samples.columns[modality].source(index) if isinstance(samples, ColumnSamples) else f"sample {index}"
