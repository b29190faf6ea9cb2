"""A data module over a folder of small text files, for what reads files: damage, overlaps, summaries."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split, Task
from lightning_mmnas.data.columns.column import ColumnSamples, FileColumn, OnError, TensorColumn, usable_rows
from lightning_mmnas.errors import DatasetNotFoundError

SPLITS: dict[Split, range] = {"train": range(8), "val": range(8, 12), "test": range(12, 16)}


class NumberFiles(MultimodalDataModule):
    """`root/{i}.txt` holds one number; its sign is the class."""

    def __init__(self, root: str, on_error: OnError = "raise", **arguments: Any) -> None:
        self.root = Path(root)
        self.on_error: OnError = on_error
        super().__init__(batch_size=2, **arguments)

    @property
    def available_modalities(self) -> dict[str, ModalitySpec]:
        return {"number": ModalitySpec("features", (1,)), "constant": ModalitySpec("features", (2,))}

    @property
    def class_names(self) -> list[str]:
        return ["even", "odd"]

    @property
    def task(self) -> Task:
        return "multiclass"

    def _samples(self, split: Split) -> ColumnSamples:
        if not self.root.is_dir():
            raise DatasetNotFoundError(f"there is no folder {self.root}; check data.init_args.root")
        rows = torch.tensor(SPLITS[split])
        column = FileColumn([self.root / f"{i}.txt" for i in rows.tolist()], number)
        good = usable_rows({"number": column}, self.on_error)
        column = FileColumn([column.paths[i] for i in good.tolist()], number)
        constant = TensorColumn(rows[good].float().view(-1, 1).expand(-1, 2), "memory")
        labels = rows[good] % 2
        labels[rows[good] == 0] = -1
        return ColumnSamples({"number": column, "constant": constant}, labels, rows[good] // 3)


def number(path: Path) -> Tensor:
    return torch.tensor([float(path.read_text())])


def make_files(root: Path) -> Path:
    root.mkdir()
    for i in range(16):
        (root / f"{i}.txt").write_text(f"{i + 0.5}")
    return root
