"""FusionSupernet: all architectures of a space at once, mixed by architecture logits."""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from lightning_mmnas.errors import CostError, GenotypeError
from lightning_mmnas.fusion.decoding import Limit, Scores, decode, decode_bmnas
from lightning_mmnas.fusion.fused import weighted_sum, weighted_sums
from lightning_mmnas.fusion.fused_step import fused_step
from lightning_mmnas.fusion.input_nodes import Grid, InputNodes, Pool
from lightning_mmnas.fusion.network import CellOutput, FusionNetwork, NetworkCell, deepest_inputs
from lightning_mmnas.fusion.pairing import Pairing, TiedPairing, build_pairing, may_read
from lightning_mmnas.fusion.primitives import build_primitive, turn
from lightning_mmnas.fusion.readout import LateFeatures, ReadoutName, build_readout, out_features
from lightning_mmnas.fusion.relaxation import Relaxation
from lightning_mmnas.space.genotype import FusionSpace, Genotype

DecodeRule = Literal["covering", "bmnas"]


class SupernetCell(nn.Module):
    """One cell of the supernet: every step holds every variant of the primitives.

    Args:
        space: The search space.
        variants: (primitive, swapped), what each step can be.
        dropout: Probability of dropping a value, in [0, 1).
        partial_channels: See `FusionSupernet`.
    """

    def __init__(
        self, space: FusionSpace, variants: Sequence[tuple[str, bool]], dropout: float, partial_channels: int = 1
    ) -> None:
        super().__init__()
        self.swapped = [swapped for _, swapped in variants]
        self.partial_channels = partial_channels
        self.mixed = space.channels // partial_channels
        self.steps = nn.ModuleList(
            nn.ModuleList(build_primitive(name, self.mixed, space.length, dropout) for name, _ in variants)
            for _ in range(space.steps)
        )
        self.output = CellOutput(space, dropout)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        step_weights: Sequence[Tensor | None],
        primitive_weights: Tensor,
        one_hot: bool = False,
    ) -> Tensor:
        """Runs the cell.

        Args:
            x: First input, shape (b, l, c).
            y: Second input, shape (b, l, c); the very same tensor when the pairing is tied.
            step_weights: Per step, weights of (x, y, earlier steps) in its inputs, (1 or 2, 2 + t); None: x and y.
            primitive_weights: Weights of the variants, (steps, variants).
            one_hot: Every row of ``primitive_weights`` has a single 1: only those variants are computed.

        Returns:
            The cell's output, shape (b, l, c).
        """
        chosen = primitive_weights.argmax(-1).tolist() if one_hot else None
        states = [x, y]
        for t in range(len(self.steps)):
            first, second = _mix(states, step_weights[t])
            computed = range(len(self.swapped)) if chosen is None else [chosen[t]]
            states.append(self._step(t, first, second, primitive_weights[t], computed))
        out: Tensor = self.output(states[2:], x)
        return out

    def _step(self, t: int, first: Tensor, second: Tensor, weights: Tensor, computed: Sequence[int]) -> Tensor:
        """The mixture of some variants in step t: of 1/K of the channels, the others pass by (PC-DARTS)."""
        variants = cast(nn.ModuleList, self.steps[t])
        u, v = (first, second) if self.partial_channels == 1 else (first[..., : self.mixed], second[..., : self.mixed])
        if first is second:
            v = u  # primitives know tied inputs by this
        mixture = self._mixture(variants, u, v, weights, computed)
        if self.partial_channels == 1:
            return mixture
        passing = (first[..., self.mixed :] + second[..., self.mixed :]) / 2
        groups = torch.cat([mixture, passing], -1).view(*mixture.shape[:2], self.partial_channels, self.mixed)
        return groups.transpose(2, 3).flatten(2)  # shuffled: the next step's first c / K channels are of all groups

    def _mixture(
        self, variants: nn.ModuleList, u: Tensor, v: Tensor, weights: Tensor, computed: Sequence[int]
    ) -> Tensor:
        if len(computed) < len(weights):
            weights = weights[list(computed)]
        chosen = [(variants[k], self.swapped[k]) for k in computed]
        fused = fused_step(chosen, weights, u, v)
        if fused is not None:
            return fused
        outs = [primitive(v, u) if swapped else primitive(u, v) for primitive, swapped in chosen]
        if torch.is_autocast_enabled(u.device.type):  # a matrix product would round the weights
            return weighted_sum(weights, outs)
        return weighted_sums(weights[None], outs)[0]


class FusionSupernet(nn.Module):
    """The whole search space as one differentiable module: features of all modalities -> one vector.

    Args:
        space: The search space.
        feature_shapes: Shape of each feature without the batch axis, (c_in, *rest), by name; None: features are
            (b, l, c) already and there are no input nodes.
        pairing: ``"independent"``: x and y of every cell and step have their own logits, so what is searched is what
            is built; ``"tied"``: one weighted sum is fed as both, as in BM-NAS's released code.
        readout: ``"pool"`` (default while searching), ``"flatten"`` as published, ``"branch"`` or ``"neck"``.
        dropout: Probability of dropping a value, in [0, 1).
        relaxation: Logits to mixture weights; by default `Softmax`.
        pool: See `InputNode`.
        grid: See `InputNode`.
        partial_channels: K of PC-DARTS (Xu et al., ICLR 2020, arXiv 1907.05737): primitives see the first c / K
            channels, the rest passes by as the mean of both inputs, then channels are shuffled; memory and time of
            the primitives fall K-fold or more. Its edge normalisation, a softmax over the inputs of a step, is what
            alpha and beta are with independent pairing; tied pairing keeps an edge's own softmax, as in BM-NAS. With
            K > 1 a supernet with one-hot logits is not the network that is built, and `inherit` is refused.

    Raises:
        GenotypeError: An input without a shape, an unknown primitive, or channels that K does not divide.

    Examples:
        >>> import torch
        >>> from lightning_mmnas import FusionSpace, FusionSupernet
        >>> space = FusionSpace(inputs=("image/0", "image/1", "text/0"), channels=8, length=4)
        >>> supernet = FusionSupernet(space, {"image/0": (16, 8, 8), "image/1": (32, 4, 4), "text/0": (24,)})
        >>> sorted(supernet.decode().modalities_read())
        ['image', 'text']
    """

    def __init__(
        self,
        space: FusionSpace,
        feature_shapes: Mapping[str, Sequence[int]] | None = None,
        pairing: Pairing = "independent",
        readout: ReadoutName = "pool",
        dropout: float = 0.0,
        relaxation: Relaxation | None = None,
        pool: Pool = "max",
        grid: Grid = "auto",
        partial_channels: int = 1,
    ) -> None:
        super().__init__()
        if partial_channels < 1 or space.channels % partial_channels:
            raise GenotypeError(
                f"partial_channels={partial_channels} must be at least 1 and divide the {space.channels} channels; "
                "1 lets primitives see all of them"
            )
        self.space = space
        self.partial_channels = partial_channels
        self.input_nodes = InputNodes(space.inputs, feature_shapes, space.channels, space.length, dropout, pool, grid)
        self.logits = build_pairing(pairing, space, relaxation)
        self.cells = nn.ModuleList(
            SupernetCell(space, self.logits.variants, dropout, partial_channels) for _ in range(space.cells)
        )
        self.late = LateFeatures(deepest_inputs(space), feature_shapes, space.channels)
        width = space.cell_outputs * space.channels
        self.readout = build_readout(readout, width, space.length, self.late.out_features)
        self.needs_late = readout in ("branch", "neck")
        self.out_features = out_features(self.readout)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name, each (b, c_in, *rest) -> (b, out_features)."""
        self.logits.relaxation.begin()
        nodes = self.input_nodes(features)  # n tensors (b, l, c)
        n, rows = len(nodes), [self.logits.cell_weights(i) for i in range(len(self.cells))]
        width = len(rows[0])  # 1 when x is y, else 2
        # What all cells read of the input nodes, at once.
        reads = weighted_sums(torch.cat([row[:, :n] for row in rows]), nodes).unbind()
        outputs: list[Tensor] = []
        for i, cell in enumerate(self.cells):
            pair = list(reads[i * width : (i + 1) * width])
            for k in range(width):
                legal = may_read(width, k, n + i)
                for j in range(max(n, legal.start), legal.stop):
                    pair[k] = torch.addcmul(pair[k], outputs[j - n], rows[i][k, j])
            step_weights = [self.logits.step_weights(i, t) for t in range(self.space.steps)]
            weights, one_hot = self.logits.primitive_weights(i), self.logits.relaxation.one_hot
            outputs.append(cell(pair[0], pair[-1], step_weights, weights, one_hot))
        joined = torch.cat(outputs[-self.space.cell_outputs :], dim=-1)
        late = self.late(features) if self.needs_late else None
        out: Tensor = self.readout(joined, late)
        return out

    def architecture_parameters(self) -> list[nn.Parameter]:
        """The logits, cell by cell: all alphas, then betas, then gammas; ``requires_grad`` is False."""
        return list(self.logits.parameters())

    def decode(
        self,
        rule: DecodeRule = "covering",
        coverage: bool = True,
        distinct: bool = True,
        budget: Limit | None = None,
    ) -> Genotype:
        """Returns the architecture that the logits favour; deterministic, ties included.

        Args:
            rule: ``"covering"``: the best legal architecture under the two rules below; ``"bmnas"``: the published
                rule (tied pairing only), which never reads earlier cells and may leave dead code.
            coverage: Every modality must be read, as far as the space allows.
            distinct: No two cells have the same inputs, as far as the space allows.
            budget: The best of those that cost no more; see `Budget`.

        Raises:
            CostError: No architecture keeps to the budget.
            GenotypeError: ``"bmnas"`` with independent pairing, or where the published rule finds no pair.
        """
        if rule == "bmnas":
            if budget is not None:
                raise CostError("decode rule 'bmnas' knows no budget; use rule='covering'")
            if not isinstance(self.logits, TiedPairing):
                raise GenotypeError("decode rule 'bmnas' needs pairing='tied'; use rule='covering'")
            return decode_bmnas(*self.logits.edge_weights(), self.space)
        return self._decode(self.logits.scores(), coverage, distinct, budget)

    def sample(
        self, generator: torch.Generator, coverage: bool = True, distinct: bool = True, budget: Limit | None = None
    ) -> Genotype:
        """Draws an architecture in proportion to the mixture weights, under the rules of `decode`."""
        return self._decode(self.logits.scores().perturbed(generator), coverage, distinct, budget)

    def _decode(self, scores: Scores, coverage: bool, distinct: bool, budget: Limit | None) -> Genotype:
        if budget is None:
            return decode(scores, self.space, self.logits.variants, coverage, distinct)
        return budget.decode(scores, self.space, self.logits.variants, coverage, distinct)

    def set_architecture(self, genotype: Genotype) -> None:
        """Makes the logits one-hot at the genotype.

        Raises:
            GenotypeError: The genotype is for another space.
        """
        self.logits.set(genotype)

    def probabilities(self) -> dict[str, Tensor]:
        """Mixture weights without chance by name (``alpha/0``, ``beta/0``, ``gamma/0``, …), detached, for logging."""
        logits = {"alpha": self.logits.alpha, "beta": self.logits.beta, "gamma": self.logits.gamma}
        return {
            f"{kind}/{i}": self.logits.relaxation.mean(p.detach())
            for kind, parameters in logits.items()
            for i, p in enumerate(parameters)
        }

    def set_progress(self, fraction: float) -> None:
        """Tells the relaxation the fraction of training done, in [0, 1]: what it anneals follows it."""
        self.logits.relaxation.set_progress(fraction)

    @torch.no_grad()
    def inherit(self, network: FusionNetwork) -> None:
        """Copies this supernet's weights into a network of the same space, wherever the network has them.

        The readout is copied where both have the same; a network with another readout keeps its own.

        Raises:
            GenotypeError: The network's genotype is for another space, or ``partial_channels`` is above 1.
        """
        if self.partial_channels > 1:
            raise GenotypeError(
                f"a supernet with partial_channels={self.partial_channels} has primitives of "
                f"{self.space.channels // self.partial_channels} channels, the network of {self.space.channels}: "
                "train the network from scratch, or search with partial_channels=1"
            )
        network.genotype.require_space(self.space)
        nodes, target_nodes = self.input_nodes.nodes, network.input_nodes.nodes
        if nodes is not None and target_nodes is not None:
            for name, node in target_nodes.items():
                node.load_state_dict(nodes[name].state_dict())
        for cell, target, wiring in zip(self.cells, network.cells, network.genotype.cells, strict=True):
            here, there = cast(SupernetCell, cell), cast(NetworkCell, target)
            there.output.load_state_dict(here.output.state_dict())
            for t, step in enumerate(wiring.steps):
                variants = cast(nn.ModuleList, here.steps[t])
                there.steps[t].load_state_dict(variants[self.logits.variant_of(step)].state_dict())
                if self.logits.is_turned(step):
                    turn(there.steps[t])
        if type(self.readout) is type(network.readout):
            network.readout.load_state_dict(self.readout.state_dict())


def _mix(states: Sequence[Tensor], weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """The two inputs of a step; the very same tensor twice where there is one row of weights."""
    if weights is None:
        return states[0], states[1]
    if states[0] is states[1]:  # tied pairing: one tensor less to pass over
        mixed = [weighted_sum([row[0] + row[1], *row[2:]], states[1:]) for row in weights]
    else:
        legal = [may_read(len(weights), k, len(states)) for k in range(len(weights))]
        mixed = [weighted_sum(row[part], states[part]) for part, row in zip(legal, weights, strict=True)]
    return mixed[0], mixed[-1]
