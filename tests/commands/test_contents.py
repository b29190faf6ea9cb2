"""A finished stage says that its table has been changed since."""

from pathlib import Path

import pytest

from lightning_mmnas.commands import contents
from lightning_mmnas.commands.contents import changed_since, content_of
from lightning_mmnas.commands.stages import Stage, find_configs
from lightning_mmnas.errors import ConfigError


def test_a_changed_table_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_ENDS", 4)
    table = tmp_path / "t.csv"
    stage = Stage("search", tmp_path / "search.yaml", settings={"data.init_args.table": str(table)})
    known = set()
    for text in ("", "a", "abcd", "abcde", "abcde\n", "abcd567890", "abcd667890x", "xbcd667890x"):
        table.write_text(text)
        record = {"table": content_of(stage)}
        assert changed_since(record, stage) == ""
        known.add(record["table"])
    assert len(known) == 8
    table.write_text("other")
    assert changed_since(record, stage) == f"; {table} has changed since: a run with a new --output would see it"
    assert changed_since({}, stage) == ""  # of an earlier version
    table.unlink()
    assert changed_since(record, stage) == ""
    assert content_of(Stage("search", tmp_path / "search.yaml")) is None


def test_a_file_of_a_stage_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text("")
    with pytest.raises(ConfigError, match=rf"is a file; a run takes the folder of its stages' files: {tmp_path}"):
        find_configs(tmp_path / "search.yaml")
