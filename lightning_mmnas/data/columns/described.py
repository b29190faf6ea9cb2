"""What a function is, in words that are the same in every process, and what needs to be done but once in a process."""

import hashlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

_REMEMBERED = 2_000_000
"""Hashes that are kept, some 200 MB."""
_done: set[bytes] = set()


def described(decode: Callable[..., object]) -> str:
    """A function's name and the arguments bound to it, those that are plain values."""
    if not isinstance(decode, partial):
        return str(getattr(decode, "__qualname__", type(decode).__qualname__))
    bound: dict[Any, Any] = {**dict(enumerate(decode.args)), **decode.keywords}
    plain = {str(key): value for key, value in bound.items() if " at 0x" not in repr(value)}
    return f"{described(decode.func)} {sorted(plain.items())!r}"


def is_described(decode: Callable[..., object]) -> bool:
    """Whether `described` tells a function from all others: one of a module, with plain values bound to it."""
    if isinstance(decode, partial):
        bound = [*decode.args, *decode.keywords.values()]
        return all(" at 0x" not in repr(value) for value in bound) and is_described(decode.func)
    return inspect.isfunction(decode) and "<" not in decode.__qualname__


def once(what: str, do: Callable[[], object]) -> None:
    """Does something, unless the same was done before by this process without an error."""
    name = hashlib.blake2b(what.encode(), digest_size=16).digest()
    if name in _done:
        return
    do()
    if len(_done) < _REMEMBERED:
        _done.add(name)
