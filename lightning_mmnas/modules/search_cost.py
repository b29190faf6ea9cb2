"""The cost term of a search: what architectures cost, and how much of it goes into the architecture's loss."""

import math
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule
from torch import Tensor

from lightning_mmnas.costs.measuring import CostKind
from lightning_mmnas.costs.table import CostTable
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.fusion.readout import ReadoutName
from lightning_mmnas.fusion.supernet import FusionSupernet
from lightning_mmnas.modules.ranks import waiting_ranks

_KEY = "costs"  # of a checkpoint


class SearchCost:
    """A cost table, made when training starts and kept in checkpoints, and its term of the loss.

    A resumed search goes on with the table that it began with: a latency measured anew would be another number.

    Args:
        kind: ``"parameters"``, ``"flops"``, ``"latency"`` or None: no cost at all.
        weight: Weight of the term, >= 0.
        readout: Readout of the networks whose cost is meant.

    Attributes:
        table: What architectures cost; None without a kind, and before training.

    Raises:
        ConfigError: A weight below 0, or one without a kind.
    """

    def __init__(self, kind: CostKind | None, weight: float, readout: ReadoutName) -> None:
        if not (weight >= 0 and math.isfinite(weight)):
            raise ConfigError(f"cost_weight must be >= 0 and finite, got {weight}")
        if kind is None and weight > 0:
            raise ConfigError(f"cost_weight={weight} weighs nothing; set cost to 'parameters', 'flops' or 'latency'")
        self.kind = kind
        self.weight = weight
        self.readout: ReadoutName = readout
        self.table: CostTable | None = None

    def prepare(
        self,
        module: LightningModule,
        supernet: FusionSupernet,
        feature_shapes: Mapping[str, tuple[int, ...]],
        **options: Any,
    ) -> None:
        """Makes the table on rank 0, on the module's device, and gives it to all ranks.

        Args:
            module: Attached to a trainer.
            supernet: Says which space, and in which floating-point type latency is measured.
            feature_shapes: Shape of each feature without the batch axis, by name.
            options: ``pool`` and ``grid`` of the input nodes.
        """
        if self.kind is None or self._fits(self.table, supernet):
            return
        kind, dtype = self.kind, next(supernet.parameters()).dtype
        where: dict[str, Any] = {"device": module.device, "dtype": dtype, **options}
        with waiting_ranks() as ranks:
            text = ranks.first(
                lambda: CostTable.measure(supernet.space, feature_shapes, kind, self.readout, **where).model_dump_json()
            )
        self.table = CostTable.model_validate_json(text)

    def term(self, supernet: FusionSupernet) -> Tensor | float:
        """Weight times `CostTable.relative`; 0.0 where nothing is weighed.

        Raises:
            ConfigError: Training has not started, so that there is no table.
        """
        if self.weight == 0:
            return 0.0
        if self.table is None:
            raise ConfigError("costs are known when training starts; call FusionSearch.on_fit_start with a trainer")
        return self.weight * self.table.relative(supernet).to(next(supernet.parameters()).dtype)

    def expected(self, supernet: FusionSupernet) -> float | None:
        """Mean cost of the architectures that the logits stand for; None without a table."""
        return None if self.table is None else float(self.table.expected(supernet).detach())

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Puts the table into a checkpoint."""
        if self.table is not None:
            checkpoint[_KEY] = self.table.model_dump_json()

    def load(self, checkpoint: Mapping[str, Any], supernet: FusionSupernet) -> None:
        """Takes the table of a checkpoint, if there is one of this space and kind."""
        table = CostTable.model_validate_json(checkpoint[_KEY]) if _KEY in checkpoint else None
        if self._fits(table, supernet):
            self.table = table

    def _fits(self, table: CostTable | None, supernet: FusionSupernet) -> bool:
        wanted = (self.kind, self.readout, supernet.space)
        return table is not None and (table.kind, table.readout, table.space) == wanted
