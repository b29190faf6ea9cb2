"""What one modality of a sample looks like."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from lightning_mmnas.errors import ConfigError, DataError

T = TypeVar("T")
Kind = Literal["motion", "skeleton", "image", "text", "audio", "video", "features"]
Task = Literal["multiclass", "multilabel", "regression"]
_AMOUNTS = ("motion", "skeleton", "audio", "features")
"""Kinds whose samples are floats; pictures may be bytes, and texts are ids."""
_BEYOND = 0.5
"""How far pictures may leave [0, 1], as those do that bicubic interpolation has made smaller."""
Split = Literal["train", "val", "test"]
TargetScale = tuple[float, float]
"""Mean and standard deviation of the targets of a regression, in their own unit."""


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of a text modality.

    Args:
        size: Ids are 0 to size - 1.
        pad: Id that fills a text up to its length.
        unknown: Id of what is not in the vocabulary.
        mask: Id that stands for a masked token.
        special: Further ids that augmentations leave alone, such as the marks of beginning and end.
    """

    size: int
    pad: int = 0
    unknown: int = 1
    mask: int = 2
    special: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        reserved = (self.pad, self.unknown, self.mask, *self.special)
        if min(reserved) < 0 or max(reserved) >= self.size:
            raise DataError(f"a vocabulary of {self.size} ids cannot hold the reserved ids {reserved}")


@dataclass(frozen=True)
class ModalitySpec:
    """What one modality of a sample looks like.

    Args:
        kind: What it is, which decides the views and encoders that fit it.
        shape: Shape of one sample, without batch: (channels, t) for motion, (3, t, joints, bodies) for skeletons,
            (channels, h, w) for images, (t,) token ids for text, (channels, t) waveforms or
            (channels, mel, t) spectrograms for audio, (channels, t, h, w) for video, (d,) for features.
        dtype: Type of its numbers. Images and video are uint8 in [0, 255] or floats in [0, 1], text is int64.
        vocabulary: Ids of a text.
    """

    kind: Kind
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    vocabulary: Vocabulary | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DataError(f"kind {self.kind!r} is not in {list(get_args(Kind))}")
        if self.kind == "text" and self.vocabulary is None:
            raise DataError("a modality of kind 'text' needs a vocabulary")


class Modalities(OrderedDict[str, ModalitySpec]):
    """The modalities in use, by name; jsonargparse passes an ordered dictionary on as it is, others it makes anew.

    Args:
        used: Those in use.
        others: Those that the data have besides; what a configuration says of them is left aside.
    """

    def __init__(
        self, used: Mapping[str, ModalitySpec] | None = None, others: Mapping[str, ModalitySpec] | None = None
    ) -> None:
        super().__init__(used or {})
        self.others = dict(others or {})


def check_batch(batch: Mapping[str, Any], modalities: Mapping[str, ModalitySpec]) -> None:
    """Refuses a batch of raw samples that no encoder takes; stored features are left aside.

    Raises:
        DataError: It is no dict, a modality is no ordinary tensor of its kind, the modalities have different
            numbers of samples, or there are none.
    """
    if not isinstance(batch, Mapping):
        raise DataError(f"a batch is a dict of tensors by modality, got a {type(batch).__name__}")
    samples = {name: batch[name] for name in modalities if name in batch}
    for name, value in samples.items():
        if isinstance(value, list | tuple) and value and all(isinstance(level, Tensor) for level in value):
            continue  # its features
        if not isinstance(value, Tensor):
            raise DataError(
                f"modality {name!r} of the batch is {type(value).__name__}, not a tensor of prepared samples; let the "
                "collate function make tensors (a delivered model's transforms make them of raw values)"
            )
        if value.is_nested or value.layout != torch.strided:
            kind = "nested" if value.is_nested else "sparse"
            raise DataError(
                f"modality {name!r} of the batch is a {kind} tensor, which encoders do not take; let the collate "
                "function make an ordinary one (.to_dense(), or torch.nested.to_padded_tensor)"
            )
        if tuple(value.shape) == tuple(modalities[name].shape):
            raise DataError(
                f"modality {name!r} of the batch has the shape of one sample, {tuple(value.shape)}, and no axis of the "
                "batch: give the trainer a DataLoader of the data set, not the data set or a batch"
            )
        if modalities[name].kind in _AMOUNTS and not value.is_floating_point():
            raise DataError(
                f"modality {name!r} of the batch is {value.dtype}, and the kind {modalities[name].kind!r} has amounts, "
                "which are floats: convert it by .float() in the data set"
            )
    sizes = {name: len(value) for name, value in samples.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"the modalities of a batch have different numbers of samples: {sizes}")
    if 0 in sizes.values():
        raise DataError("a batch has no samples; let the batch sampler, or the collate function, leave such out")


def lacking(modality: str, batch: Mapping[str, Any]) -> DataError:
    """What is said of a batch that lacks a modality; where it has the two parts of a search, so that it is one."""
    if {"weights", "architecture"} <= batch.keys():
        return DataError(
            "the train batch has the two parts of a search, 'weights' and 'architecture', and this stage is none: set "
            "data.init_args.architecture_fraction to null, and give no architecture_split"
        )
    return DataError(f"modality {modality!r} is not in the batch, which has {list(batch)}")


def of_those_in_use(entries: Mapping[str, T], modalities: Mapping[str, ModalitySpec]) -> dict[str, T]:
    """Leaves out the entries, each by a modality's name or kind, of modalities that the data have but do not use.

    Entries for something unknown stay, to be refused.

    Raises:
        ConfigError: The entries are no dict, or the modalities none of `ModalitySpec`.
    """
    if not isinstance(modalities, Mapping):
        raise ConfigError(f"modalities are a dict of ModalitySpec by name, as data.modalities is, got {modalities!r}")
    if not isinstance(entries, Mapping):
        raise ConfigError(f"encoders and augmentations are dicts by the name or kind of a modality, got {entries!r}")
    others: Mapping[str, ModalitySpec] = getattr(modalities, "others", {})
    used = {*modalities, *(spec.kind for spec in modalities.values())}
    unused = {*others, *(spec.kind for spec in others.values())} - used
    return {name: entry for name, entry in entries.items() if name not in unused}


def to_unit(pixels: Tensor) -> Tensor:
    """Pixels of any shape in [0, 1]: uint8 is divided by 255, floats stay as they are.

    They are of torch's default type, which Lightning sets to that of ``bf16-true`` and its like.
    """
    return pixels.to(torch.get_default_dtype()) / 255 if pixels.dtype == torch.uint8 else pixels


def check_pixels(pixels: Tensor, what: str) -> None:
    """Refuses pictures and clips that are neither bytes nor floats in [0, 1], such as floats up to 255.

    Args:
        pixels: Of any shape.
        what: What they are, for the message.

    Raises:
        DataError: They are of another type or range.
    """
    kinds = "pixels are uint8 in [0, 255] or floats in [0, 1]"
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise DataError(
            f"{what} holds pixels of type {pixels.dtype}; {kinds}: .to(torch.uint8) makes bytes of grey levels, "
            ".float() numbers of black and white"
        )
    if pixels.dtype == torch.uint8 or pixels.is_meta or not pixels.numel():
        return
    low, high = (float(value) for value in pixels.detach().aminmax())
    if low < -_BEYOND or high > 1 + _BEYOND:
        raise DataError(
            f"{what} holds pixels from {low:.3g} to {high:.3g}; {kinds}: divide by the value of white, such as 255, "
            "and leave standardising to the encoder"
        )


def unscaled(values: Tensor, scale: TargetScale | None) -> Tensor:
    """Standardised targets or predictions as float64 in the target's own unit, on the CPU; None: they are in it."""
    mean, std = scale or (0.0, 1.0)
    return values.detach().cpu().double() * std + mean
