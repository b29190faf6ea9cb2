"""BM-NAS's supernet and its alternation, written plainly from their mathematics: what our speed is measured against.

Yin, Huang, Zhang, AAAI 2022 (arXiv 2104.09379). One module per primitive and edge, states of shape (b, c, l) as in the
paper, every loss differentiated with respect to weights and logits alike, and a forward pass after the architecture
step whose result nobody uses. Names of parameters are those of the released checkpoints, so that
`lightning_mmnas.interop.bmnas` converts them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Any], Tensor]
"""The loss of a batch."""


class Sum(nn.Module):
    """x + y."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class ScaledDotAttention(nn.Module):
    """LayerNorm(dropout(softmax(x^T y / sqrt(c)) y^T)), without projections."""

    def __init__(self, c: int, length: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.ln = nn.LayerNorm((c, length))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        query, key, value = x.transpose(1, 2), y.transpose(1, 2), y.transpose(1, 2)
        attention = F.softmax(query @ key.transpose(1, 2) / math.sqrt(query.shape[-1]), dim=-1)
        attended = (attention @ value).transpose(1, 2)
        out: Tensor = self.ln(self.dropout(attended))
        return out


class LinearGLU(nn.Module):
    """GLU(BN(W [x; y])) over the channels."""

    def __init__(self, c: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2 * c, 2 * c, 1)
        self.bn = nn.BatchNorm1d(2 * c)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z = self.bn(self.conv(torch.cat([x, y], dim=1)))
        out: Tensor = self.dropout(F.glu(z, dim=1))
        return out


class ConcatFC(nn.Module):
    """ReLU(BN(W [x; y])) over the channels."""

    def __init__(self, c: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2 * c, c, 1)
        self.bn = nn.BatchNorm1d(c)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.dropout(F.relu(self.bn(self.conv(torch.cat([x, y], dim=1)))))
        return out


class MixedOperation(nn.Module):
    """The weighted sum of all primitives."""

    def __init__(self, c: int, length: int, dropout: float) -> None:
        super().__init__()
        self._ops = nn.ModuleList(
            [Sum(), ScaledDotAttention(c, length, dropout), LinearGLU(c, dropout), ConcatFC(c, dropout)]
        )

    def forward(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        outs = [weight * op(x, y) for weight, op in zip(weights, self._ops, strict=True)]
        return _total(outs)


class NodeCell(nn.Module):
    """The lower level: inner steps, their concatenation, the residual, LayerNorm."""

    def __init__(self, c: int, length: int, steps: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.outputs = outputs
        self.node_ops = nn.ModuleList(MixedOperation(c, length, dropout) for _ in range(steps))
        if outputs > 1:
            self.out_conv = nn.Conv1d(outputs * c, c, 1)
            self.bn = nn.BatchNorm1d(c)
            self.dropout = nn.Dropout(dropout)
        self.ln = nn.LayerNorm((c, length))

    def forward(self, x: Tensor, y: Tensor, betas: Tensor, gammas: Tensor) -> Tensor:
        states, offset = [x, y], 0
        edges, primitives = F.softmax(betas, dim=-1), F.softmax(gammas, dim=-1)
        for t, operation in enumerate(self.node_ops):
            u = _total([_edge(state, edges[offset + j]) for j, state in enumerate(states)])
            offset += len(states)
            states.append(operation(u, u, primitives[t]))
        out = torch.cat(states[-self.outputs :], dim=1)
        if self.outputs > 1:
            out = self.dropout(F.relu(self.bn(self.out_conv(out))))
        normalised: Tensor = self.ln(out + x)
        return normalised


class StepNode(nn.Module):
    """Holds a cell under the name it has in checkpoints."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.node_cell = cell


def _nodes(steps: nn.ModuleList) -> list[nn.Module]:
    return [cast(StepNode, step).node_cell for step in steps]


class FusionCell(nn.Module):
    """The upper level: every cell reads all inputs and all earlier cells."""

    def __init__(
        self, c: int, length: int, cells: int, cell_outputs: int, steps: int, step_outputs: int, dropout: float
    ) -> None:
        super().__init__()
        self.cell_outputs = cell_outputs
        self._step_nodes = nn.ModuleList(
            StepNode(NodeCell(c, length, steps, step_outputs, dropout)) for _ in range(cells)
        )
        self.ln = nn.LayerNorm((cell_outputs * c, length))

    def forward(
        self, inputs: Sequence[Tensor], alphas: Tensor, betas: Sequence[Tensor], gammas: Sequence[Tensor]
    ) -> Tensor:
        states, offset = list(inputs), 0
        edges = F.softmax(alphas, dim=-1)
        for i, node in enumerate(_nodes(self._step_nodes)):
            h = _total([_edge(state, edges[offset + j]) for j, state in enumerate(states)])
            offset += len(states)
            states.append(node(h, h, betas[i], gammas[i]))
        out = torch.cat(states[-self.cell_outputs :], dim=1)
        return F.relu(self.ln(out)).flatten(1)


class ReferenceSupernet(nn.Module):
    """n states (b, c, l) -> (b, cell_outputs c l).

    Args:
        inputs: n.
        c: Channels.
        length: l.
        cells: Cells of the upper level.
        cell_outputs: Cells that make up the output.
        steps: Inner steps of a cell.
        step_outputs: Steps that make up a cell's output.
        dropout: Probability of dropping a value, in [0, 1).

    Attributes:
        arch: The logits by name: ``alphas``, ``betas.i`` and ``gammas.i``; plain tensors, outside of the state.
    """

    def __init__(
        self,
        inputs: int,
        c: int,
        length: int,
        cells: int = 2,
        cell_outputs: int = 2,
        steps: int = 1,
        step_outputs: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.cell = FusionCell(c, length, cells, cell_outputs, steps, step_outputs, dropout)
        shapes = {"alphas": (sum(inputs + i for i in range(cells)), 2)}
        for i in range(cells):
            shapes[f"betas.{i}"] = (sum(2 + t for t in range(steps)), 2)
            shapes[f"gammas.{i}"] = (steps, 4)
        self.arch = {name: (1e-3 * torch.randn(shape)).requires_grad_() for name, shape in shapes.items()}
        self.cells = cells

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        betas = [self.arch[f"betas.{i}"] for i in range(self.cells)]
        gammas = [self.arch[f"gammas.{i}"] for i in range(self.cells)]
        out: Tensor = self.cell(inputs, self.arch["alphas"], betas, gammas)
        return out


class FoundCell(nn.Module):
    """A cell of a found network: one primitive per step, its two inputs chosen."""

    def __init__(self, c: int, length: int, operations: Sequence[nn.Module], edges: Sequence[int]) -> None:
        super().__init__()
        self.edges = edges
        self.node_ops = nn.ModuleList(operations)
        self.ln = nn.LayerNorm((c, length))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        states = [x, y]
        for t, operation in enumerate(self.node_ops):
            states.append(operation(states[self.edges[2 * t]], states[self.edges[2 * t + 1]]))
        out: Tensor = self.ln(states[-1] + x)
        return out


class FoundFusion(nn.Module):
    """The upper level of a found network: every cell reads two inputs."""

    def __init__(self, c: int, length: int, cells: Sequence[nn.Module], edges: Sequence[int]) -> None:
        super().__init__()
        self.edges = edges
        self._step_nodes = nn.ModuleList(StepNode(cell) for cell in cells)
        self.ln = nn.LayerNorm((len(cells) * c, length))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        outs = [
            node(inputs[self.edges[2 * i]], inputs[self.edges[2 * i + 1]])
            for i, node in enumerate(_nodes(self._step_nodes))
        ]
        return F.relu(self.ln(torch.cat(outs, dim=1))).flatten(1)


class ReferenceNetwork(nn.Module):
    """A found network of two cells: a LinearGLU of the states 0 and 2, an attention of the states 1 and 3.

    Args:
        c: Channels.
        length: l.
        dropout: Probability of dropping a value, in [0, 1).

    Attributes:
        fields: The genotype, as the released code prints it.
    """

    fields: ClassVar[dict[str, Any]] = {
        "edges": [("skip", 0), ("skip", 2), ("skip", 1), ("skip", 3)],
        "steps": [
            {"inner_edges": [("skip", 0), ("skip", 1)], "inner_steps": ["LinearGLU"], "inner_concat": [2]},
            {"inner_edges": [("skip", 0), ("skip", 1)], "inner_steps": ["ScaleDotAttn"], "inner_concat": [2]},
        ],
    }

    def __init__(self, c: int, length: int, dropout: float = 0.0) -> None:
        super().__init__()
        operations = (LinearGLU(c, dropout), ScaledDotAttention(c, length, dropout))
        cells = [FoundCell(c, length, [operation], (0, 1)) for operation in operations]
        self.cell = FoundFusion(c, length, cells, (0, 2, 1, 3))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """N states (b, c, l) -> (b, 2 c l)."""
        out: Tensor = self.cell(inputs)
        return out


class ReferenceAlternation:
    """One architecture step and one weight step, as BM-NAS makes them.

    Args:
        weights: Parameters of the weight optimiser.
        arch: The logits.
        loss: The loss of a batch.
        redundant_forward: Whether the loss is computed once more after the architecture step, for nothing.
        foreach: Adam's implementation: None is one parameter after the other on a CPU; True is what a GPU has.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        arch: Sequence[Tensor],
        loss: Loss,
        redundant_forward: bool = True,
        foreach: bool | None = None,
    ) -> None:
        self.loss = loss
        self.redundant_forward = redundant_forward
        self.weight_optimizer = torch.optim.Adam(weights, lr=1e-3, foreach=foreach)
        self.arch_optimizer = torch.optim.Adam(arch, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3, foreach=foreach)

    def __call__(self, weights_batch: Any, architecture_batch: Any) -> None:
        self._step(self.arch_optimizer, architecture_batch)
        if self.redundant_forward:
            self.loss(architecture_batch)
        self._step(self.weight_optimizer, weights_batch)

    def _step(self, optimizer: torch.optim.Optimizer, batch: Any) -> None:
        self.weight_optimizer.zero_grad()
        self.arch_optimizer.zero_grad()
        torch.autograd.backward(self.loss(batch))
        optimizer.step()


def _edge(state: Tensor, weights: Tensor) -> Tensor:
    """The mixture of none and skip."""
    return weights[0] * (0.0 * state) + weights[1] * state


def _total(tensors: Sequence[Tensor]) -> Tensor:
    out = tensors[0]
    for tensor in tensors[1:]:
        out = out + tensor
    return out
