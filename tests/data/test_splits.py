import pytest
import torch

from lightning_mmnas.data import group_folds, label_budget, label_fraction, split_groups
from lightning_mmnas.errors import ConfigError, DataError


def test_split_groups_divides_everything_but_no_group() -> None:
    groups = torch.arange(40).repeat_interleave(5)
    first, second = split_groups(200, groups, 0.25, seed=3)
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(200))
    assert not set(groups[first].tolist()) & set(groups[second].tolist())
    assert len(second) == 50  # groups of 5 allow exactly a quarter


def test_split_groups_comes_as_near_as_whole_groups_allow() -> None:
    groups = torch.tensor([7] * 90 + [8] * 10)
    sizes = {len(split_groups(100, groups, 0.5, seed)[1]) for seed in range(8)}
    assert sizes == {10, 90}  # the only two ways there are


def test_split_groups_without_groups_is_exact_and_seeded() -> None:
    first, second = split_groups(100, None, 0.3, seed=0)
    assert (len(first), len(second)) == (70, 30)
    assert torch.equal(second, split_groups(100, None, 0.3, seed=0)[1])
    assert not torch.equal(second, split_groups(100, None, 0.3, seed=1)[1])


def test_split_groups_leaves_both_parts_something() -> None:
    first, second = split_groups(4, torch.tensor([0, 0, 0, 1]), 0.999, seed=0)
    assert len(first) > 0
    assert len(second) > 0
    with pytest.raises(DataError, match=r"1 group\(s\) into two parts"):
        split_groups(4, torch.zeros(4, dtype=torch.long), 0.5, seed=0)


def test_label_budget_is_exact_nested_and_differs_by_seed() -> None:
    labels = torch.arange(3).repeat(50)
    five, twenty = label_budget(labels, 5, seed=1), label_budget(labels, 20, seed=1)
    assert labels[five].bincount().tolist() == [5, 5, 5]
    assert labels[twenty].bincount().tolist() == [20, 20, 20]
    assert set(five.tolist()) < set(twenty.tolist())
    assert torch.equal(five, label_budget(labels, 5, seed=1))
    assert not torch.equal(five, label_budget(labels, 5, seed=2))
    assert len(set(twenty.tolist())) == 60


def test_label_budget_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    label_budget(torch.arange(3).repeat(5), 2, seed=1)
    split_groups(10, None, 0.5, seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_label_budget_names_the_class_that_is_too_small() -> None:
    with pytest.raises(DataError, match=r"class 'walk' has 1 training samples, fewer than labels_"):
        label_budget(torch.tensor([0, 0, 1]), 2, seed=0, class_names=["run", "walk"])
    with pytest.raises(DataError, match="class 'fly' has 0 training samples"):
        label_budget(torch.tensor([0, 1]), 1, seed=0, class_names=["run", "walk", "fly"])


def test_multi_label_budgets_are_nested_and_hold_every_class() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(200, 5, generator=generator) < torch.tensor([0.5, 0.3, 0.1, 0.02, 0.0])).long()
    small, large = (set(label_budget(labels, k, seed=3).tolist()) for k in (2, 20))
    assert len(small) == 10
    assert len(large) == 100
    assert small < large
    assert (labels[list(small)].sum(0) > 0).tolist() == [True, True, True, True, False]
    assert small != set(label_budget(labels, 2, seed=4).tolist())
    with pytest.raises(DataError, match="labels_per_class=41 of 5 classes are 205 samples, but there are 200"):
        label_budget(labels, 41, seed=0)


def test_folds_test_every_group_once_and_stay_disjoint() -> None:
    for folds in (2, 3, 5, 10):
        tested: list[int] = []
        for fold in range(folds):
            train, val, test = group_folds(range(1, 11), folds, fold)
            assert sorted(train + val + test) == list(range(1, 11))
            assert train
            assert len(val) == 1
            tested += test
        assert tested == list(range(1, 11))


@pytest.mark.parametrize(
    ("folds", "fold", "message"),
    [
        (None, 1, "fold=1 needs folds"),
        (1, 0, "folds=1 is not in 2 to 10"),
        (11, 0, "folds=11 is not in 2 to 10"),
        (5, 5, "fold=5 is not in 0 to 4"),
        (5, -1, "fold=-1 is not in 0 to 4"),
    ],
)
def test_folds_refuse(folds: int | None, fold: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        group_folds(range(1, 11), folds, fold)


def test_folds_need_three_groups() -> None:
    with pytest.raises(DataError, match="at least 3 groups"):
        group_folds([1, 2], None, 0)


def test_label_fractions_are_stratified_nested_and_hold_every_class() -> None:
    labels = torch.tensor([0] * 200 + [1] * 100 + [2] * 3)
    small, large = label_fraction(labels, 0.05, seed=1), label_fraction(labels, 0.2, seed=1)
    assert labels[small].bincount().tolist() == [10, 5, 1]
    assert labels[large].bincount().tolist() == [40, 20, 1]
    assert set(small.tolist()) <= set(large.tolist())
    assert not torch.equal(small, label_fraction(labels, 0.05, seed=2))
    assert torch.equal(label_fraction(labels, 1.0, seed=1), torch.arange(303))


def test_label_fractions_of_several_classes_hold_every_class_first() -> None:
    labels = torch.zeros(100, 3)
    labels[:, 0], labels[7, 1], labels[90, 2] = 1, 1, 1
    assert {7, 90} <= set(label_fraction(labels, 0.01, seed=0).tolist())
    assert len(label_fraction(labels, 0.2, seed=0)) == 20
    assert set(label_fraction(labels, 0.05, seed=0).tolist()) <= set(label_fraction(labels, 0.2, seed=0).tolist())


@pytest.mark.parametrize("fraction", [0.0, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_named(fraction: float) -> None:
    with pytest.raises(ConfigError, match="fraction of the labels"):
        label_fraction(torch.tensor([0, 1]), fraction, seed=0)
