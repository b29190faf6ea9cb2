"""Labels that are too few for what is asked of them, told before anything is trained."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_mmnas.commands.label_budgets import check_label_budgets
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.comparison.settings import ComparisonSettings
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, MissingExtraError, RunDirectoryError

SETTINGS = ComparisonSettings(labels_per_class=(5, "all"))


def make_table(root: Path, label: bool = True) -> Path:
    """40 rows of class "often", 9 of class "rare", all for training but two of each."""
    with (root / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["a0", "a1", "b0", "b1", "split", *(["label"] if label else [])])
        for i in range(49):
            split = {0: "val", 1: "test", 40: "val", 41: "test"}.get(i, "train")
            name = "often" if i < 40 else "rare"
            writer.writerow([i, 49 - i, i % 7, i % 5, split, *([name] if label else [])])
    return root / "table.csv"


def finetuning(root: Path, **data: Any) -> list[str]:
    """Arguments of a fine-tuning stage whose network has not been found yet."""
    columns = {name: {"kind": "features", "columns": [f"{name}0", f"{name}1"]} for name in "ab"}
    init_args = {"table": str(root / "table.csv"), "columns": columns, "split": "split", "label": "label", **data}
    content = {
        "model": {
            "class_path": "lightning_mmnas.FineTuning",
            "init_args": {"encoders": {}, "genotype": "${run_dir}/genotype.json"},
        },
        "data": {"class_path": "lightning_mmnas.TableDataModule", "init_args": init_args},
        "trainer": {"accelerator": "cpu"},
    }
    (root / "finetune.yaml").write_text(yaml.safe_dump(content))
    return ["--config", str(root / "finetune.yaml"), "--run_dir", str(root / "run")]


def test_budgets_that_the_smallest_class_can_meet(tmp_path: Path) -> None:
    make_table(tmp_path)
    check_label_budgets(finetuning(tmp_path, labels_per_class=7), SETTINGS)
    check_label_budgets(finetuning(tmp_path), ComparisonSettings(labels_per_class=(7, "all")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["finetune.yaml", "table.csv"]


def test_budgets_that_are_larger_than_a_class(tmp_path: Path) -> None:
    make_table(tmp_path)
    with pytest.raises(DataError, match=r"^comparison: class 'rare' has 7 training samples, fewer than labels_per_cl"):
        check_label_budgets(finetuning(tmp_path), ComparisonSettings(labels_per_class=(5, 8, "all")))
    with pytest.raises(DataError, match=r"^stage finetune: class 'rare' has 7 training samples, .*labels_per_class=8"):
        check_label_budgets(finetuning(tmp_path, labels_per_class=8), SETTINGS)


def test_budgets_that_are_larger_than_all_the_targets(tmp_path: Path) -> None:
    make_table(tmp_path)
    target = {"label": "b0", "columns": {"a": {"kind": "features", "columns": ["a0", "a1"]}}, "task": "regression"}
    check_label_budgets(finetuning(tmp_path, **target), ComparisonSettings(labels_total=(45,)))
    with pytest.raises(DataError, match=r"^comparison: labels_total=46 samples are more than the 45 labelled"):
        check_label_budgets(finetuning(tmp_path, **target), ComparisonSettings(labels_total=(46,)))
    with pytest.raises(DataError, match=r"^stage finetune: labels_total=46 samples are more than the 45 labelled"):
        check_label_budgets(finetuning(tmp_path, labels_total=46, **target), ComparisonSettings())


def test_data_without_labels(tmp_path: Path) -> None:
    make_table(tmp_path, label=False)
    with pytest.raises(DataError, match=r"stage finetune: it needs labels, but the data have none; .*finetune.yaml"):
        check_label_budgets(finetuning(tmp_path, label=None), SETTINGS)
    with pytest.raises(DataError, match=r"stage finetune: .*no column 'label'"):
        check_label_budgets(finetuning(tmp_path), SETTINGS)


def test_files_of_samples_are_not_read(tmp_path: Path) -> None:
    make_table(tmp_path)
    text = (tmp_path / "table.csv").read_text().replace("\n", ",x.png\n").replace("label,x.png", "label,image", 1)
    (tmp_path / "table.csv").write_text(text)
    (tmp_path / "x.png").write_text("no picture")
    picture = {"kind": "image", "columns": ["image"], "size": [8, 8]}
    check_label_budgets(finetuning(tmp_path, columns={"image": picture}), SETTINGS)


def test_a_run_tells_it_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--comparison.labels_per_class", "[5, 300]"]
    assert main(["run", "watch", "--output", str(tmp_path / "run"), *options]) == 2
    assert "comparison: class 'PEN' has 275 training samples, fewer than" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_any_error_of_ours_can_be_given_a_place() -> None:
    damaged = DamagedFilesError([("a.png", "empty"), ("b.png", "empty")])
    for error in (damaged, MissingExtraError("it is missing"), RunDirectoryError("it is missing"), ConfigError("it")):
        text = str(error)
        with pytest.raises(type(error)) as caught:
            raise error.at("stage search")
        assert str(caught.value) == f"stage search: {text}"
