"""CostTable: what every architecture of a space costs, from what its parts cost."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor
from typing_extensions import Self

from lightning_mmnas.costs.measuring import Conditions, CostKind, measure_costs
from lightning_mmnas.errors import CostError
from lightning_mmnas.files import write_text
from lightning_mmnas.fusion.pairing import PairingLogits
from lightning_mmnas.fusion.readout import ReadoutName
from lightning_mmnas.fusion.supernet import FusionSupernet
from lightning_mmnas.space.genotype import FusionSpace, Genotype
from lightning_mmnas.space.value import Value, describe_errors

UNITS = {"parameters": "parameters", "flops": "FLOPs per sample", "latency": "seconds per batch"}
Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CostTable(Value):
    """The cost of every part that a search chooses, and of all the rest, for the fusion networks of one space.

    An architecture costs the input nodes that it names (each once, however many cells read it), the primitive of
    every step, and the fixed rest: the outputs of the cells, the readout and all that happens between the parts. The
    sum is exact for parameters and for FLOPs. For latency it is an estimate; trust its order more than its value.
    Encoders, projection head and classifier are not in it: the search does not change them.

    Attributes:
        schema_version: Version of the JSON format.
        kind: ``"parameters"``, ``"flops"`` (per sample) or ``"latency"`` (seconds per batch of the conditions).
        space: The space it is for.
        readout: Readout of the networks, part of the fixed rest.
        inputs: Cost of every input node, by name.
        primitives: Cost of every primitive, by name.
        fixed: Cost of all that every architecture has.
        conditions: Under which a latency was measured; None for parameters and FLOPs.

    Raises:
        GenotypeError: A cost is missing, negative or not finite.

    Examples:
        >>> from lightning_mmnas import FusionNetwork, FusionSpace
        >>> space = FusionSpace(inputs=("image/0", "image/1", "text/0"), channels=8, length=4)
        >>> shapes = {"image/0": (16, 8, 8), "image/1": (32, 4, 4), "text/0": (24,)}
        >>> table = CostTable.measure(space, shapes, "parameters")
        >>> genotype = space.sample(torch.Generator().manual_seed(0))
        >>> network = FusionNetwork(genotype, shapes)
        >>> table.of(genotype) == sum(parameter.numel() for parameter in network.parameters())
        True
    """

    schema_version: Literal[1] = 1
    kind: CostKind
    space: FusionSpace
    readout: ReadoutName
    inputs: dict[str, Cost]
    primitives: dict[str, Cost]
    fixed: Cost
    conditions: Conditions | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field, names in (("inputs", self.space.inputs), ("primitives", self.space.primitives)):
            given = getattr(self, field)
            if set(given) != set(names):
                raise ValueError(f"{field}: costs of {sorted(given)} given, but the space has {sorted(names)}")
        return self

    @classmethod
    def measure(
        cls,
        space: FusionSpace,
        feature_shapes: Mapping[str, tuple[int, ...]] | None,
        kind: CostKind,
        readout: ReadoutName = "branch",
        **options: object,
    ) -> Self:
        """Counts or measures the parts of a space's networks; see `measuring.measure_costs`.

        Args:
            space: The space.
            feature_shapes: Shape of each feature without the batch axis, by name; None: features are (b, l, c).
            kind: What to count or measure.
            readout: Readout of the networks.
            options: Further arguments of `measuring.measure_costs`.
        """
        return cls(**measure_costs(space, feature_shapes, kind, readout, **options))  # type: ignore[arg-type]

    def of(self, genotype: Genotype) -> float:
        """Returns the cost of an architecture as it is written, dead code included.

        Raises:
            GenotypeError: The genotype is for another space.
        """
        genotype.require_space(self.space)
        named = sorted({name for cell in genotype.cells for name in cell.inputs} & set(self.inputs))
        steps = [self.primitives[step.primitive] for cell in genotype.cells for step in cell.steps]
        return self.fixed + sum(self.inputs[name] for name in named) + sum(steps)

    def expected(self, supernet: FusionSupernet) -> Tensor:
        """Returns the mean cost of the architectures that the logits stand for, differentiable.

        Inputs of cells and primitives are drawn as in decoding, in proportion to the mixture weights among the legal
        pairs: cell i names input j with probability p[i, j], and some cell names it with 1 - prod over i of
        (1 - p[i, j]). Gradients reach alpha and gamma; which states a step reads (beta) costs nothing.

        Args:
            supernet: Of the table's space.

        Returns:
            A scalar on the logits' device, in float64 where the device has it.

        Raises:
            CostError: The supernet is of another space.
        """
        if supernet.space != self.space:
            raise CostError("the cost table is for another space than the supernet; measure it for supernet.space")
        return self._expected(supernet.logits)

    def relative(self, supernet: FusionSupernet) -> Tensor:
        """Returns `expected` as a fraction of its value at equal mixture weights, both without the fixed rest.

        It is 1 before a search, unitless, and the same for all readouts; 0 where no choice costs anything.
        """
        expected = self.expected(supernet) - self.fixed
        scale = float(self._expected(supernet.logits.undecided())) - self.fixed
        return expected / scale if scale > 0 else 0 * expected

    def _expected(self, logits: PairingLogits) -> Tensor:
        unread, total = torch.ones(()), torch.zeros(())
        for i in range(self.space.cells):
            named = logits.read_probabilities(i)
            unread = unread.to(named) * (1 - named[: len(self.inputs)])
            chosen = logits.primitive_probabilities(i)
            costs = [self.primitives[name] for name, _ in logits.variants]
            total = total.to(chosen) + (chosen @ chosen.new_tensor(costs)).sum()
        inputs = unread.new_tensor([self.inputs[name] for name in self.space.inputs])
        return self.fixed + total + ((1 - unread) * inputs).sum()

    def text(self, cost: float) -> str:
        """Returns a cost in words, with its unit and all its digits."""
        number = f"{cost:.0f}" if cost == round(cost) else repr(cost)
        return f"{number} {UNITS[self.kind]}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON to `path`, whole or not at all.

        Raises:
            RunDirectoryError: The file cannot be written.
        """
        write_text(Path(path), self.model_dump_json(indent=2, exclude_none=True) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Returns the table in the file `path`.

        Raises:
            CostError: The file is missing, unreadable or not a cost table.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except ValidationError as error:
            raise CostError(f"{path}: {describe_errors(error)}") from None
        except OSError as error:
            raise CostError(f"{path}: cannot be read: {error.strerror}; a table is written by CostTable.save") from None
