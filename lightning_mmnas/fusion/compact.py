"""What a fusion network needs of a feature, and no more: l pooled positions, and mean and maximum of all of them."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from lightning_mmnas.fusion.input_nodes import Grid, Pool, is_square, pool_positions
from lightning_mmnas.fusion.readout import SUMMARY, mean_max_pool


def compact(features: Mapping[str, Tensor], length: int, pool: Pool, grid: Grid) -> dict[str, Tensor]:
    """Features pooled to what input nodes and readouts make of them anyway, so that a network gives the same.

    Args:
        features: By name, each (b, c, *rest).
        length: l of the input nodes.
        pool: See `InputNode`.
        grid: See `InputNode`.

    Returns:
        A vector (b, c) as it is; of any other feature (b, c, l) or (b, c, sqrt(l), sqrt(l)) under its name, and its
        mean and maximum (b, 2 c) under ``<name>#summary``.
    """
    found = {}
    for name, feature in features.items():
        if feature.ndim == 2 or name.endswith(SUMMARY):
            found[name] = feature
            continue
        found[name] = pool_positions(feature, length, pool, grid)
        found.setdefault(name + SUMMARY, features.get(name + SUMMARY, mean_max_pool(feature)))
    return found


def compact_shapes(shapes: Mapping[str, Sequence[int]], length: int, grid: Grid) -> dict[str, tuple[int, ...]]:
    """Shapes, without the batch axis, of what `compact` makes of features of the given shapes."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (channels, *rest) in shapes.items():
        if not rest:
            found[name] = (channels,)
            continue
        side = math.isqrt(length)
        positions = (side, side) if is_square(len(rest) + 2, length, grid) else (length,)
        found[name] = (channels, *positions)
        found[name + SUMMARY] = (2 * channels,)
    return found
