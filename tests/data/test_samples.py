import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_mmnas.data import EpochSampler, Part, Samples, TensorSamples
from lightning_mmnas.data.samples import collate
from lightning_mmnas.errors import DataError


class OneByOne(Samples):
    """Samples that can only be fetched one at a time, as from files."""

    def __init__(self) -> None:
        self.labels = torch.arange(6) % 2
        self.groups = torch.arange(6) // 2

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.full((2,), float(index)), "label": torch.tensor(index % 2)}


def in_memory() -> TensorSamples:
    x = torch.arange(6.0).unsqueeze(1).expand(-1, 2).contiguous()
    return TensorSamples({"x": x, "label": torch.arange(6) % 2}, torch.arange(6) // 2)


@pytest.mark.parametrize("source", [OneByOne(), in_memory()], ids=["one by one", "in memory"])
def test_part_gives_the_same_batch_by_item_and_at_once(source: Samples) -> None:
    part = Part(source, torch.tensor([5, 3, 0]), ["x"], labels=True)
    batch = part.__getitems__([2, 0])
    assert torch.equal(batch["x"], torch.stack([part[2]["x"], part[0]["x"]]))
    assert batch["x"][:, 0].tolist() == [0, 5]
    assert batch["label"].tolist() == [0, 1]
    assert part.labels is not None
    assert part.labels.tolist() == [1, 1, 0]
    assert part.groups is not None
    assert part.groups.tolist() == [2, 1, 0]
    assert part.subset(torch.tensor([1]))[0]["x"].tolist() == [3, 3]


@pytest.mark.parametrize("source", [OneByOne(), in_memory()], ids=["one by one", "in memory"])
def test_part_without_labels_has_no_label_anywhere(source: Samples) -> None:
    part = Part(source, torch.arange(6), ["x"], labels=False)
    assert set(part[0]) == {"x"}
    assert set(part.__getitems__([0, 1])) == {"x"}
    assert part.labels is None
    assert set(part.subset(torch.tensor([0]))[0]) == {"x"}


def test_collate_takes_lists_of_samples_too() -> None:
    part = Part(in_memory(), torch.arange(6), ["x"], labels=False)
    subset = torch.utils.data.Subset(part, [4, 1])
    (batch,) = DataLoader(subset, batch_size=2, collate_fn=collate)
    assert batch["x"][:, 0].tolist() == [4, 1]
    assert collate([part[0], part[1]])["x"].shape == (2, 2)


def test_tensors_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"same number of samples, got \{'x': 3, 'y': 2\}"):
        TensorSamples({"x": torch.zeros(3), "y": torch.zeros(2)})


def orders(sampler: EpochSampler, epoch: int) -> tuple[list[int], list[int]]:
    sampler.set_epoch(epoch)
    return list(sampler), list(sampler)


def test_order_depends_on_seed_epoch_and_pass_alone() -> None:
    data = in_memory()
    ran = EpochSampler(data, seed=4)
    unbroken = [orders(ran, epoch) for epoch in range(4)]
    resumed = orders(EpochSampler(data, seed=4), 3)
    assert resumed == unbroken[3]
    everything = [tuple(order) for pair in unbroken for order in pair]
    assert len(set(everything)) > 5  # 8 orders out of 720
    assert all(sorted(order) == list(range(6)) for order in everything)
    assert [orders(EpochSampler(data, seed=5), epoch) for epoch in range(4)] != unbroken


def test_iterator_made_before_set_epoch_follows_it() -> None:
    sampler = EpochSampler(in_memory(), seed=0)
    early = iter(sampler)
    sampler.set_epoch(7)
    other = EpochSampler(in_memory(), seed=0)
    other.set_epoch(7)
    assert list(early) == list(other)


def test_same_epoch_set_again_does_not_repeat_the_order() -> None:
    sampler = EpochSampler(TensorSamples({"x": torch.zeros(50)}), seed=0)
    first = list(sampler)
    sampler.set_epoch(0)  # Lightning, after workers have begun to read epoch 0
    assert list(sampler) != first
