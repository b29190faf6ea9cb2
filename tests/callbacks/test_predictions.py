"""What `mmnas predict --config` writes."""

import csv
from pathlib import Path

import pytest
import torch

from lightning_mmnas.callbacks.predictions import PredictionFile
from tests.delivery.tiny import trained, write_birds
from tests.modules.tiny import trainer_of
from tests.ranks import run_on_two_ranks


def test_every_sample_in_its_order(tmp_path: Path) -> None:
    module, data = trained(tmp_path, write_birds(tmp_path / "data", 30))
    trainer = trainer_of(tmp_path, callbacks=[PredictionFile()])
    found = trainer.predict(module, datamodule=data)
    assert found is not None
    wanted = torch.cat([torch.as_tensor(batch) for batch in found])
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == [str(i) for i in range(len(data.rows["test"]))]
    assert [row["class"] for row in rows] == [data.class_names[i] for i in wanted.argmax(1).tolist()]
    probabilities = torch.tensor([[float(row[f"probability:{name}"]) for name in data.class_names] for row in rows])
    torch.testing.assert_close(probabilities, wanted, rtol=1e-4, atol=1e-6)


def test_labels_above_their_thresholds(tmp_path: Path) -> None:
    table = write_birds(tmp_path / "data", 30)
    table.write_text(table.read_text().replace("heron", "heron|cuckoo"))
    module, data = trained(tmp_path, table, label_separator="|")
    module.get_buffer("thresholds").copy_(torch.tensor([-1.0, 2.0, -1.0]))
    trainer_of(tmp_path, callbacks=[PredictionFile(str(tmp_path / "own.csv"))]).predict(module, datamodule=data)
    lines = (tmp_path / "own.csv").read_text().splitlines()
    assert all(line.split(",")[1] == "blackbird|heron" for line in lines[1:])


@pytest.mark.slow
def test_two_ranks_write_each_sample_once(tmp_path: Path) -> None:
    table = write_birds(tmp_path / "data", 54)
    module, data = trained(tmp_path / "one", table, batch_size=2)
    assert len(data.rows["test"]) == 9  # an odd number: the sampler of two ranks repeats a sample
    trainer_of(tmp_path, callbacks=[PredictionFile(str(tmp_path / "one.csv"))]).predict(module, datamodule=data)
    run_on_two_ranks("tests.callbacks.ddp_predictions", tmp_path / "two", table)
    one, two = (path.read_text().splitlines() for path in (tmp_path / "one.csv", tmp_path / "two" / "predictions.csv"))
    assert [line.split(",")[:2] for line in two] == [line.split(",")[:2] for line in one]
