"""The settings of a comparison, from its file and from the command line."""

from pathlib import Path

import pytest

from lightning_mmnas.commands.compare import read_settings
from lightning_mmnas.comparison.settings import ComparisonSettings
from lightning_mmnas.errors import ConfigError


def test_options_beat_the_file_and_the_file_beats_defaults(tmp_path: Path) -> None:
    path = tmp_path / "comparison.yaml"
    assert read_settings(path) == ComparisonSettings()
    path.write_text("draws: 2\nsteps: 7\n")
    settings = read_settings(path, ["--draws", "1", "--labels_per_class=[5, all]"])
    assert settings == ComparisonSettings(draws=1, steps=7, labels_per_class=(5, "all"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drawz", "1"], r"--comparison.drawz: unknown key; did you mean 'draws'"),
        (["--xyz", "1"], r"--comparison.xyz: unknown key; the keys are \['labels_per_class'"),
        (["--draws", "0"], r"--comparison.draws: .*greater than or equal to 1, but 0 was given"),
        (["--draws"], r"--comparison.draws needs one value"),
        (["--draws", "--steps", "1"], r"--comparison.draws needs one value"),
        (["--draws", "1", "2"], r"--comparison.2 needs one value"),
        (["--labels_per_class", "[5"], r"--comparison.labels_per_class: '\[5' is not valid YAML"),
    ],
)
def test_mistakes_in_options(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(tmp_path / "comparison.yaml", options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drawz: 1", r"comparison.yaml: drawz: unknown key; did you mean 'draws'"),
        ("[1, 2]", r"comparison.yaml: input should be a valid dictionary"),
        ("a: [", r"comparison.yaml is not valid YAML"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "comparison.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_settings(path)
