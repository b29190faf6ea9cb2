"""Two views of a multimodal batch, and modality dropout between them."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from lightning_mmnas.data.spec import ModalitySpec, check_batch, lacking
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.views.audio import AudioViews
from lightning_mmnas.views.features import FeatureViews
from lightning_mmnas.views.image import ImageViews
from lightning_mmnas.views.motion import MotionViews
from lightning_mmnas.views.ranges import check
from lightning_mmnas.views.skeleton import SkeletonViews
from lightning_mmnas.views.text import TextViews
from lightning_mmnas.views.video import VideoViews

Views = dict[str, Tensor]

DEFAULT_AUGMENTATIONS: dict[str, type[nn.Module]] = {
    "audio": AudioViews,
    "features": FeatureViews,
    "image": ImageViews,
    "motion": MotionViews,
    "skeleton": SkeletonViews,
    "text": TextViews,
    "video": VideoViews,
}
"""Augmentation of each kind of modality, where none is given."""


class ModalityDropout(nn.Module):
    """Replaces, with probability p per sample, one random modality by its mean.

    It keeps a search from settling on the one modality that tells samples apart most easily.
    With a single modality nothing is replaced. Random in evaluation mode too.

    Args:
        p: Probability, in [0, 1].
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        check("modality_dropout", p, 0 <= p <= 1, "in [0, 1]")
        self.p = p

    def forward(self, views: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> Views:
        """Returns the views, some of them replaced.

        Args:
            views: Modalities, each of shape (b, *sample), or features named ``<modality>/<level>``, of which those of
                one modality are replaced together.
            means: Training-set mean of every modality (or what the encoders make of it); broadcast to the sample's
                shape.
        """
        modality_of = {name: name.rpartition("/")[0] or name for name in views}
        modalities = list(dict.fromkeys(modality_of.values()))
        if self.p == 0 or len(modalities) < 2:
            return dict(views)
        first = next(iter(views.values()))
        b, device = len(first), first.device
        # Number of the modality that a sample loses; len(modalities): it loses none.
        lost = torch.randint(len(modalities), (b,), device=device)
        lost = lost.masked_fill(torch.rand(b, device=device) >= self.p, len(modalities))
        out = {}
        for name, view in views.items():
            hit = (lost == modalities.index(modality_of[name])).view(b, *[1] * (view.ndim - 1))
            out[name] = torch.where(hit, means[name].to(view), view)
        return out

    def extra_repr(self) -> str:
        """Shows the probability."""
        return f"p={self.p}"


class TwoViews(nn.Module):
    """Two independent random views of a multimodal batch.

    Every modality is augmented on its own: the two sensors of one sample get different crops and
    rotations. Labels do not pass through. An augmentation that has a method `bind(spec)` is told the
    modality it is for.

    Args:
        modalities: The modalities to take out of the batch.
        augmentations: The augmentation of a modality, by its name or else by its kind.
        modality_dropout: Probability of modality dropout per sample and view.
        means: Training-set means for modality dropout, as from a data module's
            `modality_means()`; None: zeros, and padding for texts.

    Raises:
        ConfigError: A modality has no augmentation, or there is one for something unknown.

    Examples:
        >>> specs = {"accelerometer": ModalitySpec("motion", (3, 128))}
        >>> first, second = TwoViews(specs, {"motion": MotionViews()})(
        ...     {"accelerometer": torch.randn(8, 3, 128)}
        ... )
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        augmentations: Mapping[str, nn.Module],
        modality_dropout: float = 0.0,
        means: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        kinds = {name: spec.kind for name, spec in modalities.items()}
        known = {*kinds, *kinds.values()}
        for key, augmentation in augmentations.items():
            if not isinstance(augmentation, nn.Module):
                raise ConfigError(
                    f"the augmentation of {key!r} is no module, such as MotionViews(), but {augmentation!r}"
                )
            if key not in known:
                raise ConfigError(
                    f"augmentations has {key!r}, which is neither a modality nor a kind of one; "
                    f"the modalities are {kinds}"
                )
        self._modalities = dict(modalities)
        self._keys: dict[str, str] = {}
        for name, kind in kinds.items():
            if name not in augmentations and kind not in augmentations:
                raise ConfigError(
                    f"modality {name!r} has no augmentation; give augmentations an entry {name!r} or {kind!r}"
                )
            self._keys[name] = name if name in augmentations else kind
        self.augmentations = nn.ModuleDict(dict(augmentations))
        self.dropout = ModalityDropout(modality_dropout)
        for name, spec in modalities.items():
            bind = getattr(self.augmentations[self._keys[name]], "bind", None)
            if bind is not None:
                bind(spec)
            nothing = 0 if spec.vocabulary is None else spec.vocabulary.pad
            mean = torch.full(spec.shape, float(nothing)) if means is None else means[name].clone()
            # Not persistent: known from the data, and not part of what was learned.
            self.register_buffer(f"mean_{name}", mean, persistent=False)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Views, Views]:
        """Returns two views of a batch, each a dict by modality.

        Of a batch of features, each (b, 2, *feature) under ``<modality>/<level>``, these are the two stored views.

        Raises:
            DataError: The batch lacks a modality.
        """
        if not isinstance(batch, Mapping):
            raise DataError(f"a batch is a dict of tensors by modality, got a {type(batch).__name__}")
        for name in self._keys:
            if name not in batch and f"{name}/0" not in batch:
                raise lacking(name, batch)
        return self.view(batch), self.view(batch, 1)

    def take_feature_means(self, means: Mapping[str, Tensor]) -> None:
        """Takes what the encoders make of the training-set means, for modality dropout among stored features."""
        for name, mean in means.items():
            self.register_buffer(f"mean_{name}", mean.clone(), persistent=False)

    def view(self, batch: Mapping[str, Tensor], index: int = 0) -> Views:
        """Returns one random view of a batch, a dict by modality; of stored features the one at an index."""
        stored = {name: value for name, value in batch.items() if name.rpartition("/")[0] in self._keys}
        if stored:
            kept = {name: dict(self.named_buffers(recurse=False))[f"mean_{name}"] for name in stored if self.dropout.p}
            return cast(Views, self.dropout({name: value[:, index] for name, value in stored.items()}, kept))
        views = self.augmented(batch)
        means = {name: self.get_buffer(f"mean_{name}") for name in self._keys}
        dropped: Views = self.dropout(views, means)
        return dropped

    def augmented(self, batch: Mapping[str, Tensor]) -> Views:
        """Returns one random view of a batch, without modality dropout.

        It is computed in float32, and then is of torch's default type, which Lightning sets to that of ``bf16-true``
        and its like.
        """
        check_batch(batch, self._modalities)
        own = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            views = {name: augmentation(_plain(batch[name])) for name, augmentation in self.by_modality().items()}
        finally:
            torch.set_default_dtype(own)
        return {name: value.to(own) if value.is_floating_point() else value for name, value in views.items()}

    def by_modality(self) -> dict[str, nn.Module]:
        """The augmentation of every modality."""
        return {name: self.augmentations[key] for name, key in self._keys.items()}


def _plain(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
