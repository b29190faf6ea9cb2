"""The primitives by name, and what exchanging their two inputs means."""

import re

SYMMETRIC_PRIMITIVES = ("zero", "sum", "linear_glu", "concat_fc")
"""Primitives whose two inputs may be exchanged (the columns of their weights follow)."""

ASYMMETRIC_PRIMITIVES = ("attention",)
"""Primitives whose first input has a role of its own, the query of the attention."""

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def is_symmetric(primitive: str) -> bool:
    """Whether exchanging the two inputs of `primitive` builds the same network.

    A primitive given by class path counts as asymmetric: to know better we would have to import
    it, and comparing or reading genotypes never executes code.
    """
    return primitive in SYMMETRIC_PRIMITIVES


def unknown_primitive(primitive: str) -> str | None:
    """What is wrong with the name of a primitive, None where it is one of ours or a class path."""
    known = SYMMETRIC_PRIMITIVES + ASYMMETRIC_PRIMITIVES
    if primitive in known or _CLASS_PATH.fullmatch(primitive):
        return None
    return f"{primitive!r} is unknown; accepted: {', '.join(known)} or a class path such as 'package.module.Class'"
