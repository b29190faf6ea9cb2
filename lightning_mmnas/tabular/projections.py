"""What criteria see of a group of networks: the projections of one of them, computed for all at once."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

Projections = Callable[[Mapping[str, Tensor]], Tensor]


def once(project: Projections, prepared: Any) -> Projections:
    """Projects each of the features that were prepared once; those that a criterion makes while scoring, every time."""
    lasting = {
        id(features) for features in _mappings(prepared)
    }  # alive as long as `prepared`: no others have their ids
    known: dict[int, tuple[list[Tensor], Tensor]] = {}

    def projections(features: Mapping[str, Tensor]) -> Tensor:
        if id(features) not in lasting:
            return project(features)
        values = list(features.values())
        before, found = known.get(id(features), ([], None))
        if found is None or [*map(id, before)] != [*map(id, values)]:
            found = project(features)
            known[id(features)] = values, found
        return found

    return projections


def _mappings(prepared: Any) -> Iterator[Mapping[str, Tensor]]:
    """The features in nested lists of them."""
    if isinstance(prepared, Mapping):
        yield prepared
    elif isinstance(prepared, list | tuple):
        for part in prepared:
            yield from _mappings(part)


def nth(projections: Projections, g: int) -> Projections:
    """Projections of network g alone."""
    return lambda features: projections(features)[g]
