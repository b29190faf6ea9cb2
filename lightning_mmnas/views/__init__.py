"""Views: augmentations on whole batches, one file per kind of modality."""

from lightning_mmnas.views.audio import AudioViews
from lightning_mmnas.views.features import FeatureViews
from lightning_mmnas.views.image import ImageViews
from lightning_mmnas.views.motion import MotionViews
from lightning_mmnas.views.pair import DEFAULT_AUGMENTATIONS, ModalityDropout, TwoViews
from lightning_mmnas.views.skeleton import SkeletonViews
from lightning_mmnas.views.text import TextViews
from lightning_mmnas.views.video import VideoViews

__all__ = [
    "DEFAULT_AUGMENTATIONS",
    "AudioViews",
    "FeatureViews",
    "ImageViews",
    "ModalityDropout",
    "MotionViews",
    "SkeletonViews",
    "TextViews",
    "TwoViews",
    "VideoViews",
]
