"""Checks of the arguments of augmentations."""

from lightning_mmnas.errors import ConfigError


def check(name: str, value: float, holds: bool, range_: str) -> None:
    """Raises `ConfigError` for an argument out of its range.

    Args:
        name: The argument.
        value: What was given.
        holds: Whether it is in its range.
        range_: The range, in words.
    """
    if not holds:
        raise ConfigError(f"{name} must be {range_}, got {value}")
