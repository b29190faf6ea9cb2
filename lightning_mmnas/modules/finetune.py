"""Stage 3: labels come in, as fine-tuning beside a linear model, as fine-tuning alone or as a linear probe."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lightning_mmnas.data.base import ModalitySpec, Task
from lightning_mmnas.data.spec import TargetScale, check_batch, unscaled
from lightning_mmnas.data.targets import check_labels, rescaled
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.fusion.input_nodes import Grid, Pool
from lightning_mmnas.fusion.readout import LateFeatures, ReadoutName, out_features
from lightning_mmnas.modules.base import build_views, plain_optimizer, size, told_of_single_samples
from lightning_mmnas.modules.convex_start import fit_convex_parts
from lightning_mmnas.modules.frozen import (
    EncoderFactory,
    FrozenEncoders,
    build_encoders,
    check_genotype,
    load_part,
    store_genotype,
)
from lightning_mmnas.modules.hyperparameters import StageModule
from lightning_mmnas.modules.metrics import Predictions, build_metrics, build_tuned_metrics, tune_thresholds
from lightning_mmnas.modules.pretrain import FusionFactory, fusion_of
from lightning_mmnas.modules.regression_metrics import take_scale
from lightning_mmnas.modules.transfer import attached_trainer
from lightning_mmnas.objectives.losses import RegressionLoss, label_loss
from lightning_mmnas.objectives.mixture import LinearPath, Mixture
from lightning_mmnas.objectives.training import Schedule
from lightning_mmnas.space.genotype import Genotype

FineTuningMode = Literal["mixture", "full", "linear_probe"]


class FineTuning(StageModule):
    """Trains a classifier, or a regressor, on a fusion network over frozen encoders.

    In ``mode="mixture"`` the model holds what it has to beat. Before the first step a convex solver fits logistic
    regression, its strength chosen by cross-validation on the labels at hand, twice: on the standardised pooled
    features of all levels, and on the vectors of the pretrained network. The second is where fine-tuning starts; the
    model evaluates the weights half-way between start and fine-tuned ones and adds the first's logits. How much each
    part counts is chosen by held-out samples of the folds. See `Mixture`; no validation split is needed.

    For a regression ridge regression stands in the place of logistic regression, and all is done on standardised
    targets, as the data module gives them; predictions, MAE and RMSE are in the target's own unit. The scale belongs to
    the weights: with a checkpoint comes its own, in which the labels of data of another scale are understood.

    For multi-label data every F1 is logged twice: with one fixed threshold, and (as ``…_tuned``) with the threshold of
    each label that was best on the validation split in its last epoch; these thresholds are part of the checkpoint.

    Args:
        modalities: Modalities of the data, linked from the data module.
        encoders: Encoder by modality name or kind, each built with its `ModalitySpec`.
        num_classes: Linked from the data module.
        task: ``"multiclass"``, ``"multilabel"`` or ``"regression"``, linked from the data module.
        genotype: The architecture, or the path of its JSON file; None: give ``fusion``.
        fusion: Another fusion module instead of a genotype; see `FusionPretraining`.
        encoder_weights: Checkpoint of stage 0; None: the encoders come with their own weights.
        network_weights: Checkpoint of stage 2; None: the network starts from scratch.
        augmentations: Augmentation by modality name or kind; None: the defaults of each kind.
        augment: Whether training batches are replaced by one random view of them.
        mode: ``"mixture"``: as above; ``"full"``: network and classifier learn, nothing else; ``"linear_probe"``: the
            network is frozen, in eval mode.
        readout: See `FusionNetwork`.
        dropout: Probability of dropping a value inside the network, in [0, 1).
        head_dropout: Probability of dropping a value of the network's vector before the classifier, in [0, 1); a linear
            probe drops none.
        interpolation: Mode ``"mixture"``: how far from the start to the fine-tuned weights, in [0, 1] (alpha of
            WiSE-FT); None: half-way, and all the way where ``network_weights`` is None.
        pool: See `InputNode`.
        grid: See `InputNode`.
        threshold: Probability above which a label is predicted, multi-label data only; 0.3 in BM-NAS.
        lr: Peak learning rate of the network.
        head_lr: Peak learning rate of the classifier; None: ``lr`` in mode ``"mixture"``, where the classifier starts
            at its optimum, ten times as much otherwise: a random one that learns as slowly as the network makes
            pretraining look harmful.
        weight_decay: Decoupled weight decay.
        schedule: See `plain_optimizer`.
        loss: Of a regression, on standardised targets: ``"mse"``, or ``"huber"``, which large errors move less; None:
            ``"mse"``.
        target_scale: Mean and standard deviation of a regression's targets, linked from the data module; None: labels
            are taken as they are.
        compile: Whether training compiles the fusion network with ``torch.compile``, for GPUs: the same numbers, after
            a minute or two of compiling. What is evaluated with weights half-way (``"mixture"``) is not compiled.

    Raises:
        DataError: One class only.
        ConfigError: No labels, neither or both of ``genotype`` and ``fusion``, or an argument out of range.
        GenotypeError: The genotype does not fit the encoders.
        CheckpointError: A checkpoint is of another architecture.
    """

    def __init__(
        self,
        modalities: dict[str, ModalitySpec],
        encoders: dict[str, EncoderFactory],
        num_classes: int | None = None,
        task: Task | None = None,
        genotype: str | Genotype | None = None,
        fusion: FusionFactory | None = None,
        encoder_weights: str | None = None,
        network_weights: str | None = None,
        augmentations: dict[str, nn.Module] | None = None,
        augment: bool = True,
        mode: FineTuningMode = "mixture",
        readout: ReadoutName = "branch",
        dropout: float = 0.0,
        head_dropout: float = 0.5,
        interpolation: float | None = None,
        pool: Pool = "max",
        grid: Grid = "auto",
        threshold: float = 0.5,
        lr: float = 2e-3,
        head_lr: float | None = None,
        weight_decay: float = 1e-4,
        schedule: Schedule = "one_cycle",
        loss: RegressionLoss | None = None,
        target_scale: TargetScale | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["modalities", "encoders", "augmentations", "genotype", "fusion", "compile"])
        if num_classes is None or task is None:
            if num_classes is not None:
                raise ConfigError(f"fine-tuning needs the task beside num_classes, one of {list(get_args(Task))}")
            raise ConfigError("fine-tuning needs labels, but the data have none")
        if num_classes < 2 and task != "regression":
            raise DataError("the data have one class only; nothing to learn")
        if loss is not None and task != "regression":
            raise ConfigError(f"loss {loss!r} is for a regression, and the task is {task}; check model.init_args.loss")
        if not 0 < threshold < 1:
            raise ConfigError(f"threshold must be in (0, 1), got {threshold}; check model.init_args.threshold")
        if interpolation is not None and not 0 <= interpolation <= 1:
            raise ConfigError(
                f"interpolation must be in [0, 1], got {interpolation}; check model.init_args.interpolation"
            )
        if not 0 <= head_dropout < 1:
            raise ConfigError(f"head_dropout must be in [0, 1), got {head_dropout}; check model.init_args.head_dropout")
        self._modalities = dict(modalities)
        self.encoders = FrozenEncoders(build_encoders(modalities, encoders))
        if encoder_weights is not None:
            load_part(self.encoders.encoders, encoder_weights, "encoders.", "model.init_args.encoder_weights")
        self.network = fusion_of(genotype, fusion, self.encoders.feature_shapes, readout, dropout, pool, grid)
        self._compiled = "network" if compile else None
        if network_weights is not None:
            load_part(self.network, network_weights, "network.", "model.init_args.network_weights")
        self.classifier = nn.Linear(out_features(self.network), num_classes)
        self.head_dropout = nn.Dropout(0.0 if mode == "linear_probe" else head_dropout)
        self.views = build_views(modalities, augmentations) if augment else None
        self.mode: FineTuningMode = mode
        self.pretrained = network_weights is not None
        self.mixture: Mixture | None = None
        if mode == "mixture":
            shapes = self.encoders.feature_shapes
            if interpolation is None:
                interpolation = 0.5 if self.pretrained else 1.0
            linear = LinearPath(LateFeatures(list(shapes), shapes), num_classes)
            self.mixture = Mixture(self.network, self.classifier, linear, interpolation)
        elif mode == "linear_probe":
            self.network.requires_grad_(False)
        self.lr = lr
        self._head_lr = head_lr
        self._started = False
        self.weight_decay = weight_decay
        self.schedule: Schedule = schedule
        self.task: Task = task
        self.criterion = label_loss(task, loss or "mse")
        self.target_scale: TargetScale | None = None if target_scale is None else (target_scale[0], target_scale[1])
        self.data_scale = self.target_scale
        metrics = build_metrics(task, num_classes, threshold, self.target_scale)
        self.val_metrics, self.test_metrics = metrics.clone(prefix="val/"), metrics.clone(prefix="test/")
        self.further_metrics = nn.ModuleDict()  # of a second loader, a third, ...: each has numbers of its own
        if task == "multilabel":
            self.val_predictions = Predictions(num_classes)
            self.test_tuned = build_tuned_metrics(num_classes).clone(prefix="test/")
            self.register_buffer("thresholds", torch.full((num_classes,), threshold))

    @property
    def head_lr(self) -> float:
        """Peak learning rate of the classifier; one that was not given follows ``lr``, which a tuner may have found."""
        if self._head_lr is not None:
            return self._head_lr
        return self.lr if self.mode == "mixture" else 10 * self.lr

    @head_lr.setter
    def head_lr(self, rate: float) -> None:
        self._head_lr = rate

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Raw samples -> class logits (b, num_classes), or standardised targets (b, 1)."""
        features = self._encoded(batch)
        if self.mixture is not None and not self.training:
            mixed: Tensor = self.mixture(self.network, self.classifier, features)
            return mixed
        if self.mode == "linear_probe":
            with torch.no_grad():
                vector = self.network.eval()(features)
        else:
            vector = self.network(features)
        logits: Tensor = self.classifier(self.head_dropout(vector))
        return logits

    def on_train_start(self) -> None:
        """Mode ``"mixture"``: fits its convex parts on all labelled samples, unless a checkpoint brought them."""
        super().on_train_start()
        self._started = True
        if self.mixture is None or bool(self.mixture.fitted):
            return
        parts = fit_convex_parts(
            self.trainer,
            self._encoded,
            self.network,
            self.mixture.linear,
            self.classifier.out_features,
            self.pretrained,
            self.task,
            self.labels,
        )
        self.mixture.begin(self.network, self.classifier, parts)

    def training_view(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """One random view of a batch of raw samples; the batch itself if ``augment`` is off."""
        return batch if self.views is None else self.views.view(batch)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of one labelled batch, or the loss of a regression."""
        if not self._started and attached_trainer(self) is not None:  # a subclass's own on_train_start has no super()
            FineTuning.on_train_start(self)
        with told_of_single_samples():
            logits = self(self.training_view(batch))
        loss = self.criterion(logits, self.labels(batch))
        self.log(
            "train/loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=size(batch), sync_dist=True
        )
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs loss and metrics of the validation split; of several loaders, those of each."""
        logits, labels = self(batch), self.labels(batch)
        self._log_metrics("val_metrics", dataloader_idx, self._scores(logits), labels, prog_bar=True)
        loss = self.criterion(logits, labels)
        self.log("val/loss", loss, batch_size=size(batch), sync_dist=True)
        if self.task == "multilabel" and dataloader_idx == 0:
            self.val_predictions.update(self._scores(logits), labels)

    def on_validation_epoch_end(self) -> None:
        """Tunes the thresholds of multi-label data on the first loader's samples, the same on every rank."""
        if self.task == "multilabel":
            probabilities, labels = self.val_predictions.compute()
            self.val_predictions.reset()
            self.get_buffer("thresholds").copy_(tune_thresholds(probabilities, labels))

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs the metrics of the test split; F1 of multi-label data with the tuned thresholds too."""
        scores, labels = self._scores(self(batch)), self.labels(batch)
        self._log_metrics("test_metrics", dataloader_idx, scores, labels)
        if self.task == "multilabel":
            decisions = (scores > self.get_buffer("thresholds")).float()
            self._log_metrics("test_tuned", dataloader_idx, decisions, labels)

    def _log_metrics(self, name: str, loader: int, scores: Tensor, labels: Tensor, prog_bar: bool = False) -> None:
        metrics: MetricCollection = getattr(self, name)
        attribute = name
        if loader > 0:
            key = f"{name}_{loader}"
            attribute = f"further_metrics.{key}"
            if key not in self.further_metrics:
                begun = metrics.clone()
                begun.reset()
                self.further_metrics[key] = begun
            metrics = cast(MetricCollection, self.further_metrics[key])
        metrics.update(scores, labels)
        for metric, value in metrics.items(keep_base=False, copy_state=False):
            self.log(metric, value, prog_bar=prog_bar, batch_size=len(labels), metric_attribute=f"{attribute}.{metric}")

    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Class probabilities (b, num_classes): softmax for classes, sigmoid for labels; or targets, (b, 1), float64.

        Targets are in their own unit and on the CPU.
        """
        logits = self(batch)
        if self.task == "regression":
            return unscaled(logits, self.target_scale)
        return logits.softmax(-1) if self.task == "multiclass" else self._scores(logits)

    def labels(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The labels of a batch; targets in the scale of the weights.

        Raises:
            DataError: It has none, or some that are none of the classes.
        """
        if "label" not in batch:
            raise DataError(
                f"fine-tuning needs a 'label' in every batch, which has {list(batch)}: set data.init_args.labels to "
                "true"
            )
        check_labels(batch["label"], self.task, self.classifier.out_features)
        return rescaled(batch["label"], self.data_scale, self.target_scale)

    def _encoded(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        check_batch(batch, self._modalities)
        features: dict[str, Tensor] = self.encoders(batch)
        return features

    def _scores(self, logits: Tensor) -> Tensor:
        """What metrics take: logits or targets; probabilities of labels, which metrics would have to guess."""
        return logits.float().sigmoid() if self.task == "multilabel" else logits

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the genotype, which the weights' names do not tell, and the scale of what they predict."""
        store_genotype(self.network, checkpoint)
        if self.task == "regression":
            checkpoint["target_scale"] = self.target_scale

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses the weights of another genotype, and takes the scale of their predictions."""
        check_genotype(self.network, checkpoint, "the checkpoint")
        known = checkpoint if "target_scale" in checkpoint else checkpoint.get("hyper_parameters", {})
        if self.task == "regression" and "target_scale" in known:
            self._take_scale(known["target_scale"])

    def _take_scale(self, scale: Sequence[float] | None) -> None:
        self.target_scale = None if scale is None else (float(scale[0]), float(scale[1]))
        for metrics in (self.val_metrics, self.test_metrics, *self.further_metrics.values()):
            take_scale(cast(MetricCollection, metrics), self.target_scale)
        if self.target_scale != self.data_scale:
            rank_zero_warn(
                f"the checkpoint's targets have {_in_words(self.target_scale)}, those of the data now "
                f"{_in_words(self.data_scale)}: predictions and losses are in the checkpoint's scale"
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, the classifier with its own rate."""
        groups = [{"params": list(self.classifier.parameters()), "lr": self.head_lr}]
        if self.mode != "linear_probe":
            groups.append({"params": [p for p in self.network.parameters() if p.requires_grad], "lr": self.lr})
        return plain_optimizer(self, groups, self.weight_decay, self.schedule)


def _in_words(scale: TargetScale | None) -> str:
    return "no scale" if scale is None else f"mean {scale[0]:.6g} and standard deviation {scale[1]:.6g}"
