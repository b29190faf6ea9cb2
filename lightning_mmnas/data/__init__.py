"""Data sets: dicts of tensors keyed by modality, as LightningDataModules."""

from lightning_mmnas.data.avmnist.data_module import AVMNISTDataModule
from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule
from lightning_mmnas.data.digits import DigitsDataModule, load_digits
from lightning_mmnas.data.egogesture import EgoGestureDataModule
from lightning_mmnas.data.mmimdb.data_module import MMIMDBDataModule
from lightning_mmnas.data.ntu import NTUDataModule
from lightning_mmnas.data.samples import EpochSampler, Part, Samples, TensorSamples
from lightning_mmnas.data.splits import group_folds, label_budget, label_fraction, split_groups
from lightning_mmnas.data.stream.data_module import StreamDataModule
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.data.tensors import TensorDataModule
from lightning_mmnas.data.watch import WatchDataModule, load_watch

__all__ = [
    "AVMNISTDataModule",
    "ColumnSpec",
    "DigitsDataModule",
    "EgoGestureDataModule",
    "EpochSampler",
    "MMIMDBDataModule",
    "ModalitySpec",
    "MultimodalDataModule",
    "NTUDataModule",
    "Part",
    "Samples",
    "StreamDataModule",
    "TableDataModule",
    "TensorDataModule",
    "TensorSamples",
    "WatchDataModule",
    "group_folds",
    "label_budget",
    "label_fraction",
    "load_digits",
    "load_watch",
    "split_groups",
]
