"""Numbers of a table on their way to tensors: the same in training, in configurations and in a delivered model."""

import io
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from lightning_mmnas.commands.init.command import init
from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.delivery.card import TableCard
from lightning_mmnas.delivery.inputs import reading_of, samples_of
from lightning_mmnas.delivery.transforms import Statistics, Transforms
from lightning_mmnas.errors import DataError

N = 60


def numbers() -> torch.Tensor:
    """Unix seconds within 100 s, a column of order 1e-14, and a usual one, float64 (n, 3)."""
    draw = random.Random(0)
    rows = [[1.7e9 + i * 100 / N, 1e-14 * draw.gauss(0, 1), round(draw.gauss(5, 2), 3)] for i in range(N)]
    return torch.tensor(rows, dtype=torch.float64)


def write_german(path: Path, values: torch.Tensor) -> Path:
    lines = [
        ";".join([*(repr(v).replace(".", ",") for v in row), "ab"[i % 2]]) for i, row in enumerate(values.tolist())
    ]
    path.write_text("\n".join(["seconds;tiny;usual;label", *lines]) + "\n")
    return path


def built(path: Path, **arguments: Any) -> TableDataModule:
    columns = {"x": ColumnSpec("features", ["seconds", "tiny", "usual"])}
    data = TableDataModule(str(path), columns, label="label", batch_size=4, **arguments)
    data.setup("fit")
    return data


def test_double_precision_until_standardised(tmp_path: Path) -> None:
    values = numbers()
    data = built(write_german(tmp_path / "t.csv", values))
    raw = values[data.rows["train"]]
    expected = (raw - raw.mean(0)) / raw.std(0, unbiased=False)
    found = data.tensors("train")["x"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert len(set(found[:, 0].tolist())) == len(raw)
    single = torch.stack([data.source("train")[i]["x"] for i in range(5)])
    assert torch.equal(single, found[:5])


def test_an_empty_cell_is_the_mean_and_a_constant_column_zero(tmp_path: Path) -> None:
    values = numbers()
    values[:, 2] = 0.1
    path = write_german(tmp_path / "t.csv", values)
    lines = path.read_text().splitlines()
    lines[1] = "NA;5,5;-;a"
    path.write_text("\n".join(lines))
    columns = {"x": ColumnSpec("features", ["seconds", "usual"]), "y": ColumnSpec("features", ["tiny"])}
    data = TableDataModule(str(path), columns, label="label", batch_size=4, missing="mask")
    data.setup("fit")
    split = next(split for split, rows in data.rows.items() if 0 in rows)
    data.setup("test")
    found = data.tensors(split)["x"]
    assert found[data.rows[split].index(0)].tolist() == [0, 0]
    assert data.tensors("train")["x"][:, 1].abs().max() == 0


def test_init_tells_the_dialect_and_writes_what_reads_it_again(tmp_path: Path) -> None:
    path = write_german(tmp_path / "t.csv", numbers())
    console = Console(file=io.StringIO(), width=200)
    folder = init(str(path), str(tmp_path / "c"), console=console)
    assert isinstance(console.file, io.StringIO)
    assert "separator ';' (--separator)" in console.file.getvalue()
    assert "decimal comma (--decimal)" in console.file.getvalue()
    found = yaml.safe_load((folder / "common.yaml").read_text())["data"]["init_args"]
    assert (found["separator"], found["decimal"]) == (";", ",")
    given = {name: found[name] for name in ("separator", "decimal", "split_seed")}
    assert torch.equal(built(path, **given).tensors("train")["x"], built(path).tensors("train")["x"])
    with pytest.raises(DataError, match="line 2, column 'seconds': '1700000000,0' is not a number"):
        init(str(path), str(tmp_path / "d"), decimal=".", modality=["x=features:seconds,usual"], console=console)


@pytest.mark.parametrize("german", [True, False])
def test_a_new_table_is_read_as_that_of_training_or_as_it_says(tmp_path: Path, german: bool) -> None:
    columns = {"x": ColumnSpec("features", ["a", "b"]), "y": ColumnSpec("features", ["c"])}
    mean, std = torch.tensor([1.0, 2.0]).double(), torch.tensor([2.0, 4.0]).double()
    statistics = {"x": Statistics(mean, std, torch.zeros(2)), "y": Statistics()}
    transforms = Transforms(
        {n: ModalitySpec("features", (len(s.columns),)) for n, s in columns.items()}, columns, {}, statistics
    )
    reading = reading_of(TableCard(columns=columns, separator=";", decimal=","))
    path = tmp_path / "new.csv"
    path.write_text("a;b;c\n1,234;5,5;7\nNA;1;8\n" if german else "a,b,c\n1.234,5.5,7\nNA,1,8\n")
    (chunk,) = samples_of(path, transforms, reading=reading).chunks(transforms, 8, "raise", "raise")
    expected = torch.tensor([[(1.234 - 1) / 2, (5.5 - 2) / 4], [0, 0]], dtype=torch.float64).float()
    assert torch.equal(chunk.tensors["x"], expected)
    path.write_text("a;b;c\n1,5;2;7\n1.5;2;8\n")
    with pytest.raises(DataError, match=r"line 3.*column 'a': '1\.5' is not a number with a decimal comma"):
        list(samples_of(path, transforms, reading=reading).chunks(transforms, 8, "raise", "raise"))
    assert not math.isnan(float(chunk.tensors["x"].sum()))
