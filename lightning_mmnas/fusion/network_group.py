"""NetworkGroup: many fusion networks of one space, trained side by side as one batched module."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.fused import mean_and_max
from lightning_mmnas.fusion.grouped_layers import (
    GroupedBatchNorm,
    GroupedLayerNorm,
    GroupedLinear,
    GroupedSequential,
    grouped_primitive,
    write_back,
)
from lightning_mmnas.fusion.input_nodes import InputNode, key, pool_positions
from lightning_mmnas.fusion.network import CellOutput, FusionNetwork, NetworkCell


class NetworkGroup(nn.Module):
    """g fusion networks of one space and readout as one module: features of all modalities -> (g, b, out_features).

    Every network computes and learns what it would alone, from the same batches: the gradient of a sum of losses, one
    per network, is that of each. What they share (pooling, the matrix products of the input nodes) is done at once,
    and small operations become few large ones. The networks' weights are copied in; `write_back` copies them out.

    Args:
        networks: The networks, without dropout, all of one space, one readout and the same features.

    Raises:
        GenotypeError: The networks differ in more than their wiring, or have dropout or primitives of the user's own.

    Examples:
        >>> import torch
        >>> from lightning_mmnas import FusionNetwork, FusionSpace
        >>> space = FusionSpace(inputs=("image", "text"), channels=8, length=4)
        >>> shapes = {"image": (16, 5, 5), "text": (24,)}
        >>> networks = [FusionNetwork(genotype, shapes) for genotype in space.enumerate()][:3]
        >>> group = NetworkGroup(networks)
        >>> group({name: torch.randn(2, *shape) for name, shape in shapes.items()}).shape == (3, 2, group.out_features)
        True
    """

    def __init__(self, networks: Sequence[FusionNetwork]) -> None:
        super().__init__()
        first = networks[0]
        space = first.genotype.space
        self.space, self.size, self.out_features = space, len(networks), first.out_features
        for network in networks:
            network.genotype.require_space(space)
            if type(network.readout) is not type(first.readout) or network.out_features != first.out_features:
                raise GenotypeError("the networks of a group need the same readout")
            if _pooling(network) != _pooling(first):
                raise GenotypeError("the networks of a group need the same pooling of the same features")
            if any(isinstance(part, nn.Dropout) and part.p > 0 for part in network.modules()):
                raise GenotypeError("networks with dropout cannot be trained in a group; set dropout to 0")
        # Rows of the stacked input nodes: (network, name) in the order of the names.
        self.names = [name for name in space.inputs if any(name in n.input_nodes.names for n in networks)]
        self.readers = {
            name: [g for g, network in enumerate(networks) if name in network.input_nodes.names] for name in self.names
        }
        rows = {(g, name): row for row, (name, g) in enumerate((n, g) for n in self.names for g in self.readers[n])}
        self.without_nodes = first.input_nodes.nodes is None
        self.nodes = nn.ModuleDict()
        if not self.without_nodes:
            for name in self.names:
                members = [_input_node(networks[g], name) for g in self.readers[name]]
                self.nodes[key(name)] = _GroupedInputNode(members)
        self.cells = nn.ModuleList()
        for i in range(space.cells):
            for g in range(self.size):
                rows[g, f"cell{i}"] = len(rows)
            self.cells.append(_GroupedCell(networks, i, rows))
        self.outputs = space.cell_outputs
        self.needs_late, self.late = first.needs_late, first.late
        self.readout = _GROUPED_READOUTS[type(first.readout).__name__]([network.readout for network in networks])

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name, each (b, c_in, *rest), the same for all networks -> (g, b, out_features)."""
        if self.without_nodes:
            nodes = [features[name].expand(len(self.readers[name]), *features[name].shape) for name in self.names]
        else:
            nodes = [self.nodes[key(name)](features[name]) for name in self.names]
        states, cells = [torch.cat(nodes)], []
        for cell in self.cells:
            cells.append(cell(states[0] if len(states) == 1 else torch.cat(states)))
            states.append(cells[-1])
        joined = torch.cat(cells[-self.outputs :], dim=-1)
        late = self.late(features) if self.needs_late else None
        out: Tensor = self.readout(joined, late)
        return out

    def write_back(self) -> None:
        """Copies the group's weights and statistics into the networks it was made of."""
        write_back(self)


class _GroupedInputNode(nn.Module):
    """One input node of the networks that read it: (b, c_in, *rest) -> (k, b, l, c)."""

    def __init__(self, members: Sequence[InputNode]) -> None:
        super().__init__()
        self.linear = GroupedLinear([member.linear for member in members])
        self.norm = GroupedBatchNorm([member.norm for member in members])
        first = members[0]
        self.length, self.pool, self.grid = first.length, first.pool, first.grid

    def forward(self, feature: Tensor) -> Tensor:
        pooled = pool_positions(feature, self.length, self.pool, self.grid).flatten(2).transpose(1, 2)
        out = F.relu(self.norm(self.linear(pooled.flatten(0, 1), self.norm.training)))
        return out.view(len(out), -1, self.length, out.shape[-1])


class _GroupedCell(nn.Module):
    """Cell number i of every network: stacked states (rows, b, l, c) -> (g, b, l, c)."""

    def __init__(self, networks: Sequence[FusionNetwork], i: int, rows: Mapping[tuple[int, str], int]) -> None:
        super().__init__()
        space, size = networks[0].genotype.space, len(networks)
        members = [cast(NetworkCell, network.cells[i]) for network in networks]
        wirings = [network.genotype.cells[i].inputs for network in networks]
        total = 1 + max(row for (_, name), row in rows.items() if name != f"cell{i}")
        self.steps = nn.ModuleList()
        self.sizes: list[list[int]] = []

        def row(g: int, state: str) -> int:
            if state in ("x", "y"):
                return rows[g, wirings[g][state == "y"]]
            return total + int(state.removeprefix("step")) * size + g

        for t in range(space.steps):
            kinds: dict[type[nn.Module], list[int]] = {}
            for g, member in enumerate(members):
                kinds.setdefault(type(member.steps[t]), []).append(g)
            self.steps.append(
                nn.ModuleList(grouped_primitive([members[g].steps[t] for g in gs]) for gs in kinds.values())
            )
            # One gather per step: first and second inputs kind by kind, at the last step the residuals too.
            reads = [row(g, members[g].wiring[t][k]) for gs in kinds.values() for k in (0, 1) for g in gs]
            sizes = [len(gs) for gs in kinds.values() for _ in (0, 1)]
            if t == space.steps - 1:
                reads += [row(g, "x") for g in range(size)]
                sizes += [size]
            self.sizes.append(sizes)
            order = torch.tensor([g for gs in kinds.values() for g in gs])
            self.register_buffer(f"reads{t}", torch.tensor(reads), persistent=False)
            self.register_buffer(f"back{t}", order.argsort(), persistent=False)
        self.output = _GroupedCellOutput([member.output for member in members])

    def forward(self, states: Tensor) -> Tensor:
        steps: list[Tensor] = []
        for t, (primitives, sizes) in enumerate(zip(self.steps, self.sizes, strict=True)):
            seen = torch.cat([states, *steps]) if steps else states
            read = torch.split(seen.index_select(0, self.get_buffer(f"reads{t}")), sizes)
            outs = [
                primitive(read[2 * k], read[2 * k + 1]) for k, primitive in enumerate(cast(nn.ModuleList, primitives))
            ]
            steps.append(outs[0] if len(outs) == 1 else torch.cat(outs).index_select(0, self.get_buffer(f"back{t}")))
        out: Tensor = self.output(steps, read[-1])
        return out


class _GroupedCellOutput(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        first = cast(CellOutput, members[0])
        self.outputs = first.outputs
        self.linear = self.batch_norm = None
        if first.linear is not None:
            self.linear = GroupedLinear([cast(nn.Module, member.linear) for member in members])
            self.batch_norm = GroupedBatchNorm([cast(nn.Module, member.batch_norm) for member in members])
        self.norm = GroupedLayerNorm([cast(nn.Module, member.norm) for member in members])

    def forward(self, steps: Sequence[Tensor], x: Tensor) -> Tensor:
        out = torch.cat(list(steps[-self.outputs :]), dim=-1) if self.outputs > 1 else steps[-1]
        if self.linear is not None and self.batch_norm is not None:
            out = F.relu(self.batch_norm(self.linear(out.flatten(1, 2), self.batch_norm.training))).view_as(x)
        normalised: Tensor = self.norm(out + x)
        return normalised


class _GroupedFlatten(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norm = GroupedLayerNorm([cast(nn.Module, member.norm) for member in members])

    def forward(self, cells: Tensor, late: Tensor | None = None) -> Tensor:
        return F.relu(self.norm(cells)).transpose(2, 3).flatten(2)


class _GroupedPool(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norm = GroupedBatchNorm([cast(nn.Module, member.norm) for member in members])

    def forward(self, cells: Tensor, late: Tensor | None = None) -> Tensor:
        out: Tensor = self.norm(mean_and_max(cells))
        return out


class _GroupedBranch(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.cells = _GroupedPool([cast(nn.Module, member.cells) for member in members])
        self.late = GroupedSequential([cast(nn.Module, member.late) for member in members])

    def forward(self, cells: Tensor, late: Tensor) -> Tensor:
        return torch.cat([self.cells(cells), self.late(late)], dim=2)


class _GroupedNeck(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.cells = _GroupedPool([cast(nn.Module, member.cells) for member in members])
        self.neck = GroupedSequential([cast(nn.Module, member.neck) for member in members])

    def forward(self, cells: Tensor, late: Tensor) -> Tensor:
        pooled = self.cells(cells)
        out: Tensor = self.neck(torch.cat([pooled, late.expand(len(pooled), *late.shape)], dim=2))
        return out


_GROUPED_READOUTS = {
    "FlattenReadout": _GroupedFlatten,
    "PoolReadout": _GroupedPool,
    "BranchReadout": _GroupedBranch,
    "NeckReadout": _GroupedNeck,
}


def _pooling(network: FusionNetwork) -> tuple[object, ...]:
    """What input nodes make of features, and of which features the late ones are."""
    nodes = network.input_nodes.nodes
    kinds = {(node.pool, node.grid) for node in nodes.values()} if nodes is not None else set()
    return (kinds, network.late.names, network.late.out_features)


def _input_node(network: FusionNetwork, name: str) -> InputNode:
    assert network.input_nodes.nodes is not None
    return cast(InputNode, network.input_nodes.nodes[key(name)])
