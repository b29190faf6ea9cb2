"""What the three self-supervised stages share: views, projection, objective, optimiser."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from lightning_mmnas.data.spec import ModalitySpec, of_those_in_use
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.modules.hyperparameters import StageModule
from lightning_mmnas.modules.length import WAYS_OUT, fraction_done, weight_steps
from lightning_mmnas.objectives.losses import nt_xent
from lightning_mmnas.objectives.training import Schedule, build_optimizer, rate_after
from lightning_mmnas.views import DEFAULT_AUGMENTATIONS, TwoViews

Views = dict[str, Tensor]


def plain_optimizer(
    module: LightningModule,
    groups: Iterable[dict[str, Any]],
    weight_decay: float,
    schedule: Schedule,
) -> OptimizerLRScheduler:
    """AdamW over parameter groups with their own ``lr``, and a schedule stepped once per weight step.

    Args:
        module: Attached to a trainer, which knows the number of steps, or the time that there is.
        groups: Parameter groups, each with ``params`` and ``lr``.
        weight_decay: Decoupled weight decay (AdamW), >= 0.
        schedule: ``"one_cycle"`` (warm-up and cosine decay, Smith 2018), ``"cosine"`` or ``"constant"``. Where time
            alone ends the training, the rate follows the time, and the momentum, which ``"one_cycle"`` cycles, stays.

    Raises:
        ConfigError: A schedule other than ``"constant"`` for a training of which nothing says how long it is, or
            beside `LearningRateFinder` or `BatchSizeFinder`.
    """
    trainer = module.trainer
    # Lightning cannot clip gradients for a fused optimiser under mixed precision.
    fused = "mixed" not in str(trainer.precision)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    finders = [type(c).__name__ for c in callbacks if isinstance(c, LearningRateFinder | BatchSizeFinder)]
    if finders and schedule != "constant":
        raise ConfigError(
            f"{finders[0]} changes what schedule {schedule!r} was made for, after it was made; set "
            "model.init_args.schedule to constant, or remove the callback"
        )
    steps = 1 if schedule == "constant" else weight_steps(trainer)
    if steps is None and fraction_done(trainer) is None:
        raise ConfigError(
            f"schedule {schedule!r} needs to know how long the training is: {WAYS_OUT}, or set "
            "model.init_args.schedule to constant"
        )
    optimizer, scheduler = build_optimizer(groups, weight_decay, schedule if steps else "constant", steps or 1, fused)
    if steps is None:  # time alone ends the training
        scheduler = LambdaLR(optimizer, lambda _: rate_after(fraction_done(trainer) or 0.0, schedule))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def build_views(
    modalities: Mapping[str, ModalitySpec],
    augmentations: Mapping[str, nn.Module] | None,
    modality_dropout: float = 0.0,
) -> TwoViews:
    """Views of a batch with the given augmentations, or with the defaults of each kind of modality."""
    if augmentations is None and isinstance(modalities, Mapping):
        kinds = dict.fromkeys(spec.kind for spec in modalities.values())
        augmentations = {kind: DEFAULT_AUGMENTATIONS[kind]() for kind in kinds if kind in DEFAULT_AUGMENTATIONS}
    return TwoViews(modalities, of_those_in_use(augmentations or {}, modalities), modality_dropout)


class SelfSupervisedModule(StageModule):
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
        self._has_means = False

    def setup(self, stage: str) -> None:
        """Takes the training-set means for modality dropout from the data module, if it knows them."""
        if stage == "fit":
            self.take_means(getattr(self.trainer, "datamodule", None))

    def on_train_start(self) -> None:
        """Takes the means now if a subclass has a `setup` of its own, without ``super()``."""
        super().on_train_start()
        if not self._has_means:
            SelfSupervisedModule.setup(self, "fit")

    def take_means(self, datamodule: object) -> None:
        """Copies a data module's ``modality_means()`` into the views; without that method nothing changes."""
        self._has_means = True
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

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs the objective on unseen samples."""
        self.log("val/loss", self.loss(batch), prog_bar=True, batch_size=size(batch), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW on everything that takes gradients."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return plain_optimizer(self, [{"params": parameters, "lr": self.lr}], self.weight_decay, self.schedule)


def size(batch: Mapping[str, Any]) -> int:
    """Number of samples of a batch: of its first tensor that has an axis besides, as all modalities have."""
    samples = (value for value in batch.values() if isinstance(value, Tensor) and value.ndim > 1)
    return len(next(samples, next(iter(batch.values()))))


@contextmanager
def told_of_single_samples() -> Iterator[None]:
    """Says what to do where batch norm cannot train on a batch.

    Raises:
        DataError: The batch has one sample.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataError(
            "a training batch has one sample, and batch norm needs two: give the loader drop_last=True, or another "
            "batch_size"
        ) from error
