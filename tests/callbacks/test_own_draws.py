"""Loaders that draw from the global random generators: resumed exactly, and divided among ranks without a remainder."""

import json
import random
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, SubsetRandomSampler, WeightedRandomSampler

from lightning_mmnas.callbacks import ExactResume
from lightning_mmnas.callbacks.generators import LoaderGenerators
from lightning_mmnas.callbacks.own_draws import OwnDrawsOfSampler
from lightning_mmnas.data.samples import EpochSampler
from tests.callbacks.searchers import trainer
from tests.callbacks.test_alternation_resume import SaveAlways
from tests.ranks import start_ranks

SAMPLES = 24


class Shuffled(Sampler[int]):
    """As users write it."""

    def __iter__(self) -> Iterator[int]:
        order = list(range(SAMPLES))
        random.shuffle(order)
        yield from order

    def __len__(self) -> int:
        return SAMPLES


class Batches(Sampler[list[int]]):
    """Draws batch by batch."""

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(len(self)):
            yield torch.randint(SAMPLES, (4,)).tolist()

    def __len__(self) -> int:
        return SAMPLES // 4


class Numbers(Dataset[Tensor]):
    """Its samples are their numbers, and one that is drawn."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Tensor:
        return torch.stack([torch.tensor(float(index)), torch.rand(())])


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        for index in np.random.permutation(SAMPLES):
            yield torch.tensor([float(index), np.random.rand()], dtype=torch.float32)


def loader(kind: str) -> Any:
    if kind == "batches":
        return DataLoader(Numbers(), batch_sampler=Batches())
    if kind in ("stream", "workers"):
        return DataLoader(Stream() if kind == "stream" else Numbers(), batch_size=4, num_workers=int(kind == "workers"))
    samplers: dict[str, Any] = {
        "shuffled": Shuffled,
        "subset": lambda: SubsetRandomSampler(range(SAMPLES)),
        "weighted": lambda: WeightedRandomSampler([1.0] * SAMPLES, SAMPLES, replacement=False),
    }
    sampler: Any = samplers[kind]()
    return DataLoader(Numbers(), batch_size=4, sampler=sampler)


class Reader(LightningModule):
    """Notes what it reads, and draws in between."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(2))
        self.read: list[list[float]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.read += batch["long"].tolist()
        return (self.point - batch["long"].mean(0) - batch["short"].mean(0) - torch.rand(2)).square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("kind", ["shuffled", "batches", "stream"])
def test_resumed_within_an_epoch(kind: str, tmp_path: Path) -> None:
    def read(*callbacks: Any, checkpoint: Path | None = None) -> list[list[float]]:
        seed_everything(3 if checkpoint is None else 99, verbose=False)
        points: Any = torch.zeros(5, 2)
        module, short = Reader(), DataLoader(points, batch_size=4, shuffle=True)
        both = CombinedLoader({"long": loader(kind), "short": short}, "max_size_cycle")
        trainer(tmp_path, ExactResume(), *callbacks).fit(module, both, ckpt_path=checkpoint, weights_only=True)
        return module.read

    saved = SaveAlways(tmp_path)
    expected = read(saved)
    numbers = [int(number) for number, _ in expected]
    assert kind == "batches" or sorted(numbers[:SAMPLES]) == sorted(numbers[SAMPLES:]) == list(range(SAMPLES))
    assert numbers[:SAMPLES] != numbers[SAMPLES:]
    for path in saved.paths:
        resumed = read(checkpoint=path)
        assert resumed == expected[len(expected) - len(resumed) :], path.name


def test_the_global_generators_are_left_alone() -> None:
    first, second = OwnDrawsOfSampler(Shuffled()), OwnDrawsOfSampler(Batches())
    second.generator = torch.Generator().manual_seed(1)
    states = random.getstate(), torch.get_rng_state()
    mixed = list(zip(first, second, strict=False))
    assert random.getstate() == states[0]
    assert not torch.equal(torch.get_rng_state(), states[1])  # one without a generator has taken one number
    assert len(mixed) == len(second) == 6
    copied = deepcopy(second)
    assert list(copied) != [batch for _, batch in mixed]
    copied.generator = torch.Generator().manual_seed(1)
    assert list(copied) == [batch for _, batch in mixed]


def _read_on_ranks(rank: int, folder: str) -> None:
    found = {}
    for kind in ("shuffled", "subset", "weighted", "workers"):
        torch.manual_seed(rank)  # ranks that stand at different numbers
        module = Reader()
        both = {"long": loader(kind), "short": loader("shuffled")}
        trainer(Path(folder), ExactResume(), devices=2, strategy="ddp").fit(module, both)
        found[kind] = module.read
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_ranks_read_every_sample_once(tmp_path: Path) -> None:
    start_ranks(_read_on_ranks, (str(tmp_path),), 2)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for kind in ranks[0]:
        for epoch in (slice(0, SAMPLES // 2), slice(SAMPLES // 2, SAMPLES)):
            read = [pair for found in ranks for pair in found[kind][epoch]]
            assert sorted(number for number, _ in read) == list(range(SAMPLES)), kind
            assert len({drawn for _, drawn in read}) == SAMPLES, kind  # augmentations, too, are different


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_that_all_read_all_samples_are_told(ranks: int) -> None:
    """Lightning has not replaced the sampler: use_distributed_sampler is False."""
    samples: Any = list(range(SAMPLES))
    loader = DataLoader(samples, sampler=EpochSampler(samples))
    loop = SimpleNamespace(_combined_loader=SimpleNamespace(flattened=[loader]))
    loop.epoch_loop = SimpleNamespace(val_loop=SimpleNamespace(_combined_loader=None))
    run: Any = SimpleNamespace(world_size=ranks, global_rank=0, fit_loop=loop, strategy=SimpleNamespace(broadcast=int))
    told = pytest.warns(UserWarning, match="every rank trains on all of them") if ranks > 1 else nullcontext()
    with told:
        LoaderGenerators().adopt(run)
