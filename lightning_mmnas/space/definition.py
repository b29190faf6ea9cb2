"""What defines a search space: named inputs, cells, steps, primitives and sizes, checked when it is made."""

import re
from math import comb, prod
from typing import Any

from pydantic import model_validator
from typing_extensions import Self

from lightning_mmnas.space.primitive_names import is_symmetric, unknown_primitive
from lightning_mmnas.space.rules import cell_candidates, input_pairs, step_candidates
from lightning_mmnas.space.value import Value

_RESERVED = re.compile(r"cell\d+|step\d+|x|y")

NUMBERS = ("cells", "steps", "cell_outputs", "step_outputs", "channels", "length")
LARGEST = {name: 65_536 if name in ("channels", "length") else 256 for name in NUMBERS}
"""Far beyond what can be trained: a file that asks for more would fill the memory."""


class SpaceDefinition(Value):
    """The fields of a `FusionSpace`, where they are explained, and what follows from them alone."""

    inputs: tuple[str, ...]
    cells: int = 2
    steps: int = 1
    cell_outputs: int = None  # type: ignore[assignment]  # None becomes `cells`
    step_outputs: int = None  # type: ignore[assignment]  # None becomes `steps`
    channels: int = 32
    length: int = 8
    primitives: tuple[str, ...] = ("sum", "attention", "linear_glu", "concat_fc")

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for field in [field for field in NUMBERS if field in data]:  # pydantic would take "3", 3.0 and True as well
            given = data[field]
            whole = isinstance(given, int) and not isinstance(given, bool)
            if not (whole and given >= 1) and not (given is None and field.endswith("_outputs")):
                raise ValueError(f"{field}: {given!r} is not a whole number of at least 1")
            if whole and given > LARGEST[field]:
                raise ValueError(f"{field}: {given} is more than {LARGEST[field]}")
        for outputs, total in (("cell_outputs", "cells"), ("step_outputs", "steps")):
            if data.get(outputs) is None:
                data[outputs] = data.get(total, cls.model_fields[total].default)
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.inputs:
            raise ValueError("inputs: empty; name at least one feature, such as 'image/0'")
        for place, name in enumerate(self.inputs):
            modality, slash, level = name.rpartition("/")
            if name != name.strip() or not level or (slash and not modality):
                raise ValueError(f"inputs[{place}]: {name!r} is not '<modality>/<level>' or a name")
            if not name.isprintable():
                raise ValueError(f"inputs[{place}]: {name!r} holds characters that do not print")
            if _RESERVED.fullmatch(name):
                raise ValueError(f"inputs[{place}]: {name!r} is reserved for cells and steps")
        for place, primitive in enumerate(self.primitives):
            if wrong := unknown_primitive(primitive):
                raise ValueError(f"primitives[{place}]: {wrong}")
        if not self.primitives:
            raise ValueError("primitives: empty; name at least one")
        for field, names in (("inputs", self.inputs), ("primitives", self.primitives)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{field}: {', '.join(map(repr, twice))} given more than once")
        for outputs, total in (("cell_outputs", "cells"), ("step_outputs", "steps")):
            if getattr(self, outputs) > getattr(self, total):
                raise ValueError(f"{outputs}: {getattr(self, outputs)} is more than {total} ({getattr(self, total)})")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the inputs, each once, in the order of the inputs."""
        return tuple(dict.fromkeys(self.modality_of(name) for name in self.inputs))

    @staticmethod
    def modality_of(name: str) -> str:
        """Returns the modality of an input: what stands before the last slash, or all of it."""
        return name.rpartition("/")[0] or name

    def candidates(self, cell: int) -> tuple[str, ...]:
        """Returns what cell number `cell` may read: the inputs, then the earlier cells."""
        return cell_candidates(self.inputs, cell)

    def pairs(self, cell: int) -> list[tuple[str, str]]:
        """Returns the legal (x, y) of cell number `cell`; x is the earlier of the two.

        Where only one candidate exists it is both x and y.
        """
        return input_pairs(self.inputs, cell)

    @staticmethod
    def step_candidates(step: int) -> tuple[str, ...]:
        """Returns what step number `step` of a cell may read: x, y, then the earlier steps."""
        return step_candidates(step)

    def variants(self, pair: tuple[str, str]) -> list[tuple[tuple[str, str], str]]:
        """Returns every distinct ((first, second), primitive) over an unordered pair of states.

        A symmetric primitive appears once, an asymmetric one in both orders.
        """
        ways: list[tuple[tuple[str, str], str]] = []
        for primitive in self.primitives:
            ways.append((pair, primitive))
            if not is_symmetric(primitive):
                ways.append(((pair[1], pair[0]), primitive))
        return ways

    def raw_size(self) -> int:
        """Returns the number of ways to write a genotype down, dead code and repeats included."""
        ways = len(self.variants(("x", "y")))
        program = prod(comb(2 + t, 2) * ways for t in range(self.steps))
        candidates = range(len(self.inputs), len(self.inputs) + self.cells)
        return prod(max(1, comb(n, 2)) * program for n in candidates)
