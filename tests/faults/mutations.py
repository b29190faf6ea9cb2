"""Valid files made wrong: bytes that are flipped, cut and doubled, and values of other types and sizes."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 10**9, 10**15, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, 5e-324),
    *(float("inf"), float("-inf"), float("nan"), "", " ", "x", "y", "cell0", "step1", "zero", "sum", "\0", "\u202e"),
    *("\ud800", "é" * 50, "x" * 10_000, "../../x", "/etc/passwd", "package:os", "${run_dir}", "${a.b}", "1e999", "0x"),
    *("null", "os.system", "lightning_mmnas", "*", "!!python/name:os.system", [], {}, [[]], [None], {"": {}}, [1, "a"]),
    *({"class_path": "os.system"}, {"class_path": "subprocess.Popen", "init_args": {"args": "true"}}, [{}] * 3),
)
_PIECES = (
    *(b"\0", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n", b'"', b"'", b",", b";", b":", b"[", b"]", b"{"),
    *(b"}", b"\\", b"\\u", b"- ", b"!!", b"!!bool x", b"!!float ", b"&a ", b"*a", b"<<: ", b"|", b">", b"%", b"#"),
    *(b"9" * 30, b"1e999", b"nan"),
    *(b"\t", b"---\n", b"...\n", b"[" * 200, b"- " * 200, b'""""', b"\xe2\x80\xa8", b"-", b".", b"~"),
)


def mutated_bytes(content: bytes, random: Random) -> bytes:
    """The content with one to four changes."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(data) + 1)
        end = min(len(data), at + random.choice((1, 1, 2, 5, 20, 100)))
        kind = random.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = random.choice(_PIECES)
        elif kind == 3:
            data[at:at] = data[at:end]
        elif kind == 4:
            data[at:end] = random.choice(_PIECES)
        elif kind == 5:
            del data[at:]
        elif at < len(data):
            data[at] = random.randrange(256)
    return bytes(data)


def mutated_value(value: Any, random: Random) -> Any:
    """A value of JSON or YAML with one to three entries replaced, left out, doubled or put elsewhere."""
    root = json.loads(json.dumps({"root": value}))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        inside, key = random.choice(list(_places(root)))
        kind = random.randrange(6)
        if kind <= 2 or inside is root:
            inside[key] = deepcopy(random.choice(VALUES))  # a later change must not change `VALUES`
        elif kind == 3:
            del inside[key]
        elif kind == 4 and isinstance(inside, list):
            inside.insert(random.randrange(len(inside) + 1), inside[key])
        elif kind == 4:
            inside[random.choice(("x", "", "cells", str(key) + "s", str(key).upper()))] = inside[key]
        else:
            inside[key] = random.choice(([inside[key]], {"a": inside[key]}, str(inside[key])))
    return root["root"]


def _places(node: Any) -> list[tuple[Any, Any]]:
    found = []
    for key in list(node if isinstance(node, dict) else range(len(node))):
        found.append((node, key))
        if isinstance(node[key], dict | list):
            found += _places(node[key])
    return found
