"""SinglePath: one architecture at a time inside a supernet, at the cost of that architecture alone."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.input_nodes import key
from lightning_mmnas.fusion.supernet import FusionSupernet, SupernetCell
from lightning_mmnas.space.genotype import Genotype


class SinglePath(nn.Module):
    """The network of one genotype with the weights of a supernet; nothing else of the supernet is run.

    Training it with an architecture drawn anew in every step is the single-path one-shot method (SPOS, Guo et al.,
    ECCV 2020): no mixtures, no logits, and every network of the space can then be scored with the weights it inherits.
    Its output is that of a `FusionNetwork` which inherited the supernet's weights, and, with independent pairing, of
    the supernet with one-hot logits.

    Args:
        supernet: Whose weights are used; they are shared, not copied.

    Attributes:
        genotype: The architecture that `forward` computes; set it before.

    Raises:
        GenotypeError: The supernet's primitives see a part of the channels only.

    Examples:
        >>> from lightning_mmnas import FusionSpace, FusionSupernet
        >>> space = FusionSpace(inputs=("image", "text"), cells=1, channels=8, length=4)
        >>> path = SinglePath(FusionSupernet(space, {"image": (16, 8, 8), "text": (24,)}))
        >>> path.genotype = space.sample(torch.Generator().manual_seed(0))
        >>> path({"image": torch.randn(2, 16, 8, 8), "text": torch.randn(2, 24)}).shape
        torch.Size([2, 16])
    """

    def __init__(self, supernet: FusionSupernet) -> None:
        super().__init__()
        if supernet.partial_channels > 1:
            raise GenotypeError(
                f"with partial_channels={supernet.partial_channels} no part of a supernet is a network of its space; "
                "use partial_channels=1"
            )
        self.supernet = supernet
        self.out_features = supernet.out_features
        self._genotype: Genotype | None = None

    @property
    def genotype(self) -> Genotype | None:
        """The architecture that `forward` computes."""
        return self._genotype

    @genotype.setter
    def genotype(self, genotype: Genotype) -> None:
        genotype.require_space(self.supernet.space)
        self._genotype = genotype

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name, each (b, c_in, *rest) -> (b, out_features)."""
        if self._genotype is None:
            raise ValueError("SinglePath has no architecture yet; set its genotype")
        supernet, cells, nodes = self.supernet, self._genotype.cells, self.supernet.input_nodes.nodes
        states: dict[str, Tensor] = {}
        for name in dict.fromkeys(name for cell in cells for name in cell.inputs if name in supernet.space.inputs):
            states[name] = features[name] if nodes is None else nodes[key(name)](features[name])
        for i, cell in enumerate(cells):
            built = cast(SupernetCell, supernet.cells[i])
            inner = {"x": states[cell.inputs[0]], "y": states[cell.inputs[1]]}
            for t, step in enumerate(cell.steps):
                variants = cast(nn.ModuleList, built.steps[t])
                primitive = variants[supernet.logits.variant_of(step)]
                read = step.inputs[::-1] if supernet.logits.is_turned(step) else step.inputs
                inner[f"step{t}"] = primitive(*(inner[name] for name in read))
            steps = [inner[f"step{t}"] for t in range(len(cell.steps))]
            states[f"cell{i}"] = built.output(steps, inner["x"])
        outputs = range(len(cells) - supernet.space.cell_outputs, len(cells))
        joined = torch.cat([states[f"cell{i}"] for i in outputs], dim=-1)
        late = supernet.late(features) if supernet.needs_late else None
        out: Tensor = supernet.readout(joined, late)
        return out
