"""`mmnas predict`, `mmnas embed` and `mmnas evaluate` on the model of a run."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lightning_mmnas
from lightning_mmnas import TableDataModule
from lightning_mmnas.commands.mmnas import main
from tests.delivery.tiny import COLUMNS, deliver, write_birds


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("run")
    table = write_birds(folder / "data")
    return deliver(folder, table)[2], table


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predictions_with_the_id_of_training(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "predictions.csv"
    assert main(["predict", *map(str, run), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"45 samples written to {output}\n"
    model = lightning_mmnas.load(run[0])
    rows = rows_of(output)
    assert list(rows[0]) == ["id", "class", *(f"probability:{name}" for name in model.class_names)]
    assert [row["class"] for row in rows] == model.predict(run[1])
    assert [row["id"] for row in rows] == [str(i) for i in range(45)]
    found = np.array([[float(row[f"probability:{name}"]) for name in model.class_names] for row in rows])
    np.testing.assert_allclose(found, model.predict_proba(run[1]).numpy(), rtol=1e-4)


def test_parquet_with_vectors_and_other_columns(run: Any, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "p.parquet"
    options = ["--embeddings", "--keep", "site", "--keep", "id", "--batch_size", "7"]
    assert main(["predict", *map(str, run), "--output", str(output), *options]) == 0
    table = parquet.read_table(output)
    model = lightning_mmnas.load(run[0])
    assert table.column_names[:3] == ["site", "id", "class"]
    vectors = model.embed(run[1])
    assert table.column_names[-1] == f"embedding:{vectors.shape[1] - 1}"
    np.testing.assert_allclose(table["embedding:0"].to_numpy(), vectors[:, 0], rtol=1e-4, atol=1e-5)


def test_vectors_as_an_array(run: Any, tmp_path: Path) -> None:
    output = tmp_path / "v.npy"
    assert main(["embed", *map(str, run), "--output", str(output), "--batch_size", "16"]) == 0
    found = np.load(output, allow_pickle=False)
    np.testing.assert_allclose(found, lightning_mmnas.load(run[0]).embed(run[1]).numpy(), rtol=1e-4, atol=1e-5)


def test_scores(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "scores.json"
    assert main(["evaluate", *map(str, run), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert "true class in rows" in printed
    scores = json.loads(output.read_text())
    assert scores["metrics"] == lightning_mmnas.load(run[0]).evaluate(run[1])["metrics"]


def test_rows_of_a_split_need_no_label(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run[1].read_text().splitlines()
    place = lines[0].split(",").index("label")
    cells = [line.split(",") for line in lines[1:]]
    cells = [[*c[:place], "" if i % 5 == 0 else c[place], *c[place + 1 :]] for i, c in enumerate(cells)]
    table = run[1].with_name("partly.csv")
    table.write_text("\n".join([lines[0], *map(",".join, cells)]))
    monkeypatch.setattr(
        "lightning_mmnas.delivery.splits.build_data", lambda *_: TableDataModule(str(table), COLUMNS, label="label")
    )
    output, ids = tmp_path / "p.csv", []
    for split in ("train", "val", "test"):
        assert main(["predict", str(run[0]), split, "--output", str(output), "--keep", "id"]) == 0
        ids += [int(row["id"]) for row in rows_of(output)]
    assert sorted(ids) == list(range(45))
    capsys.readouterr()
    assert main(["evaluate", str(run[0]), "train"]) == 0
    assert "left out" not in capsys.readouterr().out  # a split is scored on its labelled samples


@pytest.mark.filterwarnings("ignore:.*damaged samples of the")
def test_rows_of_a_split_are_told(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run[1].read_text().splitlines()
    damaged = run[1].with_name("damaged.csv")
    damaged.write_text(
        "\n".join([lines[0], *(line.replace(".png", ".gone", i % 5 == 0) for i, line in enumerate(lines[1:]))])
    )

    def data(*_: Any) -> TableDataModule:
        return TableDataModule(str(damaged), COLUMNS, label="label", batch_size=16, on_error="skip")

    monkeypatch.setattr("lightning_mmnas.delivery.splits.build_data", data)
    output = tmp_path / "p.csv"
    known = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    wanted = lightning_mmnas.load(run[0]).predict(run[1])
    for split in ("train", "test"):
        assert main(["predict", str(run[0]), split, "--output", str(output), "--batch_size", "4"]) == 0
        ids = [int(row["id"]) for row in rows_of(output)]
        assert [row["class"] for row in rows_of(output)] == [wanted[i] for i in ids]
        assert not any(i % 5 == 0 for i in ids)
        assert main(["predict", str(run[0]), split, "--output", str(output), "--keep", "label", "--keep", "site"]) == 0
        assert [(row["label"], row["site"]) for row in rows_of(output)] == [
            (known[i]["label"], known[i]["site"]) for i in ids
        ]
    damaged.rename(tmp_path / "moved.csv")
    assert main(["predict", str(run[0]), "test", "--output", str(output)]) == 2
    assert "; or give new data in place of 'test'" in capsys.readouterr().err
    (tmp_path / "moved.csv").rename(damaged)
    without = damaged.read_text().replace("id,", "number,", 1)
    damaged.write_text(without)
    assert main(["predict", str(run[0]), "test", "--output", str(output)]) == 0
    assert [int(row["row"]) for row in rows_of(output)] == ids


def test_a_kept_column_is_not_lost(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, output = run[1].with_name("classes.csv"), tmp_path / "p.csv"
    lines = run[1].read_text().splitlines()
    table.write_text("\n".join([lines[0].replace("label", "class").replace("mass", '"mass, kg"'), *lines[1:]]))
    options = ["--keep", "id", "--keep", "class", "--modality", 'numbers="mass, kg", wing']
    assert main(["predict", str(run[0]), str(table), "--output", str(output), *options]) == 0
    rows = rows_of(output)
    assert list(rows[0])[:3] == ["id", "table:class", "class"]
    assert [row["table:class"] for row in rows] == [line.split(",")[6] for line in lines[1:]]
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    pictures = [{"bytes": path.read_bytes(), "path": None} for path in sorted((run[1].parent / "photos").glob("*.png"))]
    content = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    whole = {name: [row[name] for row in content] for name in content[0]} | {"photo": pictures}
    parquet.write_table(pyarrow.table(whole), tmp_path / "t.parquet")
    args = ["predict", str(run[0]), str(tmp_path / "t.parquet"), "--files_from", str(run[1].parent), "--keep", "photo"]
    assert main([*args, "--output", str(output)]) == 2
    assert "the column 'photo' holds bytes, which a .csv file cannot; write a .parquet file" in capsys.readouterr().err
    assert main([*args, "--output", str(tmp_path / "p.parquet")]) == 0
    assert parquet.read_table(tmp_path / "p.parquet")["photo"].to_pylist() == pictures


def test_scores_that_are_not_defined(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"samples": 1, "skipped": 21, "class_names": ["price"], "metrics": {"mae": 2.0, "r2": float("nan")}}
    monkeypatch.setattr(lightning_mmnas.DeliveredModel, "evaluate", lambda *_, **__: scores)
    assert main(["evaluate", *map(str, run), "--output", str(tmp_path / "e.json")]) == 0
    assert capsys.readouterr().out.startswith("1 sample, 21 left out\n")
    content = json.loads((tmp_path / "e.json").read_text(), parse_constant=pytest.fail)
    assert content["metrics"] == {"mae": 2.0, "r2": None}


def test_samples_that_cannot_be_read(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = run[1].with_name("broken.csv")
    lines = run[1].read_text().splitlines()
    lines[2] = lines[2].replace("photos/001.png", "photos/gone.png")
    table.write_text("\n".join(lines))
    output = tmp_path / "p.csv"
    output.write_text("as before")
    assert main(["predict", str(run[0]), str(table), "--output", str(output)]) == 2
    assert "photos/gone.png: there is no such file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
    assert output.read_text() == "as before"
    assert main(["predict", str(run[0]), str(table), "--output", str(output), "--on_error", "skip"]) == 0
    assert "1 of them empty" in capsys.readouterr().out
    rows = rows_of(output)
    assert rows[1] == {**dict.fromkeys(rows[1], ""), "id": "1"}
    assert all(row["class"] for row in rows[2:])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["predict", "{tmp}/nowhere", "{table}", "--output", "{tmp}/x.csv"], "there is no run"),
        (["predict", "{run}", "nowhere.csv", "--output", "{tmp}/x.csv"], "there is no table nowhere.csv, and it is no"),
        (["evaluate", "{run}", "tset"], "(train, val, test); did you mean test?"),
        (["predict", "{run}", "{table}", "--output", "{tmp}/x.txt"], "check --output"),
        (["predict", "{run}", "{table}", "--output", "{table}"], "is the table itself"),
        (
            ["predict", "{run}", "{table}", "--output", "{tmp}/x.csv", "--keep", "nothing"],
            "no column 'nothing' to keep",
        ),
        (["predict", "{run}", "{table}", "--output", "{tmp}/x.csv", "--modality", "note"], "is not NAME=COLUMN"),
        (["predict", "{run}", "{table}", "--output", "{tmp}/x.csv", "--modality", "n=x"], "there is no modality 'n'"),
        (["predict", "{run}", "{table}", "--output", "{tmp}/x.csv", "--batch_size", "0"], "batch_size must be"),
        (["predict", "{run}", "{table}", "--output", "{tmp}/x.csv", "--device", "cube"], "no device 'cube'"),
        (["predict", "{run}", "{table}", "--output", "{tmp}/x.csv", "--device", "meta"], "no device 'meta'"),
        (["embed", "{run}", "{table}", "--output", "{tmp}/x.npy", "--keep", "id"], "leave out --keep"),
        (["predict", "{run}", "test", "--output", "{tmp}/x.csv"], "does not know where its data came from"),
        (["evaluate", "{run}", "{table}", "--label", "site"], "does not know the class 'site0'"),
        (["evaluate", "{run}", "{table}", "--output", "{tmp}/x.csv"], "is not .json"),
        (["embed", "{run}", "{table}"], "--output"),
    ],
)
def test_mistakes(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str) -> None:
    places = {"run": run[0], "table": run[1], "tmp": tmp_path}
    assert main([arg.format(**places) for arg in args]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
