"""Encoders: one file per kind of modality."""

from lightning_mmnas.encoders.audio import AudioEncoder
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.encoders.features import FeatureEncoder, MaxoutEncoder
from lightning_mmnas.encoders.image import ImageEncoder, TimmEncoder, TorchvisionEncoder
from lightning_mmnas.encoders.motion import MotionEncoder
from lightning_mmnas.encoders.text import TextEncoder, TransformersEncoder

__all__ = [
    "AudioEncoder",
    "Encoder",
    "FeatureEncoder",
    "ImageEncoder",
    "MaxoutEncoder",
    "MotionEncoder",
    "TextEncoder",
    "TimmEncoder",
    "TorchvisionEncoder",
    "TransformersEncoder",
]
