"""Groups of a dataset of one's own, whatever they are written as, are not divided between folds."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_mmnas import FineTuning
from lightning_mmnas.errors import DataError
from lightning_mmnas.fusion.late_fusion import LateFusion
from lightning_mmnas.modules.convex_start import groups_of
from lightning_mmnas.objectives.mixture import choose_linear
from tests.modules.tiny import ENCODERS, modalities, split_of, trainer_of

SIZE = 12


class Recordings(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, groups: Any) -> None:
        self.samples, self.groups = split_of(SIZE, 0), groups

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: value[index] for name, value in self.samples.items()}


NUMBERS = [i // 4 + 7 for i in range(SIZE)]
GIVEN: dict[str, Any] = {
    "tensor": torch.tensor(NUMBERS),
    "array": np.array(NUMBERS),
    "list": NUMBERS,
    "names": [f"person {number}" for number in NUMBERS],
    "pandas": pd.Series(NUMBERS, index=range(100, 100 + SIZE)),
}


@pytest.mark.parametrize("name", GIVEN)
def test_groups_as_numbers(name: str) -> None:
    found = groups_of(Recordings(GIVEN[name]))
    assert found is not None
    assert found.tolist() == [i // 4 for i in range(SIZE)]
    part = groups_of(Subset(Recordings(GIVEN[name]), [11, 0, 5]))
    assert part is not None
    assert part.tolist() == [2, 0, 1]


def test_fine_tuning_takes_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    def fit(task: Any, x: Any, labels: Any, num_classes: int, groups: Any) -> Any:
        seen.append(groups)
        return choose_linear(task, x, labels, num_classes, groups)

    monkeypatch.setattr("lightning_mmnas.modules.convex_start.choose_linear", fit)
    module = FineTuning(modalities(), ENCODERS, 2, "multiclass", fusion=LateFusion)
    whole = Recordings(GIVEN["names"])
    trainer_of(tmp_path).fit(module, DataLoader(Subset(whole, range(2, SIZE)), batch_size=5), DataLoader(whole))
    assert seen[0].tolist() == [i // 4 for i in range(2, SIZE)]


@pytest.mark.parametrize(
    ("groups", "given"),
    [([1, 2, 3], r"shape \(3,\)"), ({"a": 1}, "dict"), (len, "builtin"), (np.eye(12), r"\(12, 12\)")],
)
def test_groups_that_are_none(groups: Any, given: str) -> None:
    with pytest.raises(DataError, match=f"groups of Recordings are one number or name for each of its 12 .*{given}"):
        groups_of(Recordings(groups))
    assert groups_of(Recordings(None)) is None
    assert groups_of([1, 2]) is None
