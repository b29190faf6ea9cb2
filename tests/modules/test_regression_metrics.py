"""Metrics of a regression against scikit-learn in float64: outliers in training, parts, processes, constant targets."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor

from lightning_mmnas.data.spec import TargetScale, unscaled
from lightning_mmnas.data.targets import measure_scale, standardised
from lightning_mmnas.modules.regression_metrics import regression_metrics
from tests.ranks import start_ranks

_SHARES = (slice(0, 30), slice(30, 200), slice(200, 200))


def example(outlier: float) -> tuple[Tensor, Tensor, TargetScale]:
    """Standardised predictions and targets around 100, of a training set with one outlier, and its scale."""
    generator = torch.Generator().manual_seed(0)
    train = 100 + torch.randn(400, generator=generator, dtype=torch.float64)
    train[0] = outlier
    true = 100 + torch.randn(200, generator=generator, dtype=torch.float64)
    predicted = true + 0.5 * torch.randn(200, generator=generator, dtype=torch.float64)
    scale = measure_scale(train, range(400), "here")
    return standardised(predicted, scale), standardised(true, scale), scale


def expected(predicted: Tensor, true: Tensor, scale: TargetScale) -> dict[str, float]:
    y, z = (unscaled(values, scale).numpy() for values in (true, predicted))
    return {
        "mae": mean_absolute_error(y, z),
        "rmse": root_mean_squared_error(y, z),
        "r2": r2_score(y, z),
    }


@pytest.mark.parametrize("outlier", [100.0, 1e5, 1e6, 1e7])
def test_an_outlier_in_training_changes_nothing(outlier: float) -> None:
    predicted, true, scale = example(outlier)
    wanted = expected(predicted, true, scale)
    assert 0.6 < wanted["r2"] < 0.9
    for parts in (1, 2, 7):
        metrics = regression_metrics(scale)
        for rows in torch.arange(200).tensor_split(parts):
            metrics.update(predicted[rows], true[rows])
        assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(wanted, rel=1e-6)
    metrics.reset()
    metrics(predicted[:50], true[:50])  # gives that of the batch, and adds it
    found = metrics(predicted[50:], true[50:])
    assert float(found["r2"]) == pytest.approx(r2_score(true[50:].double(), predicted[50:].double()), rel=1e-6)
    assert float(metrics.compute()["r2"]) == pytest.approx(wanted["r2"], rel=1e-6)


def test_targets_far_from_zero() -> None:
    """Float32 has steps of 64 there; what is left of the differences counts."""
    true = 1e9 + 640 * torch.arange(50.0)[:, None]
    predicted = true + 64 * torch.tensor([1.0, -1.0]).repeat(25)[:, None]
    metrics = regression_metrics(None)
    for rows in torch.arange(50).tensor_split(4):
        metrics.update(predicted[rows], true[rows])
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found == pytest.approx(expected(predicted, true, (0.0, 1.0)), rel=1e-6)


def test_constant_targets_have_what_scikit_learn_gives_them() -> None:
    true = torch.full((30, 1), 0.1)
    for predicted in (true, true + 1e-3):
        metrics = regression_metrics((5.0, 2.0))
        for rows in torch.arange(30).tensor_split(3):
            metrics.update(predicted[rows], true[rows])
        found = {name: float(value) for name, value in metrics.compute().items()}
        assert found == pytest.approx(expected(predicted, true, (5.0, 2.0)), rel=1e-5)
        assert found["r2"] == (1.0 if predicted is true else 0.0)


def test_no_samples_and_predictions_that_are_no_numbers() -> None:
    metrics = regression_metrics(None)
    metrics.update(torch.zeros(0, 1), torch.zeros(0, 1))
    assert all(bool(value.isnan()) for value in metrics.compute().values())
    metrics.update(torch.tensor([[0.0], [torch.nan]]), torch.tensor([[0.0], [1.0]]))
    assert all(bool(value.isnan()) for value in metrics.compute().values())


def test_types_and_devices() -> None:
    predicted, true, scale = example(1e5)
    metrics = regression_metrics(scale).half().float()  # Lightning's precisions do this to whole modules
    metrics.update(predicted.clone().requires_grad_(), true)
    found = metrics.compute()
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert float(found["r2"]) == pytest.approx(expected(predicted, true, scale)["r2"], rel=1e-6)
    states = [state for metric in metrics.values() for state in metric.metric_state.values()]
    assert all(isinstance(state, Tensor) and not state.is_floating_point() for state in states)
    coarse = regression_metrics(None)
    coarse.update(predicted.bfloat16(), true)
    wanted = float((predicted.bfloat16().double() - true).abs().mean())
    assert float(coarse.compute()["mae"]) == pytest.approx(wanted)


def score(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    predicted, true, scale = example(1e7)
    metrics = regression_metrics(scale)
    for rows in torch.split(torch.arange(200)[_SHARES[rank]], 16):
        metrics.update(predicted[rows], true[rows])
    torch.save(dict(metrics.compute()), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_agree_with_one_also_where_one_has_no_samples(tmp_path: Path) -> None:
    start_ranks(score, (str(tmp_path),), len(_SHARES))
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(_SHARES))]
    wanted = expected(*example(1e7))
    assert {name: float(value) for name, value in found[0].items()} == pytest.approx(wanted, rel=1e-6)
    assert all(np.array_equal(list(one.values()), list(found[0].values())) for one in found)
