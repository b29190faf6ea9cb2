"""A data set as tables, and a few of its samples beside their two views as a picture."""

from collections.abc import Iterator

import torch
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.drawing import caption, draw
from lightning_mmnas.data.samples import Batch
from lightning_mmnas.data.spec import Split
from lightning_mmnas.data.summary import DataSummary
from lightning_mmnas.views import TwoViews

_DAMAGED = 20
"""Damaged files that are listed; the others are counted."""


def render_summary(summary: DataSummary) -> RenderableType:
    """Tables of modalities, splits and labels, then what is wrong."""
    modalities = Table("modality", "kind", "shape", "type", title="modalities", title_justify="left")
    for name, spec in summary.modalities.items():
        modalities.add_row(Text(name), spec["kind"], " x ".join(map(str, spec["shape"])), spec["dtype"])
    parts: list[RenderableType] = [modalities, _splits(summary)]
    if any(split.labels for split in summary.splits.values()):
        parts.append(_labels(summary))
    if any(split.targets for split in summary.splits.values()):
        parts.append(_targets(summary))
    parts += [Text(line, no_wrap=True, overflow="ignore") for line in _remarks(summary)]  # paths stay whole
    return Group(*parts)


def _splits(summary: DataSummary) -> Table:
    table = Table("split", title="splits", title_justify="left")
    for column in ("samples", "unlabelled", "groups", *(f"same {name}" for name in summary.modalities)):
        table.add_column(Text(column), justify="right")
    for name, split in summary.splits.items():
        values = [split.samples, split.unlabelled, split.groups, *(split.duplicates[m] for m in summary.modalities)]
        table.add_row(name, *("-" if value is None else f"{value:,}" for value in values))
    return table


def _labels(summary: DataSummary) -> Table:
    table = Table("class", title="labels", title_justify="left")
    for split in summary.splits:
        table.add_column(split, justify="right")
    names = dict.fromkeys(name for split in summary.splits.values() for name in split.labels)
    for name in names:
        table.add_row(Text(name), *(f"{split.labels.get(name, 0):,}" for split in summary.splits.values()))
    return table


def _targets(summary: DataSummary) -> Table:
    table = Table("target", title="targets", title_justify="left")
    for split in summary.splits:
        table.add_column(split, justify="right")
    for name in ("least", "mean", "greatest", "std"):
        values = [split.targets.get(name) for split in summary.splits.values()]
        table.add_row(name, *("-" if value is None else f"{value:.6g}" for value in values))
    return table


def _remarks(summary: DataSummary) -> Iterator[str]:
    for split, reason in summary.missing.items():
        yield f"{split}: {reason}"
    for overlap in summary.overlaps:
        first, second = overlap.splits
        what = "groups" if overlap.modality == "group" else f"identical {overlap.modality}"
        pairs = "; ".join(one if one == other else f"{one} = {other}" for one, other in overlap.examples)
        yield f"{first} and {second} share {overlap.count} {what}: {pairs}"
    if not summary.overlaps and len(summary.splits) > 1:
        yield "no two splits share a file or a group"
    yield from (f"note: {line}" for line in summary.notes)
    yield from (f"look at {line}" for line in summary.looks)
    if summary.damaged:
        yield f"{len(summary.damaged)} damaged or missing file(s):"
        yield from (f"  {source}: {reason}" for source, reason in summary.damaged[:_DAMAGED])
        if len(summary.damaged) > _DAMAGED:
            yield f"  and {len(summary.damaged) - _DAMAGED} more"


def plot_views(data: MultimodalDataModule, views: TwoViews, split: Split, count: int = 4, seed: int = 0) -> Figure:
    """Draws a few samples, one per row: each modality as it is, and its two views.

    Args:
        data: The data; `split` has been built.
        views: What makes the two views.
        split: Where the samples are drawn from.
        count: Number of samples.
        seed: Seed of the draw and of the views.
    """
    source = data.source(split)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        indices = torch.randperm(len(source))[:count]
        plain = source.batch(indices)
        columns: list[tuple[str, Batch]] = [("", plain)]
        first, second = views({name: plain[name] for name in data.modalities})
        columns += [(", view 1", first), (", view 2", second)]
    wide = len(data.modalities) * len(columns)
    figure = Figure(figsize=(2.4 * wide, 2.2 * len(indices)), layout="constrained")
    panels = figure.subplots(len(indices), wide, squeeze=False)
    for row in range(len(indices)):
        places = iter(panels[row])
        for name, spec in data.modalities.items():
            for title, batch in columns:
                axes, values = next(places), batch[name][row]
                if row == 0:
                    axes.set_title(f"{caption(name)}{title}", fontsize=8)
                draw(axes, values, spec, data.words(name, values) if spec.kind == "text" else None)
                axes.tick_params(labelsize=6)
        label = caption(data.label_text({key: value[row] for key, value in plain.items()}))
        # Below the first panel of the row, where no title stands.
        place = {"va": "top", "transform": panels[row][0].transAxes}
        panels[row][0].text(0, -0.12, label, fontsize=7, style="italic", in_layout=False, **place)
    return figure
