"""Fine-tuning beside logistic regression: no labels are too few, a checkpoint holds all, two ranks fit as one."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_mmnas import ExactResume, FineTuning, FusionPretraining, FusionSpace, Genotype, TensorDataModule
from lightning_mmnas.comparison.logistic import logistic_rivals
from lightning_mmnas.comparison.starts import mixture_start
from lightning_mmnas.data.samples import Part, collate
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.fusion.readout import LateFeatures
from lightning_mmnas.objectives.logistic import choose_logistic
from lightning_mmnas.objectives.mixture import choose_linear
from lightning_mmnas.objectives.training import build_optimizer, train_together
from tests.modules.tiny import ENCODERS, KINDS, data_of, modalities, same, split_of, state_of, trainer_of
from tests.ranks import start_ranks

SPACE = FusionSpace(inputs=("left/0", "left/1", "right/0", "right/1"), channels=4, length=2)


def genotype() -> Genotype:
    return SPACE.sample(torch.Generator().manual_seed(0))


def stage(**changes: Any) -> FineTuning:
    seed_everything(0, verbose=False)
    settings: dict[str, Any] = {"num_classes": 2, "task": "multiclass", "genotype": genotype()}
    return FineTuning(modalities(), ENCODERS, **{**settings, **changes})


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pretrained")
    seed_everything(0, verbose=False)
    module = FusionPretraining(modalities(), ENCODERS, genotype=genotype(), projection_hidden=8, projection_out=4)
    trainer = trainer_of(folder)
    trainer.fit(module, data_of())
    trainer.save_checkpoint(folder / "pretrain.ckpt")
    # The encoders are made anew by every stage: the same seed gives the same.
    return str(folder / "pretrain.ckpt")


def test_it_starts_at_logistic_regression_on_the_labels_at_hand(tmp_path: Path, pretrained: str) -> None:
    module = stage(network_weights=pretrained, lr=1e-12, weight_decay=0.0, augment=False)
    assert module.mixture is not None
    assert (float(module.mixture.interpolation), module.head_lr) == (0.5, 1e-12)
    network = state_of(module.network)
    data = data_of(labels=True)
    trainer_of(tmp_path).fit(module, data)
    batch = data.tensors("train")
    features = module.encoders(batch)
    shapes = module.encoders.feature_shapes
    raw = choose_logistic(LateFeatures(list(shapes), shapes)(features), batch["label"], 2)
    torch.testing.assert_close(module.mixture.linear.weight, raw.weight.float(), rtol=1e-3, atol=1e-5)
    reference = stage(network_weights=pretrained).network.eval()
    assert same(network, state_of(reference))
    with torch.no_grad():
        vectors = reference(features)
        probe = choose_logistic(vectors, batch["label"], 2)
        start: Any = module.mixture.start
        found = start["classifier"](vectors)
    torch.testing.assert_close(found, probe(vectors).float(), rtol=1e-3, atol=1e-3)


def test_the_comparison_starts_where_the_stage_does(tmp_path: Path, pretrained: str) -> None:
    # Batch norms without statistics take them batch by batch, and the batches differ.
    for weights, tolerance in ((pretrained, 1e-3), (None, 0.2)):
        module = stage(network_weights=weights, lr=1e-12, weight_decay=0.0, augment=False)
        network = stage(network_weights=weights).network
        data = data_of(labels=True)
        trainer_of(tmp_path).fit(module, data)
        assert module.mixture is not None
        train = data.tensors("train")
        features = module.encoders(train)
        regression = logistic_rivals(features, train["label"], None, module.encoders.feature_shapes, 2, 0)
        interpolation = 0.5 if weights else None
        built = mixture_start(
            network, regression["raw_features"], features, train["label"], None, 2, 0, interpolation, 0.5
        )
        assert built.mixture is not None
        torch.testing.assert_close(built.mixture.shares, module.mixture.shares, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(built.mixture.linear.weight, module.mixture.linear.weight, rtol=1e-3, atol=1e-5)
        first, second = built.mixture.start.state_dict(), module.mixture.start.state_dict()
        for name, value in first.items():
            if not name.endswith("num_batches_tracked"):
                torch.testing.assert_close(value, second[name], rtol=tolerance, atol=tolerance)
        if weights is None:
            assert module.mixture.interpolation == built.mixture.interpolation == 1.0


def test_the_stage_delivers_what_the_comparison_scores(tmp_path: Path, pretrained: str) -> None:
    """All samples in one batch, so that the order does not matter; no dropout, no views."""
    settings: dict[str, Any] = {"network_weights": pretrained, "augment": False, "head_dropout": 0.0, "lr": 1e-2}
    module, steps = stage(**settings), 5
    network = stage(**settings).network
    data = data_of(labels=True, batch_size=32)
    trainer_of(tmp_path, max_epochs=steps).fit(module, data)
    train = data.tensors("train")
    features = module.encoders(train)
    regression = logistic_rivals(features, train["label"], None, module.encoders.feature_shapes, 2, 0)["raw_features"]
    rival = mixture_start(network, regression, features, train["label"], None, 2, 0, 0.5, 0.0)
    begin = state_of(rival.network)
    groups = [
        {"params": list(part.parameters()), "lr": rate}
        for part, rate in ((rival.classifier, module.head_lr), (rival.network, module.lr))
    ]
    train_together(
        {"rival": rival},
        [(features, train["label"])] * steps,
        lambda labelled: build_optimizer(groups, module.weight_decay, module.schedule, steps),
    )
    assert module.mixture is not None
    assert rival.mixture is not None
    torch.testing.assert_close(module.mixture.shares, rival.mixture.shares)
    torch.testing.assert_close(module.classifier.weight, rival.classifier.weight)
    compared = 0
    for (name, value), other in zip(rival.network.named_parameters(), module.network.parameters(), strict=True):
        # In front of batch norm a bias has no gradient but rounding, of which Adam makes whole steps.
        if not name.endswith((".linear.bias", ".late.0.bias")):
            # Adam makes steps of rounding errors where a gradient is nothing else.
            torch.testing.assert_close(other, value, rtol=1e-4, atol=3e-4)
            assert (value - begin[name]).abs().max() > 1e-3
            compared += 1
    assert compared > 10


def test_a_checkpoint_holds_the_whole_model_and_resumes_without_a_new_start(tmp_path: Path, pretrained: str) -> None:
    module = stage(network_weights=pretrained, schedule="constant")
    trainer = trainer_of(tmp_path, max_epochs=2, callbacks=[ExactResume()])
    trainer.fit(module, data_of(labels=True))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    whole = stage(network_weights=pretrained, schedule="constant")
    trainer_of(tmp_path, max_epochs=2, callbacks=[ExactResume()]).fit(whole, data_of(labels=True))
    assert same(state_of(module), state_of(whole))

    other = stage()
    tester = trainer_of(tmp_path, callbacks=[ExactResume()])
    tester.test(other, data_of(labels=True), ckpt_path=str(tmp_path / "half.ckpt"), verbose=False)
    batch = split_of(16, 2)
    with torch.no_grad():
        assert torch.equal(other.eval()(batch), module.eval()(batch))

    resumed = stage(network_weights=pretrained, schedule="constant")
    longer = trainer_of(tmp_path, max_epochs=3, callbacks=[ExactResume()])
    assert module.mixture is not None
    start = state_of(module.mixture)
    longer.fit(resumed, data_of(labels=True), ckpt_path=str(tmp_path / "half.ckpt"))
    assert resumed.mixture is not None
    assert same(start, state_of(resumed.mixture))
    assert not same(state_of(module.network), state_of(resumed.network))


def splits_of(labels: Tensor, constant: bool = False) -> dict[str, Any]:
    tensors = split_of(len(labels), 0)
    if constant:
        tensors["left"] = torch.ones_like(tensors["left"])
    return {"train": {**tensors, "label": labels}, "val": split_of(8, 1), "test": split_of(8, 2)}


@pytest.mark.parametrize(
    ("labels", "constant"),
    [
        (torch.tensor([0, 1]), False),  # fewer samples than folds
        (torch.tensor([0, 0, 0, 0, 0, 1]), False),  # a class with one sample
        (torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]), True),  # features that are constant
    ],
)
def test_few_labels(tmp_path: Path, labels: Tensor, constant: bool) -> None:
    data = TensorDataModule(**splits_of(labels, constant), kinds=KINDS, batch_size=4)
    module = stage(num_classes=3)  # the third never occurs
    trainer = trainer_of(tmp_path, max_epochs=2)
    trainer.fit(module, data)
    with torch.no_grad():
        logits = module.eval()(data.tensors("val"))
    assert bool(logits.isfinite().all())
    assert 2 not in logits.argmax(1)


def test_one_modality_and_several_labels_one_of_them_never(tmp_path: Path) -> None:
    splits: dict[str, Any] = {}
    for number, name in enumerate(("train", "val", "test")):
        tensors = split_of(24, number)
        positive = tensors["label"] > 0
        tensors["label"] = torch.stack([positive, ~positive, torch.zeros(24, dtype=torch.bool)], dim=1).long()
        splits[name] = tensors
    data = TensorDataModule(**splits, kinds=KINDS, modalities=["right"], batch_size=8)
    space = FusionSpace(inputs=("right/0", "right/1"), channels=4, length=2)
    seed_everything(0, verbose=False)
    module = FineTuning(
        data.modalities, ENCODERS, 3, "multilabel", genotype=space.sample(torch.Generator().manual_seed(0))
    )
    trainer = trainer_of(tmp_path, max_epochs=3)
    trainer.fit(module, data)
    found = trainer.test(module, data, verbose=False)[0]
    assert found["test/f1_weighted_tuned"] > 0.8
    with torch.no_grad():
        assert float(module.eval()(data.tensors("val"))[:, 2].sigmoid().max()) < 0.2


class Stream(IterableDataset[dict[str, Tensor]]):
    def __iter__(self) -> Any:
        yield from (split_of(8, i) for i in range(2))


class Whole(Dataset[dict[str, Tensor]]):
    """Its items are batches."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return split_of(8, index)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"interpolation must be in \[0, 1\], got 1.5"):
        stage(interpolation=1.5)
    with pytest.raises(ConfigError, match=r"head_dropout must be in \[0, 1\), got 1.0"):
        stage(head_dropout=1.0)
    assert stage(mode="linear_probe").head_dropout.p == 0
    data = data_of(labels=True)
    data.setup("fit")
    stream, val = DataLoader(Stream(), batch_size=None), data.val_dataloader()
    with pytest.raises(ConfigError, match=r'set model\.init_args\.mode to "full"'):
        trainer_of(tmp_path, limit_train_batches=2).fit(stage(), stream, val)
    trainer_of(tmp_path, limit_train_batches=2).fit(stage(mode="full"), stream, val)  # the same data serve here
    whole = DataLoader(Whole(), batch_size=None)
    with pytest.raises(ConfigError, match=r"dataset of single samples .* model\.init_args\.mode to \"full\""):
        trainer_of(tmp_path).fit(stage(), whole, val)
    trainer_of(tmp_path).fit(stage(mode="full"), whole, val)
    with pytest.raises(DataError, match=r"needs a 'label' in every batch, which has \['left', 'right'\]: set data"):
        trainer_of(tmp_path).fit(stage(mode="full"), data_of(labels=False))


def test_a_batch_sampler_of_one_s_own(tmp_path: Path) -> None:
    """It need not say how large its batches are; single samples give batch norms no statistics."""
    samples: Any = data_of(labels=True)
    samples.setup("fit")
    dataset = samples.train_dataloader().dataset
    loader = DataLoader(dataset, batch_sampler=[[*range(8)], [*range(8, 20)]], collate_fn=collate)
    module = stage(lr=1e-12)
    trainer_of(tmp_path).fit(module, loader, samples.val_dataloader())
    assert module.mixture is not None
    start: Any = module.mixture.start
    means = [value for name, value in start["network"].state_dict().items() if name.endswith("running_mean")]
    assert means
    assert all(bool(mean.any()) for mean in means)


def test_groups_are_not_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor | None] = []
    from lightning_mmnas.modules import convex_start

    def noted(*args: Any) -> Any:
        seen.append(args[4])
        return choose_linear(*args)

    monkeypatch.setattr(convex_start, "choose_linear", noted)
    monkeypatch.setattr(Part, "groups", property(lambda self: self.indices // 4))
    trainer_of(tmp_path).fit(stage(), data_of(labels=True))
    assert seen[0] is not None
    assert torch.equal(seen[0], torch.arange(32) // 4)
    monkeypatch.setattr(convex_start, "_MOST", 8)  # of very many samples so many are read, with their own groups
    rows = torch.randperm(32, generator=torch.Generator().manual_seed(0))[:8].sort().values
    trainer_of(tmp_path).fit(stage(), data_of(labels=True))
    assert seen[1] is not None
    assert torch.equal(seen[1], rows // 4)


def train(rank: int, folder: str, weights: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name, changes in {"pretrained": {"network_weights": weights}, "scratch": {}}.items():
        module = stage(augment=False, **changes)
        trainer = trainer_of(Path(folder), devices=2, strategy="ddp", max_epochs=2)
        trainer.fit(module, data_of(labels=True, batch_size=4))
        torch.save(module.state_dict(), Path(folder) / f"{name}{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_start_where_one_does_and_stay_equal(tmp_path: Path, pretrained: str) -> None:
    start_ranks(train, (str(tmp_path), pretrained), 2)
    for name, changes in {"pretrained": {"network_weights": pretrained}, "scratch": {}}.items():
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1))
        learnt = [key for key in first if "running" not in key and "num_batches" not in key]  # of each rank's batches
        assert same({key: first[key] for key in learnt}, {key: second[key] for key in learnt})
        module = stage(augment=False, **changes)
        trainer_of(tmp_path).fit(module, data_of(labels=True, batch_size=4))
        assert module.mixture is not None
        for key, value in module.mixture.state_dict().items():
            torch.testing.assert_close(first[f"mixture.{key}"], value, rtol=1e-3, atol=1e-3)
