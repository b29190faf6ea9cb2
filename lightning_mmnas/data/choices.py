"""Arguments that are one of a few words, or a module: scripts have no command line that looks at them."""

from collections.abc import Callable, Mapping
from functools import cache
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from lightning_mmnas.errors import ConfigError


def check_choices(constructor: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuses words that an argument does not know, which would count as another one, and what should be a module.

    Args:
        constructor: Its annotations say what is known: ``Literal`` of words, or a kind of module.
        given: Arguments by name; others are left aside.

    Raises:
        ConfigError: An argument is neither one of its words nor of another type that it takes.

    Examples:
        >>> def build(pool: Literal["max", "avg"]) -> None: ...
        >>> check_choices(build, {"pool": "mean"})
        Traceback (most recent call last):
        lightning_mmnas.errors.ConfigError: pool must be one of ['max', 'avg'], got 'mean'
    """
    for name, (words, types) in _expected(constructor).items():
        if name not in given or isinstance(value := given[name], types) or value in words:
            continue
        if words:
            raise ConfigError(f"{name} must be one of {words}, got {value!r}")
        shown = f"the class {value.__name__}, which is called to make one" if isinstance(value, type) else repr(value)
        raise ConfigError(f"{name} must be a module, got {shown}")


@cache
def _expected(constructor: Callable[..., Any]) -> dict[str, tuple[list[Any], tuple[type, ...]]]:
    """Words and types of the arguments that take words or modules only, None aside."""
    found: dict[str, tuple[list[Any], tuple[type, ...]]] = {}
    for name, hint in get_type_hints(constructor).items():
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        types = tuple(kind for kind in kinds if isinstance(kind, type))
        modules = all(issubclass(kind, nn.Module | NoneType) for kind in types) and len(types) == len(kinds)
        if words or (modules and set(types) - {NoneType}):
            found[name] = words, types
    return found


def check_share(name: str, value: object) -> None:
    """Refuses what is no number between 0 and 1.

    Raises:
        ConfigError: It names the argument and what was given.
    """
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ConfigError(f"{name} must be between 0 and 1, both excluded, got {value!r}; check data.init_args.{name}")
