"""Names of modalities that work wherever they are written, and configurations that load as they were meant."""

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from torch import nn

from lightning_mmnas.commands.data_summary import build_data, parse_config
from lightning_mmnas.commands.init.command import init
from lightning_mmnas.commands.init.configs import _quoted
from lightning_mmnas.data.names import flaw, safe_name
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.errors import ConfigError, DataError
from tests.commands.init.tables import proposed, write_table

N = 24
NASTY = [
    *(
        "view 1",
        "view-1",
        "View_1",
        "type",
        "keys",
        "values",
        "items",
        "pop",
        "training",
        "forward",
        "modules",
        "T_destination",
    ),
    *(
        "null",
        "on",
        "No",
        "Off",
        "true",
        "~",
        "1st",
        "2e5",
        "0x1f",
        "a.b",
        "a/b",
        "größe",
    ),
    *(
        "图片",
        "🙂",
        "class_path",
        "init_args",
        "lambda",
        "text: x",
        "# c",
        "- d",
        "'q'",
        '"dq"',
        "{e}",
        "[f]",
        "a,b",
        "a;b",
    ),
    *("x=y", "*", "a*", " é", "e\u0301", "\u2028l", "a\tb", "n" * 300, "%", "@", "!tag", "&anchor", "yes", "0"),
]


WORST = ["view 1", "view-1", "type", "null", "2e5", "a.b", "图片", "'q\": x, - {e} # c", "a,b", " \u2028é"]
REFERENCES = ["${run_dir}", "a${x}b\\", "\\${x}"]


def test_safe_names_are_safe_and_different() -> None:
    found: list[str] = []
    for name in NASTY:
        found.append(safe_name(name, "text", found))
    assert len({name.lower() for name in found}) == len(NASTY)
    for name in found:
        nn.ModuleDict({name: nn.Identity()})
        assert name.isidentifier()
        assert len(name) <= 60
        assert flaw(name) is None
        assert yaml.safe_load(f"{name}: 1") == {name: 1}
    assert safe_name("${run_dir}", "text") == "run_dir"
    assert safe_name("view 1", "text") == "view_1"
    assert safe_name("view-1", "text", ["view_1"]) == "view_1_2"
    assert safe_name("图片", "image") == "image"
    assert safe_name("größe", "text") == "groe"
    assert safe_name("type", "text") == "type_"
    assert safe_name("1st", "text") == "text_1st"


@pytest.mark.parametrize(
    "text", [*NASTY, *REFERENCES, "", "a\x7fb", "\\", "\\\\${", "nan", ".inf", "1:30", "2020-01-01", "0o7", "1_1"]
)
def test_quoted_text_is_read_as_it_was(text: str) -> None:
    from omegaconf import OmegaConf

    for written in (f"k: {_quoted(text)}", f"k: [{_quoted(text)}]", f"k: {{a: {_quoted(text)}, b: 1}}"):
        found = OmegaConf.to_container(OmegaConf.create(written), resolve=True)
        assert isinstance(found, dict)
        value = found["k"]
        assert (value[0] if isinstance(value, list) else value["a"] if isinstance(value, dict) else value) == text


def test_columns_with_any_name(tmp_path: Path) -> None:
    """Texts under all names at once: each is a modality, and the configuration builds the same data."""
    columns = {name: [f"{number} words of {i} here" for i in range(N)] for number, name in enumerate(WORST)}
    table = write_table(tmp_path, {**columns, "label": [f"c{i % 2}" for i in range(N)]})
    stream = io.StringIO()
    folder = init(str(table), str(tmp_path / "c"), console=Console(file=stream, width=200))
    found = proposed(table)
    assert [spec.columns for spec in found.specs.values()] == [[name] for name in WORST]
    assert "column 'view-1' is the modality 'view_1_2'" in stream.getvalue().replace("\n", "")
    config = parse_config(folder / "finetune.yaml", [])
    data = build_data(config)
    assert isinstance(data, TableDataModule)
    assert data.declared == found.specs
    data.setup("fit")
    assert set(data.tensors("train")) == {*found.specs, "label"}
    encoders = config.model.init_args.encoders
    assert list(encoders) == list(found.specs)


@pytest.mark.parametrize("name", REFERENCES)
def test_names_with_references_are_refused(tmp_path: Path, name: str) -> None:
    words = [f"some words of {i}" for i in range(N)]
    table = write_table(tmp_path, {name: words, "other": words})
    with pytest.raises(
        DataError, match="cannot be named in a configuration, where '\\$\\{' begins a reference; rename it"
    ):
        proposed(table)
    assert list(proposed(table, without=[name]).specs) == ["other"]


@pytest.mark.parametrize("name", ["type", "keys", "a.b", "label", "class_path", "${x}", "training"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a modality"):
        TableDataModule("t.csv", {name: ColumnSpec("text", ["a"])})
    table = write_table(tmp_path, {"a": [f"some words of {i}" for i in range(N)]})
    with pytest.raises(ConfigError, match=r"cannot be the name of a modality: .*; take '"):
        proposed(table, f"{name}=text:a")
