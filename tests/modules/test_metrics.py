"""Multi-label metrics against scikit-learn, thresholds against trying them all."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from lightning_mmnas.modules.metrics import SamplesF1, build_metrics, build_tuned_metrics, tune_thresholds


def predictions(n: int = 200, labels: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, labels, generator=generator)
    chances = torch.sigmoid(logits + torch.randn(n, labels, generator=generator))
    return logits, (chances > torch.linspace(0.3, 0.8, labels)).long()


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_f1_as_scikit_learn_has_it(threshold: float) -> None:
    logits, labels = predictions()
    metrics = build_metrics("multilabel", 6, threshold)
    for start in range(0, 200, 32):
        metrics.update(logits[start : start + 32], labels[start : start + 32])
    found = metrics.compute()
    decisions = (logits.sigmoid() > threshold).long().numpy()
    for average in ("weighted", "micro", "macro", "samples"):
        reference = f1_score(labels.numpy(), decisions, average=average, zero_division=0)
        assert found[f"f1_{average}"].item() == pytest.approx(reference, abs=1e-5)
    reference = average_precision_score(labels.numpy(), logits.numpy(), average="macro")
    assert found["map"].item() == pytest.approx(reference, abs=1e-5)


def test_samples_without_labels_count_as_zero() -> None:
    metric = SamplesF1(2)
    metric.update(torch.tensor([[0.9, 0.1], [0.1, 0.1]]), torch.tensor([[1, 0], [0, 0]]))
    assert metric.compute().item() == 0.5


def test_batches_of_one() -> None:
    logits, labels = predictions(9)
    metrics, whole = build_metrics("multilabel", 6), build_metrics("multilabel", 6)
    for row, truth in zip(logits.sigmoid(), labels, strict=True):
        metrics.update(row[None], truth[None])
    whole.update(logits.sigmoid(), labels)
    expected = whole.compute()
    assert {k: v.item() for k, v in metrics.compute().items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}
    )


def test_mean_average_precision_of_small_probabilities_and_absent_labels() -> None:
    logits, labels = predictions()
    labels[:, 2] = 0
    found = build_metrics("multilabel", 6)(logits - 8, labels)["map"]
    kept = [0, 1, 3, 4, 5]
    reference = average_precision_score(labels[:, kept].numpy(), logits[:, kept].numpy(), average="macro")
    assert found.item() == pytest.approx(reference, abs=1e-5)
    assert build_metrics("multilabel", 6)(logits, torch.zeros_like(labels))["map"].item() == 0


def test_decisions_are_scored_as_they_are() -> None:
    logits, labels = predictions()
    thresholds = torch.linspace(0.2, 0.7, 6)
    decisions = (logits.sigmoid() > thresholds).float()
    found = build_tuned_metrics(6)(decisions, labels)
    assert set(found) == {"f1_weighted_tuned", "f1_micro_tuned", "f1_macro_tuned", "f1_samples_tuned"}
    reference = f1_score(labels.numpy(), decisions.numpy(), average="weighted")
    assert found["f1_weighted_tuned"].item() == pytest.approx(reference, abs=1e-5)


@pytest.mark.parametrize("decimals", [1, 6])
def test_thresholds_are_the_best_of_all(decimals: int) -> None:
    logits, labels = predictions(60)
    probabilities = logits.sigmoid().round(decimals=decimals)  # many are equal with one decimal
    thresholds = tune_thresholds(probabilities, labels)
    for k in range(6):
        values, truth = probabilities[:, k].numpy(), labels[:, k].numpy()
        tried = [-1.0, *np.unique(values)]
        best = max(f1_score(truth, values > t, zero_division=0) for t in tried)
        assert f1_score(truth, values > thresholds[k].item(), zero_division=0) == pytest.approx(best)


def test_thresholds_of_labels_that_none_or_all_have() -> None:
    probabilities = torch.tensor([[0.9, 0.0], [0.2, 0.0]])
    assert tune_thresholds(probabilities, torch.tensor([[0, 1], [0, 1]])).tolist() == [1.0, -1.0]
