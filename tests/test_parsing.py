"""JSON and YAML that may hold anything: a value, or one error with the place."""

import json
import time
from pathlib import Path

import pytest

from lightning_mmnas.errors import ConfigError
from lightning_mmnas.parsing import DEPTH, parse_json, parse_yaml, read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


def test_values_are_those_of_the_libraries() -> None:
    assert parse_json('{"a": [1, 2.5, null, "é"]}') == {"a": [1, 2.5, None, "é"]}
    assert parse_json(b"[1]") == [1]
    assert parse_json("[" * DEPTH + "]" * DEPTH) == json.loads("[" * DEPTH + "]" * DEPTH)
    assert parse_yaml("a: &x [1, 2.5, null]\nb: *x\nc: {<<: {d: 1}, e: yes}", "f") == {
        "a": [1, 2.5, None],
        "b": [1, 2.5, None],
        "c": {"d": 1, "e": True},
    }
    assert parse_yaml("[" * DEPTH + "]" * DEPTH, "f") == json.loads("[" * DEPTH + "]" * DEPTH)
    assert parse_yaml("", "f") is None


@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**5, "[" * (DEPTH + 1) + "]" * (DEPTH + 1)])
def test_deep_json(text: str) -> None:
    with pytest.raises(ValueError, match="nested more deeply than 64 levels"):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10**6, "nested more deeply than 64 levels|maximum nesting depth"),
        ("x: 1\ny: " + "{a: " * 10**5, "^f, line 2, column 256: nested more deeply"),
        ("- " * 10**6, "^f, line 1, column 129: nested more deeply"),
        (LAUGHS, "^f, line 7, column 15: stands for more than 1,000,000 values$"),
        ("a: &a [*a]", r"^f, line 1, column 8: the alias \*a holds itself$"),
        ("a: &a {b: {c: *a}}", r"the alias \*a holds itself"),
        ("a: !!python/object/apply:os.getcwd []", "f is not valid YAML: could not determine a constructor"),
        ("{[a]: 1}", "found unhashable key"),
        ("a: 2001-99-99", r"'2001-99-99' is no timestamp \(month must be in 1\.\.12\) in .*, line 1, column 4$"),
        ("a: !!timestamp x", "f is not valid YAML: 'x' is no timestamp in .*, line 1, column 4$"),
        ("b: 1\nmodel: !!bool x", "f is not valid YAML: 'x' is no bool in .*, line 2, column 8$"),
        ("? !!bool x\n: 1", "'x' is no bool in .*, line 1, column 3$"),
        ("model: !!int ''", "f is not valid YAML: '' is no int in"),
        ("a: !!float q", "f is not valid YAML: 'q' is no float"),
        ("a: " + "9" * 10_000, "f is not valid YAML: '9{40}…' is no int"),
        ("a: *b", "found undefined alias"),
        ("a\0", "control characters are not allowed"),
        ("--- 1\n--- 2", "expected a single document"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text, "f")
    assert time.process_time() - start < 5


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(ConfigError, match=r"cannot read .*a\.yaml: No such file"):
        read_yaml(path)
    path.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"a\.yaml is not valid YAML: byte 3 is not UTF-8"):
        read_yaml(path)
    path.write_text("a: é", encoding="utf-8")
    assert read_yaml(path) == {"a": "é"}
