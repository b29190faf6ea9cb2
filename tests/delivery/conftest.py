"""A delivered model of birds."""

from pathlib import Path
from typing import Any

import pytest

import lightning_mmnas
from lightning_mmnas import DeliveredModel, FineTuning, TableDataModule
from tests.delivery.tiny import deliver, write_birds


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[FineTuning, TableDataModule, Path, Path]:
    folder = tmp_path_factory.mktemp("delivered")
    table = write_birds(folder / "data")
    return *deliver(folder, table), table


@pytest.fixture(scope="module")
def model(delivered: Any) -> DeliveredModel:
    return lightning_mmnas.load(delivered[2])
