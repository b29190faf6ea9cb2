"""What every multimodal data set answers, and how its splits become loaders."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lightning_mmnas.data import samples as sampled
from lightning_mmnas.data.choices import check_choices, check_share
from lightning_mmnas.data.drawing import caption, draw
from lightning_mmnas.data.names import flaw
from lightning_mmnas.data.samples import LABEL, Batch, EpochSampler, Part, Samples, ViewSampler, collate
from lightning_mmnas.data.spec import Kind, Modalities, ModalitySpec, Split, TargetScale, Task, unscaled
from lightning_mmnas.data.splits import label_budget, label_total, split_groups
from lightning_mmnas.errors import ConfigError, DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Kind", "ModalitySpec", "MultimodalDataModule", "Split", "Task"]

Loader = DataLoader[Batch]

_SPLITS: dict[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
}


class MultimodalDataModule(LightningDataModule, ABC):
    """Splits, label budgets and loaders of a multimodal data set.

    A subclass answers `available_modalities`, `class_names` and `task`, and builds the samples of
    one split in `_samples`. It passes the arguments below on.

    Training loaders shuffle; they drop an incomplete last batch where there are no labels
    (contrastive objectives gathered over ranks need equal batches), and a last batch of a single
    sample in any case (batch norm needs two). The order depends on `seed` and epoch alone.

    Args:
        modalities: Which modalities to use, in this order; None: all.
        batch_size: Samples per batch (per process).
        num_workers: Worker processes per loader; 0 is fastest for data in memory.
        architecture_fraction: Share of the training data that goes to the architecture step, in
            (0, 1); see `train_dataloader`. Groups (recordings) are not divided.
        architecture_split: "val": the architecture step reads the validation split instead.
        labels: Whether samples carry `"label"`; False for all stages before fine-tuning.
        labels_per_class: Label budget: training samples per class; None: all.
        label_seed: Which draw of the label budget.
        seed: Seed of the shuffling and of the architecture split.
        labels_total: Label budget of a regression: labelled training samples in all; None: all.

    Raises:
        ConfigError: An argument is out of range, or two of them contradict each other.
        DataError: A modality is unknown.
    """

    def __init__(
        self,
        modalities: Sequence[str] | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        architecture_fraction: float | None = None,
        architecture_split: Literal["val"] | None = None,
        labels: bool = True,
        labels_per_class: int | None = None,
        label_seed: int = 0,
        seed: int = 0,
        labels_total: int | None = None,
    ) -> None:
        super().__init__()
        _check_at_least("batch_size", batch_size, 2)  # batch norm
        _check_at_least("num_workers", num_workers, 0)
        _check_at_least("label_seed", label_seed, 0)
        _check_at_least("seed", seed, 0)
        for name, budget, least in (("labels_per_class", labels_per_class, 1), ("labels_total", labels_total, 2)):
            if budget is not None:
                _check_at_least(name, budget, least)
                if not labels:
                    raise ConfigError(
                        f"{name}={budget} needs labels=True, got labels=False; check data.init_args.labels"
                    )
        if architecture_fraction is not None:
            check_share("architecture_fraction", architecture_fraction)
        check_choices(MultimodalDataModule.__init__, {"architecture_split": architecture_split})
        if architecture_fraction is not None and architecture_split is not None:
            raise ConfigError(
                "architecture_fraction and architecture_split exclude each other; set one of the two to null"
            )
        self._selected = self._check_modalities(modalities)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.architecture_fraction = architecture_fraction
        self.architecture_split = architecture_split
        self.labels = labels
        self.labels_per_class = labels_per_class
        self.labels_total = labels_total
        self.label_seed = label_seed
        self.seed = seed
        self._parts: dict[Split, Part] = {}

    @property
    @abstractmethod
    def available_modalities(self) -> dict[str, ModalitySpec]:
        """All the modalities that the data set has."""

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their labels; of a regression the target's; empty without labels."""

    @property
    @abstractmethod
    def task(self) -> Task | None:
        """Whether a sample has one class, several or a target, a real number; None where there are no labels."""

    @property
    def notes(self) -> list[str]:
        """What was read in a way that somebody may not expect, in sentences; `mmnas data` prints them."""
        return []

    @abstractmethod
    def _samples(self, split: Split) -> Samples:
        """Builds all the samples of one split, labels included."""

    @property
    def modalities(self) -> dict[str, ModalitySpec]:
        """The modalities in use; it knows the others, too."""
        every = self.available_modalities
        others = {name: spec for name, spec in every.items() if name not in self._selected}
        return Modalities({name: every[name] for name in self._selected}, others)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or of targets: 1; None where there are no labels."""
        return len(self.class_names) or None

    @property
    def target_scale(self) -> TargetScale | None:
        """Mean and standard deviation of a regression's targets over the labelled training samples.

        Labels are standardised by them, so that neither float32 nor half precision loses anything. None: no regression.
        """
        return None

    def modality_means(self) -> dict[str, Tensor]:
        """Returns the training-set mean of every modality, in the shape of one sample.

        It is in the unit of the views (pixels in [0, 1]), and known once the train split has been built. Zeros for
        data in memory, which is right for standardised ones; others override this.
        """
        if "train" not in self._parts:
            return {name: torch.zeros(spec.shape) for name, spec in self.modalities.items()}
        return self._parts["train"].source.means(self.modalities)

    def setup(self, stage: str) -> None:
        """Builds the splits of one stage, and no others; a second call changes nothing."""
        if stage not in _SPLITS:
            raise DataError(f"setup builds the splits of a stage, one of {list(_SPLITS)}, got {stage!r}")
        for split in _SPLITS[stage]:
            self.build(split)

    def build(self, split: Split) -> None:
        """Builds one split; a second call changes nothing."""
        if split not in self._parts:
            self._parts[split] = self._build(split)

    def train_dataloader(self) -> Loader | CombinedLoader:
        """Returns the training loader, or the two loaders of an architecture search.

        With `architecture_fraction` or `architecture_split`: a `CombinedLoader` in mode
        "max_size_cycle" with the keys "weights" and "architecture", over disjoint samples.
        """
        train = self._part("train")
        if self.architecture_split is not None:
            parts = {"weights": train, "architecture": self._part(self.architecture_split)}
        elif self.architecture_fraction is not None:
            groups = self._indivisible(train)
            weights, architecture = split_groups(len(train), groups, self.architecture_fraction, self.seed)
            parts = {"weights": train.subset(weights), "architecture": train.subset(architecture)}
        else:
            return self._loader(train, shuffle=True)
        loaders = {name: self._loader(part, shuffle=True) for name, part in parts.items()}
        return CombinedLoader(loaders, "max_size_cycle")

    def val_dataloader(self) -> Loader:
        """Returns the loader of the validation split."""
        return self._loader(self._part("val"))

    def test_dataloader(self) -> Loader:
        """Returns the loader of the test split."""
        return self._loader(self._part("test"))

    def predict_dataloader(self) -> Loader:
        """Returns the loader of the test split."""
        return self._loader(self._part("test"))

    def plain_loader(self, split: Split) -> Loader:
        """Returns a loader of any split in its order, without views."""
        return self._loader(self._part(split))

    def tensors(self, split: Split) -> Batch:
        """Returns a whole split as one batch, in order; "train" within the label budget."""
        part = self._part(split)
        return part.__getitems__(range(len(part)))

    def label_counts(self, split: Split) -> dict[str, int]:
        """Returns the number of samples of each class; "train" within the label budget."""
        return self._count(self._part(split))

    def source(self, split: Split) -> Samples:
        """Returns all the samples of a split that has been built, whatever the label budget; unlabelled ones too."""
        return self._part(split).source

    def attach(self, split: Split, samples: Samples, stored_views: int, drawn_views: int) -> None:
        """Lets a split's loaders read from other samples, one for one, such as features computed before.

        Args:
            split: A split that has been built.
            samples: As many as the split's source has.
            stored_views: Views that they have of each sample.
            drawn_views: Views that a shuffled (or self-supervised validation) batch has of each; 0: plain samples.

        Raises:
            DataError: Their number is another, or there are fewer views than are drawn.
        """
        part = self._part(split)
        if len(samples) != len(part.source) or stored_views < drawn_views:
            raise DataError(
                f"{len(samples)} samples of {stored_views} views cannot stand for the {len(part.source)} of the "
                f"{split} split, of which {drawn_views} views are drawn"
            )
        part.source, part.stored_views, part.drawn_views = samples, stored_views, drawn_views

    def use_all_labels(self) -> None:
        """Lifts the label budget, before the train split is built."""
        self.labels_per_class = self.labels_total = None

    def part(self, split: Split) -> Part:
        """Returns a split that has been built; "train" within the label budget."""
        return self._part(split)

    def words(self, modality: str, ids: Tensor) -> str | None:
        """Returns the words of a text's ids (shape (t,)) where the data set knows them; here None."""
        return None

    def plot(self, sample: Mapping[str, Tensor]) -> "Figure":
        """Draws one sample, a panel per modality.

        Args:
            sample: A sample, not a batch; its `"label"` becomes the title.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 2.2 * len(self.modalities)), layout="constrained")
        panels = figure.subplots(len(self.modalities), squeeze=False)[:, 0]
        for axes, (name, spec) in zip(panels, self.modalities.items(), strict=True):
            axes.set_title(caption(name), loc="left")
            draw(axes, sample[name], spec, self.words(name, sample[name]) if spec.kind == "text" else None)
        figure.suptitle(caption(self.label_text(sample)))
        return figure

    def label_text(self, sample: Mapping[str, Tensor]) -> str:
        """Returns the names of a sample's classes, or its target; empty where it is unlabelled."""
        if LABEL not in sample:
            return ""
        label = sample[LABEL]
        if self.task == "regression":
            value = unscaled(label, self.target_scale).flatten()
            return "" if bool(value.isnan().any()) else f"{self.class_names[0]} = {value.item():.6g}"
        chosen = label.view(-1).tolist() if label.ndim == 0 else (label > 0).nonzero().flatten().tolist()
        return ", ".join(self.class_names[index] for index in chosen if index >= 0)

    def _check_modalities(self, modalities: Sequence[str] | None) -> tuple[str, ...]:
        available = list(self.available_modalities)
        for name in available:
            if (reason := flaw(name)) is not None:
                raise DataError(f"{name!r} cannot be the name of a modality: {reason}")
        if isinstance(modalities, str):
            raise DataError(f"modalities are a list of names, such as [{modalities!r}], got the text {modalities!r}")
        selected = tuple(available if modalities is None else modalities)
        for name in selected:
            if name not in available:
                raise DataError(f"modality {name!r} is not in {available}; check data.init_args.modalities")
        if not selected or len(set(selected)) < len(selected):
            raise DataError(
                f"modalities must name one or more of {available}, each once, got "
                f"{list(selected)}; check data.init_args.modalities"
            )
        return selected

    def _build(self, split: Split) -> Part:
        samples = self._samples(split)
        if len(samples) == 0:
            raise DataError(f"the {split} split is empty")
        if self.labels and samples.labels is None:
            raise DataError("the data have no labels; set data.init_args.labels to false")
        part = Part(samples, torch.arange(len(samples)), self._selected, self.labels)
        if part.labels is not None:  # unlabelled samples serve the stages without labels only
            part = part.subset(sampled.labelled_rows(part.labels, self.task).nonzero().flatten())
            if len(part) == 0:
                raise DataError(f"the {split} split has no labelled sample; set data.init_args.labels to false")
        if split != "train" or part.labels is None:
            return part
        self._check_budget(self.task)
        if self.labels_total is not None:
            return part.subset(label_total(len(part), self.labels_total, self.label_seed))
        if self.task == "regression":
            return part
        if self.labels_per_class is not None:
            part = part.subset(label_budget(part.labels, self.labels_per_class, self.label_seed, self.class_names))
        classes = [name for name, count in self._count(part).items() if count]
        if len(classes) < 2:
            raise DataError(f"the train split has samples of {classes} only; nothing to learn")
        return part

    def _check_budget(self, task: Task | None) -> None:
        """Refuses the label budget of another task."""
        if task == "regression" and self.labels_per_class is not None:
            raise ConfigError(
                f"labels_per_class={self.labels_per_class} is for classes, and a regression has none; "
                "use data.init_args.labels_total, labelled samples in all"
            )
        if task != "regression" and self.labels_total is not None:
            raise ConfigError(
                f"labels_total={self.labels_total} is for a regression; classes have data.init_args.labels_per_class"
            )

    def _count(self, part: Part) -> dict[str, int]:
        labels = part.labels
        if labels is None:
            raise DataError("there are no labels to count; check data.init_args.labels")
        if self.task == "regression":
            raise DataError("the targets of a regression are numbers, not classes that could be counted")
        several = self.task == "multilabel"
        counts = labels.sum(0) if several else labels.bincount(minlength=len(self.class_names))
        return dict(zip(self.class_names, map(int, counts.tolist()), strict=True))

    def _part(self, split: Split) -> Part:
        if split not in self._parts:
            stages = " or ".join(f"setup('{s}')" for s, built in _SPLITS.items() if split in built)
            raise DataError(f"the {split} split has not been built: {stages} builds it")
        return self._parts[split]

    def _indivisible(self, part: Part) -> Tensor | None:
        """What the two parts of an architecture search do not divide, as a number of each sample; None: nothing."""
        return part.groups

    @property
    def _ranks(self) -> tuple[int, int]:
        """The number of ranks, and that of this one."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _sampler(self, part: Part, shuffle: bool) -> Sampler[Any] | None:
        if part.drawn_views:
            return ViewSampler(part, self.seed, shuffle, *self._ranks)
        return EpochSampler(part, self.seed) if shuffle else None

    def _loader(self, part: Part, shuffle: bool = False) -> Loader:
        size = -(-len(part) // self._ranks[0])  # of a rank
        least = 2 if self.labels else self.batch_size  # batch norm needs two
        if shuffle and size < least:
            of_rank = "" if size == len(part) else f" for each of {self._ranks[0]} ranks"
            way_out = (
                "the 2 of a step; give more, or fewer ranks"
                if self.labels
                else f"batch_size={least}; check data.init_args.batch_size"
            )
            raise DataError(f"a training part has {size} sample(s){of_rank}, fewer than {way_out}")
        drop_last = shuffle and (not self.labels or size % self.batch_size == 1)
        sampler = self._sampler(part, shuffle)
        if callable(set_epoch := getattr(sampler, "set_epoch", None)) and self.trainer is not None:
            # With workers, reading starts before Lightning calls set_epoch on a resumed run.
            set_epoch(self.trainer.current_epoch)
        return DataLoader(
            part,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=collate,
            # Its own generator: reading data must not disturb the global random state, on which
            # views and dropout depend.
            generator=torch.Generator().manual_seed(self.seed),
        )


def _check_at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be an integer of at least {least}, got {value!r}; check data.init_args.{name}")
