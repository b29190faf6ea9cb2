"""A table of one"s own as data set: CSV, JSON lines or Parquet."""

from lightning_mmnas.data.table.data_module import TableDataModule

__all__ = ["TableDataModule"]
