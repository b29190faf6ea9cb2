"""Checks of the arguments of augmentations, and of the first pixels that one is given."""

from weakref import WeakSet

from torch import Tensor, nn

from lightning_mmnas.data.spec import check_pixels
from lightning_mmnas.errors import ConfigError

_looked_at: WeakSet[nn.Module] = WeakSet()
"""Not in the modules: by their attributes a feature cache knows whose views it holds."""


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


def look_once(views: nn.Module, pixels: Tensor, what: str) -> None:
    """Has `check_pixels` look at the first batch of an augmentation; at all of them, a GPU would be waited for.

    Args:
        views: The augmentation.
        pixels: Its batch.
        what: What they are, for the message.

    Raises:
        DataError: They are of another type or range.
    """
    if views not in _looked_at:
        check_pixels(pixels, what)
        _looked_at.add(views)
