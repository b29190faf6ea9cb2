"""Genotype: one point of a FusionSpace, as a validated immutable value that is JSON outside."""

import json
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, model_validator
from typing_extensions import Self

from lightning_mmnas.canonical import (
    Code,
    arrange,
    cell_nodes,
    equality_key,
    live_cells,
    spell,
    writable,
)
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.space import NUMBERS, FusionSpace, Value, describe_errors

__all__ = ["CellGenotype", "FusionSpace", "Genotype", "StepGenotype"]


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
    hash look at the network that is built instead (`canonical.equality_key`): genotypes that
    differ only in the order of cells or steps, in the order of a symmetric primitive's inputs or
    in dead code are equal, and so are genotypes of spaces that differ only in what else they hold.

    Attributes:
        schema_version: version of the JSON format.
        space: the space it is a point of.
        cells: the cells in order; the last `cell_outputs` of them are the network's output.
        compatibility: "bmnas" for genotypes by BM-NAS's rules, which may hold dead code (built
            as written); None otherwise.

    Example:
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
    def key(self) -> tuple[Any, ...]:
        """What equality and hash look at."""
        return equality_key(self)

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Genotype) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def canonical(self) -> "Genotype":
        """Returns the same network in the canonical order of cells, steps and their inputs.

        Dead code, where `compatibility` allows it, is kept.
        """
        nodes = cell_nodes(self, pruned=False)
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
        reads = {read for node in live_cells(self).values() for read in node.reads}
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
        return _parse(text, "genotype")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON to `path`, whole or not at all."""
        target = Path(path)
        new = target.with_name(f".{target.name}.{os.getpid()}.new")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(self.to_json() + "\n", encoding="utf-8")
            new.replace(target)
        except OSError as error:
            raise GenotypeError(f"{target}: cannot be written: {error.strerror}") from error
        finally:
            with suppress(OSError):
                new.unlink()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Genotype":
        """Returns the genotype in the file `path`.

        Raises:
            GenotypeError: the file is missing, unreadable, not JSON in UTF-8 or not a genotype.
        """
        try:
            text = Path(path).read_bytes().decode("utf-8")
        except FileNotFoundError:
            raise GenotypeError(f"{path}: no such file; a genotype is written by the search stage") from None
        except UnicodeDecodeError as error:
            raise GenotypeError(f"{path}: not UTF-8 at byte {error.start}") from None
        except OSError as error:
            raise GenotypeError(f"{path}: cannot be read: {error.strerror}") from error
        return _parse(text, str(path))

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


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)


def _parse(text: str, source: str) -> Genotype:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise GenotypeError(f"{source}: the key {twice[0]!r} appears twice in one object")
        return dict(pairs)

    try:
        data = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise GenotypeError(f"{source}: not JSON: {error.msg} at {place}") from None
    except GenotypeError:
        raise
    except (ValueError, RecursionError) as error:  # an endless number, endless nesting
        raise GenotypeError(f"{source}: not JSON that can be read: {error}") from None
    if not isinstance(data, dict):
        raise GenotypeError(f"{source}: a {type(data).__name__} where an object is needed")
    version = data.get("schema_version")
    if version != 1 or isinstance(version, bool):
        raise GenotypeError(
            f"{source}: schema_version: {version!r} is unknown; accepted: 1"
            " (a newer lightning-mmnas may have written it)"
        )
    try:
        return Genotype.model_validate(data)
    except ValidationError as error:
        raise GenotypeError(f"{source}: {describe_errors(error)}") from None
