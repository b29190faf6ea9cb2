"""Encoders: one file per kind of modality."""

from lightning_mmnas.encoders.audio import AudioEncoder
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.encoders.features import FeatureEncoder, MaxoutEncoder
from lightning_mmnas.encoders.image import ImageEncoder, TimmEncoder, TorchvisionEncoder
from lightning_mmnas.encoders.motion import MotionEncoder
from lightning_mmnas.encoders.skeleton import HCNEncoder
from lightning_mmnas.encoders.text import TextEncoder, TransformersEncoder
from lightning_mmnas.encoders.video import FramewiseEncoder, TorchvisionVideoEncoder, VideoEncoder

__all__ = [
    "AudioEncoder",
    "Encoder",
    "FeatureEncoder",
    "FramewiseEncoder",
    "HCNEncoder",
    "ImageEncoder",
    "MaxoutEncoder",
    "MotionEncoder",
    "TextEncoder",
    "TimmEncoder",
    "TorchvisionEncoder",
    "TorchvisionVideoEncoder",
    "TransformersEncoder",
    "VideoEncoder",
]
