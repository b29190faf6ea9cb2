"""The splits that a model was made with, read anew from where they were."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, get_args

from torch.utils.data import DataLoader

from lightning_mmnas.data.columns.column import ColumnSamples
from lightning_mmnas.data.spec import Split
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.data.table.reading import Cell, Table
from lightning_mmnas.data.targets import rescaled_loader
from lightning_mmnas.delivery.card import ModelCard
from lightning_mmnas.delivery.parts import build_data
from lightning_mmnas.errors import DataError, DatasetNotFoundError


@dataclass(frozen=True)
class SplitData:
    """A split, in its order.

    Attributes:
        loader: Its batches.
        table: The table it is of; None: its data are no table.
        rows: Which row of the table each sample is.
    """

    loader: DataLoader[Any]
    table: Table | None = None
    rows: list[int] | None = None

    def cells(self, name: str, start: int, size: int) -> list[Cell]:
        """What a column of the table says of some samples."""
        assert self.table is not None
        assert self.rows is not None
        column = self.table.cells(name)
        return [column[row] for row in self.rows[start : start + size]]


def open_split(card: ModelCard, split: Split, allow: Collection[str] = (), labelled: bool = True) -> SplitData:
    """Reads a split, all of it or its labelled samples only; see `DeliveredModel.data`."""
    if split not in get_args(Split):
        raise DataError(f"split {split!r} is not in {list(get_args(Split))}")
    try:
        module = build_data(card, allow)
        module.use_all_labels()
        module.labels = module.labels and labelled
        module.build(split)
    except DatasetNotFoundError as error:
        raise DatasetNotFoundError(
            f"the {split} split is read from where the run had it: {error}; or give new data in place of {split!r}"
        ) from error
    loader = rescaled_loader(module.plain_loader(split), module.target_scale, card.target_scale)
    part = module.part(split)
    rows = part.source.rows if isinstance(part.source, ColumnSamples) else None
    if rows is None or not isinstance(module, TableDataModule):
        return SplitData(loader)
    return SplitData(loader, module.content, [rows[i] for i in part.indices.tolist()])
