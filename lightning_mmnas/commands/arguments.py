"""The arguments of a class as its source says them, read without importing it: help that needs no torch."""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import lightning_mmnas
from lightning_mmnas.errors import ConfigError

_LIGHTNING = ("lightning.pytorch.callbacks", "lightning.pytorch.loggers")
"""Where other classes are looked for that are known by their name alone."""

_ENTRY = re.compile(r"(\w+)(?: \(.*?\))?: *(.*)")


@dataclass(frozen=True)
class Argument:
    """An argument of a class.

    Attributes:
        name: Its name.
        type: Its type as written; empty where none is.
        default: Its default as written; None: it has to be given.
        text: What the docstring says of it.
    """

    name: str
    type: str
    default: str | None
    text: str


@dataclass(frozen=True)
class Described:
    """A class: what it is, and its arguments."""

    name: str
    summary: str
    arguments: tuple[Argument, ...]


def describe(name: str) -> Described:
    """Reads the source of a class.

    Args:
        name: A class of this package or of Lightning's callbacks and loggers by its name alone, or any by its class
            path. Where it has no ``__init__``, that of its first base with source is shown.

    Raises:
        ConfigError: There is no such class, or none with source.
    """
    homes = lightning_mmnas.HOMES
    module, _, short = name.rpartition(".")
    places = [module] if module else [f"lightning_mmnas.{homes[name]}"] if name in homes else _LIGHTNING
    found = next(filter(None, (_find(place, short, set()) for place in places)), None)
    if found is None:
        near = difflib.get_close_matches(short, homes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "give a class path, such as my_package.MyModule"
        raise ConfigError(f"no source of a class {name!r} is found; {hint}")
    definition, place = found
    summary = (ast.get_docstring(definition) or "").partition("\n\n")[0].replace("\n", " ")
    seen: set[tuple[str, str]] = set()
    texts: dict[str, str] = {}
    while True:
        init = next((n for n in definition.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        for docstring in (ast.get_docstring(definition), ast.get_docstring(init) if init else None):
            texts = {**_texts(docstring or ""), **texts}
        if init is not None:
            return Described(short, summary, tuple(_arguments(init, texts)))
        bases = [base.id for base in definition.bases if isinstance(base, ast.Name)]
        above = next(filter(None, (_find(place, base, seen) for base in bases)), None)
        if above is None:
            return Described(short, summary, ())
        definition, place = above


def _find(module: str, name: str, seen: set[tuple[str, str]]) -> tuple[ast.ClassDef, str] | None:
    """A class that a module defines, or takes from another one."""
    path = _file(module)
    if path is None or (module, name) in seen:
        return None
    seen.add((module, name))
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, OSError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, module
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            if (alias.asname or alias.name) == name:
                parts = module.split(".")
                package = parts if path.name == "__init__.py" else parts[:-1]
                start = package[: len(package) - node.level + 1] if node.level else []
                return _find(".".join([*start, *filter(None, [node.module])]), alias.name, seen)
    return None


def _file(module: str) -> Path | None:
    """The source of a module. Only its first package is asked for: to ask for more would import that."""
    first, *rest = module.split(".")
    try:
        spec = find_spec(first)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    for root in map(Path, spec.submodule_search_locations or []):
        path = root.joinpath(*rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return Path(spec.origin) if not rest and spec.origin is not None else None


def _texts(docstring: str) -> dict[str, str]:
    """The entries of a docstring's section ``Args``."""
    lines = docstring.partition("Args:\n")[2].splitlines()
    texts: dict[str, str] = {}
    indent, name = 0, ""
    for line in lines:
        depth = len(line) - len(line.lstrip())
        indent = indent or depth
        entry = _ENTRY.fullmatch(line.strip())
        if line.strip() and depth < indent:
            break
        if entry and depth == indent:
            name = entry.group(1)
            texts[name] = entry.group(2)
        elif name:
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts


def _arguments(init: ast.FunctionDef, texts: dict[str, str]) -> list[Argument]:
    positional = [*init.args.posonlyargs, *init.args.args]
    missing = len(positional) - len(init.args.defaults)
    pairs = list(zip(positional, [None] * missing + list(init.args.defaults), strict=True))[1:]  # without self
    pairs += zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    return [
        Argument(
            argument.arg,
            ast.unparse(argument.annotation) if argument.annotation else "",
            None if default is None else ast.unparse(default),
            texts.get(argument.arg, ""),
        )
        for argument, default in pairs
    ]
