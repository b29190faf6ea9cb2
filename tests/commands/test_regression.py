"""A table with a real target: from `mmnas init` to report, predictions, scores and exported file."""

import csv
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

import lightning_mmnas
from lightning_mmnas.commands.compare import read_settings
from lightning_mmnas.commands.init.command import init
from lightning_mmnas.commands.init.task import propose_task
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.run import run
from lightning_mmnas.commands.stages import find_configs
from lightning_mmnas.comparison.settings import ComparisonSettings
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.errors import ConfigError, DataError

COLUMNS = {name: ColumnSpec("features", [f"{name}{i}" for i in range(3)]) for name in ("a", "b")}
MODALITIES = [f"{name}=features:{','.join(spec.columns)}" for name, spec in COLUMNS.items()]


def make_table(root: Path, rows: int = 90, label: str = "price") -> Path:
    """Two modalities of numbers that tell of a price together; every tenth row has none."""
    random = np.random.default_rng(0)
    values = random.normal(size=(rows, 6))
    target = 300_000 + 40_000 * (values[:, 0] - values[:, 3] + 0.1 * random.normal(size=rows))
    with (root / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "a0", "a1", "a2", "b0", "b1", "b2", label])
        for i in range(rows):
            price = "" if i % 10 == 7 else f"{target[i]:.2f}"
            writer.writerow([f"house {i}", *(f"{value:.4f}" for value in values[i]), price])
    return root / "table.csv"


def told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def configured(table: Path, folder: Path, console: Console, **options: Any) -> Path:
    """What `mmnas init` writes, with a search that is soon over."""
    init(str(table), str(folder), modality=MODALITIES, console=console, **options)
    search = folder / "search.yaml"
    text = re.sub(r"max_epochs: \d+", "max_epochs: 2", search.read_text())
    text = re.sub(r"warmup_epochs: \d+", "warmup_epochs: 1", text)
    search.write_text(text.replace("num_candidates: 16, steps: 60", "num_candidates: 2, steps: 2"))
    return folder


SHORT = [
    word
    for stage, epochs in (("encoders", 4), ("pretrain", 2), ("finetune", 3))
    for word in (f"--{stage}.trainer.max_epochs", str(epochs))
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """Table, run and results."""
    root = tmp_path_factory.mktemp("regression")
    table, console = make_table(root), quiet()
    folder = configured(table, root / "configs", console, label="price")
    assert "column 'price' has 81 different numbers" in told(console)
    assert "--task classes" in told(console)
    assert "7 training rows have no label" in told(console) or "9 training rows have no label" in told(console)
    assert yaml.safe_load((folder / "common.yaml").read_text())["data"]["init_args"]["task"] == "regression"
    assert yaml.safe_load((folder / "comparison.yaml").read_text())["labels_total"] == [20, "all"]
    short = ["--comparison.draws", "2", "--comparison.steps", "5", "--comparison.steps_all", "5"]
    overrides = ["--trainer.accelerator", "cpu", *SHORT, *short, "--comparison.random_architectures", "1"]
    return table, root / "run", run(folder, root / "run", overrides=overrides, console=quiet())


@pytest.mark.slow
def test_results(finished: tuple[Path, Path, dict[str, Any]]) -> None:
    _, run_dir, results = finished
    rows = {(row["name"], row["labels_total"]): row for row in results["comparison"]}
    assert all(row["metric"] == "r2" and "labels_per_class" not in row for row in rows.values())
    assert {budget for _, budget in rows} == {20, "all"}
    for name in ("found+ssl", "raw_features", "delivered"):
        assert rows[name, "all"]["mean"] > 0.8
    assert rows["raw_features:a", "all"]["mean"] < 0.7  # half of the variance is in the other modality
    assert results["model"]["labels_total"] == "all"
    page = (run_dir / "report.html").read_text()
    assert "At 20 labelled samples, 2 draws: the found network" in page
    assert "MAE and RMSE are in the unit of price" in page
    assert "could not be made" not in page
    assert (run_dir / "pictures" / "scatter.png").is_file()
    facts = json.loads((run_dir / "analysis.json").read_text())["model"]
    true, predicted = np.array(facts["scatter"]["true"]), np.array(facts["scatter"]["predicted"])
    assert facts["scores"]["mae"] == pytest.approx(mean_absolute_error(true, predicted), rel=1e-4)
    assert facts["scores"]["r2"] == pytest.approx(r2_score(true, predicted), rel=1e-4)
    worst = np.abs(true - predicted).argmax()
    assert facts["errors"][0] | {"picture": ""} == {
        "index": int(worst), "true": true[worst], "predicted": predicted[worst], "picture": "",
    }  # fmt: skip


@pytest.mark.slow
def test_the_delivered_model(
    finished: tuple[Path, Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, run_dir, results = finished
    assert main(["predict", str(run_dir), str(table), "--output", str(tmp_path / "p.csv")]) == 0
    with (tmp_path / "p.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert list(written[0]) == ["id", "prediction"]
    predicted = np.array([float(row["prediction"]) for row in written])
    with table.open(encoding="utf-8") as file:
        content = list(csv.DictReader(file))
    known = np.array([bool(row["price"]) for row in content])
    true = np.array([float(row["price"] or "nan") for row in content])
    assert main(["evaluate", str(run_dir), str(table), "--output", str(tmp_path / "e.json")]) == 0
    assert "81 samples, 9 left" in capsys.readouterr().out
    scores = json.loads((tmp_path / "e.json").read_text())
    expected = {
        "mae": mean_absolute_error(true[known], predicted[known]),
        "rmse": root_mean_squared_error(true[known], predicted[known]),
        "r2": r2_score(true[known], predicted[known]),
    }
    assert scores["metrics"] == pytest.approx(expected, rel=1e-4)

    model = lightning_mmnas.load(run_dir)
    data = TableDataModule(str(table), COLUMNS, label="price", task="regression", id="id")
    data.setup("fit")
    assert model.card.target_scale == pytest.approx(data.target_scale, rel=1e-12)
    assert model.card.metrics["test/r2"] == pytest.approx(results["model"]["score"])
    first = {name: [float(content[0][column]) for column in spec.columns] for name, spec in COLUMNS.items()}
    assert model.predict(first) == pytest.approx(predicted[0], rel=1e-6)
    with pytest.raises(DataError, match="a regression has no probabilities"):
        model.predict_proba(first)

    assert main(["export", str(run_dir), "--output", str(tmp_path / "m.pt2"), "--format", "torch_export"]) == 0
    exported = torch.export.load(tmp_path / "m.pt2").module()
    batch = {name: model.transforms(first, "x")[name].unsqueeze(0) for name in model.modalities}
    assert exported(*batch.values()).item() == pytest.approx(predicted[0], rel=1e-6)
    assert json.loads((tmp_path / "m.pt2.json").read_text())["output"] == "prediction"


@pytest.mark.slow
def test_a_table_that_has_grown_is_scored_in_the_scale_of_the_weights(
    finished: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Where all prices have risen, the model predicts what it did, and is so much farther from them."""
    table, run_dir, results = finished
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "price": str(float(row["price"]) + 1e6) if row["price"] else ""} for row in rows)
    args = [
        "--config",
        str(run_dir / "finetune" / "config.yaml"),
        "--data.init_args.table",
        str(tmp_path / "table.csv"),
    ]
    args += ["--run_dir", str(tmp_path / "run"), "--trainer.logger", "false"]
    args += ["--ckpt_path", str(run_dir / results["model"]["checkpoint"])]
    with warnings.catch_warnings(record=True) as warned:  # of the other folder too
        warnings.simplefilter("always")
        found = MMNASCLI(["test", *args])
    assert any("predictions and losses are in the checkpoint's scale" in str(entry.message) for entry in warned)
    scale = lightning_mmnas.load(run_dir).card.target_scale
    assert scale is not None
    assert found.model.target_scale == scale
    assert found.datamodule.target_scale[0] == pytest.approx(scale[0] + 1e6)
    assert float(found.trainer.callback_metrics["test/mae"]) == pytest.approx(1e6, rel=0.05)


def test_what_is_proposed() -> None:
    assert propose_task(["a", "b"], "y", "t.csv") == ("classes", None)
    assert propose_task([str(i % 10) for i in range(50)], "y", "t.csv") == ("classes", None)
    assert propose_task([i % 40 for i in range(400)], "y", "t.csv") == ("classes", None)
    assert propose_task([i / 3 for i in range(30)], "y", "t.csv")[0] == "regression"
    for cells in (list(range(40)), [i % 60 for i in range(6000)], [0.5, 1.0, 1.5] * 20):
        with pytest.raises(ConfigError, match=r"say what they are: --task regression .* or --task classes"):
            propose_task(cells, "y", "t.csv")


def test_options_of_init(tmp_path: Path) -> None:
    table = make_table(tmp_path, label="label")
    folder = init(str(table), str(tmp_path / "c"), modality=MODALITIES, task="regression", console=quiet())
    assert yaml.safe_load((folder / "common.yaml").read_text())["data"]["init_args"]["label"] == "label"
    with pytest.raises(DataError, match="81 different numbers in 81 rows"):
        init(str(table), str(tmp_path / "d"), modality=MODALITIES, task="classes", console=quiet())
    with pytest.raises(ConfigError, match="--task regression needs labels"):
        init(str(table), str(tmp_path / "d"), without_roles=["label"], task="regression", console=quiet())
    with pytest.raises(
        DataError, match=r"column 'id': 90 of 90 cells are no numbers: line 2: 'house 0' is not .*, as the target"
    ):
        init(str(table), str(tmp_path / "d"), label="id", modality=MODALITIES, task="regression", console=quiet())


def test_settings_of_the_comparison(tmp_path: Path) -> None:
    assert ComparisonSettings().budgets("regression") == ("all",)
    assert ComparisonSettings(labels_total=(20, "all")).budgets("regression") == (20, "all")
    with pytest.raises(ConfigError, match="labels_total is for a regression"):
        ComparisonSettings(labels_total=(20,)).budgets("multiclass")
    (tmp_path / "comparison.yaml").write_text("labels_per_class: [5, 20, all]\n")
    with pytest.raises(ConfigError, match=r"set labels_total, labelled samples in all, such as \[20, 100, all\]"):
        read_settings(tmp_path / "comparison.yaml").budgets("regression")
    assert read_settings(tmp_path / "none.yaml", ["--draws", "2"]).budgets("regression") == ("all",)
    (tmp_path / "comparison.yaml").write_text("labels_total: [20, all]\n")
    given = read_settings(tmp_path / "comparison.yaml", ["--labels_per_class", "[5]"])
    with pytest.raises(ConfigError, match="labels_per_class is for classes, and a regression has none"):
        given.budgets("regression")
    assert read_settings(tmp_path / "comparison.yaml").counts("regression") == (1, 1)
    assert ComparisonSettings().counts("regression") == (0, 1)
    assert ComparisonSettings().counts("multiclass") == (2, 1)


def test_budgets_of_classes_are_checked_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    for path in find_configs("watch").iterdir():
        (tmp_path / "configs" / path.name).write_text(path.read_text())
    (tmp_path / "configs" / "comparison.yaml").write_text("labels_total: [20]\n")
    with pytest.raises(ConfigError, match="labels_total is for a regression; classes have labels_per_class"):
        run(tmp_path / "configs", tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    table = str(make_table(tmp_path))
    with pytest.raises(ConfigError, match="needs a label column of one number per row"):
        TableDataModule(table, COLUMNS, task="regression")
    with pytest.raises(ConfigError, match="labels_per_class=5 is for classes"):
        TableDataModule(table, COLUMNS, label="price", task="regression", labels_per_class=5)
