"""Versions of what decides the numbers of a run."""

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("torch", "lightning", "lightly", "torchmetrics", "lightning-mmnas")


def versions(*others: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers, and of others if wanted."""
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *others):
        try:
            found[name.replace("-", "_")] = version(name)
        except PackageNotFoundError:
            found[name.replace("-", "_")] = "unknown"
    return found
