"""ExactResume alone: loaders of every kind, failures at every place, and its messages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from lightning_mmnas.callbacks import ArchitectureAlternation, ExactResume
from lightning_mmnas.data.samples import EpochSampler
from tests.callbacks.searchers import Searcher, differences, loaders, trainer, values
from tests.callbacks.test_alternation_resume import KilledError, OnException, SaveAlways


class Noisy(Dataset[Tensor]):
    """Augments with the random generator of whichever process loads it; may fail at one item."""

    fail = False

    def __init__(self, n: int, width: int = 3) -> None:
        self.data = torch.randn(n, width, generator=torch.Generator().manual_seed(n))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        if Noisy.fail and index == 7:
            raise KilledError(index)
        return self.data[index] + 0.1 * torch.randn(self.data.shape[1])


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        yield from Noisy(13).data


class Fit(LightningModule):
    """Fits a point to two streams of points, of which one is the shorter."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(3))
        self.lr = lr

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        target = batch["long"].mean(0) + batch["short"].mean(0) * 0.5 + 0.1 * torch.randn(3)
        return (self.point - target).square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Counted(DataLoader[Tensor]):
    """A loader that saves its own place, as torchdata's StatefulDataLoader does."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset, batch_size=4)
        self.given, self.skip = 0, 0

    def __iter__(self) -> Any:
        self.given, skip, self.skip = 0, self.skip, 0
        for batch in super().__iter__():
            self.given += 1
            if self.given > skip:
                yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given % len(self)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skip = state_dict["given"]


def data(kind: str) -> CombinedLoader:
    long, short = Noisy(18), Noisy(8)
    if kind == "own state":
        pair: Any = Counted(long.data), Counted(Noisy(17).data)
    elif kind == "stream":
        pair = (
            DataLoader(Stream(), batch_size=4),
            DataLoader(short.data, batch_size=4, shuffle=True),  # type: ignore[arg-type]
        )
    elif kind == "generators":
        generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
        sampler = RandomSampler(short, replacement=True, num_samples=8, generator=generators[1])
        pair = (
            DataLoader(long, batch_size=4, shuffle=True, generator=generators[0]),
            DataLoader(short, batch_size=4, sampler=sampler),
        )
    else:
        workers: dict[str, Any] = {"none": {}, "workers": {"num_workers": 1}}[kind]
        pair = tuple(DataLoader(part, batch_size=4, shuffle=True, **workers) for part in (long, short))
    return CombinedLoader(dict(zip(("long", "short"), pair, strict=True)), "max_size_cycle")


def fit(
    root: Path, kind: str, *callbacks: Callback, checkpoint: Path | None = None, **options: Any
) -> dict[str, Tensor]:
    seed_everything(3 if checkpoint is None else 99, verbose=False)
    module = Fit()
    run = trainer(root, ExactResume(), *callbacks, **options)
    run.fit(module, data(kind), ckpt_path=checkpoint)
    return values(module)


@pytest.mark.parametrize(
    "kind",
    ["none", "generators", "stream", "own state", pytest.param("workers", marks=pytest.mark.slow)],
)
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
def test_every_kind_of_loader(kind: str, tmp_path: Path) -> None:
    save = SaveAlways(tmp_path)
    expected = fit(tmp_path, kind, save)
    paths = save.paths if kind != "workers" else save.paths[1:9:3]
    wrong = [p.name for p in paths if differences(fit(tmp_path, kind, checkpoint=p), expected)]
    assert wrong == []


def test_accumulation_that_changes(tmp_path: Path) -> None:
    """Lightning sets it at an epoch's start, which an epoch that goes on from a checkpoint has not."""

    def schedule() -> Callback:
        return GradientAccumulationScheduler({0: 2, 1: 3, 2: 1})

    save = SaveAlways(tmp_path)
    expected = fit(tmp_path, "none", schedule(), save, max_epochs=3)
    wrong = [
        p.name
        for p in save.paths
        if differences(fit(tmp_path, "none", schedule(), checkpoint=p, max_epochs=3), expected)
    ]
    assert wrong == []


def test_the_order_differs_between_epochs_and_seeds(tmp_path: Path) -> None:
    seen: list[float] = []

    class Record(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            seen.append(batch["weights"][0].sum().item())

    for seed in (1, 2, 1):
        module = Searcher()
        seed_everything(seed, verbose=False)
        trainer(tmp_path, ExactResume(), Record()).fit(module, loaders(shuffle=True))
    first, second, again = seen[:6], seen[6:12], seen[12:]
    assert first == again
    assert first != second
    assert first[:3] != first[3:]


def test_resumed_after_a_failure_to_load_data(tmp_path: Path) -> None:
    expected = fit(tmp_path, "none")
    Noisy.fail = True
    checkpoint = tmp_path / "failed.ckpt"
    with pytest.raises(KilledError):
        fit(tmp_path, "none", OnException(checkpoint))
    Noisy.fail = False
    assert not differences(fit(tmp_path, "none", checkpoint=checkpoint), expected)


class FailsIn(Callback):
    """Raises in one hook of the third batch."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self.fail)

    def fail(self, trainer: Trainer, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == 2:
            raise KilledError


@pytest.mark.parametrize(
    ("hook", "accumulate", "exact"),
    [
        ("on_before_optimizer_step", 1, False),
        ("on_after_backward", 1, True),  # the gradient is thrown away
        ("on_after_backward", 3, False),
        ("on_before_backward", 2, True),  # the first batch of its accumulation
        ("on_train_batch_start", 3, True),
    ],
)
def test_inexact_checkpoints_are_announced(
    hook: str, accumulate: int, exact: bool, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    checkpoint = tmp_path / "failed.ckpt"
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate}
    expected = fit(tmp_path, "none", **options)
    with pytest.raises(KilledError):
        fit(tmp_path, "none", FailsIn(hook), OnException(checkpoint), **options)
    announced = [w for w in recwarn if "in the middle of a weight update" in str(w.message)]
    assert len(announced) == (0 if exact else 1)
    if exact:
        resumed = fit(tmp_path, "none", checkpoint=checkpoint, **options)
        assert not differences(resumed, expected)


def test_other_loaders_are_refused(tmp_path: Path) -> None:
    save = SaveAlways(tmp_path)
    fit(tmp_path, "none", save)
    within, after = save.paths[0], next(path for path in save.paths if "epoch" in path.name)
    for path, match in ((within, "resume with the data"), (after, "resume with the loaders of the first run")):
        with pytest.raises(MisconfigurationException, match=match):
            trainer(tmp_path, ExactResume()).fit(Fit(), data("none").iterables["long"], ckpt_path=path)


def test_another_number_of_ranks_is_announced(tmp_path: Path) -> None:
    save = SaveAlways(tmp_path)
    fit(tmp_path, "none", save)
    path = tmp_path / "two.ckpt"
    checkpoint = torch.load(save.paths[0], weights_only=True)
    checkpoint["callbacks"]["ExactResume"]["random"] *= 2
    torch.save(checkpoint, path)
    with pytest.warns(UserWarning, match=r"random state of 2 rank\(s\) and this run has 1"):
        fit(tmp_path, "none", checkpoint=path)


def test_it_goes_beside_the_alternation(tmp_path: Path) -> None:
    save = SaveAlways(tmp_path)
    unbroken, resumed = Searcher(dropout=0.3), Searcher(dropout=0.3)
    run = trainer(tmp_path, ArchitectureAlternation(), ExactResume(), save)
    run.fit(unbroken, loaders(shuffle=True))
    for path in save.paths:
        run = trainer(tmp_path, ArchitectureAlternation(), ExactResume())
        run.fit(resumed, loaders(shuffle=True), ckpt_path=path)
        assert not differences(values(unbroken), values(resumed)), path


def test_a_checkpoint_is_only_weights_for_validation(tmp_path: Path) -> None:
    class Validated(Searcher):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/loss", self.loss(batch["weights"]))

    save = SaveAlways(tmp_path)
    trainer(tmp_path, ArchitectureAlternation(), save).fit(Validated(), loaders(), loaders())
    run = trainer(tmp_path, ArchitectureAlternation())
    (metrics,) = run.validate(Validated(), loaders(), ckpt_path=save.paths[-1], verbose=False)
    assert metrics["val/loss"] > 0
    modules = Validated(), Validated()  # a new search after it starts at its beginning
    run.fit(modules[0], loaders(), loaders())
    trainer(tmp_path, ArchitectureAlternation()).fit(modules[1], loaders(), loaders())
    assert not differences(values(modules[0]), values(modules[1]))


def orders(root: Path, kind: str, workers: int) -> list[Tensor]:
    """What two epochs see, and what they draw beside it."""
    seen: list[Tensor] = []

    class Record(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            seen.append(torch.cat([batch["long"].flatten(), batch["short"].flatten(), torch.rand(1)]))

    parts = [Noisy(18).data, Noisy(8).data]
    seed_everything(3, verbose=False)
    generator = torch.Generator().manual_seed(4) if kind == "shared generator" else None
    samplers = [EpochSampler(part) if kind == "epochs" else None for part in parts]  # type: ignore[arg-type]
    pair: list[Any] = [
        DataLoader(
            part,  # type: ignore[arg-type]
            batch_size=4,
            shuffle=sampler is None,
            sampler=sampler,
            generator=generator,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for part, sampler in zip(parts, samplers, strict=True)
    ]
    loader = CombinedLoader(dict(zip(("long", "short"), pair, strict=True)), "max_size_cycle")
    trainer(root, ExactResume(), Record()).fit(Fit(), loader)
    return seen


@pytest.mark.parametrize("kind", ["no generator", "shared generator", "epochs"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
def test_the_order_does_not_depend_on_the_number_of_workers(kind: str, tmp_path: Path) -> None:
    alone, with_workers = orders(tmp_path, kind, 0), orders(tmp_path, kind, 1)
    assert len(alone) == len(with_workers) == 10
    assert [i for i, (a, b) in enumerate(zip(alone, with_workers, strict=True)) if not torch.equal(a, b)] == []
