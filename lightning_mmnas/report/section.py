"""The parts that a page of a report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure


@dataclass
class Picture:
    """A picture with its caption.

    Attributes:
        name: Of its files in ``pictures/``, without suffix.
        caption: What it shows, in a sentence.
        figure: A drawing; None: there is a PNG file of that name already.
        themed: Whether its ink and paper follow the page; otherwise it stands on white.
        wide: Whether it takes the whole width of the page, and is scrolled where that is too narrow.
    """

    name: str
    caption: str
    figure: Figure | None = None
    themed: bool = True
    wide: bool = False


@dataclass
class Table:
    """A table of texts; all but its first column are aligned to the right if `numbers`."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True


@dataclass
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        paragraphs: Sentences above the pictures.
        pictures: Side by side where there is room.
        tables: Below them.
        texts: Long texts by title, folded.
    """

    title: str
    paragraphs: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
