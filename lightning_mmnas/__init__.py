"""Self-supervised multimodal neural architecture search as a PyTorch Lightning plugin."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_mmnas.interop import old_paths

if TYPE_CHECKING:
    from lightning_mmnas.callbacks.alternation import ArchitectureAlternation
    from lightning_mmnas.callbacks.caching import FeatureCaching
    from lightning_mmnas.callbacks.last_checkpoint import LastCheckpoint
    from lightning_mmnas.callbacks.resume import ExactResume
    from lightning_mmnas.callbacks.selection import GenotypeSelection
    from lightning_mmnas.callbacks.stability import GenotypeStability
    from lightning_mmnas.costs.table import CostTable
    from lightning_mmnas.data.avmnist.data_module import AVMNISTDataModule
    from lightning_mmnas.data.base import MultimodalDataModule
    from lightning_mmnas.data.columns.texts import TextTokenizer
    from lightning_mmnas.data.digits import DigitsDataModule
    from lightning_mmnas.data.egogesture import EgoGestureDataModule
    from lightning_mmnas.data.mmimdb.data_module import MMIMDBDataModule
    from lightning_mmnas.data.ntu import NTUDataModule
    from lightning_mmnas.data.spec import ModalitySpec, Vocabulary
    from lightning_mmnas.data.stream.data_module import StreamDataModule
    from lightning_mmnas.data.table.columns import ColumnSpec
    from lightning_mmnas.data.table.data_module import TableDataModule
    from lightning_mmnas.data.tensors import TensorDataModule
    from lightning_mmnas.data.watch import WatchDataModule
    from lightning_mmnas.delivery.loading import load
    from lightning_mmnas.delivery.model import DeliveredModel
    from lightning_mmnas.delivery.writing import save
    from lightning_mmnas.encoders.audio import AudioEncoder
    from lightning_mmnas.encoders.base import Encoder
    from lightning_mmnas.encoders.features import FeatureEncoder, MaxoutEncoder
    from lightning_mmnas.encoders.image import ImageEncoder, TimmEncoder, TorchvisionEncoder
    from lightning_mmnas.encoders.motion import MotionEncoder
    from lightning_mmnas.encoders.skeleton import HCNEncoder
    from lightning_mmnas.encoders.text import TextEncoder, TransformersEncoder
    from lightning_mmnas.encoders.video import FramewiseEncoder, TorchvisionVideoEncoder, VideoEncoder
    from lightning_mmnas.fusion.network import FusionNetwork
    from lightning_mmnas.fusion.relaxation import Dirichlet, GumbelHard, Relaxation, Softmax
    from lightning_mmnas.fusion.single_path import SinglePath
    from lightning_mmnas.fusion.supernet import FusionSupernet
    from lightning_mmnas.modules.finetune import FineTuning
    from lightning_mmnas.modules.pretrain import FusionPretraining
    from lightning_mmnas.modules.pretrain_encoders import EncoderPretraining
    from lightning_mmnas.modules.search import FusionSearch
    from lightning_mmnas.objectives.regularisation import (
        BetaDecay,
        ConcentrationAnchor,
        EntropyRegularisation,
        Regularisation,
    )
    from lightning_mmnas.sampling.study import FusionStudy as FusionStudy  # not in __all__: it needs the extra optuna
    from lightning_mmnas.space.genotype import FusionSpace, Genotype
    from lightning_mmnas.tabular.table import FusionTable

__version__ = "0.1.0"

HOMES = {
    "AVMNISTDataModule": "data.avmnist.data_module",
    "ArchitectureAlternation": "callbacks.alternation",
    "AudioEncoder": "encoders.audio",
    "BetaDecay": "objectives.regularisation",
    "ColumnSpec": "data.table.columns",
    "ConcentrationAnchor": "objectives.regularisation",
    "CostTable": "costs.table",
    "Dirichlet": "fusion.relaxation",
    "DeliveredModel": "delivery.model",
    "DigitsDataModule": "data.digits",
    "EgoGestureDataModule": "data.egogesture",
    "Encoder": "encoders.base",
    "EncoderPretraining": "modules.pretrain_encoders",
    "EntropyRegularisation": "objectives.regularisation",
    "ExactResume": "callbacks.resume",
    "FeatureCaching": "callbacks.caching",
    "FeatureEncoder": "encoders.features",
    "FineTuning": "modules.finetune",
    "FramewiseEncoder": "encoders.video",
    "FusionNetwork": "fusion.network",
    "FusionPretraining": "modules.pretrain",
    "FusionSearch": "modules.search",
    "FusionSpace": "space.genotype",
    "FusionStudy": "sampling.study",
    "FusionSupernet": "fusion.supernet",
    "FusionTable": "tabular.table",
    "Genotype": "space.genotype",
    "GenotypeSelection": "callbacks.selection",
    "GenotypeStability": "callbacks.stability",
    "GumbelHard": "fusion.relaxation",
    "HCNEncoder": "encoders.skeleton",
    "ImageEncoder": "encoders.image",
    "LastCheckpoint": "callbacks.last_checkpoint",
    "MMIMDBDataModule": "data.mmimdb.data_module",
    "MaxoutEncoder": "encoders.features",
    "ModalitySpec": "data.spec",
    "MotionEncoder": "encoders.motion",
    "MultimodalDataModule": "data.base",
    "NTUDataModule": "data.ntu",
    "Regularisation": "objectives.regularisation",
    "Relaxation": "fusion.relaxation",
    "SinglePath": "fusion.single_path",
    "Softmax": "fusion.relaxation",
    "StreamDataModule": "data.stream.data_module",
    "TableDataModule": "data.table.data_module",
    "TensorDataModule": "data.tensors",
    "TextEncoder": "encoders.text",
    "TextTokenizer": "data.columns.texts",
    "TimmEncoder": "encoders.image",
    "TorchvisionEncoder": "encoders.image",
    "TorchvisionVideoEncoder": "encoders.video",
    "TransformersEncoder": "encoders.text",
    "VideoEncoder": "encoders.video",
    "Vocabulary": "data.spec",
    "WatchDataModule": "data.watch",
    "load": "delivery.loading",
    "save": "delivery.writing",
}
"""Module of every public name, within the package."""

__all__ = [
    "AVMNISTDataModule",
    "ArchitectureAlternation",
    "AudioEncoder",
    "BetaDecay",
    "ColumnSpec",
    "ConcentrationAnchor",
    "CostTable",
    "DeliveredModel",
    "DigitsDataModule",
    "Dirichlet",
    "EgoGestureDataModule",
    "Encoder",
    "EncoderPretraining",
    "EntropyRegularisation",
    "ExactResume",
    "FeatureCaching",
    "FeatureEncoder",
    "FineTuning",
    "FramewiseEncoder",
    "FusionNetwork",
    "FusionPretraining",
    "FusionSearch",
    "FusionSpace",
    "FusionSupernet",
    "FusionTable",
    "Genotype",
    "GenotypeSelection",
    "GenotypeStability",
    "GumbelHard",
    "HCNEncoder",
    "ImageEncoder",
    "LastCheckpoint",
    "MMIMDBDataModule",
    "MaxoutEncoder",
    "ModalitySpec",
    "MotionEncoder",
    "MultimodalDataModule",
    "NTUDataModule",
    "Regularisation",
    "Relaxation",
    "SinglePath",
    "Softmax",
    "StreamDataModule",
    "TableDataModule",
    "TensorDataModule",
    "TextEncoder",
    "TextTokenizer",
    "TimmEncoder",
    "TorchvisionEncoder",
    "TorchvisionVideoEncoder",
    "TransformersEncoder",
    "VideoEncoder",
    "Vocabulary",
    "WatchDataModule",
    "load",
    "save",
]


old_paths.install()


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that importing the package loads neither torch nor lightning."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
