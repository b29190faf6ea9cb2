"""Stage 0: one self-supervised encoder per modality."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Self

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.fusion.readout import mean_max_pool
from lightning_mmnas.modules.base import SelfSupervisedModule
from lightning_mmnas.modules.frozen import EncoderFactory, build_encoders
from lightning_mmnas.objectives.fusion_objective import projection_head
from lightning_mmnas.objectives.losses import loss_of
from lightning_mmnas.objectives.training import Schedule


class EncoderPretraining(SelfSupervisedModule):
    """Pretrains one encoder per modality with the contrastive objective, each on its own (SimCLR).

    The modalities share batches and the optimiser, not weights: the loss is the sum of the modalities' losses.

    Args:
        modalities: Modalities of the data, linked from the data module.
        encoders: Encoder by modality name or kind, each built with its `ModalitySpec`.
        frozen: Modalities, or kinds, whose encoders keep the weights that they came with: they are not trained, and go
            into the checkpoint as they are.
        augmentations: Augmentation by modality name or kind; None: the defaults of each kind.
        objective: ``forward(z0, z1) -> loss`` on projections (b, d); None: NT-Xent at ``temperature``.
        temperature: Softmax temperature of the default objective, unitless, > 0.
        projection_hidden: Hidden size of the projection heads.
        projection_out: Size d of the projections.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay.
        schedule: See `plain_optimizer`.

    Raises:
        ConfigError: A frozen encoder of no modality, or all of them frozen.
    """

    def __init__(
        self,
        modalities: dict[str, ModalitySpec],
        encoders: dict[str, EncoderFactory],
        frozen: Sequence[str] = (),
        augmentations: dict[str, nn.Module] | None = None,
        objective: nn.Module | None = None,
        temperature: float = 0.2,
        projection_hidden: int = 128,
        projection_out: int = 64,
        lr: float = 2e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule = "one_cycle",
    ) -> None:
        super().__init__(modalities, augmentations, 0.0, objective, temperature, lr, weight_decay, schedule)
        self.save_hyperparameters(ignore=["modalities", "encoders", "augmentations", "objective"])
        built = build_encoders(modalities, encoders)
        self.encoders = nn.ModuleDict(built)
        self.trained = [name for name, spec in modalities.items() if not {name, spec.kind} & set(frozen)]
        known = set(modalities) | {spec.kind for spec in modalities.values()}
        if unknown := sorted(set(frozen) - known):
            raise ConfigError(f"frozen names {unknown}, but the modalities are {sorted(modalities)}")
        if not self.trained:
            raise ConfigError("all encoders are frozen, so there is nothing to train: leave the encoders' stage out")
        for name in built.keys() - set(self.trained):
            built[name].requires_grad_(False)
        self.projectors = nn.ModuleDict(
            {
                name: projection_head(2 * built[name].feature_shapes[-1][0], projection_hidden, projection_out)
                for name in self.trained
            }
        )

    def train(self, mode: bool = True) -> Self:
        """Encoders that are frozen stay in eval mode: their running statistics must not move."""
        super().train(mode)
        for name, encoder in self.encoders.items():
            encoder.train(mode and name in self.trained)
        return self

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Features of every modality, shallow to deep."""
        return {name: encoder(batch[name]) for name, encoder in self.encoders.items()}

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Sum over modalities of the objective between the two views' projections."""
        first, second = self.views(batch)
        losses = []
        for name in self.trained:
            deepest = self.encoders[name](torch.cat([first[name], second[name]]))[-1]
            z0, z1 = self.projectors[name](mean_max_pool(deepest)).chunk(2)
            losses.append(loss_of(self.objective, z0, z1))
        return torch.stack(losses).sum()
