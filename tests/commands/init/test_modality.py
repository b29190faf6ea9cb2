"""`--modality`: its grammar, what is proposed for several columns, and the option that says a proposal."""

import shlex
from pathlib import Path

import pytest

from lightning_mmnas.commands.init.modality import parse_modality, spell_modality
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.reading import Table, read_table
from lightning_mmnas.errors import ConfigError, DataError
from tests.commands.init.tables import numbers, proposed, write_table

N = 12


@pytest.fixture
def table(tmp_path: Path) -> Table:
    names = ["v1_a", "v1_b", "v2_a", "photo", "song", "a,b", 'q"t', "w=1", "x;y", "size=3", "star*", "star2"]
    return read_table(write_table(tmp_path, {name: numbers(N, i) for i, name in enumerate(names)}))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("a=features:v1_a,v2_a", ColumnSpec("features", ["v1_a", "v2_a"])),
        ("a=features:v1_*", ColumnSpec("features", ["v1_a", "v1_b"])),
        ("a = features : *_a , photo", ColumnSpec("features", ["v1_a", "v2_a", "photo"])),
        ("a=features:star*", ColumnSpec("features", ["star*"])),
        ('a=features:"a,b",w=1,"x;y",size=3', ColumnSpec("features", ["a,b", "w=1", "x;y", "size=3"])),
        ('a=features:"q""t"', ColumnSpec("features", ['q"t'])),
        ("a=audio:song,seconds=2.5,rate=8000", ColumnSpec("audio", ["song"], seconds=2.5, rate=8000)),
        ("a=audio:song;seconds=2.5;rate=8000", ColumnSpec("audio", ["song"], seconds=2.5, rate=8000)),
        ("a=image:photo,size=32x48,channels=1", ColumnSpec("image", ["photo"], size=(32, 48), channels=1)),
        ("a=image:photo,size=32", ColumnSpec("image", ["photo"], size=(32, 32))),
        ("a=image:photo,maximum=4095,clip=true", ColumnSpec("image", ["photo"], maximum=4095.0, clip=True)),
        ("a=motion:photo,axes=ct,fit=crop", ColumnSpec("motion", ["photo"], axes="ct", fit="crop")),
        ("a=text:photo,tokenizer=none", ColumnSpec("text", ["photo"])),
        ("a=features:photo,files=true,length=7", ColumnSpec("features", ["photo"], files=True, length=7)),
    ],
)
def test_what_is_read(table: Table, text: str, spec: ColumnSpec) -> None:
    assert parse_modality(table, text)[:2] == ("a", spec)
    option = shlex.split(spell_modality("a", spec, table))
    assert option[0] == "--modality"
    assert parse_modality(table, option[1])[1] == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "is not of the form name=kind:column,column,setting=value"),
        ("a=features:", "is not of the form"),
        ("a=photo:photo", "kind 'photo' is not in"),
        ("a=features:v9_*", r"no column is like 'v9_\*'"),
        (
            "a=audio:song,secnds=2",
            r"'secnds' is no column, and no setting of kind 'audio'; those are \['rate', 'seconds'\]",
        ),
        ("a=image:photo,seconds=2", "no setting of kind 'image'; those are .*'size'"),
        ("a=audio:song,seconds=long", "seconds=long: input should be a valid number"),
        ("a=image:photo,size=3x4x5", "size=3x4x5: .*such as size=64x64"),
        ("a=audio:song,rate=0", "sizes and lengths must be positive, got rate=0"),
        ("a=image:photo,size=0x4,channels=0", r"positive, got channels=0, size=\(0, 4\)"),
        ("a=motion:photo,fit=stretch", "fit=stretch: input should be 'resample' or 'crop'"),
        ("a=motion:photo,axes=xy", "axes of kind 'motion' are the letters of"),
        ("a=image:photo,song", "takes one column"),
        ("a=audio:rate=3", "names no column"),
    ],
)
def test_what_is_refused(table: Table, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_modality(table, text)
    with pytest.raises(DataError, match="no column 'klass'"):
        parse_modality(table, "a=text:klass")


@pytest.mark.parametrize(
    ("names", "modalities"),
    [
        (["v1_a", "v1_b", "v2_a", "v2_b"], {"v1": ["v1_a", "v1_b"], "v2": ["v2_a", "v2_b"]}),
        (["audio_0", "audio_1", "audio_2", "audio_3", "age"], {"audio": 4, "numbers": ["age"]}),
        (["left.x", "right.x", "left.y", "right.y"], {"left": ["left.x", "left.y"], "right": ["right.x", "right.y"]}),
        (["mel0", "mel1", "acc1", "acc2"], {"mel": ["mel0", "mel1"], "acc": ["acc1", "acc2"]}),
        (["pixel_0", "pixel_1", "pixel_2", "pixel_3"], {"pixel": 4}),
        (["bill_length", "bill_depth", "mass", "wing"], {"numbers": 4}),
        (["bill_length", "bill_depth", "body_mass", "flipper_length"], {"numbers": 4}),
        (["mass", "wing"], {"numbers": 2}),
        (["0", "1", "2", "3", "4"], {"numbers": 5}),
        (["type_1", "type_2", "keys_1", "keys_2"], {"type_": 2, "keys_": 2}),
    ],
)
def test_prefixes_are_modalities(tmp_path: Path, names: list[str], modalities: dict[str, list[str] | int]) -> None:
    table = write_table(tmp_path, {name: numbers(N, i) for i, name in enumerate(names)})
    found = {name: spec.columns for name, spec in proposed(table).specs.items()}
    assert set(found) == set(modalities)
    for name, expected in modalities.items():
        assert found[name] == expected if isinstance(expected, list) else len(found[name]) == expected
    assert sorted(column for columns in found.values() for column in columns) == sorted(names)


def test_many_columns_are_spelt_as_a_pattern(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path, {f"audio_{i}": numbers(N, i) for i in range(128)}))
    spec = ColumnSpec("features", table.names)
    assert spell_modality("audio", spec, table) == "--modality 'audio=features:audio_*'"
    assert parse_modality(table, "audio=features:audio_*")[1] == spec


def test_a_pattern_means_no_other_columns(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path, {f"a_{i}": numbers(N, i) for i in range(8)}))
    spec = ColumnSpec("features", [name for name in table.names if name != "a_3"])
    assert spell_modality("a", spec, table) == "--modality a=features:a_0,a_1,a_2,a_4,a_5,a_6,a_7"
