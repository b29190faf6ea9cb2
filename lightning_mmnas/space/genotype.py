"""FusionSpace and Genotype: everything that a search may build, and one point of it, as immutable values.

They stand together because each speaks of the other: a genotype knows its space, a space lists and draws genotypes.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError, model_validator
from typing_extensions import Self

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.space import counting, rules
from lightning_mmnas.space.canonical import (
    Code,
    Wiring,
    arrange,
    cell_nodes,
    equality_code,
    live_cells,
    spell,
    writable,
)
from lightning_mmnas.space.definition import NUMBERS, SpaceDefinition
from lightning_mmnas.space.json_file import read_object, read_text, write_text
from lightning_mmnas.space.patterns import TooManyError
from lightning_mmnas.space.value import Value, describe_errors

if TYPE_CHECKING:
    import torch

__all__ = ["CellGenotype", "FusionSpace", "Genotype", "StepGenotype"]


class FusionSpace(SpaceDefinition):
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

    Examples:
        >>> space = FusionSpace(inputs=("image/0", "image/1", "text"), cells=1)
        >>> space.modalities
        ('image', 'text')
        >>> space.pairs(0)
        [('image/0', 'image/1'), ('image/0', 'text'), ('image/1', 'text')]
        >>> space.size()
        15
    """

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
        wiring = genotype.wiring._replace(
            inputs=self.inputs, cell_outputs=self.cell_outputs, step_outputs=self.step_outputs
        )
        dead_code = genotype.compatibility == "bmnas"
        return rules.problem(wiring, self.cells, self.steps, self.primitives, dead_code=dead_code)

    def size(self) -> int:
        """Returns the exact number of different networks in the space.

        Counted without listing them (`counting.py`).

        Raises:
            GenotypeError: the cells or steps are too many to count; `raw_size` is an upper bound.
        """
        with self._countable():
            return counting.size(self._sizes)

    def enumerate(self) -> Iterator["Genotype"]:
        """Yields every network of the space once, as its canonical genotype."""
        with self._countable():
            yield from (Genotype.spelled(self, code) for code in counting.codes(self._sizes))

    def sample(self, generator: "torch.Generator") -> "Genotype":
        """Returns a genotype drawn uniformly from the `size()` different networks of the space.

        Args:
            generator: source of all randomness, on the CPU.
        """
        with self._countable():
            code = counting.draw(self._sizes, generator)
        if code is None:
            raise GenotypeError(
                f"the space holds no network at all: with primitives {', '.join(self.primitives)} no"
                f" {self.cells} cells of {self.steps} steps all reach the output"
            )
        return Genotype.spelled(self, code)

    @property
    def _sizes(self) -> counting.Sizes:
        outputs = (self.cell_outputs, self.step_outputs)
        return counting.Sizes(len(self.inputs), self.cells, self.steps, *outputs, self.primitives)

    @contextmanager
    def _countable(self) -> Iterator[None]:
        try:
            yield
        except TooManyError:
            most = self.raw_size()
            shown = f"{most:,}" if most < 10**30 else f"10^{int(most.bit_length() * math.log10(2)) + 1}"
            raise GenotypeError(
                f"a space of {self.cells} cells of {self.steps} steps is too large to be counted,"
                f" listed or drawn from uniformly; it holds at most {shown} (raw_size)"
            ) from None


class StepGenotype(Value):
    """One step of a cell: `primitive(first input, second input)`.

    Attributes:
        inputs: two different names among "x", "y" and the earlier "step0", "step1", ...
        primitive: a primitive of the space.
    """

    inputs: tuple[str, str]
    primitive: str


class CellGenotype(Value):
    """One cell: its two inputs (x, y) and its steps.

    Attributes:
        inputs: names among the space's inputs and the earlier "cell0", "cell1", ...
        steps: the steps in order; the last `step_outputs` of them are the cell's output.
    """

    inputs: tuple[str, str]
    steps: tuple[StepGenotype, ...]


class Genotype(Value):
    """One fusion network of a `FusionSpace`, by names rather than indices.

    What is written is kept: weights belong to cells and steps in the order given. Equality and
    hash look at the network that is built instead (`key`): genotypes that
    differ only in the order of cells or steps, in the order of a symmetric primitive's inputs or
    in dead code are equal, and so are genotypes of spaces that differ only in what else they hold.

    Attributes:
        schema_version: version of the JSON format.
        space: the space it is a point of.
        cells: the cells in order; the last `cell_outputs` of them are the network's output.
        compatibility: "bmnas" for genotypes by BM-NAS's rules, which may hold dead code (built
            as written); None otherwise.

    Examples:
        >>> genotype = Genotype(
        ...     space=FusionSpace(inputs=("image", "text"), cells=1),
        ...     cells=[{"inputs": ["image", "text"],
        ...             "steps": [{"inputs": ["x", "y"], "primitive": "sum"}]}],
        ... )
        >>> print(genotype.describe())
        cell0 = norm(step0 + x) with x = image, y = text
          step0 = sum(x, y)
        output = cell0; reads image, text
        >>> Genotype.from_json(genotype.to_json()) == genotype
        True
    """

    schema_version: Literal[1] = 1
    space: FusionSpace
    cells: tuple[CellGenotype, ...]
    compatibility: Literal["bmnas"] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        problem = self.space.problem(self)
        if problem:
            raise ValueError(problem)
        return self

    @cached_property
    def wiring(self) -> Wiring:
        """The network in words, without its space."""
        cells = [(cell.inputs, [(step.inputs, step.primitive) for step in cell.steps]) for cell in self.cells]
        return Wiring(self.space.inputs, cells, self.space.cell_outputs, self.space.step_outputs)

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """What equality and hash look at: inputs offered, sizes, and the live cells and steps up to their order."""
        space = self.space
        sizes = (space.cell_outputs, space.step_outputs, space.channels, space.length)
        return (space.inputs, *sizes, equality_code(self.wiring))

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Genotype) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def canonical(self) -> "Genotype":
        """Returns the same network in the canonical order of cells, steps and their inputs.

        Dead code, where `compatibility` allows it, is kept.
        """
        nodes = cell_nodes(self.wiring, pruned=False)
        inputs, outputs = self.space.inputs, self.space.cell_outputs
        fits = writable(len(inputs))
        arranged = arrange(nodes, len(inputs), outputs, first_is_earlier=True, fits=fits)
        assert arranged is not None  # the order of this genotype is one
        return self.spelled(self.space, arranged[0], self.compatibility)

    @classmethod
    def spelled(cls, space: FusionSpace, code: Code, compatibility: Any = None) -> "Genotype":
        """Returns the genotype which a code of `canonical.py` stands for."""
        cells = tuple(
            CellGenotype(
                inputs=inputs,
                steps=tuple(StepGenotype(inputs=pair, primitive=name) for pair, name in steps),
            )
            for inputs, steps in spell(code, space.inputs)
        )
        return cls(space=space, cells=cells, compatibility=compatibility)

    def inputs_read(self) -> frozenset[str]:
        """Returns the inputs that reach the output: dead code and zero steps do not count."""
        names = self.space.inputs
        reads = {read for node in live_cells(self.wiring).values() for read in node.reads}
        return frozenset(names[read] for read in reads if read < len(names))

    def modalities_read(self) -> frozenset[str]:
        """Returns the modalities of `inputs_read`."""
        return frozenset(self.space.modality_of(name) for name in self.inputs_read())

    def require_space(self, space: FusionSpace) -> None:
        """Raises `GenotypeError`, naming what differs, if the genotype is for another space."""
        differences = [
            f"{field} differ: {_short(getattr(self.space, field))} in the genotype,"
            f" {_short(getattr(space, field))} expected"
            for field in FusionSpace.model_fields
            if getattr(self.space, field) != getattr(space, field)
        ]
        if differences:
            raise GenotypeError(f"genotype is for another space: {'; '.join(differences)}")

    def describe(self) -> str:
        """Returns the network as a few lines of plain text."""
        space = self.space
        lines = []
        for i, cell in enumerate(self.cells):
            outputs = [f"step{t}" for t in range(space.steps - space.step_outputs, space.steps)]
            out = outputs[0] if len(outputs) == 1 else f"merge({', '.join(outputs)})"
            lines.append(f"cell{i} = norm({out} + x) with x = {cell.inputs[0]}, y = {cell.inputs[1]}")
            for t, step in enumerate(cell.steps):
                lines.append(f"  step{t} = {step.primitive}({', '.join(step.inputs)})")
        last = ", ".join(f"cell{i}" for i in range(space.cells - space.cell_outputs, space.cells))
        read = self.modalities_read()
        modalities = ", ".join(name for name in space.modalities if name in read)
        return "\n".join([*lines, f"output = {last}; reads {modalities}"])

    def to_json(self, indent: int | None = 2) -> str:
        """Returns the genotype as JSON text, in the order given."""
        return self.model_dump_json(indent=indent, exclude_none=True)

    @classmethod
    def from_json(cls, text: str) -> "Genotype":
        """Returns the genotype that is written in `text`.

        Raises:
            GenotypeError: it is not JSON, not a genotype, or not legal in its own space.
        """
        return cls._parse(text, "genotype")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON to `path`, whole or not at all."""
        write_text(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Genotype":
        """Returns the genotype in the file `path`.

        Raises:
            GenotypeError: the file is missing, unreadable, not JSON in UTF-8 or not a genotype.
        """
        return cls._parse(read_text(path), str(path))

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Returns the JSON schema of genotype files."""
        schema = cls.model_json_schema()
        for part in (schema, *schema["$defs"].values()):
            part["description"] = part["description"].partition("\n\nExample:")[0]
        for name in NUMBERS:
            number = schema["$defs"]["FusionSpace"]["properties"][name]
            number["minimum"] = 1
            if number["default"] is None:  # `cells` or `steps`
                del number["default"]
        schema["required"] = ["schema_version", *schema["required"]]
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

    @classmethod
    def _parse(cls, text: str, source: str) -> "Genotype":
        data = read_object(text, source)
        version = data.get("schema_version")
        if version != 1 or isinstance(version, bool):
            raise GenotypeError(
                f"{source}: schema_version: {version!r} is unknown; accepted: 1"
                " (a newer lightning-mmnas may have written it)"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise GenotypeError(f"{source}: {describe_errors(error)}") from None


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)
