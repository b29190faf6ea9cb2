"""Self-supervised multimodal neural architecture search as a PyTorch Lightning plugin."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_mmnas.callbacks.alternation import ArchitectureAlternation
    from lightning_mmnas.callbacks.caching import FeatureCaching
    from lightning_mmnas.callbacks.resume import ExactResume
    from lightning_mmnas.callbacks.selection import GenotypeSelection
    from lightning_mmnas.callbacks.stability import GenotypeStability
    from lightning_mmnas.costs import CostTable
    from lightning_mmnas.data.avmnist import AVMNISTDataModule
    from lightning_mmnas.data.base import MultimodalDataModule
    from lightning_mmnas.data.egogesture import EgoGestureDataModule
    from lightning_mmnas.data.mmimdb import MMIMDBDataModule
    from lightning_mmnas.data.ntu import NTUDataModule
    from lightning_mmnas.data.spec import ModalitySpec, Vocabulary
    from lightning_mmnas.data.table import TableDataModule
    from lightning_mmnas.data.table_columns import ColumnSpec
    from lightning_mmnas.data.tensors import TensorDataModule
    from lightning_mmnas.data.texts import TextTokenizer
    from lightning_mmnas.data.watch import WatchDataModule
    from lightning_mmnas.encoders.audio import AudioEncoder
    from lightning_mmnas.encoders.base import Encoder
    from lightning_mmnas.encoders.features import FeatureEncoder, MaxoutEncoder
    from lightning_mmnas.encoders.image import ImageEncoder, TimmEncoder, TorchvisionEncoder
    from lightning_mmnas.encoders.motion import MotionEncoder
    from lightning_mmnas.encoders.skeleton import HCNEncoder
    from lightning_mmnas.encoders.text import TextEncoder, TransformersEncoder
    from lightning_mmnas.encoders.video import FramewiseEncoder, TorchvisionVideoEncoder, VideoEncoder
    from lightning_mmnas.genotype import Genotype
    from lightning_mmnas.modules.encoders import EncoderPretraining
    from lightning_mmnas.modules.finetune import FineTuning
    from lightning_mmnas.modules.pretrain import FusionPretraining
    from lightning_mmnas.modules.search import FusionSearch
    from lightning_mmnas.network import FusionNetwork
    from lightning_mmnas.regularisation import BetaDecay, ConcentrationAnchor, EntropyRegularisation, Regularisation
    from lightning_mmnas.relaxation import Dirichlet, GumbelHard, Relaxation, Softmax
    from lightning_mmnas.sampling.study import FusionStudy as FusionStudy  # not in __all__: it needs the extra optuna
    from lightning_mmnas.single_path import SinglePath
    from lightning_mmnas.space import FusionSpace
    from lightning_mmnas.supernet import FusionSupernet
    from lightning_mmnas.tabular.table import FusionTable

__version__ = "0.1.0"

_HOMES = {
    "AVMNISTDataModule": "data.avmnist",
    "ArchitectureAlternation": "callbacks.alternation",
    "AudioEncoder": "encoders.audio",
    "BetaDecay": "regularisation",
    "ColumnSpec": "data.table_columns",
    "ConcentrationAnchor": "regularisation",
    "CostTable": "costs",
    "Dirichlet": "relaxation",
    "EgoGestureDataModule": "data.egogesture",
    "Encoder": "encoders.base",
    "EncoderPretraining": "modules.encoders",
    "EntropyRegularisation": "regularisation",
    "ExactResume": "callbacks.resume",
    "FeatureCaching": "callbacks.caching",
    "FeatureEncoder": "encoders.features",
    "FineTuning": "modules.finetune",
    "FramewiseEncoder": "encoders.video",
    "FusionNetwork": "network",
    "FusionPretraining": "modules.pretrain",
    "FusionSearch": "modules.search",
    "FusionSpace": "space",
    "FusionStudy": "sampling.study",
    "FusionSupernet": "supernet",
    "FusionTable": "tabular.table",
    "Genotype": "genotype",
    "GenotypeSelection": "callbacks.selection",
    "GenotypeStability": "callbacks.stability",
    "GumbelHard": "relaxation",
    "HCNEncoder": "encoders.skeleton",
    "ImageEncoder": "encoders.image",
    "MMIMDBDataModule": "data.mmimdb",
    "MaxoutEncoder": "encoders.features",
    "ModalitySpec": "data.spec",
    "MotionEncoder": "encoders.motion",
    "MultimodalDataModule": "data.base",
    "NTUDataModule": "data.ntu",
    "Regularisation": "regularisation",
    "Relaxation": "relaxation",
    "SinglePath": "single_path",
    "Softmax": "relaxation",
    "TableDataModule": "data.table",
    "TensorDataModule": "data.tensors",
    "TextEncoder": "encoders.text",
    "TextTokenizer": "data.texts",
    "TimmEncoder": "encoders.image",
    "TorchvisionEncoder": "encoders.image",
    "TorchvisionVideoEncoder": "encoders.video",
    "TransformersEncoder": "encoders.text",
    "VideoEncoder": "encoders.video",
    "Vocabulary": "data.spec",
    "WatchDataModule": "data.watch",
}

__all__ = [
    "AVMNISTDataModule",
    "ArchitectureAlternation",
    "AudioEncoder",
    "BetaDecay",
    "ColumnSpec",
    "ConcentrationAnchor",
    "CostTable",
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
]


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that importing the package loads neither torch nor lightning."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
