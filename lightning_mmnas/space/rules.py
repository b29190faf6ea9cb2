"""FusionSpace: everything a search may build, as one small immutable value."""

import re
from collections.abc import Iterator
from itertools import combinations
from math import comb, prod
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from typing_extensions import Self

from lightning_mmnas.errors import GenotypeError

if TYPE_CHECKING:
    import torch

    from lightning_mmnas.genotype import Genotype

SYMMETRIC_PRIMITIVES = ("zero", "sum", "linear_glu", "concat_fc")
"""Primitives whose two inputs may be exchanged (the columns of their weights follow)."""

ASYMMETRIC_PRIMITIVES = ("attention",)
"""Primitives whose first input has a role of its own, the query of the attention."""

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_RESERVED = re.compile(r"cell\d+|step\d+|x|y")

NUMBERS = ("cells", "steps", "cell_outputs", "step_outputs", "channels", "length")


def is_symmetric(primitive: str) -> bool:
    """Whether exchanging the two inputs of `primitive` builds the same network.

    A primitive given by class path counts as asymmetric: to know better we would have to import
    it, and comparing or reading genotypes never executes code.
    """
    return primitive in SYMMETRIC_PRIMITIVES


class Value(BaseModel):
    """An immutable, strictly checked record whose constructor raises `GenotypeError`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    if not TYPE_CHECKING:  # type checkers see the constructor that pydantic derives from the fields

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise GenotypeError(f"{type(self).__name__}: {describe_errors(error)}") from None

        # pydantic then validates nested records as usual and reports the place in the whole value
        __init__.__pydantic_base_init__ = True


def describe_errors(error: ValidationError) -> str:
    """Returns what pydantic found as `place: reason`, separated by semicolons."""
    parts = []
    for item in error.errors(include_url=False):
        place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in item["loc"])
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            reason = "unknown key"
        elif item["type"] == "missing":
            reason = "missing"
        elif item["type"] != "value_error":
            given = repr(item["input"])
            given = given if len(given) <= 40 else given[:37] + "..."
            reason = f"{reason[:1].lower()}{reason[1:]}, but {given} was given"
        parts.append(f"{place.removeprefix('.')}: {reason}" if place else reason)
    return "; ".join(parts)


class FusionSpace(Value):
    """What can be searched: named inputs, cells, steps, primitives, sizes.

    Attributes:
        inputs: names of the features that cells may read, in order; "<modality>/<level>", level 0
            the shallowest, or just "<modality>".
        cells: number of cells; each reads two of the inputs and earlier cells.
        steps: number of steps in a cell; each reads two of x, y and earlier steps.
        cell_outputs: how many of the last cells make up the network's output; default all.
        step_outputs: how many of the last steps make up a cell's output; default all.
        channels: channels c of every state (b, l, c).
        length: positions l of every state (b, l, c).
        primitives: names among zero, sum, attention, linear_glu, concat_fc, or class paths
            "package.module.Class" (imported only when a network is built).

    Example:
        >>> space = FusionSpace(inputs=("image/0", "image/1", "text"), cells=1)
        >>> space.modalities
        ('image', 'text')
        >>> space.pairs(0)
        [('image/0', 'image/1'), ('image/0', 'text'), ('image/1', 'text')]
        >>> space.size()
        15
    """

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
            known = SYMMETRIC_PRIMITIVES + ASYMMETRIC_PRIMITIVES
            if primitive not in known and not _CLASS_PATH.fullmatch(primitive):
                raise ValueError(
                    f"primitives[{place}]: {primitive!r} is unknown; accepted: {', '.join(known)}"
                    " or a class path such as 'package.module.Class'"
                )
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
        return self.inputs + tuple(f"cell{i}" for i in range(cell))

    def pairs(self, cell: int) -> list[tuple[str, str]]:
        """Returns the legal (x, y) of cell number `cell`; x is the earlier of the two.

        Where only one candidate exists it is both x and y.
        """
        names = self.candidates(cell)
        return list(combinations(names, 2)) or [(names[0], names[0])]

    @staticmethod
    def step_candidates(step: int) -> tuple[str, ...]:
        """Returns what step number `step` of a cell may read: x, y, then the earlier steps."""
        return ("x", "y", *(f"step{i}" for i in range(step)))

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

    def validate(self, genotype: "Genotype") -> None:  # type: ignore[override]
        """Raises `GenotypeError`, naming the place, unless `genotype` is legal in this space.

        Legal means: as many cells and steps as the space has; each cell reads one of `pairs`;
        each step reads two different states of its cell; and nothing is dead, that is, every cell
        and step reaches the output. A genotype with `compatibility="bmnas"` may hold dead code.
        """
        genotype.require_space(self)
        problem = self.problem(genotype)
        if problem:
            raise GenotypeError(f"genotype: {problem}")

    def problem(self, genotype: "Genotype") -> str | None:
        """Returns the first thing that is illegal here as `place: reason`, or None."""
        from lightning_mmnas import canonical

        cells = genotype.cells
        if len(cells) != self.cells:
            return f"cells: {len(cells)} given, but the space has {self.cells}"
        for i, cell in enumerate(cells):
            problem = _misread(f"cells[{i}]", cell.inputs, self.candidates(i))
            if problem:
                return problem
            if cell.inputs not in self.pairs(i):
                return (
                    f"cells[{i}].inputs: {list(cell.inputs)} must be two different names, the"
                    f" earlier of {', '.join(self.candidates(i))} first"
                )
            if len(cell.steps) != self.steps:
                return f"cells[{i}].steps: {len(cell.steps)} given, but the space has {self.steps}"
            for t, step in enumerate(cell.steps):
                place = f"cells[{i}].steps[{t}]"
                problem = _misread(place, step.inputs, self.step_candidates(t))
                if problem:
                    return problem
                if step.inputs[0] == step.inputs[1]:
                    return f"{place}.inputs: {step.inputs[0]!r} twice; give two different names"
                if step.primitive not in self.primitives:
                    return (
                        f"{place}.primitive: {step.primitive!r} is not in the space;"
                        f" accepted: {', '.join(self.primitives)}"
                    )
        if genotype.compatibility == "bmnas":
            return None
        for i, cell in enumerate(cells):
            alive = canonical.live(canonical.step_nodes(cell), 2, self.step_outputs)
            dead = sorted(set(range(self.steps)) - alive)
            if dead:
                return f"cells[{i}].steps[{dead[0]}]: dead: it does not reach the cell's output"
        dead = sorted(set(range(self.cells)) - set(canonical.live_cells(genotype)))
        if dead:
            return f"cells[{dead[0]}]: dead: it does not reach the network's output"
        return None

    def size(self) -> int:
        """Returns the exact number of different networks in the space.

        Counted without listing them (`counting.py`).

        Raises:
            GenotypeError: the cells or steps are too many to count; `raw_size` is an upper bound.
        """
        from lightning_mmnas.counting import size

        return size(self)

    def enumerate(self) -> "Iterator[Genotype]":
        """Yields every network of the space once, as its canonical genotype."""
        from lightning_mmnas.counting import enumerate_genotypes

        return enumerate_genotypes(self)

    def sample(self, generator: "torch.Generator") -> "Genotype":
        """Returns a genotype drawn uniformly from the `size()` different networks of the space.

        Args:
            generator: source of all randomness, on the CPU.
        """
        from lightning_mmnas.counting import sample

        return sample(self, generator)


def _misread(place: str, names: tuple[str, str], candidates: tuple[str, ...]) -> str | None:
    for k, name in enumerate(names):
        if name not in candidates:
            accepted = ", ".join(candidates)
            return f"{place}.inputs[{k}]: {name!r} cannot be read here; accepted: {accepted}"
    return None
