"""Ends a search whose answer no longer changes."""

from typing import Any

from lightning.fabric.utilities import rank_zero_info
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_mmnas.callbacks.alternation import ArchitectureAlternation
from lightning_mmnas.callbacks.contract import require
from lightning_mmnas.fusion.supernet import DecodeRule, FusionSupernet
from lightning_mmnas.space.genotype import Genotype


class GenotypeStability(Callback):
    """Stops the search when the decoded genotype has been the same for some epochs (after Liang et al., DARTS+).

    Decoded is at the end of every epoch after the alternation's warm-up. The first genotype counts as one epoch, and
    genotypes that build the same network are the same. The decision is the same on every rank, and an interrupted
    search stops in the epoch in which the unbroken one stops. DARTS+ (arXiv 1909.06035) compares the ranking of the
    operations; this compares what would be built.

    A learning-rate schedule or a temperature that is still on its way stops there, so choose ``patience`` large.

    Args:
        patience: Epochs with the same genotype, >= 1.
        coverage: Every modality must be read; see `FusionSupernet.decode`. Give what `GenotypeSelection` has.
        distinct: No two cells have the same inputs; see `FusionSupernet.decode`.
        rule: See `FusionSupernet.decode`.

    Raises:
        MisconfigurationException: A patience below 1, and when training starts for a module without a supernet.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_mmnas import ArchitectureAlternation, GenotypeStability
        >>> trainer = Trainer(callbacks=[ArchitectureAlternation(), GenotypeStability(patience=5)], logger=False)
    """

    def __init__(
        self, patience: int, coverage: bool = True, distinct: bool = True, rule: DecodeRule = "covering"
    ) -> None:
        super().__init__()
        require(patience >= 1, f"patience={patience} is less than 1")
        self._patience = patience
        self._coverage = coverage
        self._distinct = distinct
        self._rule: DecodeRule = rule
        self._genotype: Genotype | None = None
        self._epochs = 0  # with this genotype
        self._seen: int | None = None  # epochs of the search that were looked at

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require(
            isinstance(getattr(pl_module, "supernet", None), FusionSupernet),
            f"{type(pl_module).__name__} has no attribute supernet that is a FusionSupernet: search with FusionSearch,"
            " or remove GenotypeStability from the callbacks",
        )
        if stage == "fit":  # a checkpoint is loaded later
            self._genotype, self._epochs, self._seen = None, 0, None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._seen is None:
            self._seen = trainer.current_epoch
        elif self._seen < trainer.current_epoch:
            # Lightning leaves out an epoch's end if the checkpoint is of its last batch; nothing has changed since.
            self._look(trainer, pl_module, trainer.current_epoch - 1)
        elif self._epochs >= self._patience:  # resumed after it had stopped
            trainer.should_stop = True

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module, trainer.current_epoch)

    @override
    def state_dict(self) -> dict[str, Any]:
        genotype = None if self._genotype is None else self._genotype.to_json()
        return {"genotype": genotype, "epochs": self._epochs, "seen": self._seen}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        stored = state_dict["genotype"]
        self._genotype = None if stored is None else Genotype.from_json(stored)
        self._epochs, self._seen = state_dict["epochs"], state_dict["seen"]

    def _look(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Decodes what an epoch has led to, and decides."""
        self._seen = epoch + 1
        alternations = (c for c in trainer.callbacks if isinstance(c, ArchitectureAlternation))  # type: ignore[attr-defined]
        if epoch < max((alternation.warmup_epochs for alternation in alternations), default=0):
            return
        supernet = pl_module.supernet
        assert isinstance(supernet, FusionSupernet)
        genotype = supernet.decode(self._rule, self._coverage, self._distinct)
        self._epochs = self._epochs + 1 if genotype == self._genotype else 1
        self._genotype = genotype
        if trainer.strategy.reduce_boolean_decision(self._epochs >= self._patience):
            trainer.should_stop = True
            rank_zero_info(f"The genotype has been the same for {self._epochs} epochs: the search is over.")
