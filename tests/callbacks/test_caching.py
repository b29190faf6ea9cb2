"""Features computed once: the same losses as on the fly, nothing stale, nothing half built."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from lightning_mmnas import (
    ArchitectureAlternation,
    FeatureCaching,
    FineTuning,
    FusionPretraining,
    FusionSearch,
    FusionSpace,
    GenotypeSelection,
    TensorDataModule,
)
from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.encoders.base import Encoder
from tests.modules.tiny import trainer_of
from tests.ranks import run_on_two_ranks

KINDS: dict[str, Any] = {"left": "motion", "right": "motion", "facts": "features"}
WIDTHS = {"left": (3, 20), "right": (3, 14, 10), "facts": (5,)}


class Levels(Encoder):
    """Lengths that no input node divides, a feature of two axes, and a vector; a batch norm in eval mode."""

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__()
        self.channels = spec.shape[0]
        self.spread = nn.Linear(self.channels, 6)
        self.norm = nn.BatchNorm1d(6)
        self.rest = tuple(spec.shape[1:])

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        return [(self.channels, *self.rest), (6,)]

    def forward(self, x: Tensor) -> list[Tensor]:
        mean = x.flatten(2).mean(2) if x.ndim > 2 else x
        return [torch.tanh(x), self.norm(self.spread(mean))]


class Same(nn.Module):
    """A view that is the sample, and a random number that nobody needs."""

    def __init__(self, strength: float = 0.0) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        return x + self.strength * torch.randn_like(x) if self.strength else x


def split_of(size: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(size) % 2
    values = {n: torch.randn(size, *s, generator=generator) + label.view(-1, *[1] * len(s)) for n, s in WIDTHS.items()}
    return {**values, "label": label}


def data_of(seed: int = 0, **changes: Any) -> TensorDataModule:
    settings: dict[str, Any] = {"kinds": KINDS, "batch_size": 8, "labels": False, "architecture_fraction": 0.5}
    splits = [split_of(size, seed + i) for i, size in enumerate((48, 16, 16))]
    return TensorDataModule(*splits, **{**settings, **changes})


def parts(strength: float = 0.0) -> dict[str, Any]:
    views = {"motion": Same(strength), "features": Same(strength)}
    return {"encoders": {"motion": Levels, "features": Levels}, "augmentations": views}


def search_of(strength: float = 0.0, **changes: Any) -> FusionSearch:
    torch.manual_seed(0)
    settings = {"channels": 4, "length": 4, "projection_hidden": 8, "projection_out": 4, **parts(strength), **changes}
    return FusionSearch(data_of().modalities, **settings)


class Losses(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.values.append(float(outputs["loss"]))


def fit(folder: Path, module: LightningModule, data: TensorDataModule, *callbacks: Callback, **options: Any) -> Any:
    seed_everything(3, verbose=False)
    losses = Losses()
    settings: dict[str, Any] = {"max_epochs": 2, "limit_val_batches": 0, **options}
    trainer = trainer_of(folder, callbacks=[losses, *callbacks], **settings)
    trainer.fit(module, datamodule=data)
    return losses.values


def stored(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def build(folder: Path, module: LightningModule | None = None, seed: int = 0, **options: Any) -> TensorDataModule:
    data = data_of(seed)
    data.setup("fit")
    options = {"views": 3, "dtype": "float32", **options}
    FeatureCaching(str(folder), **options).prepare(module or search_of(0.1), data, ["train"])
    return data


@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize(
    ("readout", "grid"), [("pool", "auto"), ("branch", "line"), ("neck", "square"), ("flatten", "auto")]
)
def test_search_has_the_same_losses_as_on_the_fly(
    tmp_path: Path, pool: Literal["max", "avg"], readout: Any, grid: Any
) -> None:
    # Small rates: Adam turns the last bit of a gradient that should be zero into a whole step.
    options = {"pool": pool, "grid": grid, "readout": readout, "modality_dropout": 0.7, "lr": 1e-6, "temperature": 1.0}
    raw = fit(tmp_path, search_of(**options), data_of(), ArchitectureAlternation(lr=1e-5))
    caching = FeatureCaching(str(tmp_path / "features"), views=2, dtype="float32")
    cached = fit(tmp_path, search_of(**options), data_of(), caching, ArchitectureAlternation(lr=1e-5))
    assert len(raw) == 6
    assert raw == pytest.approx(cached, abs=1e-5)


@pytest.mark.filterwarnings("ignore:No ArchitectureAlternation")
def test_half_precision_is_close(tmp_path: Path) -> None:
    raw = fit(tmp_path, search_of(lr=1e-6, temperature=1.0), data_of())
    cached = fit(
        tmp_path, search_of(lr=1e-6, temperature=1.0), data_of(), FeatureCaching(str(tmp_path / "features"), views=2)
    )
    assert raw != cached
    assert raw == pytest.approx(cached, abs=2e-2)


def test_architecture_on_the_validation_split_and_selection(tmp_path: Path) -> None:
    data = data_of(architecture_fraction=None, architecture_split="val")
    selection = GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=2, steps=2)
    fit(tmp_path, search_of(0.1), data, FeatureCaching(str(tmp_path / "f")), selection, ArchitectureAlternation())
    assert (tmp_path / "genotype.json").is_file()
    assert sorted(p.name for p in (tmp_path / "f").glob("*/*")) == ["means", "plain", "plain", "views", "views"]


def finetuning_of(**changes: Any) -> FineTuning:
    torch.manual_seed(0)
    inputs = tuple(f"{name}/{level}" for name in KINDS for level in (0, 1))
    genotype = FusionSpace(inputs=inputs, channels=4, length=4).sample(torch.Generator().manual_seed(0))
    return FineTuning(data_of().modalities, num_classes=2, task="multiclass", genotype=genotype, **parts(), **changes)


@pytest.mark.parametrize("augment", [True, False])
def test_fine_tuning_validates_and_tests_as_on_the_fly(tmp_path: Path, augment: bool) -> None:
    found = []
    for callbacks in ([], [FeatureCaching(str(tmp_path / "f"), views=2, dtype="float32")]):
        module, data = (
            finetuning_of(augment=augment, lr=1e-6, head_lr=1e-6),
            data_of(labels=True, architecture_fraction=None),
        )
        seed_everything(0, verbose=False)
        trainer = trainer_of(tmp_path, callbacks=callbacks)
        trainer.fit(module, datamodule=data)
        validated = float(trainer.callback_metrics["val/loss"])
        tested_before = (tmp_path / "f" / "test").exists()
        trainer.test(module, datamodule=data, verbose=False)
        found.append((validated, float(trainer.callback_metrics["test/f1_macro"])))
        assert not tested_before
    assert found[0] == pytest.approx(found[1], abs=1e-5)


@pytest.mark.filterwarnings("ignore:No ArchitectureAlternation")
def test_pretraining_reads_the_views_of_the_search(tmp_path: Path) -> None:
    fit(tmp_path, search_of(0.1), data_of(), FeatureCaching(str(tmp_path / "f"), views=3))
    before = stored(tmp_path / "f")
    genotype = search_of().space.sample(torch.Generator().manual_seed(0))
    torch.manual_seed(0)  # the encoders of the search
    search = search_of(0.1)
    module = FusionPretraining(data_of().modalities, genotype=genotype, **parts(0.1))
    module.encoders.load_state_dict(search.encoders.state_dict())
    data = data_of(architecture_fraction=None)
    fit(tmp_path, module, data, FeatureCaching(str(tmp_path / "f"), views=3), limit_val_batches=1)
    after = stored(tmp_path / "f")
    assert {name: after[name] for name in before} == before
    assert {name.partition("/")[0] for name in after.keys() - before.keys()} == {"val"}


def test_views_are_drawn_different_in_every_epoch_and_the_same_with_workers(tmp_path: Path) -> None:
    batches = []
    for workers in (0, 2):
        data = build(tmp_path / "f")
        data.num_workers, data.architecture_fraction = workers, None
        loader: Any = data.train_dataloader()
        batches.append([batch["left/0"] for _ in range(2) for batch in loader])
        del loader
    assert batches[0][0].shape == (8, 2, 3, 4)
    for first, second in zip(*batches, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not any(torch.equal(batch[:, 0], batch[:, 1]) for batch in batches[0])
    assert not torch.equal(batches[0][0], batches[0][6])


def test_an_interrupted_search_over_features_ends_bit_identical(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    ends = []
    for path in (None, tmp_path / "stopped.ckpt"):
        seed_everything(3 if path is None else 99, verbose=False)
        module = search_of(0.1, dropout=0.1)
        callbacks = [FeatureCaching(str(tmp_path / "f"), views=4), ArchitectureAlternation(lr=0.1)]
        callbacks += [Stop()] if path is None else []
        trainer = trainer_of(tmp_path, callbacks=callbacks, max_epochs=3, limit_val_batches=0)
        trainer.fit(module, datamodule=data_of(), ckpt_path=path, weights_only=True)
        ends.append(module.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=0, atol=0)


@pytest.mark.slow
def test_two_ranks_write_the_bytes_of_one_and_search_on_them(tmp_path: Path) -> None:
    run_on_two_ranks("tests.callbacks.ddp_caching", tmp_path)
    from tests.callbacks.ddp_caching import small_shards

    with small_shards():
        build(tmp_path / "one", views=3, batch_size=8)
    assert stored(tmp_path / "two") == stored(tmp_path / "one")
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert len(set(ranks[0]["rows"] + ranks[1]["rows"])) == len(ranks[0]["rows"] + ranks[1]["rows"])
    looked_at = [set(rank["looked at"]) for rank in ranks]  # a cache may be large: no rank reads the other's share
    assert looked_at[0]
    assert not looked_at[0] & looked_at[1]
    assert ranks[0]["written"] > 0
    assert ranks[1]["written"] > 0
    for name, value in ranks[0]["state"].items():
        torch.testing.assert_close(value, ranks[1]["state"][name], rtol=0, atol=0)


def test_a_trial_stores_nothing(tmp_path: Path) -> None:
    class Counted(Levels):
        samples = 0

        def forward(self, x: Tensor) -> list[Tensor]:
            Counted.samples += len(x)
            return super().forward(x)

    module = search_of(encoders={"motion": Counted, "features": Counted})
    Counted.samples = 0
    found = GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=2)
    caching, alternation = FeatureCaching(str(tmp_path / "features")), ArchitectureAlternation(warmup_epochs=1)
    trainer = trainer_of(tmp_path, callbacks=[caching, alternation, found], fast_dev_run=True)
    trainer.fit(module, datamodule=data_of())
    assert not (tmp_path / "features").exists()
    # Of 3 modalities, two views of 8 samples: both parts in training, validation, one step and one score of candidates.
    assert Counted.samples == 3 * 2 * 8 * (2 + 1 + 2)
