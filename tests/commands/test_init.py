"""`mmnas init`: from a table to configurations that run."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from lightning_mmnas.commands.init.command import init
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.run import run
from lightning_mmnas.commands.shared import config_options, stage_files
from lightning_mmnas.commands.stages import find_configs
from lightning_mmnas.data.columns.column import FileColumn
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, RunDirectoryError
from tests.data.table.make_table import make_table
from tests.test_configs import few_candidates


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def arguments(folder: Path, stage: str = "encoders") -> dict[str, object]:
    """The data module's arguments: those of the common file, then the stage's."""
    found: dict[str, object] = {}
    for path in stage_files(folder / f"{stage}.yaml"):
        found |= yaml.safe_load(path.read_text())["data"]["init_args"]
    return found


def test_a_table_of_photos_sounds_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table(tmp_path)
    folder = tmp_path / "configs"
    assert main(["init", str(table), "--output", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "train 42, val 9, test 9" in told
    assert "blackbird 14" in told
    assert "left out: column 'site'" in told
    assert f"mmnas run {folder} --output runs/configs" in told
    names = ["common.yaml", "comparison.yaml", "encoders.yaml", "finetune.yaml", "pretrain.yaml", "search.yaml"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert arguments(folder)["columns"] == {
        "photo": {"kind": "image", "columns": ["photo"], "size": [64, 64], "channels": 3},
        "song": {"kind": "audio", "columns": ["song"], "rate": 8000, "seconds": 0.25},
        "numbers": {"kind": "features", "columns": ["mass", "wing"]},
    }
    assert arguments(folder)["batch_size"] == 16
    assert arguments(folder, "search")["batch_size"] == 16
    assert yaml.safe_load((folder / "comparison.yaml").read_text())["labels_per_class"] == [5, "all"]

    before = (folder / "search.yaml").read_bytes()
    with pytest.raises(RunDirectoryError, match="exists; nothing was changed"):
        init(str(table), str(folder), console=quiet())
    assert (folder / "search.yaml").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".configs")]


@pytest.mark.slow
def test_shipped_configurations_are_what_init_writes(tmp_path: Path) -> None:
    table = make_table(tmp_path, rows=300)
    folder = init(str(table), str(tmp_path / "table"), console=quiet())
    for shipped in sorted(find_configs("table").glob("*.yaml")):
        written = yaml.safe_load((folder / shipped.name).read_text())
        if shipped.name == "common.yaml":
            written["data"]["init_args"]["table"] = "data/table/table.csv"
        assert yaml.safe_load(shipped.read_text()) == written


def test_options_override_the_proposal(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    modalities = ["body=features:mass,wing", "view=image:photo"]
    folder = init(
        str(table), str(tmp_path / "c"), label="label", group="site", modality=modalities, seed=3, console=quiet()
    )
    found = arguments(folder)
    assert list(found["columns"]) == ["body", "view"]  # type: ignore[call-overload]
    assert (found["group"], found["split_seed"]) == ("site", 3)
    for wrong, message in (("x", "not of the form"), ("x=photo:photo", "kind 'photo'")):
        with pytest.raises(ConfigError, match=message):
            init(str(table), str(tmp_path / "d"), modality=[wrong], console=quiet())
    with pytest.raises(DataError, match="no column 'klass'"):
        init(str(table), str(tmp_path / "d"), label="klass", console=quiet())
    assert not (tmp_path / "d").exists()


@pytest.mark.slow
def test_kinds_are_proposed(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = []
    for i in range(24):
        np.save(tmp_path / f"m{i}.npy", draw.normal(size=(30 + i, 6)))
        np.save(tmp_path / f"s{i}.npy", draw.normal(size=(40, 17, 3)))
        np.save(tmp_path / f"d{i}.npy", draw.integers(0, 3000, (5, 8, 8), dtype=np.uint16))
        np.save(tmp_path / f"v{i}.npy", draw.normal(size=12))
        rows.append(
            {"n": i, "m": f"m{i}.npy", "s": f"s{i}.npy", "d": f"d{i}.npy", "v": f"v{i}.npy", "same": 1}
            | {"note": f"bird {i} sang in the {'rain' if i % 2 else 'sun'}", "h": float(draw.normal())}
        )
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    console = quiet()
    folder = init(str(tmp_path / "t.jsonl"), str(tmp_path / "c"), console=console)
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert "column 'n': it numbers the rows" in told
    assert "column 'same': it is constant: '1'" in told
    assert "no column is the label" in told
    assert f"next: mmnas run {folder} --output runs/c" in told
    names = ["common.yaml", "encoders.yaml", "pretrain.yaml", "search.yaml"]
    assert sorted(path.name for path in folder.iterdir()) == names
    columns = arguments(folder)["columns"]
    assert isinstance(columns, dict)
    kinds = {"m": "motion", "s": "skeleton", "d": "video", "v": "features", "note": "text", "numbers": "features"}
    assert {name: spec["kind"] for name, spec in columns.items()} == kinds
    assert columns["m"]["channels"] == 6
    assert columns["s"]["joints"] == 17
    assert columns["v"]["length"] == 12
    assert main(["fit", *config_options(folder / "encoders.yaml"), "--run_dir", str(tmp_path / "run"), *FAST]) == 0


FAST = ["--trainer.fast_dev_run=1", "--trainer.accelerator=cpu"]


def test_damaged_files_are_listed_with_their_number(tmp_path: Path) -> None:
    table = make_table(tmp_path)
    for i in range(12):
        (tmp_path / "photos" / f"{i:03}.png").write_bytes(b"no picture")
    with pytest.raises(DamagedFilesError, match=r"damaged or missing file\(s\)"):
        init(str(table), str(tmp_path / "c"), console=quiet())
    assert not (tmp_path / "c").exists()
    console = quiet()
    init(str(table), str(tmp_path / "c"), on_error="skip", console=console)
    assert isinstance(console.file, io.StringIO)
    assert "split are left out" in console.file.getvalue()


@pytest.mark.slow
def test_of_a_large_table_some_files_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(tmp_path)
    monkeypatch.setattr("lightning_mmnas.commands.init.command._READ", 10)
    checked: list[int] = []
    with monkeypatch.context() as counting:
        counting.setattr(FileColumn, "check", lambda _, index: checked.append(index))
        assert main(["init", str(table), "--output", str(tmp_path / "configs")]) == 0
    told = capsys.readouterr().out
    assert "note: 28 of the 60 samples were read, from all over the table; mmnas data reads all" in told
    assert len(checked) == 2 * 28  # pictures and sounds
    next(iter(sorted(tmp_path.rglob("*.png")))).unlink()  # that it is missing is seen all the same
    assert main(["init", str(table), "--output", str(tmp_path / "others")]) == 2
    assert "1 damaged or missing file(s)" in capsys.readouterr().err


def test_from_a_table_to_results_without_code(tmp_path: Path) -> None:
    folder = init(str(make_table(tmp_path / "data")), str(tmp_path / "configs"), console=quiet())
    few_candidates(folder / "search.yaml")
    settings = {"labels_per_class": [5, "all"], "draws": 1, "random_architectures": 1, "steps": 2, "steps_all": 2}
    (folder / "comparison.yaml").write_text(yaml.safe_dump(settings))
    overrides = ["--trainer.accelerator=cpu", "--trainer.limit_train_batches=1", "--trainer.max_epochs=1"]
    overrides.append("--search.trainer.max_epochs=15")  # past the warm-up
    results = run(folder, tmp_path / "run", overrides=overrides, console=quiet())
    names = {row["name"] for row in results["comparison"]}
    assert {"found+ssl", "modality:photo", "modality:song", "modality:numbers"} <= names
