"""FusionNetwork: one genotype as a plain ``nn.Module``."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas.fusion.batch_norm import over_positions
from lightning_mmnas.fusion.dropout import Dropout
from lightning_mmnas.fusion.input_nodes import Grid, InputNodes, Pool
from lightning_mmnas.fusion.normed_linear import NormedLinear
from lightning_mmnas.fusion.primitives import build_primitive
from lightning_mmnas.fusion.readout import LateFeatures, ReadoutName, build_readout, out_features
from lightning_mmnas.space.genotype import CellGenotype, FusionSpace, Genotype


class CellOutput(nn.Module):
    """LayerNorm(steps + x): joins the last steps of a cell, adds its residual and normalises.

    More than one step output is brought back to c channels by a 1x1 convolution, batch norm, ReLU and dropout.

    Args:
        space: The search space: c, l and the number of step outputs.
        dropout: Probability of dropping a value, in [0, 1).
    """

    def __init__(self, space: FusionSpace, dropout: float) -> None:
        super().__init__()
        c, outputs = space.channels, space.step_outputs
        self.outputs = outputs
        self.linear = NormedLinear(outputs * c, c) if outputs > 1 else None
        self.batch_norm = nn.BatchNorm1d(c) if outputs > 1 else None
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm((space.length, c))

    def forward(self, steps: Sequence[Tensor], x: Tensor) -> Tensor:
        """All step outputs in order and the residual, each (b, l, c) -> (b, l, c)."""
        out = steps[-1] if self.outputs == 1 else torch.cat(list(steps[-self.outputs :]), dim=-1)
        if self.linear is not None and self.batch_norm is not None:
            out = self.dropout(F.relu(over_positions(self.batch_norm, self.linear(out, self.batch_norm.training))))
        normalised: Tensor = self.norm(out + x)
        return normalised


class NetworkCell(nn.Module):
    """One cell of a genotype.

    Args:
        cell: The cell's part of the genotype.
        space: The search space.
        dropout: Probability of dropping a value, in [0, 1).
    """

    def __init__(self, cell: CellGenotype, space: FusionSpace, dropout: float) -> None:
        super().__init__()
        self.wiring = [step.inputs for step in cell.steps]
        self.steps = nn.ModuleList(
            build_primitive(step.primitive, space.channels, space.length, dropout) for step in cell.steps
        )
        self.output = CellOutput(space, dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(b, l, c), (b, l, c) -> (b, l, c)."""
        states = {"x": x, "y": y}
        for t, ((first, second), primitive) in enumerate(zip(self.wiring, self.steps, strict=True)):
            states[f"step{t}"] = primitive(states[first], states[second])
        out: Tensor = self.output([states[f"step{t}"] for t in range(len(self.steps))], x)
        return out


class FusionNetwork(nn.Module):
    """The fusion network of one genotype: features of all modalities -> one vector.

    Only the input nodes that the genotype reads are built. BM-NAS genotypes may hold dead cells; these are built
    as published.

    Args:
        genotype: The architecture.
        feature_shapes: Shape of each feature without the batch axis, (c_in, *rest), by name; None: features are
            (b, l, c) already and there are no input nodes.
        readout: ``"branch"`` (default), ``"neck"``, ``"pool"`` or ``"flatten"``.
        dropout: Probability of dropping a value, in [0, 1).
        pool: See `InputNode`.
        grid: See `InputNode`.

    Raises:
        GenotypeError: The genotype reads a feature that has no shape, or names an unknown primitive.

    Examples:
        >>> import torch
        >>> from lightning_mmnas import FusionNetwork, FusionSpace
        >>> space = FusionSpace(inputs=("image/0", "image/1", "text/0"), channels=8, length=4)
        >>> genotype = space.sample(torch.Generator().manual_seed(0))
        >>> shapes = {"image/0": (16, 8, 8), "image/1": (32, 4, 4), "text/0": (24,)}
        >>> network = FusionNetwork(genotype, shapes)
        >>> features = {name: torch.randn(2, *shape) for name, shape in shapes.items()}
        >>> network(features).shape == (2, network.out_features)
        True
    """

    def __init__(
        self,
        genotype: Genotype,
        feature_shapes: Mapping[str, Sequence[int]] | None = None,
        readout: ReadoutName = "branch",
        dropout: float = 0.0,
        pool: Pool = "max",
        grid: Grid = "auto",
    ) -> None:
        super().__init__()
        space = genotype.space
        self.genotype = genotype
        self.options: dict[str, Any] = {"readout": readout, "dropout": dropout, "pool": pool, "grid": grid}
        read = {name for cell in genotype.cells for name in cell.inputs}
        used = [name for name in space.inputs if name in read]
        self.input_nodes = InputNodes(used, feature_shapes, space.channels, space.length, dropout, pool, grid)
        self.cells = nn.ModuleList(NetworkCell(cell, space, dropout) for cell in genotype.cells)
        self.late = LateFeatures(deepest_inputs(space), feature_shapes, space.channels)
        width = space.cell_outputs * space.channels
        self.readout = build_readout(readout, width, space.length, self.late.out_features)
        self.needs_late = readout in ("branch", "neck")
        self.out_features = out_features(self.readout)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name, each (b, c_in, *rest) -> (b, out_features)."""
        # Stacked, so that a node whose output no primitive uses has a gradient of zero, as DDP expects, and not none.
        nodes = torch.stack(self.input_nodes(features)).unbind()
        states = dict(zip(self.input_nodes.names, nodes, strict=True))
        for i, (cell, wiring) in enumerate(zip(self.cells, self.genotype.cells, strict=True)):
            x, y = (states[name] for name in wiring.inputs)
            states[f"cell{i}"] = cell(x, y)
        count, outputs = len(self.cells), self.genotype.space.cell_outputs
        joined = torch.cat([states[f"cell{i}"] for i in range(count - outputs, count)], dim=-1)
        late = self.late(features) if self.needs_late else None
        out: Tensor = self.readout(joined, late)
        return out


def deepest_inputs(space: FusionSpace) -> list[str]:
    """The deepest (last named) input of every modality."""
    return list({space.modality_of(name): name for name in space.inputs}.values())
