"""Whoever reads loaders by hand gives the module what the loop would: types, hooks, device."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from torch import Tensor

from lightning_mmnas import (
    ArchitectureAlternation,
    FeatureCaching,
    FineTuning,
    FusionPretraining,
    FusionSearch,
    GenotypeSelection,
    TensorDataModule,
)
from lightning_mmnas.callbacks.progress import quiet
from lightning_mmnas.commands.deliver import deliver
from lightning_mmnas.commands.sampled_search import open_stage
from lightning_mmnas.comparison.comparison import Comparison
from lightning_mmnas.comparison.settings import ComparisonSettings
from lightning_mmnas.errors import CacheError, ModelError
from lightning_mmnas.modules.transfer import BatchTransfer
from lightning_mmnas.space.genotype import Genotype
from tests.callbacks.test_caching import KINDS, Levels, data_of, parts, search_of, split_of
from tests.modules.tiny import trainer_of
from tests.sampling.toys import CONFIG, TinyData


def doubled(batch: Any) -> Any:
    """Twice the samples, in place as many hooks work; of a search, of both parts."""
    for part in batch.values() if "weights" in batch else [batch]:
        for name in KINDS:
            part[name].mul_(2)
    return batch


class Doubling(TensorDataModule):
    """Doubles on the device, and notes in which stage."""

    training: list[bool]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert self.trainer is not None
        self.training = [*getattr(self, "training", []), self.trainer.training]
        return doubled(batch)


class DoublingSearch(FusionSearch):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return doubled(batch)


def halved(kind: type[TensorDataModule] = Doubling, **changes: Any) -> TensorDataModule:
    splits = [split_of(size, i) for i, size in enumerate((48, 16, 16))]
    for split in splits:
        for name in KINDS:
            split[name] /= 2
    settings: dict[str, Any] = {"kinds": KINDS, "batch_size": 8, "labels": False, "architecture_fraction": 0.5}
    return kind(*splits, **{**settings, **changes})


def searched(folder: Path, data: TensorDataModule, module: LightningModule, cache: bool, **options: Any) -> str:
    """What a search with a selection has written."""
    precision = options.pop("precision", "32-true")
    torch.manual_seed(0)
    caching = [FeatureCaching(str(folder / "features"), views=2)] if cache else []
    selection = GenotypeSelection(str(folder / "genotype.json"), num_candidates=2, steps=2)
    callbacks = [ArchitectureAlternation(lr=0.1, **options), *caching, selection]
    trainer_of(folder, callbacks=callbacks, precision=precision).fit(module, datamodule=data)
    return (folder / "genotype.selection.json").read_text()


@pytest.mark.filterwarnings("ignore:You have overridden `on_before_batch_transfer` in")
@pytest.mark.parametrize(
    ("cache", "schedule", "owner"),
    [(False, "step", "data"), (False, "epoch", "data"), (True, "step", "data"), (False, "epoch", "module")],
)
def test_a_hook_counts_everywhere(cache: bool, schedule: str, owner: str, tmp_path: Path) -> None:
    if owner == "data":
        hooked = halved(), search_of(modality_dropout=0.0)
    else:
        torch.manual_seed(0)
        sizes: dict[str, Any] = {
            "channels": 4,
            "length": 4,
            "projection_hidden": 8,
            "projection_out": 4,
            "modality_dropout": 0.0,
        }
        hooked = halved(TensorDataModule), DoublingSearch(data_of().modalities, **sizes, **parts())
    found = searched(tmp_path / "hook", *hooked, cache, schedule=schedule)
    assert found == searched(tmp_path / "plain", data_of(), search_of(modality_dropout=0.0), cache, schedule=schedule)
    if isinstance(hooked[0], Doubling):
        assert set(hooked[0].training) == {True, False}  # False: the validation split


def test_a_cache_without_the_hook_is_not_read_with_it(tmp_path: Path) -> None:
    searched(tmp_path, halved(TensorDataModule), search_of(), True)
    with pytest.raises(CacheError, match="batch transfer hooks"):
        searched(tmp_path, halved(), search_of(), True)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed"])
@pytest.mark.parametrize("cache", [False, True])
def test_every_precision(precision: Any, cache: bool, tmp_path: Path) -> None:
    types: set[torch.dtype] = set()

    class Typed(Levels):
        def forward(self, x: Tensor) -> list[Tensor]:
            types.add(x.dtype)
            return super().forward(x)

    module = search_of(encoders={"motion": Typed, "features": Typed}, schedule="constant", lr=1e-4)
    record = json.loads(searched(tmp_path, halved(), module, cache, precision=precision))
    assert len(record["candidates"]) == 2
    wanted = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
    assert types == {torch.float32 if cache else wanted.get(precision, torch.float32)}


def stages(data: TensorDataModule, genotype: Genotype) -> tuple[FusionPretraining, FineTuning]:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"projection_hidden": 8, "projection_out": 4}
    first = FusionPretraining(data.modalities, genotype=genotype, **parts(), **sizes)
    return first, FineTuning(data.modalities, num_classes=2, task="multiclass", genotype=genotype, **parts())


@pytest.mark.slow
def test_comparison_and_convex_start(tmp_path: Path) -> None:
    genotype = search_of().space.sample(torch.Generator().manual_seed(0))
    budgets = ComparisonSettings(labels_per_class=(2,), draws=1, random_architectures=1, steps=2, steps_all=2)
    found: list[Any] = []
    for make in (halved, data_of):
        data = [make(labels=labels, architecture_fraction=None) for labels in (False, True)]
        data[0].setup("fit")
        first, second = stages(data[0], genotype)
        for stage in (first, second):
            stage.trainer = trainer_of(tmp_path)
        found.append(Comparison(first, second, data[0], data[1], 2, budgets, 0).run())
        assert data[1].trainer is None
        trainer = trainer_of(tmp_path, limit_train_batches=1, limit_val_batches=0)
        assert second.mixture is not None
        second.mixture.fitted.fill_(False)
        trainer.fit(second, datamodule=data[1])
        found[-1].append(second.mixture.shares.tolist())
        found[-1].append(second.mixture.linear.weight.tolist())
    assert found[0] == found[1]


def test_an_untrained_module_works_in_its_own_type(tmp_path: Path) -> None:
    module, data = search_of(), halved()
    assert isinstance(data, Doubling)
    module.trainer = trainer_of(tmp_path, precision="bf16-true")
    data.setup("fit")
    loader: Any = data.train_dataloader()
    transfer = BatchTransfer(module, data)
    batches = transfer.loader(loader.iterables["weights"], "weights")
    with transfer.context():
        assert torch.get_default_dtype() == torch.float32
    for _ in range(2):
        for batch in batches:
            assert batch["left"].dtype == torch.float32
    assert data.training == [True] * 6
    assert data.trainer is None
    assert module.trainer.precision == "bf16-true"


class DoublingToys(TinyData):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        for part in batch.values() if "weights" in batch else [batch]:
            part["crisp"].mul_(2)
        return batch


def test_search_without_gradients(tmp_path: Path) -> None:
    found = []
    for kind in ("tests.modules.test_transfer.DoublingToys", "tests.sampling.toys.TinyData"):
        path = tmp_path / "search.yaml"
        path.write_text(CONFIG.replace("tests.sampling.toys.TinyData", kind))
        with quiet():
            stage = open_stage(["--config", str(path), "--run_dir", str(tmp_path), "--trainer.precision=64-true"])
        found.append([next(iter(stage.loaders()[part]))["crisp"] for part in ("weights", "architecture")])
    assert all(torch.equal(first, 2 * second) for first, second in zip(*found, strict=True))


def test_such_a_model_is_not_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genotype = search_of().space.sample(torch.Generator().manual_seed(0))
    data = halved(labels=True, architecture_fraction=None)

    class Built:
        def __init__(self, *args: Any, **options: Any) -> None:
            self.model, self.datamodule = stages(data, genotype)[1], data

    monkeypatch.setattr("lightning_mmnas.commands.deliver.MMNASCLI", Built)
    with pytest.raises(ModelError, match="on_after_batch_transfer of Doubling or FineTuning would not be in it"):
        deliver([], tmp_path, {})
