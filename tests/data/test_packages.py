"""`package:NAME`: files in installed packages are found without running anything of the package."""

import sys
from pathlib import Path

import pytest

from lightning_mmnas.data.packages import file_in_package, model_folder
from lightning_mmnas.errors import CheckpointError, ConfigError, MissingExtraError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that must not be imported."""
    root = tmp_path / "weights_of_somebody"
    for folder in ("model/pooling", "other"):
        (root / folder).mkdir(parents=True)
    (root / "__init__.py").write_text("raise SystemExit('it was run')")
    for file in ("model/config.json", "model/pooling/config.json", "model/model.safetensors", "other/old.pth"):
        (root / file).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return root


def test_the_least_deep_file_counts(package: Path) -> None:
    assert model_folder("package:weights_of_somebody") == str(package / "model")
    assert model_folder("package:weights_of_somebody/model/pooling") == str(package / "model" / "pooling")
    assert model_folder("some/folder") == "some/folder"
    assert file_in_package("package:weights_of_somebody", "*.pth") == package / "other" / "old.pth"
    assert "weights_of_somebody" not in sys.modules


def test_what_cannot_be_found_is_told(package: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"no package 'nobody'.*lightning-mmnas\[pretrained\]"):
        file_in_package("package:nobody", "*.pth")
    with pytest.raises(CheckpointError, match=r"has no file \*\.bin or \*\.pt in"):
        file_in_package("package:weights_of_somebody", "*.bin", "*.pt")
    (package / "other" / "new.pth").touch()
    with pytest.raises(CheckpointError, match=r"could be any of \['other/new\.pth', 'other/old\.pth'\]"):
        file_in_package("package:weights_of_somebody", "*.pth")
    for name in ("", "..", "os.path", "a b", "/etc"):
        with pytest.raises(ConfigError, match="names no package"):
            file_in_package(f"package:{name}", "*")
    with pytest.raises(ConfigError, match="leads out of the package"):
        file_in_package("package:weights_of_somebody/../..", "*")
    with pytest.raises(MissingExtraError, match="no package 'math'"):  # a module, without files of its own
        file_in_package("package:math", "*")
