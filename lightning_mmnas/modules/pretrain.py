"""Stage 2: self-supervised pretraining of the network that was found."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.errors import ConfigError, GenotypeError
from lightning_mmnas.fusion.input_nodes import Grid, Pool
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.fusion.readout import ReadoutName, out_features
from lightning_mmnas.modules.base import SelfSupervisedModule
from lightning_mmnas.modules.frozen import (
    EncoderFactory,
    FrozenEncoders,
    brought_genotype,
    build_encoders,
    check_genotype,
    load_part,
    store_genotype,
)
from lightning_mmnas.objectives.fusion_objective import FusionObjective, projection_head
from lightning_mmnas.objectives.training import Schedule
from lightning_mmnas.space.genotype import Genotype

FusionFactory = Callable[[dict[str, tuple[int, ...]]], nn.Module]


def build_network(
    genotype: str | os.PathLike[str] | Genotype,
    feature_shapes: Mapping[str, Sequence[int]],
    readout: ReadoutName,
    dropout: float,
    pool: Pool,
    grid: Grid,
) -> FusionNetwork:
    """Builds the network of a genotype (or of a genotype file) over given features.

    Raises:
        GenotypeError: The file is not a genotype, or its space has inputs that the encoders do not give.
    """
    if isinstance(genotype, str | os.PathLike):
        genotype = Genotype.load(genotype)
    if not isinstance(genotype, Genotype):
        raise GenotypeError(
            f"a genotype is a Genotype or the path of its file, got {type(genotype).__name__}; Genotype.from_json "
            "makes one of JSON text"
        )
    unknown = [name for name in genotype.space.inputs if name not in feature_shapes]
    if unknown:
        raise GenotypeError(
            f"the genotype is for another space: its inputs {unknown} are not among the encoders' features "
            f"{sorted(feature_shapes)}; check model.init_args.genotype and model.init_args.encoders"
        )
    return FusionNetwork(genotype, feature_shapes, readout, dropout, pool, grid)


class FusionPretraining(SelfSupervisedModule):
    """Trains a fusion network over frozen encoders with the contrastive objective.

    Args:
        modalities: Modalities of the data, linked from the data module.
        encoders: Encoder by modality name or kind, each built with its `ModalitySpec`.
        genotype: The architecture, or the path of its JSON file; None: give ``fusion``.
        fusion: Another fusion module instead of a genotype: built with the feature shapes by name, it maps features
            by name to (b, out_features).
        encoder_weights: Checkpoint of stage 0; None: the encoders come with their own weights.
        readout: See `FusionNetwork`.
        dropout: Probability of dropping a value, in [0, 1).
        pool: See `InputNode`.
        grid: See `InputNode`.
        augmentations: Augmentation by modality name or kind; None: the defaults of each kind.
        modality_dropout: Probability of modality dropout per sample and view.
        objective: ``forward(z0, z1) -> loss`` on projections (b, d); None: NT-Xent at ``temperature``.
        temperature: Softmax temperature of the default objective, unitless, > 0.
        cross_modal_weight: Weight of the cross-modal InfoNCE term, >= 0.
        projection_hidden: Hidden size of the projection head.
        projection_out: Size d of the projections.
        lr: Peak learning rate.
        weight_decay: Decoupled weight decay.
        schedule: See `plain_optimizer`.
        compile: Whether training compiles the fusion network with ``torch.compile``, for GPUs: the same numbers, after
            a minute or two of compiling.

    Raises:
        ConfigError: Neither or both of ``genotype`` and ``fusion``.
        GenotypeError: The genotype does not fit the encoders.
        CheckpointError: The encoders' checkpoint is of another architecture.
    """

    def __init__(
        self,
        modalities: dict[str, ModalitySpec],
        encoders: dict[str, EncoderFactory],
        genotype: str | Genotype | None = None,
        fusion: FusionFactory | None = None,
        encoder_weights: str | None = None,
        readout: ReadoutName = "branch",
        dropout: float = 0.0,
        pool: Pool = "max",
        grid: Grid = "auto",
        augmentations: dict[str, nn.Module] | None = None,
        modality_dropout: float = 0.0,
        objective: nn.Module | None = None,
        temperature: float = 0.2,
        cross_modal_weight: float = 0.0,
        projection_hidden: int = 128,
        projection_out: int = 64,
        lr: float = 3e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule = "one_cycle",
        compile: bool = False,
    ) -> None:
        super().__init__(
            modalities, augmentations, modality_dropout, objective, temperature, lr, weight_decay, schedule
        )
        self.save_hyperparameters(
            ignore=["modalities", "encoders", "augmentations", "objective", "genotype", "fusion", "compile"]
        )
        self.encoders = FrozenEncoders(build_encoders(modalities, encoders))
        if encoder_weights is not None:
            load_part(self.encoders.encoders, encoder_weights, "encoders.", "model.init_args.encoder_weights")
        self.network = fusion_of(genotype, fusion, self.encoders.feature_shapes, readout, dropout, pool, grid)
        self._compiled = "network" if compile else None
        width = out_features(self.network)
        self.projector = projection_head(width, projection_hidden, projection_out)
        self.fusion = FusionObjective(self.network, self.projector, self.objective, cross_modal_weight, temperature)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Raw samples -> the network's vector (b, out_features)."""
        out: Tensor = self.network(self.encoders(batch))
        return out

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The objective of one unlabelled batch."""
        first, second = self.views(batch)
        loss: Tensor = self.fusion(self.encoders(first), self.encoders(second))
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the genotype, which the weights' names do not tell."""
        store_genotype(self.network, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses the weights of another genotype."""
        check_genotype(self.network, checkpoint, "the checkpoint")


def fusion_of(
    genotype: str | os.PathLike[str] | Genotype | None,
    fusion: FusionFactory | None,
    shapes: dict[str, tuple[int, ...]],
    readout: ReadoutName,
    dropout: float,
    pool: Pool,
    grid: Grid,
) -> nn.Module:
    """The network of a genotype, or the user's own fusion module.

    Where neither is given, the genotype is that of the checkpoint that a stage is being loaded from.

    Raises:
        ConfigError: Neither or both are given.
    """
    if genotype is None and fusion is None:
        genotype = brought_genotype()
    if (genotype is None) == (fusion is None):
        raise ConfigError("give exactly one of model.init_args.genotype and model.init_args.fusion")
    if fusion is not None:
        return fusion(shapes)
    assert genotype is not None
    return build_network(genotype, shapes, readout, dropout, pool, grid)
