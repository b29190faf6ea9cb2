"""A small classifier of birds, trained on a table and delivered into a folder."""

import csv
import functools
from pathlib import Path
from typing import Any

import torch

from lightning_mmnas import (
    AudioEncoder,
    ColumnSpec,
    FeatureEncoder,
    FineTuning,
    FusionSpace,
    ImageEncoder,
    TableDataModule,
    TextEncoder,
    save,
)
from lightning_mmnas.modules.frozen import FrozenEncoders, build_encoders
from tests.data.table.make_table import make_table
from tests.modules.tiny import trainer_of

COLUMNS = {
    "photo": ColumnSpec("image", ["photo"], size=(8, 8)),
    "song": ColumnSpec("audio", ["song"], rate=8000, seconds=0.1),
    "note": ColumnSpec("text", ["note"], length=6, vocabulary=64),
    "numbers": ColumnSpec("features", ["mass", "wing"]),
}
ENCODERS: dict[str, Any] = {
    "photo": functools.partial(ImageEncoder, channels=(4, 6)),
    "song": functools.partial(AudioEncoder, rate=8000, channels=(4, 6)),
    "note": functools.partial(TextEncoder, width=8),
    "numbers": functools.partial(FeatureEncoder, widths=(4,)),
}
NOTES = ("sings at dawn", "calls from the wood", "stands in water")


def write_birds(root: Path, rows: int = 45, holes: bool = False) -> Path:
    """The table of `make_table` with a column of notes; with holes, every seventh has no photo or no mass."""
    plain = make_table(root, rows, noise=0.3)
    with plain.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for i, line in enumerate(lines):
        line["note"] = NOTES[i % 3]
        if holes and i % 7 == 0:
            line["photo" if i % 2 else "mass"] = ""
    with plain.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return plain


def genotype_of(shapes: dict[str, tuple[int, ...]]) -> Any:
    space = FusionSpace(inputs=tuple(shapes), cells=2, steps=1, channels=8, length=4)
    return space.sample(torch.Generator().manual_seed(3))


def trained(folder: Path, table: Path, mode: Any = "mixture", **data: Any) -> tuple[FineTuning, TableDataModule]:
    """A stage 3 after two epochs, in eval mode."""
    torch.manual_seed(0)
    module_data = TableDataModule(str(table), COLUMNS, **{"label": "label", "id": "id", "batch_size": 16, **data})
    shapes = FrozenEncoders(build_encoders(module_data.modalities, ENCODERS)).feature_shapes
    module = FineTuning(
        module_data.modalities,
        ENCODERS,
        module_data.num_classes,
        module_data.task,
        genotype=genotype_of(shapes),
        mode=mode,
        lr=1e-2,
    )
    trainer = trainer_of(folder, max_epochs=2, num_sanity_val_steps=0)
    trainer.fit(module, datamodule=module_data)
    module_data.setup("test")
    return module.eval(), module_data


def deliver(folder: Path, table: Path, **options: Any) -> tuple[FineTuning, TableDataModule, Path]:
    """A trained stage and the run directory with its model."""
    module, data = trained(folder / "training", table, **options)
    save(module, data, folder / "run" / "model")
    return module, data, folder / "run"


def sample(table: Path, index: int) -> dict[str, Any]:
    """One row of the table as a dict of modalities."""
    content = [line.split(",") for line in table.read_text().splitlines()][index + 1]
    return {
        "photo": table.parent / content[1],
        "song": table.parent / content[2],
        "note": content[7],
        "numbers": [float(content[3]), float(content[4])],
    }
