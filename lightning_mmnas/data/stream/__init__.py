"""Samples in shards on a disk or in a cloud's storage, written once and read a few shards at a time."""

from lightning_mmnas.data.stream.data_module import StreamDataModule

__all__ = ["StreamDataModule"]
