"""What `mmnas init` says: what it found, what it inferred, and by which option that is said otherwise."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lightning_mmnas.commands.init.modality import spell_modality
from lightning_mmnas.commands.init.outliers import far_numbers
from lightning_mmnas.errors import MMNASError

if TYPE_CHECKING:
    from rich.console import Console

    from lightning_mmnas.commands.init.columns import Proposal
    from lightning_mmnas.commands.init.configs import Plan
    from lightning_mmnas.data.table.data_module import TableDataModule

_SHOWN = 20
"""Classes that are listed; the others are counted."""


def report(data: TableDataModule, plan: Plan, found: Proposal, console: Console) -> None:
    """Prints the table of modalities, and all that was inferred."""
    import numpy as np
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid("modality", "kind", "columns", "sample", "empty", title=Text(str(data.path)))
    for name, spec in plan.columns.items():
        columns = ", ".join(spec.columns) if len(spec.columns) < 6 else f"{len(spec.columns)} columns"
        shape = " x ".join(map(str, data.available_modalities[name].shape))
        filled = [data.content.filled(column) for column in spec.columns]
        empty = int(np.count_nonzero(~np.logical_and.reduce(filled)))
        grid.add_row(Text(name), spec.kind, Text(columns), shape, str(empty))
    console.print(grid)
    sizes = ", ".join(f"{part} {len(data.source(part))}" for part in ("train", "val", "test"))
    how = f"of column {data.split!r}" if data.split else f"drawn with seed {data.split_seed}"
    whole = f", whole groups of column {data.group!r}" if data.group else ""
    lines = [f"{len(data.content)} rows; splits {how}{whole}: {sizes}", *_classes(data, plan)]
    for line in [*lines, *told(found)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def told(found: Proposal) -> list[str]:
    """A line for each thing that was inferred."""
    lines = list(found.told)
    for name, measured in found.columns.items():
        lines.append(f"{name}: {measured.reading}; {spell_modality(name, measured.spec, found.table)}")
        lines += [f"note: {name}: {note}" for note in measured.notes]
    lines.append(
        "to read any of them otherwise, give all of these options, changed (--modality replaces the proposals)"
    )
    lines += [f"left out: column {name!r}: {reason}" for name, reason in found.left.items()]
    if len(found.columns) == 1:
        lines.append(
            f"note: there is one modality, {next(iter(found.columns))!r}, and fusion needs two or more: the search can "
            "only combine levels of one encoder; name the columns of a second one with --modality, such as --modality "
            "'left=features:v1_*' --modality 'right=features:v2_*'"
        )
    return lines


def _classes(data: TableDataModule, plan: Plan) -> list[str]:
    bare = plan.train - plan.labelled
    rest = [f"{bare} training rows have no label; they serve the stages without labels"] if bare else []
    if data.target_scale is not None:
        mean, std = data.target_scale
        scale = f"mean {mean:.6g}, standard deviation {std:.6g}"
        far = far_numbers(data.content, data.label) if data.label is not None else None
        notes = [] if far is None else [f"note: {far}"]
        return [f"target: column {data.label!r} (--label); {plan.labelled} training rows: {scale}", *rest, *notes]
    if not plan.classes:
        return []
    shown = ", ".join(f"{name} {count}" for name, count in list(plan.classes.items())[:_SHOWN])
    more = f" and {len(plan.classes) - _SHOWN} more" if len(plan.classes) > _SHOWN else ""
    several = "several per row" if plan.several else "one per row"
    lines = [f"{len(plan.classes)} classes ({several}) in column {data.label!r}; training rows: {shown}{more}"]
    lines += rest
    if rare := [name for name, count in plan.classes.items() if count == 1]:
        names = ", ".join(map(repr, rare[:_SHOWN]))
        lines.append(
            f"note: {len(rare)} class(es) have one training row only: {names}; that is too little to learn from: add "
            "rows, or merge or leave out such classes"
        )
    return lines


def as_options(error: MMNASError) -> MMNASError:
    """An error whose message names options of `mmnas init` in place of keys of the configuration."""
    error.args = (in_options(str(error)), *error.args[1:])
    return error


def in_options(text: str) -> str:
    """A message in which options of `mmnas init` stand in place of keys of the configuration."""
    text = re.sub(r"check data\.init_args\.table\b", "check the path", text)
    text = text.replace("unless empty says otherwise", "unless --empty says otherwise")
    text = re.sub(r"data\.init_args\.columns(\.[^\s;,]+)?", "--modality", text)
    text = re.sub(
        r"data\.init_args\.(label_separator|label|split|group|id|task|missing|on_error|files_from)\b(=| to )?",
        lambda found: f"--{found[1].replace('_', '-')}{' ' if found[2] else ''}",
        text,
    )
    text = re.sub(r"\bset (--[\w-]+) ", r"give \1 ", text)
    return re.sub(r"\bleave (label|split|group|id) out\b", r"leave \1 out (--no-\1)", text)
