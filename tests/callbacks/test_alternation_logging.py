"""What loggers get of a search."""

import csv
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_mmnas.callbacks import ArchitectureAlternation
from tests.callbacks.ddp_logging import Named
from tests.callbacks.searchers import Searcher, loaders, trainer
from tests.ranks import run_on_two_ranks


def _rows(root: Path) -> list[dict[str, str]]:
    with (root / "logs" / "version_0" / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["arch/lr"]]


def test_learning_rate_and_weights_once_per_epoch(tmp_path: Path) -> None:
    module = Named()
    trainer(tmp_path, ArchitectureAlternation(lr=0.1), logger=CSVLogger(tmp_path, name="logs")).fit(module, loaders())
    rows = _rows(tmp_path)
    assert [float(row["arch/lr"]) for row in rows] == pytest.approx([0.1, 0.1])
    assert float(rows[-1]["alpha/first"]) == pytest.approx(float(module.net.alpha.softmax(0)[0]))


def test_a_module_without_names_and_a_trainer_without_logger(tmp_path: Path) -> None:
    trainer(tmp_path, ArchitectureAlternation(lr=0.1), logger=CSVLogger(tmp_path, name="logs")).fit(
        Searcher(), loaders()
    )
    assert len(_rows(tmp_path)) == 2
    module = Named()
    trainer(tmp_path).fit(module, loaders())
    assert module.calls == 0


@pytest.mark.slow
def test_two_ranks_log_once_and_none_waits(tmp_path: Path) -> None:
    run_on_two_ranks("tests.callbacks.ddp_logging", tmp_path)
    rows = _rows(tmp_path)
    assert len(rows) == 2
    assert 0 < float(rows[-1]["alpha/first"]) < 1
