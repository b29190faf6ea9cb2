"""A data set from tensors that are already in memory."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.samples import LABEL, TensorSamples
from lightning_mmnas.data.spec import Kind, ModalitySpec, Split, TargetScale, Task, Vocabulary, check_pixels, to_unit
from lightning_mmnas.data.targets import measure_scale, standardised
from lightning_mmnas.errors import DataError

_FEW = 1000
"""So many classes may most of them have no sample."""


class TensorDataModule(MultimodalDataModule):
    """Splits given as dicts of tensors: for data that fit in memory.

    Args:
        train: One tensor per modality, shape (n, *sample), and optionally "label": int64 of shape
            (n,), or 0 and 1 of shape (n, num_classes) where multi-label; of a regression floats of
            shape (n,) or (n, 1), NaN where unlabelled.
        val: The same for validation.
        test: The same for test; None: there is no test split.
        kinds: Kind of every modality, by name.
        vocabularies: Vocabulary of every modality of kind "text" (int64 token ids), by name.
        groups: Recording of each training sample, shape (n,); see `Samples`.
        class_names: Names of the classes; None: "0", "1", ...; of a regression that of the target.
        modalities: See `MultimodalDataModule`, as for all that follow.
        batch_size: Samples per batch.
        num_workers: Worker processes per loader.
        architecture_fraction: Share of the training data for the architecture step.
        architecture_split: "val": the architecture step reads the validation split.
        labels: Whether samples carry "label".
        labels_per_class: Label budget; None: all.
        label_seed: Which draw of the label budget.
        seed: Seed of the shuffling and of the architecture split.
        labels_total: Label budget of a regression.
        task: "regression": labels are real numbers; None: classes.

    Raises:
        DataError: The tensors do not fit each other, `kinds` or `class_names`.

    Examples:
        >>> split = {"sensor": torch.randn(16, 3, 32), "label": torch.arange(16) % 2}
        >>> data = TensorDataModule(split, split, kinds={"sensor": "motion"}, batch_size=8)
        >>> data.setup("fit")
        >>> next(iter(data.train_dataloader()))["sensor"].shape
        torch.Size([8, 3, 32])
    """

    def __init__(
        self,
        train: Mapping[str, Tensor],
        val: Mapping[str, Tensor],
        test: Mapping[str, Tensor] | None = None,
        *,
        kinds: Mapping[str, Kind],
        vocabularies: Mapping[str, Vocabulary] | None = None,
        groups: Tensor | None = None,
        class_names: Sequence[str] | None = None,
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
        task: Literal["regression"] | None = None,
    ) -> None:
        for split, tensors in (("train", train), ("val", val), ("test", {} if test is None else test)):
            _check_tensors(split, tensors)
        _check_words(kinds, groups, class_names)
        if task not in (None, "regression"):
            raise DataError(
                f"task {task!r} is none that is given: None, the task follows from the labels, or 'regression'"
            )
        self._tensors: dict[Split, Mapping[str, Tensor]] = {"train": train, "val": val}
        if test is not None:
            self._tensors["test"] = test
        self._target_scale: TargetScale | None = None
        if task == "regression":
            self._standardise(train.get(LABEL))
            train = self._tensors["train"]
        self._kinds = dict(kinds)
        self._vocabularies = dict(vocabularies or {})
        self._groups = groups
        for split, tensors in self._tensors.items():
            _check_split(split, tensors, train, self._kinds)
        if twice := [name for name, times in Counter(class_names or ()).items() if times > 1]:
            raise DataError(f"class_names names {twice[0]!r} twice; a class has a name of its own")
        names = list(class_names or ["target"]) if task == "regression" else None
        self._class_names = names or _class_names(train.get(LABEL), class_names)
        super().__init__(
            modalities=modalities,
            batch_size=batch_size,
            num_workers=num_workers,
            architecture_fraction=architecture_fraction,
            architecture_split=architecture_split,
            labels=labels,
            labels_per_class=labels_per_class,
            label_seed=label_seed,
            seed=seed,
            labels_total=labels_total,
        )
        self._check_budget(self.task)

    @property
    def available_modalities(self) -> dict[str, ModalitySpec]:
        """One per tensor, labels aside."""
        train = self._tensors["train"]
        return {
            name: ModalitySpec(kind, tuple(train[name].shape[1:]), train[name].dtype, self._vocabularies.get(name))
            for name, kind in self._kinds.items()
        }

    @property
    def class_names(self) -> list[str]:
        """As given, else numbers; empty without labels."""
        return list(self._class_names)

    @property
    def task(self) -> Task | None:
        """Multi-label where labels have two dimensions, unless they are said to be targets."""
        if self._target_scale is not None:
            return "regression"
        labels = self._tensors["train"].get(LABEL)
        if labels is None:
            return None
        return "multiclass" if labels.ndim == 1 else "multilabel"

    @property
    def target_scale(self) -> TargetScale | None:
        """Mean and deviation of the labelled training samples' targets."""
        return self._target_scale

    def _standardise(self, labels: Tensor | None) -> None:
        """Puts standardised targets in the place of the labels."""
        if labels is None:
            raise DataError("task regression needs labels; the train split has none")
        self._target_scale = scale = measure_scale(labels.double().flatten(), range(len(labels)), "the train split")
        for split, tensors in self._tensors.items():
            if (found := tensors.get(LABEL)) is not None:
                if found.ndim > 2 or found[:1].numel() > 1:
                    raise DataError(f"the targets of {split} have shape {tuple(found.shape)}; one per sample is known")
                self._tensors[split] = {**tensors, LABEL: standardised(found.flatten(), scale)}

    def modality_means(self) -> dict[str, Tensor]:
        """Returns the training-set mean of every modality, element by element; padding only, for a text."""
        train = self._tensors["train"]
        return {
            name: to_unit(train[name]).float().mean(0)
            if spec.vocabulary is None
            else torch.full(spec.shape, spec.vocabulary.pad)
            for name, spec in self.modalities.items()
        }

    def _samples(self, split: Split) -> TensorSamples:
        if split not in self._tensors:
            raise DataError(f"there is no {split} split: TensorDataModule was given none")
        return TensorSamples(self._tensors[split], self._groups if split == "train" else None)


def _check_tensors(split: str, tensors: Mapping[str, Tensor]) -> None:
    if not isinstance(tensors, Mapping):
        raise DataError(f"{split} must be a dict of tensors by modality, got {type(tensors).__name__}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise DataError(
                f"{name!r} of {split} is {type(tensor).__name__}, not a tensor: torch.as_tensor makes one of an "
                "array or of numbers"
            )
        if not tensor.ndim:
            raise DataError(f"{name!r} of {split} is a single number; the first axis is that of the samples")


def _check_words(kinds: object, groups: object, class_names: object) -> None:
    """Refuses what is not of the type that the arguments have."""
    if not isinstance(kinds, Mapping):
        raise DataError(f"kinds are a dict by modality, such as {{'photo': 'image'}}, got {kinds!r}")
    if class_names is not None and (not isinstance(class_names, Sequence) or isinstance(class_names, str)):
        raise DataError(f"class_names are a list, in the order of the labels, got {class_names!r}")
    if groups is None:
        return
    if not isinstance(groups, Tensor):
        raise DataError(
            f"groups are a tensor of one number for each training sample, got {type(groups).__name__}: "
            "torch.as_tensor makes one of numbers, numpy.unique(names, return_inverse=True)[1] numbers of names"
        )
    if groups.ndim != 1 or groups.is_floating_point() or groups.is_complex():
        raise DataError(
            f"groups are one whole number for each training sample, (n,), got {groups.dtype} of shape "
            f"{tuple(groups.shape)}"
        )


def _check_split(
    split: str, tensors: Mapping[str, Tensor], train: Mapping[str, Tensor], kinds: Mapping[str, str]
) -> None:
    if set(tensors) - {LABEL} != set(kinds):
        raise DataError(
            f"{split} has the modalities {sorted(set(tensors) - {LABEL})}, "
            f"kinds those of {sorted(kinds)}; they must be the same"
        )
    if (LABEL in tensors) != (LABEL in train):
        raise DataError(f"only one of the splits train and {split} has labels")
    for name, tensor in tensors.items():
        # Of a regression's labels, NaN says that there is none.
        wrong = tensor.isinf() if name == LABEL else ~torch.isfinite(tensor)
        if bool(wrong.any()):
            sample = int(wrong.flatten(1).any(1).nonzero()[0])
            raise DataError(f"sample {sample} of {split} holds NaN or infinity in {name!r}")
        if tensor.shape[1:] != train[name].shape[1:]:
            raise DataError(
                f"{name!r} has samples of shape {tuple(tensor.shape[1:])} in {split}, "
                f"but {tuple(train[name].shape[1:])} in train"
            )
        if kinds.get(name) in ("image", "video"):
            check_pixels(tensor, f"{name!r} of {split}")


def _class_names(labels: Tensor | None, names: Sequence[str] | None) -> list[str]:
    if labels is None:
        return []
    if labels.ndim == 1 and labels.dtype != torch.long:
        raise DataError(
            f"labels must be of type int64, got {labels.dtype}: labels.long() makes classes of them, and "
            "task='regression' targets"
        )
    if labels.ndim > 1:
        count = labels.shape[1]
        if labels.ndim > 2 or count < 2:
            raise DataError(
                f"labels of shape {tuple(labels.shape)} are neither classes (n,), which labels.squeeze(1) makes of a "
                "column, nor zeros and ones (n, num_classes), nor, with task='regression', targets"
            )
        unlabelled = ((labels < 0) | labels.isnan()).all(1)
        if not bool(((labels == 0) | (labels == 1))[~unlabelled].all()):
            raise DataError(
                "labels of several classes, (n, num_classes), are 0 and 1 in each row, and there are others"
            )
    elif len(labels):
        count = int(labels.max()) + 1
        if names is None and count > max(_FEW, 10 * len(labels)):
            raise DataError(
                f"the largest of {len(labels)} labels is {count - 1}, which would be {count} classes; "
                "torch.unique(labels, return_inverse=True)[1] numbers those that there are, or give class_names"
            )
    else:
        raise DataError("the train split is empty")
    if names is None:
        return [str(i) for i in range(count)]
    if len(names) < count or (labels.ndim > 1 and len(names) != count):
        raise DataError(f"class_names has {len(names)} names, the labels need {count}")
    return list(names)
