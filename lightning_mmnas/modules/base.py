"""What the three self-supervised stages share: views, projection, objective, optimiser."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

import torch
from lightly.models.modules import SimCLRProjectionHead
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.objectives import CrossModalInfoNCE, nt_xent
from lightning_mmnas.views import DEFAULT_AUGMENTATIONS, TwoViews

Schedule = Literal["one_cycle", "cosine", "constant"]
Views = dict[str, Tensor]


def plain_optimizer(
    module: LightningModule,
    groups: Iterable[dict[str, Any]],
    weight_decay: float,
    schedule: Schedule,
) -> OptimizerLRScheduler:
    """AdamW over parameter groups with their own ``lr``, and a schedule stepped once per weight step.

    Args:
        module: Attached to a trainer, which knows the number of steps.
        groups: Parameter groups, each with ``params`` and ``lr``.
        weight_decay: Decoupled weight decay (AdamW), >= 0.
        schedule: ``"one_cycle"`` (warm-up and cosine decay, Smith 2018), ``"cosine"`` or ``"constant"``.
    """
    steps = int(module.trainer.estimated_stepping_batches)
    # Lightning cannot clip gradients for a fused optimiser under mixed precision.
    fused = "mixed" not in str(module.trainer.precision)
    optimizer, scheduler = build_optimizer(groups, weight_decay, schedule, steps, fused)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def build_optimizer(
    groups: Iterable[dict[str, Any]], weight_decay: float, schedule: Schedule, steps: int, fused: bool = True
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Builds AdamW and a schedule over a known number of steps; see `plain_optimizer`."""
    listed = list(groups)
    optimizer = torch.optim.AdamW(listed, weight_decay=weight_decay, fused=fused)
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if schedule == "one_cycle":
        rates = [group["lr"] for group in listed]
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=max(steps, 2) + 1)
    elif schedule == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(steps, 1))
    else:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return optimizer, scheduler


def projection_head(in_features: int, hidden: int, out: int) -> nn.Module:
    """SimCLR's projection head, (b, in_features) -> (b, out): Linear, BN, ReLU, Linear."""
    head: nn.Module = SimCLRProjectionHead(in_features, hidden, out)
    return head


def build_views(
    modalities: Mapping[str, ModalitySpec],
    augmentations: Mapping[str, nn.Module] | None,
    modality_dropout: float = 0.0,
) -> TwoViews:
    """Views of a batch with the given augmentations, or with the defaults of each kind of modality."""
    if augmentations is None:
        kinds = dict.fromkeys(spec.kind for spec in modalities.values())
        augmentations = {kind: DEFAULT_AUGMENTATIONS[kind]() for kind in kinds if kind in DEFAULT_AUGMENTATIONS}
    return TwoViews(modalities, augmentations, modality_dropout)


class SelfSupervisedModule(LightningModule):
    """Base of the self-supervised stages: two views of a batch, and what they are worth.

    Args:
        modalities: Modalities of the data, linked from the data module.
        augmentations: Augmentation by modality name or kind; None: the defaults of each kind.
        modality_dropout: Probability, per sample and view, that one random modality is replaced by its training-set
            mean, in [0, 1].
        objective: ``forward(z0, z1) -> loss`` on projections (b, d); None: NT-Xent at ``temperature``.
        temperature: Softmax temperature of the default objective, unitless, > 0.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay.
        schedule: See `plain_optimizer`.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        augmentations: Mapping[str, nn.Module] | None,
        modality_dropout: float,
        objective: nn.Module | None,
        temperature: float,
        lr: float,
        weight_decay: float,
        schedule: Schedule,
    ) -> None:
        super().__init__()
        self.views = build_views(modalities, augmentations, modality_dropout)
        self.objective = objective if objective is not None else nt_xent(temperature)
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule: Schedule = schedule

    def setup(self, stage: str) -> None:
        """Takes the training-set means for modality dropout from the data module, if it knows them."""
        if stage == "fit":
            self.take_means(getattr(self.trainer, "datamodule", None))

    def take_means(self, datamodule: object) -> None:
        """Copies a data module's ``modality_means()`` into the views; without that method nothing changes."""
        means = getattr(datamodule, "modality_means", None)
        for name, mean in means().items() if means is not None else ():
            self.views.get_buffer(f"mean_{name}").copy_(mean)

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The objective of one unlabelled batch of raw samples."""
        raise NotImplementedError

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """One weight step's loss."""
        loss = self.loss(batch)
        self.log(
            "train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=size(batch), sync_dist=True
        )
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Logs the objective on unseen samples."""
        self.log("val/loss", self.loss(batch), prog_bar=True, batch_size=size(batch), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW on everything that takes gradients."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return plain_optimizer(self, [{"params": parameters, "lr": self.lr}], self.weight_decay, self.schedule)


class FusionObjective(nn.Module):
    """The objective of a fusion network: projections of two views, and optionally of single modalities.

    Args:
        fusion: Features by name -> (b, out_features).
        projector: (b, out_features) -> (b, d).
        objective: (z0, z1) -> loss.
        cross_modal_weight: Weight of the cross-modal InfoNCE term, >= 0; 0 leaves it out.
        temperature: Softmax temperature of the cross-modal term, unitless, > 0.
    """

    def __init__(
        self,
        fusion: nn.Module,
        projector: nn.Module,
        objective: nn.Module,
        cross_modal_weight: float = 0.0,
        temperature: float = 0.2,
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.projector = projector
        self.objective = objective
        self.cross_modal_weight = cross_modal_weight
        self.cross_modal = CrossModalInfoNCE(temperature)

    def project(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name -> projection (b, d)."""
        projection: Tensor = self.projector(self.fusion(features))
        return projection

    def forward(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor:
        """Features of both views -> loss; both views pass through the network as one batch of 2b."""
        joined = {name: torch.cat([first[name], second[name]]) for name in first}
        z0, z1 = self.project(joined).chunk(2)
        loss: Tensor = self.objective(z0.float(), z1.float())
        if self.cross_modal_weight > 0:
            loss = loss + self.cross_modal_weight * self.cross_modal(self._single_modality_projections(first))
        return loss

    def _single_modality_projections(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Projections of the network fed one modality, the others' features at their batch mean."""
        modalities = list(dict.fromkeys(name.rpartition("/")[0] or name for name in features))
        means = {name: feature.mean(0, keepdim=True).expand_as(feature) for name, feature in features.items()}
        return {
            m: self.project({n: f if (n.rpartition("/")[0] or n) == m else means[n] for n, f in features.items()})
            for m in modalities
        }


def size(batch: Mapping[str, Any]) -> int:
    """Number of samples of a batch."""
    return len(cast(Tensor, next(iter(batch.values()))))
