"""What `benchmarks.run` measures: alternations and steps of the published settings, the reference's and ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bmnas_reference import ReferenceAlternation, ReferenceNetwork, ReferenceSupernet
from benchmarks.our_alternation import Alternation
from lightning_mmnas import FusionNetwork, FusionSpace, FusionSupernet
from lightning_mmnas.fusion.pairing import Pairing
from lightning_mmnas.interop import bmnas
from lightning_mmnas.objectives.fusion_objective import projection_head
from lightning_mmnas.objectives.losses import nt_xent

Step = Callable[[], object]
PAIRINGS: tuple[Pairing, ...] = ("tied", "independent")
KINDS = ("reference", *PAIRINGS)


@dataclass(frozen=True)
class Setting:
    """A published setting of BM-NAS.

    Attributes:
        inputs: Input nodes.
        channels: c.
        length: l.
        steps: Inner steps of each of the two cells, all of them its output.
        dropout: Probability of dropping a value.
    """

    inputs: int
    channels: int
    length: int
    steps: int
    dropout: float

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"m{j}/0" for j in range(self.inputs))

    def reference(self) -> ReferenceSupernet:
        s = self
        return ReferenceSupernet(s.inputs, s.channels, s.length, steps=s.steps, step_outputs=s.steps, dropout=s.dropout)

    def supernet(self, pairing: Pairing) -> FusionSupernet:
        """Ours, with the readout that the reference has."""
        space = FusionSpace(
            inputs=self.names, channels=self.channels, length=self.length, steps=self.steps, step_outputs=self.steps
        )
        return FusionSupernet(space, pairing=pairing, readout="flatten", dropout=self.dropout)

    def states(self, batch: int) -> list[Tensor]:
        """Inputs of the reference, each (b, c, l)."""
        return [torch.randn(batch, self.channels, self.length) for _ in range(self.inputs)]

    def features(self, states: list[Tensor]) -> dict[str, Tensor]:
        """The same for ours, each (b, l, c)."""
        return {name: state.transpose(1, 2).contiguous() for name, state in zip(self.names, states, strict=True)}


SETTINGS = {"MM-IMDB": Setting(6, 192, 16, 1, 0.1), "NTU": Setting(8, 128, 8, 2, 0.2)}


class PlainLoss(nn.Module):
    """The product of a fusion module's output and a random vector: a loss that costs nothing."""

    def __init__(self, fusion: nn.Module) -> None:
        super().__init__()
        self.fusion = fusion
        self.direction = torch.empty(0)

    def forward(self, batch: Any) -> Tensor:
        out = self.fusion(batch).flatten()
        if len(self.direction) != len(out):
            self.direction = torch.randn_like(out) / len(out)
        return torch.dot(out, self.direction)


class SimCLR(nn.Module):
    """NT-Xent of the projections of a batch of 2b views; the head is that of `FusionSearch`."""

    def __init__(self, fusion: nn.Module, out_features: int) -> None:
        super().__init__()
        self.fusion = fusion
        self.head = projection_head(out_features, 128, 64)
        self.objective = nt_xent()

    def forward(self, batch: Any) -> Tensor:
        first, second = self.head(self.fusion(batch)).chunk(2)
        loss: Tensor = self.objective(first, second)
        return loss


def alternation(setting: Setting, kind: str, batch: int, simclr: bool = False, foreach: bool | None = None) -> Step:
    """One alternation of one kind, on random inputs.

    Args:
        setting: The setting.
        kind: ``"reference"``, ``"tied"`` or ``"independent"``.
        batch: Samples, or with ``simclr`` pairs of views.
        simclr: Whether with projection head and NT-Xent.
        foreach: See `ReferenceAlternation`.
    """
    torch.manual_seed(0)
    states = [setting.states(2 * batch if simclr else batch) for _ in range(2)]
    fusion: Any = (
        setting.reference() if kind == "reference" else setting.supernet("tied" if kind == "tied" else "independent")
    )
    width = 2 * setting.channels * setting.length
    loss = SimCLR(fusion, width) if simclr else PlainLoss(fusion)
    if kind == "reference":
        theirs = ReferenceAlternation(list(loss.parameters()), list(fusion.arch.values()), loss, foreach=foreach)
        return lambda: theirs(*states)
    ours = Alternation(list(loss.parameters()), fusion.architecture_parameters(), loss)
    features = [setting.features(part) for part in states]
    return lambda: ours(*features)


def discrete_step(setting: Setting, kind: str, batch: int) -> Step:
    """One training step of a found network (a LinearGLU and an attention), of one inner step per cell."""
    torch.manual_seed(0)
    states = setting.states(batch)
    reference = ReferenceNetwork(setting.channels, setting.length, setting.dropout)
    network: nn.Module = reference
    inputs: Any = states
    if kind != "reference":
        fields = {**ReferenceNetwork.fields, "concat": [setting.inputs, setting.inputs + 1]}
        genotype = bmnas.genotype_from_fields(fields, setting.names, setting.channels, setting.length)
        network = FusionNetwork(genotype, readout="flatten", dropout=setting.dropout)
        inputs = setting.features(states)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=kind != "reference")

    loss = PlainLoss(network)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss(inputs))
        optimizer.step()

    return step


def nt_xent_step(objective: nn.Module, batch: int) -> Step:
    """The objective of a batch of pairs of projections (b, 64), and its gradient."""
    torch.manual_seed(0)
    first, second = (torch.randn(batch, 64, requires_grad=True) for _ in range(2))
    return lambda: torch.autograd.grad(objective(first, second), (first, second))


def dropout_step(dropout: nn.Dropout) -> Step:
    """One pass of a dropout in training over activations of MM-IMDB at b = 128."""
    x = torch.randn(128, 16, 192)
    return lambda: dropout(x)


def pooling_step(pool: Callable[[Tensor], Tensor], shape: Sequence[int], channels_last: bool) -> Step:
    """One pass of a pooling over features (b, c, d, rest), which may lie with channels last in memory."""
    x = torch.randn(*shape)
    if channels_last:
        x = x.movedim(1, 3).contiguous().movedim(3, 1)
    return lambda: pool(x)
