"""Stage 3 of a regression: targets in their own unit, metrics, the mixture, and what is refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import seed_everything
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor
from torch.nn import functional as F

from lightning_mmnas import FineTuning, FusionSearch, FusionSpace, TensorDataModule
from lightning_mmnas.data.samples import labelled_rows
from lightning_mmnas.data.spec import unscaled
from lightning_mmnas.data.splits import label_total
from lightning_mmnas.data.targets import rescaled, standardised
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.modules.regression_metrics import regression_metrics
from lightning_mmnas.objectives.losses import label_loss, regression_loss
from lightning_mmnas.objectives.mixture import choose_shares
from tests.modules.tiny import ENCODERS, KINDS, split_of, trainer_of

SPACE = FusionSpace(inputs=("left/0", "left/1", "right/0", "right/1"), channels=4, length=2)


def regression_split(size: int, seed: int, offset: float = 2000.0) -> dict[str, Tensor]:
    """Both sensors tell of the target; every fourth sample has none."""
    split = split_of(size, seed)
    drift = torch.randn(size, 2, generator=torch.Generator().manual_seed(seed + 9), dtype=torch.float64)
    left, right = (split[name] + value[:, None, None].float() for name, value in zip(KINDS, drift.T, strict=True))
    target = offset + 10 * (drift[:, 0] - drift[:, 1])
    target[::4] = torch.nan
    return {"left": left, "right": right, "label": target}


def data_of(**changes: Any) -> TensorDataModule:
    settings: dict[str, Any] = {"kinds": KINDS, "batch_size": 16, "task": "regression", "class_names": ["year"]}
    offset = changes.pop("offset", 2000.0)
    splits = [regression_split(size, seed, offset) for size, seed in ((64, 0), (32, 1), (32, 2))]
    return TensorDataModule(*splits, **{**settings, **changes})


def stage(data: TensorDataModule, **changes: Any) -> FineTuning:
    seed_everything(0, verbose=False)
    genotype = SPACE.sample(torch.Generator().manual_seed(0))
    linked = {name: getattr(data, name) for name in ("num_classes", "task", "target_scale")}
    return FineTuning(data.modalities, ENCODERS, genotype=genotype, **{"augment": False, **linked, **changes})


@pytest.mark.parametrize("offset", [2000.0, 1.7e9])
def test_labels_are_standardised_and_come_back(offset: float) -> None:
    data = data_of(offset=offset)
    data.setup("fit")
    known = regression_split(64, 0, offset)["label"]
    known = known[~known.isnan()]
    assert data.target_scale == pytest.approx((known.mean().item(), known.std(unbiased=False).item()), rel=1e-12)
    part = data.part("train")
    assert part.labels is not None
    assert (part.labels.dtype, part.labels.shape, len(part.source)) == (torch.float32, (48, 1), 64)
    back = unscaled(part.labels, data.target_scale).flatten()
    assert float((back - known).abs().max()) < 1e-5  # float32 of seconds since 1970 has steps of 128
    assert (data.num_classes, data.class_names, data.task) == (1, ["year"], "regression")
    assert data.label_text(part.source[0]) == ""
    assert data.label_text(part.source[1]) == f"year = {known[0].item():.6g}"
    with pytest.raises(DataError, match="numbers, not classes"):
        data.label_counts("train")


def test_which_rows_are_labelled() -> None:
    assert labelled_rows(torch.tensor([[0, 1], [-1, -1]]), "multilabel").tolist() == [True, False]
    assert labelled_rows(torch.tensor([[-3.0], [torch.nan], [0.0]]), "regression").tolist() == [True, False, True]


def test_label_budgets() -> None:
    data = data_of(labels_total=10, label_seed=3)
    data.setup("fit")
    assert len(data.part("train")) == 10
    drawn = [set(label_total(48, total, 3).tolist()) for total in (5, 10, 48)]
    assert drawn[0] < drawn[1] < drawn[2] == set(range(48))
    assert set(label_total(48, 10, 4).tolist()) != drawn[1]
    with pytest.raises(DataError, match="labels_total=49 samples are more than the 48"):
        data_of(labels_total=49).setup("fit")
    with pytest.raises(ConfigError, match=r"a regression has none; use data\.init_args\.labels_total"):
        data_of(labels_per_class=5)
    split = split_of(8, 0)
    with pytest.raises(ConfigError, match="labels_total=5 is for a regression"):
        TensorDataModule(split, split, kinds=KINDS, labels_total=5)


def test_metrics_are_those_of_scikit_learn_in_the_unit_of_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    true, scale = torch.randn(40, 1, generator=generator), (2000.0, 10.0)
    predicted = true + 0.3 * torch.randn(40, 1, generator=generator)
    metrics = regression_metrics(scale)
    for rows in torch.arange(40).tensor_split(6):
        metrics.update(predicted[rows], true[rows])
    found = {name: float(value) for name, value in metrics.compute().items()}
    y, z = (unscaled(values, scale).numpy() for values in (true, predicted))
    expected = {"mae": mean_absolute_error(y, z), "rmse": root_mean_squared_error(y, z), "r2": r2_score(y, z)}
    assert found == pytest.approx(expected, rel=1e-5)
    one = regression_metrics(scale)(true[:1], true[:1])
    assert (float(one["mae"]), bool(one["r2"].isnan())) == (0.0, True)


def test_losses() -> None:
    predicted, target = torch.tensor([[0.0], [3.0]]), torch.tensor([[0.5], [0.0]])
    assert float(regression_loss(predicted, target)) == pytest.approx((0.25 + 9) / 2)
    assert float(regression_loss(predicted, target, "huber")) == pytest.approx((0.125 + 2.5) / 2)
    assert float(label_loss("multiclass")(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))) == pytest.approx(np.log(2))


def test_shares_have_the_least_squared_error() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(4000, 1, generator=generator)
    parts = [y + sd * torch.randn(4000, 1, generator=generator) for sd in (0.5, 1.0)]
    reference = LinearRegression(fit_intercept=False).fit(torch.cat(parts, 1).numpy(), y.numpy().ravel())
    assert choose_shares(parts, y, "regression").tolist() == pytest.approx(reference.coef_.tolist(), abs=2e-3)
    assert choose_shares([y, -y], y, "regression").tolist() == pytest.approx([1, 0], abs=2e-3)


def test_the_mixture_predicts_in_the_unit_of_the_target(tmp_path: Path) -> None:
    data = data_of()
    module = stage(data)
    trainer = trainer_of(tmp_path, max_epochs=3)
    trainer.fit(module, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    predicted = torch.cat([module.eval().predict_step(batch, 0) for batch in data.val_dataloader()])
    assert predicted.dtype == torch.float64
    labels = regression_split(32, 1)["label"]
    true = labels[~labels.isnan()].numpy()
    found = predicted.flatten().numpy()
    assert logged["val/mae"] == pytest.approx(mean_absolute_error(true, found), rel=1e-4)
    assert logged["val/rmse"] == pytest.approx(root_mean_squared_error(true, found), rel=1e-4)
    assert logged["val/r2"] == pytest.approx(r2_score(true, found), rel=1e-4)
    assert logged["val/loss"] == pytest.approx((logged["val/rmse"] / module.target_scale[1]) ** 2, rel=1e-4)  # type: ignore[index]
    assert logged["val/r2"] > 0.3
    (scores,) = trainer.test(module, data, verbose=False)
    assert set(scores) == {"test/mae", "test/rmse", "test/r2"}

    # The linear path is scikit-learn's ridge on the standardised pooled features.
    assert module.mixture is not None
    linear, train = module.mixture.linear, data.tensors("train")
    x = linear.pooled(module.encoders(train)).double().numpy()
    scaled = (x - x.mean(0)) / np.where(x.std(0) > 1e-7, x.std(0), 1)
    fits = [Ridge(alpha).fit(scaled, train["label"].numpy().ravel()) for alpha in 10 ** np.arange(-2, 5.5, 0.5)]
    nearest = min(float(np.abs(fit.coef_ - linear.weight.numpy().ravel()).max()) for fit in fits)
    assert nearest < 1e-4

    loaded = stage(data)
    loaded.load_state_dict(module.state_dict())
    again = torch.cat([loaded.eval().predict_step(batch, 0) for batch in data.val_dataloader()])
    torch.testing.assert_close(again, predicted)


@pytest.mark.parametrize("mode", ["full", "linear_probe"])
def test_other_modes_and_huber(mode: str, tmp_path: Path) -> None:
    data = data_of()
    module = stage(data, mode=mode, loss="huber", lr=1e-2)
    trainer = trainer_of(tmp_path)
    trainer.fit(module, data)
    whole = data.tensors("val")
    expected = F.huber_loss(module.eval()(whole), whole["label"]).item()
    assert expected < F.mse_loss(module(whole), whole["label"]).item()
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(expected, rel=1e-4)


def data_setup(data: TensorDataModule) -> TensorDataModule:
    data.setup("fit")
    return data


def test_a_supervised_search_has_the_squared_error(tmp_path: Path) -> None:
    data = data_of(architecture_fraction=0.5)
    small: dict[str, Any] = {"channels": 4, "length": 2, "supervised": True, "num_classes": 1, "task": "regression"}
    module = FusionSearch(data.modalities, ENCODERS, **small)
    batch = data_setup(data).tensors("val")
    assert module.classifier is not None
    predicted = module.eval().classifier(module(batch))  # type: ignore[misc]
    torch.testing.assert_close(module.loss(batch), (predicted - batch["label"]).square().mean())


def test_what_is_refused() -> None:
    data = data_of()
    with pytest.raises(ConfigError, match="loss 'huber' is for a regression, and the task is multiclass"):
        stage(data, task="multiclass", num_classes=2, loss="huber")
    constant = regression_split(8, 0)
    constant["label"] = torch.full((8,), 3.0)
    with pytest.raises(DataError, match="all training rows have the target 3; nothing to learn"):
        TensorDataModule(constant, constant, kinds=KINDS, task="regression")
    constant["label"][1:] = torch.nan
    with pytest.raises(DataError, match="1 training rows have a target"):
        TensorDataModule(constant, constant, kinds=KINDS, task="regression")


def test_the_scale_stays_with_the_weights(tmp_path: Path) -> None:
    """On other data, of another mean and deviation, a checkpoint predicts what it did, and is scored in that scale."""
    data = data_of()
    module = stage(data, schedule="constant")
    trainer = trainer_of(tmp_path, max_epochs=2)
    trainer.fit(module, data)
    trainer.save_checkpoint(path := tmp_path / "a.ckpt")
    (scores,) = trainer.test(module, data, verbose=False)
    predicted = torch.cat([module.eval().predict_step(batch, 0) for batch in data.test_dataloader()])
    grown = {name: regression_split(64, 0) for name in ("train", "val")}
    grown["train"]["label"] = grown["train"]["label"] * 3 + 500
    now = TensorDataModule(
        grown["train"],
        val=grown["val"],
        test=regression_split(32, 2),
        kinds=KINDS,
        batch_size=16,
        task="regression",
        class_names=["year"],
    )
    assert now.target_scale is not None
    assert module.target_scale is not None
    told = re.escape(f"mean {module.target_scale[0]:.6g} and") + ".*" + re.escape(f"mean {now.target_scale[0]:.6g} and")
    for own in (True, False):  # one of a version that stored it as a hyperparameter only
        if not own:
            content = torch.load(path, weights_only=True)
            assert (
                tuple(content.pop("target_scale")) == data.target_scale == content["hyper_parameters"]["target_scale"]
            )
            torch.save(content, path)
        other, again = stage(now), trainer_of(tmp_path)
        with pytest.warns(UserWarning, match=told):
            (found,) = again.test(other, now, ckpt_path=str(path), weights_only=True, verbose=False)
        assert found == pytest.approx(scores, rel=1e-4)
        assert other.target_scale == data.target_scale
        with pytest.warns(UserWarning, match=told):
            rows = again.predict(other, now.test_dataloader(), ckpt_path=str(path), weights_only=True)
        torch.testing.assert_close(torch.cat(rows), predicted)  # type: ignore[arg-type]

    resumed, longer = stage(now, schedule="constant"), trainer_of(tmp_path, max_epochs=3)
    with pytest.warns(UserWarning, match=r"checkpoint's scale"):
        longer.fit(resumed, now, ckpt_path=str(path), weights_only=True)
    longer.save_checkpoint(tmp_path / "b.ckpt")
    content = torch.load(tmp_path / "b.ckpt", weights_only=True)
    assert (tuple(content["target_scale"]), resumed.data_scale) == (data.target_scale, now.target_scale)
    labels = grown["val"]["label"][~grown["val"]["label"].isnan()]
    wanted = mean_absolute_error(labels, torch.cat([resumed.eval().predict_step(b, 0) for b in now.val_dataloader()]))
    assert float(longer.callback_metrics["val/mae"]) == pytest.approx(wanted, rel=1e-4)


def test_labels_in_the_scale_of_the_weights() -> None:
    scales: list[Any] = [(100.0, 3e3), (-5.0, 0.5), None]
    values = torch.tensor([-50.0, 3.0, 120.0], dtype=torch.float64)
    for before in scales:
        for wanted in scales:
            given = standardised(values, before or (0.0, 1.0))
            found = rescaled(given, before, wanted)
            torch.testing.assert_close(found, standardised(values, wanted or (0.0, 1.0)), rtol=1e-4, atol=1e-3)
