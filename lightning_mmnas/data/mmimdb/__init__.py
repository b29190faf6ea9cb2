"""MM-IMDB: posters, plots and genres of films."""

from lightning_mmnas.data.mmimdb.data_module import MMIMDBDataModule

__all__ = ["MMIMDBDataModule"]
