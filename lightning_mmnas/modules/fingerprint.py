"""What a frozen module's output depends on, as short texts: its classes and arguments, its code, its weights."""

import hashlib
import inspect
import sys
from typing import Any

from torch import nn

from lightning_mmnas.data.samples import tensor_digest

_PLAIN = (bool, int, float, str, type(None))
_OF_MODULES = frozenset(vars(nn.Module()))


def architecture(module: nn.Module) -> str:
    """Hash of the classes of a module and its parts, with their plain attributes and the code that defines them.

    Classes of torch are known by their name: their code is its version's.
    """
    state = hashlib.blake2b(digest_size=16)
    for name, part in module.named_modules():
        kind = type(part)
        plain = {key: _plain(value) for key, value in vars(part).items() if key not in _OF_MODULES and _is_plain(value)}
        state.update(f"{name} {kind.__module__}.{kind.__qualname__} {sorted(plain.items())} {code(kind)}\n".encode())
    return state.hexdigest()


def weights(module: nn.Module) -> str:
    """Hash of a module's state dict."""
    state = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        state.update(f"{name} {tensor_digest(value)}\n".encode())
    return state.hexdigest()


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(item) for item in (*value.keys(), *value.values()))
    return isinstance(value, _PLAIN)


def _plain(value: Any) -> str:
    return repr(sorted(value, key=repr)) if isinstance(value, set | frozenset) else repr(value)


def code(kind: type) -> str:
    """Hash of the file that defines a class; empty for torch's own, whose code is its version's."""
    if kind.__module__.partition(".")[0] in ("torch", "torchvision"):
        return ""
    try:
        source = inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError, KeyError):
        return "unknown"
    return hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
