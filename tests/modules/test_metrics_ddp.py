"""Two gloo processes with different numbers of samples: both see the metrics and thresholds of all samples."""

from pathlib import Path

import pytest
import torch
import torch.distributed

from lightning_mmnas.modules.metrics import Predictions, build_metrics, tune_thresholds
from tests.modules.test_metrics import predictions
from tests.ranks import start_ranks

_LABELS, _SHARES = 6, (slice(0, 5), slice(5, 40))


def score(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    logits, labels = (values[_SHARES[rank]] for values in predictions(40, _LABELS))
    metrics, kept = build_metrics("multilabel", _LABELS), Predictions(_LABELS)
    for start in range(0, len(logits), 4):
        metrics.update(logits[start : start + 4].sigmoid(), labels[start : start + 4])
        kept.update(logits[start : start + 4].sigmoid(), labels[start : start + 4])
    found = {**metrics.compute(), "thresholds": tune_thresholds(*kept.compute())}
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_both_ranks_agree_with_one_process(tmp_path: Path) -> None:
    start_ranks(score, (str(tmp_path),), len(_SHARES))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    logits, labels = predictions(40, _LABELS)
    alone = build_metrics("multilabel", _LABELS)(logits.sigmoid(), labels)
    alone["thresholds"] = tune_thresholds(logits.sigmoid(), labels)
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, msg=name)
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=0, msg=name)
