"""Stage 1: supernet search without labels (or, for comparison, with them)."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_mmnas.costs.measuring import CostKind
from lightning_mmnas.data.spec import ModalitySpec, Task
from lightning_mmnas.data.targets import check_labels
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.fusion.input_nodes import Grid, Pool
from lightning_mmnas.fusion.named_weights import named_weights
from lightning_mmnas.fusion.pairing import Pairing
from lightning_mmnas.fusion.readout import ReadoutName
from lightning_mmnas.fusion.relaxation import Relaxation
from lightning_mmnas.fusion.supernet import FusionSupernet
from lightning_mmnas.modules.base import SelfSupervisedModule, size
from lightning_mmnas.modules.frozen import EncoderFactory, FrozenEncoders, build_encoders, load_part
from lightning_mmnas.modules.length import WAYS_OUT, fraction_done
from lightning_mmnas.modules.search_cost import SearchCost
from lightning_mmnas.objectives.fusion_objective import FusionObjective, projection_head
from lightning_mmnas.objectives.losses import label_loss
from lightning_mmnas.objectives.regularisation import Regularisation
from lightning_mmnas.objectives.training import Schedule
from lightning_mmnas.space.genotype import FusionSpace


class FusionSearch(SelfSupervisedModule):
    """The supernet over frozen encoders; `ArchitectureAlternation` trains its logits, the trainer its weights.

    Args:
        modalities: Modalities of the data, linked from the data module.
        encoders: Encoder by modality name or kind, each built with its `ModalitySpec`.
        encoder_weights: Checkpoint of stage 0; None: the encoders come with their own weights.
        cells: See `FusionSpace`, as for all up to ``primitives``.
        steps: Inner steps of a cell.
        cell_outputs: Cells that make up the network's output; None: all.
        step_outputs: Steps that make up a cell's output; None: all.
        channels: c.
        length: l.
        primitives: Primitives by name or class path.
        pairing: See `FusionSupernet`.
        readout: See `FusionSupernet`.
        dropout: Probability of dropping a value, in [0, 1).
        pool: See `InputNode`.
        grid: See `InputNode`.
        supervised: Search with labels instead of views (BM-NAS itself): cross-entropy of a linear classifier, or the
            squared error of a linear regressor; the data module must deliver labels.
        num_classes: Linked from the data module; used by the supervised search only.
        augmentations: Augmentation by modality name or kind; None: the defaults of each kind.
        modality_dropout: Probability of modality dropout per sample and view; without it contrastive searches often
            return a network that reads one modality only.
        objective: ``forward(z0, z1) -> loss`` on projections (b, d); None: NT-Xent at ``temperature``.
        temperature: Softmax temperature of the default objective, unitless, > 0.
        cross_modal_weight: Weight of the cross-modal InfoNCE term, >= 0.
        projection_hidden: Hidden size of the projection head.
        projection_out: Size d of the projections.
        lr: Peak learning rate of the weights.
        weight_decay: Decoupled weight decay of the weights.
        schedule: See `plain_optimizer`.
        cost: Cost of the fusion network that the architecture's loss takes into account and a budget is about; see
            `CostTable`. Latency is measured when training starts, for single samples on the module's device.
        cost_weight: Weight of the mean cost, relative to that of equal mixture weights, in the architecture's loss.
        cost_readout: Readout of the networks whose cost is meant, that of the stages to come.
        relaxation: How logits become mixture weights; None: `Softmax`. It is told the fraction of training done.
        partial_channels: See `FusionSupernet`.
        regularisation: Terms of the logits in the architecture's loss, such as `BetaDecay`.
        task: Linked from the data module; used by the supervised search only.
        compile: Whether training compiles the fusion network with ``torch.compile``, for GPUs: the same numbers, after
            a minute or two of compiling. The architecture steps of the second order are not compiled.

    Raises:
        ConfigError: Supervised search on data without classes, or a weight of no cost.
        CheckpointError: The encoders' checkpoint is of another architecture.
    """

    def __init__(
        self,
        modalities: dict[str, ModalitySpec],
        encoders: dict[str, EncoderFactory],
        encoder_weights: str | None = None,
        cells: int = 2,
        steps: int = 1,
        cell_outputs: int | None = None,
        step_outputs: int | None = None,
        channels: int = 32,
        length: int = 8,
        primitives: tuple[str, ...] = ("sum", "attention", "linear_glu", "concat_fc"),
        pairing: Pairing = "independent",
        readout: ReadoutName = "pool",
        dropout: float = 0.0,
        pool: Pool = "max",
        grid: Grid = "auto",
        supervised: bool = False,
        num_classes: int | None = None,
        augmentations: dict[str, nn.Module] | None = None,
        modality_dropout: float = 0.5,
        objective: nn.Module | None = None,
        temperature: float = 0.2,
        cross_modal_weight: float = 0.0,
        projection_hidden: int = 128,
        projection_out: int = 64,
        lr: float = 3e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule = "one_cycle",
        cost: CostKind | None = None,
        cost_weight: float = 0.0,
        cost_readout: ReadoutName = "branch",
        relaxation: Relaxation | None = None,
        partial_channels: int = 1,
        regularisation: list[Regularisation] | None = None,
        task: Task | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(
            modalities, augmentations, modality_dropout, objective, temperature, lr, weight_decay, schedule
        )
        self.save_hyperparameters(
            ignore=["modalities", "encoders", "augmentations", "objective", "relaxation", "regularisation", "compile"]
        )
        self.regularisation = nn.ModuleList(regularisation or [])
        self.cost = SearchCost(cost, cost_weight, cost_readout)
        self.encoders = FrozenEncoders(build_encoders(modalities, encoders))
        if encoder_weights is not None:
            load_part(self.encoders.encoders, encoder_weights, "encoders.", "model.init_args.encoder_weights")
        shapes = self.encoders.feature_shapes
        space = FusionSpace(
            inputs=tuple(shapes),
            cells=cells,
            steps=steps,
            cell_outputs=cells if cell_outputs is None else cell_outputs,
            step_outputs=steps if step_outputs is None else step_outputs,
            channels=channels,
            length=length,
            primitives=tuple(primitives),
        )
        self.supernet = FusionSupernet(
            space, shapes, pairing, readout, dropout, relaxation, pool, grid, partial_channels
        )
        self._compiled = "supernet" if compile else None
        self.classifier: nn.Linear | None = None
        self.criterion = label_loss(task)
        if supervised:
            if num_classes is None:
                raise ConfigError("a supervised search needs labels, but the data have no classes")
            self.classifier = nn.Linear(self.supernet.out_features, num_classes)
        self.fusion = FusionObjective(
            self.supernet,
            projection_head(self.supernet.out_features, projection_hidden, projection_out)
            if not supervised
            else nn.Identity(),
            self.objective,
            cross_modal_weight,
            temperature,
        )

    @property
    def space(self) -> FusionSpace:
        """The search space."""
        return self.supernet.space

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Raw samples -> the supernet's vector (b, out_features)."""
        out: Tensor = self.supernet(self.encoders(batch))
        return out

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The objective of one batch; with labels only in a supervised search."""
        if self.training:
            self.supernet.set_progress(self.progress())
        if self.classifier is not None:
            if "label" not in batch:
                raise ConfigError("a supervised search needs labels; set data.init_args.labels=true")
            several = getattr(batch["label"], "ndim", 1) > 1
            task: Task = self.built_with["task"] or ("multilabel" if several else "multiclass")
            check_labels(batch["label"], task, self.classifier.out_features)
            return self.criterion(self.classifier(self(batch)), batch["label"])
        first, second = self.views(batch)
        loss: Tensor = self.fusion(self.encoders(first), self.encoders(second))
        return loss

    def progress(self) -> float:
        """The fraction of the training done, in [0, 1]; outside of one, or of one without end, what was last told."""
        try:
            trainer = self.trainer
        except RuntimeError:  # attached to none
            trainer = None
        done = fraction_done(trainer) if trainer is not None and trainer.training else None
        return float(self.supernet.logits.relaxation.progress) if done is None else done

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """One weight step's loss, on the weights' part of the data."""
        if "weights" not in batch:
            raise ConfigError("a search needs train batches in two parts; set data.init_args.architecture_fraction")
        loss = self.weight_step_loss(batch["weights"])
        self.log(
            "train/loss",
            loss,
            prog_bar=True,
            on_step=False,
            on_epoch=True,
            batch_size=size(batch["weights"]),
            sync_dist=True,
        )
        return loss

    def weight_step_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch of the weights' part; the second order unrolls it."""
        return self.loss(batch)

    def architecture_step(self, batch: Mapping[str, Tensor]) -> Tensor:
        """One architecture step's loss, on the architecture's part of the data, with cost and regularisation."""
        loss = self.loss(batch) + self.cost.term(self.supernet)
        for term in self.regularisation:
            loss = loss + term(self.supernet.logits, self.progress())
        return loss

    def architecture_parameters(self) -> list[nn.Parameter]:
        """The architecture logits."""
        return self.supernet.architecture_parameters()

    def architecture_weights(self) -> dict[str, float]:
        """The mixture weights by name, for loggers; see `named_weights`."""
        return named_weights(self.supernet.logits)

    def entropy(self) -> float | None:
        """Mean entropy of the mixtures, relative to the uniform one, in [0, 1]: 0 is decided; None without a choice."""
        entropies = [
            torch.special.entr(weights).sum(-1).mean() / torch.log(torch.tensor(float(weights.shape[-1])))
            for weights in self.supernet.probabilities().values()
            if weights.shape[-1] > 1
        ]
        return torch.stack([entropy.cpu() for entropy in entropies]).mean().item() if entropies else None

    def on_fit_start(self) -> None:
        """Refuses what follows a training without an end; counts or measures what architectures cost, if wanted."""
        growing = [type(term).__name__ for term in self.regularisation if getattr(term, "growing", False)]
        relaxation = self.supernet.logits.relaxation
        following = growing + ([type(relaxation).__name__] if relaxation.annealed else [])
        if following and fraction_done(self.trainer) is None:
            raise ConfigError(
                f"{following[0]} follows the progress of the training, and nothing says how long that is: {WAYS_OUT}, "
                "or leave it constant"
            )
        nodes = self.built_with
        self.cost.prepare(self, self.supernet, self.encoders.feature_shapes, pool=nodes["pool"], grid=nodes["grid"])

    def on_train_start(self) -> None:
        """Says that nothing searches, where no callback of the package does (a selection says so itself)."""
        super().on_train_start()
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        known = {base.__name__ for callback in callbacks for base in type(callback).__mro__}
        if not known & {"ArchitectureAlternation", "GenotypeSelection"}:
            rank_zero_warn(
                "No ArchitectureAlternation is among the trainer's callbacks: unless something else steps the logits, "
                "they stay as they are, and nothing is searched."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the costs."""
        self.cost.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the costs that the search began with."""
        self.cost.load(checkpoint, self.supernet)

    def on_train_epoch_end(self) -> None:
        """Logs the mean entropy of the mixtures, relative to the uniform one, and the mean cost."""
        super().on_train_epoch_end()
        if (entropy := self.entropy()) is not None:
            self.log("arch/entropy", entropy, prog_bar=True, sync_dist=True)
        if (cost := self.cost.expected(self.supernet)) is not None:
            self.log("arch/cost", cost, sync_dist=True)
