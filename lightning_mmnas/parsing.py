"""JSON and YAML out of files that may hold anything: a value, or one error that names the place.

Python's own readers raise `RecursionError` for deep nesting, keep what is a little less deep for whoever walks through
it later, and YAML's aliases make a few lines stand for more nodes than there is memory (a "billion laughs").
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from lightning_mmnas.errors import ConfigError

DEPTH = 64
"""Lists and objects that may be inside each other; ours have less than 20."""
NODES = 1_000_000
"""Values that a YAML file may stand for, with every alias written out."""

_LONG = 40
"""Characters of a value in an error."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Says where a word is that is not of its tag, such as ``!!bool x``, or that is a date of month 99."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            value, kind = str(node.value), node.tag.rpartition(":")[2]
            shown = value if len(value) <= _LONG else f"{value[:_LONG]}…"
            reason = f" ({str(error).partition(':')[0]})" if isinstance(error, ValueError) else ""
            raise ConstructorError(None, None, f"{shown!r} is no {kind}{reason}", node.start_mark) from error


def parse_json(text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value that is written in JSON.

    Args:
        text: JSON; bytes in UTF-8, UTF-16 or UTF-32.
        object_pairs_hook: See `json.loads`.

    Raises:
        ValueError: It is no JSON, or nested more deeply than `DEPTH`.
    """
    try:
        value = json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise ValueError(f"nested more deeply than {DEPTH} levels") from None
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise ValueError(f"nested more deeply than {DEPTH} levels")
        inside = (node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list))
        level = [child for children in inside for child in children if isinstance(child, dict | list)]
    return value


def parse_yaml(text: str, source: str) -> Any:
    """The value that is written in YAML, of plain types only.

    Args:
        text: YAML, one document.
        source: What an error calls it.

    Raises:
        ConfigError: It is no YAML, asks for a Python object, is nested more deeply than `DEPTH`, or stands for more
            than `NODES` values; names line and column where they are known.
    """
    try:
        check_yaml(text, source)
        return yaml.load(text, _Loader)
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ConfigError(f"{source} is not valid YAML: {str(error) or type(error).__name__}") from error


def read_yaml(path: Path) -> Any:
    """The value in a YAML file in UTF-8; see `parse_yaml`.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: byte {error.start} is not UTF-8") from error
    return parse_yaml(text, str(path))


def check_yaml(text: str, source: str) -> None:
    """Checks the size of what YAML stands for, without making it.

    Raises:
        ConfigError: See `parse_yaml`.
        yaml.YAMLError: It is no YAML.
    """
    sizes: dict[str | None, int] = {}  # of anchors, with all aliases in them
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]  # anchor and size up to now of each node around
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            sizes.pop(event.anchor, None)  # not whole yet
            open_nodes.append((event.anchor, 1))
        elif isinstance(event, yaml.ScalarEvent | yaml.AliasEvent | yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop() if isinstance(event, yaml.CollectionEndEvent) else (event.anchor, 1)
            if isinstance(event, yaml.AliasEvent):
                if event.anchor in {name for name, _ in open_nodes}:
                    raise ConfigError(f"{source}, {_place(event)}: the alias *{event.anchor} holds itself")
                anchor, size = None, sizes.get(event.anchor, 1)
            if anchor is not None:
                sizes[anchor] = size
            around, before = open_nodes[-1]
            open_nodes[-1] = (around, before + size)
        if len(open_nodes) > DEPTH + 1:
            raise ConfigError(f"{source}, {_place(event)}: nested more deeply than {DEPTH} levels")
        if open_nodes[-1][1] > NODES:
            raise ConfigError(f"{source}, {_place(event)}: stands for more than {NODES:,} values")


def _place(event: yaml.Event) -> str:
    assert event.start_mark is not None  # it was read from a text
    return f"line {event.start_mark.line + 1}, column {event.start_mark.column + 1}"
