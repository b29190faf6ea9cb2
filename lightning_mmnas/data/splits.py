"""Seeded, reproducible ways to divide samples: by group, by fold, by label budget."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mmnas.errors import ConfigError, DataError


def split_groups(size: int, groups: Tensor | None, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divides samples into two disjoint parts without dividing a group.

    Windows of one recording overlap, so that a split by windows would put nearly the same signal
    into both parts. Whole groups, in a seeded random order, go to the second part until it is as
    near to `fraction` of the samples as whole groups allow. Labels play no part.

    Args:
        size: Number of samples.
        groups: Group of each sample, shape (size,); None: each sample is its own group.
        fraction: Wished share of the second part, in (0, 1).
        seed: Same seed, same parts.

    Returns:
        Indices of the first and of the second part, each ascending.

    Raises:
        DataError: There are fewer than two groups.

    Examples:
        >>> first, second = split_groups(6, torch.tensor([0, 0, 1, 1, 2, 2]), 1 / 3, seed=0)
        >>> len(first), len(second)
        (4, 2)
    """
    if groups is None:
        groups = torch.arange(size)
    names, member, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise DataError(
            f"cannot divide {size} samples of {len(names)} group(s) into two parts: "
            "a group (recording) is never divided; use more recordings or architecture_split='val'"
        )
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    sizes = counts[order].cumsum(0)[:-1]  # of the second part after 1, 2, ... groups
    taken = int((sizes - fraction * size).abs().argmin()) + 1
    in_second = torch.zeros(len(names), dtype=torch.bool)
    in_second[order[:taken]] = True
    mask = in_second[member]
    return (~mask).nonzero().flatten(), mask.nonzero().flatten()


def label_budget(labels: Tensor, per_class: int, seed: int, class_names: Sequence[str] | None = None) -> Tensor:
    """Draws `per_class` samples of every class, without replacement.

    Where samples have several classes each, so that no number per class can be exact, it draws as many samples as
    that would be in all, `per_class` times the number of classes: first one of every class that has any, the rest
    at random.

    Draws with the same seed are nested: that of 5 per class is contained in that of 20.

    Args:
        labels: Class of each sample, shape (n,), or 0 and 1 of shape (n, num_classes).
        per_class: Samples per class, > 0.
        seed: Which draw.
        class_names: All the classes, in order; default: the classes that occur.

    Returns:
        Indices of the drawn samples, ascending.

    Raises:
        DataError: A class has fewer samples than asked for, or there are fewer in all.

    Examples:
        >>> label_budget(torch.tensor([0, 0, 1, 1]), 1, seed=0).shape
        torch.Size([2])
    """
    if labels.ndim != 1:
        wanted = per_class * labels.shape[1]
        if wanted > len(labels):
            raise DataError(
                f"labels_per_class={per_class} of {labels.shape[1]} classes are {wanted} samples, but there are "
                f"{len(labels)} training samples; ask for fewer, or for all labels (null; 'all' in comparison.yaml)"
            )
        return _multilabel_draw(labels, wanted, seed)
    classes = range(len(class_names)) if class_names else torch.unique(labels).tolist()
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for index in classes:
        members = (labels == index).nonzero().flatten()
        if len(members) < per_class:
            name = class_names[index] if class_names else index
            raise DataError(
                f"class {name!r} has {len(members)} training samples, fewer than "
                f"labels_per_class={per_class}; ask for fewer, or for all labels (null; 'all' in comparison.yaml)"
            )
        drawn.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    return torch.cat(drawn).sort().values


def label_total(size: int, total: int, seed: int) -> Tensor:
    """Draws `total` of some labelled samples at random, without replacement; draws with the same seed are nested.

    Args:
        size: Number of labelled samples.
        total: How many are drawn, > 0.
        seed: Which draw.

    Returns:
        Indices of the drawn samples, ascending.

    Raises:
        DataError: There are fewer.

    Examples:
        >>> few, more = label_total(9, 2, seed=0), label_total(9, 4, seed=0)
        >>> len(few), set(few.tolist()) < set(more.tolist())
        (2, True)
    """
    if total > size:
        raise DataError(
            f"labels_total={total} samples are more than the {size} labelled training samples; ask for fewer, or for "
            "all labels (null; 'all' in comparison.yaml)"
        )
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:total].sort().values


def label_fraction(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Draws a share of the samples, without replacement, of every class the same, and at least one sample of each.

    Where samples have several classes each: first one of every class that has any, the rest at random. Draws with the
    same seed are nested.

    Args:
        labels: Class of each sample, shape (n,), or 0 and 1 of shape (n, num_classes).
        fraction: In (0, 1].
        seed: Which draw.

    Returns:
        Indices of the drawn samples, ascending.

    Raises:
        ConfigError: The fraction is out of range.

    Examples:
        >>> label_fraction(torch.tensor([0] * 90 + [1] * 10), 0.1, seed=0).lt(90).sum()
        tensor(9)
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"a fraction of the labels must be in (0, 1], got {fraction}")
    if labels.ndim != 1:
        return _multilabel_draw(labels, max(1, round(fraction * len(labels))), seed)
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for index in torch.unique(labels).tolist():
        members = (labels == index).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        drawn.append(members[order[: max(1, round(fraction * len(members)))]])
    return torch.cat(drawn).sort().values


def _multilabel_draw(labels: Tensor, wanted: int, seed: int) -> Tensor:
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    shuffled = labels[order] > 0
    firsts = [int(column.nonzero()[0]) for column in shuffled.T if bool(column.any())]
    places = list(dict.fromkeys([*firsts, *range(len(order))]))
    return order[places[: max(wanted, len(set(firsts)))]].sort().values


def group_folds(groups: Sequence[int], folds: int | None, fold: int) -> tuple[list[int], list[int], list[int]]:
    """Divides groups (subjects) into training, validation and test groups.

    Without folds: of the sorted groups the last 3 tenths are for test, the tenth before them is
    for validation. With k folds: the sorted groups are cut into k runs; run `fold` is for test
    and the first group of the next run for validation, so that every group is tested once.

    Args:
        groups: The groups there are, each once.
        folds: Number of folds k, from 2 to the number of groups, or None.
        fold: Which fold, from 0 to k - 1; 0 without folds.

    Returns:
        Training, validation and test groups.

    Raises:
        ConfigError: `folds` or `fold` is out of range.
        DataError: There are fewer than three groups.

    Examples:
        >>> group_folds(range(1, 11), None, 0)
        ([1, 2, 3, 4, 5, 6], [7], [8, 9, 10])
        >>> group_folds(range(1, 11), 5, 4)
        ([2, 3, 4, 5, 6, 7, 8], [1], [9, 10])
    """
    ordered = sorted(groups)
    n = len(ordered)
    if n < 3:
        raise DataError(f"training, validation and test need at least 3 groups, got {ordered}")
    if folds is None:
        if fold != 0:
            raise ConfigError(f"fold={fold} needs folds; check data.init_args.folds")
        test, val = max(1, n * 3 // 10), max(1, n // 10)
        return ordered[: n - test - val], ordered[n - test - val : n - test], ordered[n - test :]
    if not 2 <= folds <= n:
        raise ConfigError(f"folds={folds} is not in 2 to {n}; check data.init_args.folds")
    if not 0 <= fold < folds:
        raise ConfigError(f"fold={fold} is not in 0 to {folds - 1}; check data.init_args.fold")
    runs = [ordered[i * n // folds : (i + 1) * n // folds] for i in range(folds)]
    test_groups, val_groups = runs[fold], runs[(fold + 1) % folds][:1]
    train = [group for group in ordered if group not in (*test_groups, *val_groups)]
    if not train:
        raise DataError(f"fold {fold} of {folds} leaves no group of {ordered} for training")
    return train, val_groups, test_groups
