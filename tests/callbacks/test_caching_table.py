"""The feature cache over a table with empty cells: what stands for them is cached, and known to the fingerprint."""

from pathlib import Path

import pytest
import torch

from lightning_mmnas import ColumnSpec, FeatureCaching, FeatureEncoder, FusionSearch, TableDataModule
from lightning_mmnas.errors import CacheError
from tests.modules.tiny import trainer_of

COLUMNS = {
    "body": ColumnSpec(kind="features", columns=["mass", "wing"]),
    "place": ColumnSpec(kind="features", columns=["north", "east"]),
}


def write_table(path: Path, first: float = 0.0) -> Path:
    """32 rows for training, 8 for each other split; every fourth has no place."""
    lines = ["mass,wing,north,east,split"]
    for i in range(48):
        place = "," if i % 4 == 3 else f"{i % 5 + (first if i == 0 else 0)},{i % 7}"
        lines.append(f"{i},{i % 4},{place},{'train' if i < 32 else 'val' if i < 40 else 'test'}")
    path.write_text("\n".join(lines))
    return path


def data_of(table: Path) -> TableDataModule:
    return TableDataModule(
        str(table), COLUMNS, split="split", missing="mask", batch_size=8, labels=False, architecture_fraction=0.5
    )


def search_of(data: TableDataModule) -> FusionSearch:
    torch.manual_seed(0)
    small = {"channels": 4, "length": 2, "projection_hidden": 8, "projection_out": 4}
    return FusionSearch(data.modalities, {"features": FeatureEncoder}, **small)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:No ArchitectureAlternation")
def test_empty_cells_are_cached_as_their_mean(tmp_path: Path) -> None:
    data = data_of(write_table(tmp_path / "table.csv"))
    search = search_of(data)
    trainer_of(tmp_path, callbacks=[FeatureCaching(str(tmp_path / "features"), views=2)]).fit(search, data)
    features = data.source("train").batch(torch.tensor([3, 7]))
    standing_in = search.encoders.encoders["place"](torch.zeros(1, 2))[1]
    for row in range(2):
        torch.testing.assert_close(features["place/1"][row].float(), standing_in[0], atol=1e-3, rtol=0)


def test_another_mean_makes_the_features_stale(tmp_path: Path) -> None:
    table = write_table(tmp_path / "table.csv")
    caching = FeatureCaching(str(tmp_path / "features"), views=2)
    data = data_of(table)
    data.setup("fit")
    caching.prepare(search_of(data), data, ["train", "val"])
    write_table(table, first=100.0)  # one training row: the validation rows are standardised by another mean
    data = data_of(table)
    data.setup("fit")
    with pytest.raises(CacheError, match="made from other data"):
        caching.prepare(search_of(data), data, ["val"])
