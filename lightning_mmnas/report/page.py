"""The page: sections into one HTML file that needs nothing else, and their pictures as PNG and SVG."""

from __future__ import annotations

import base64
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from markupsafe import Markup

from lightning_mmnas.files import write_bytes, write_text
from lightning_mmnas.report import sections, sections_model
from lightning_mmnas.report.budgets import score_text
from lightning_mmnas.report.facts import Facts
from lightning_mmnas.report.plots import COLOURS, GRID, INK, PAPER
from lightning_mmnas.report.section import Picture, Section
from lightning_mmnas.report.verdicts import headline

_log = logging.getLogger(__name__)

SECTIONS: tuple[Callable[[Facts], Section | str], ...] = (
    sections.scores,
    sections_model.predictions,
    sections_model.errors,
    sections_model.modalities,
    sections.network,
    sections.candidates,
    sections.weights,
    sections.curves,
    sections_model.embeddings,
    sections_model.costs,
    sections_model.samples,
    sections.record,
)
"""In the order of the page."""
_THEME = ((INK, "var(--ink)"), (GRID, "var(--grid)"), (PAPER, "none"), (COLOURS[0], "var(--blue)"))


@dataclass
class Page:
    """What the template shows.

    Attributes:
        title: Of the window.
        headline: The verdict in words.
        lead: A sentence below it.
        tiles: Short facts: a value and what it is.
        sections: In order.
        left_out: Why sections are missing, a sentence each.
    """

    title: str
    headline: str
    lead: str
    tiles: list[tuple[str, str]]
    sections: list[Section]
    left_out: list[str]


def run_page(facts: Facts, title: str, strict: bool = False) -> Page:
    """The page of one run.

    Args:
        facts: Content of its `analysis.json`.
        title: Name of the run.
        strict: Whether a section that fails raises; otherwise it is left out with a warning.
    """
    built, left_out = build(SECTIONS, facts, strict)
    verdict = headline(facts["comparison"])
    model: dict[str, Any] = facts.get("model") or {}
    tiles = [(score_text(model["scores"][model["metric"]]), f"{model['metric']}, fine-tuned model")] if model else []
    if (count := (facts["parameters"] or {}).get("network")) is not None:
        tiles.append((f"{count:,}", "parameters of the network"))
    tiles.append((_duration(facts["total_seconds"]), "in all"))
    lead = f"Seed {facts['seed']}. {facts['command']}"
    words = verdict or "A finished run without a comparison: whether the search gained anything was not measured."
    return Page(title, words, lead, tiles, built, left_out)


def build(
    makers: Sequence[Callable[[Facts], Section | str]], facts: Facts, strict: bool
) -> tuple[list[Section], list[str]]:
    """Sections, and sentences for those that there is nothing for; see `run_page`."""
    built: list[Section] = []
    left_out: list[str] = []
    for maker in makers:
        try:
            found = maker(facts)
        except Exception as error:
            if strict:
                raise
            name = maker.__name__
            _log.warning("the report goes without its section %r: %s: %s", name, type(error).__name__, error)
            found = f"The section of {name} could not be made ({type(error).__name__})."
        if isinstance(found, Section):
            built.append(found)
        elif found not in left_out:
            left_out.append(found)
    return built, left_out


def write_page(page: Page, path: Path, pictures: Path) -> None:
    """Writes the page, and its drawings as PNG and SVG.

    Args:
        page: What is shown.
        path: The HTML file.
        pictures: Folder of the pictures; PNG files that the page names are there already.

    Raises:
        RunDirectoryError: A file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["draw"] = lambda picture: _draw(picture, pictures)
    text = environment.get_template("page.html.j2").render(page=page, anchors=_anchors(page))
    write_text(path, text)


def _anchors(page: Page) -> list[str]:
    return [re.sub(r"\W+", "-", section.title.lower()) for section in page.sections]


def _draw(picture: Picture, folder: Path) -> Markup:
    """A picture as a part of HTML; a drawing is saved on the way."""
    if picture.figure is None:
        path = folder / f"{picture.name}.png"
        if not path.is_file():
            return Markup("<p>{}</p>").format(f"The picture {path.name} is not in {folder.name}/.")
        data = base64.b64encode(path.read_bytes()).decode()
        return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(picture.caption, data)
    png, svg = BytesIO(), StringIO()
    # A salt of its own: the page holds several drawings, whose names must differ.
    with mpl.rc_context({"svg.hashsalt": picture.name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of names in scripts that the font lacks
        picture.figure.savefig(svg, format="svg", metadata={"Date": None}, dpi=150)
        picture.figure.savefig(png, format="png", dpi=150)
    write_bytes(folder / f"{picture.name}.png", png.getvalue())
    write_text(folder / f"{picture.name}.svg", svg.getvalue())
    return _inline(svg.getvalue(), picture)


def _inline(svg: str, picture: Picture) -> Markup:
    """An SVG file as part of a page: as wide as there is room, colours of the page, names of its own."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, _, rest = text.partition(">")
    width = re.search(r'\bwidth="([\d.]+)pt"', head)
    points = float(width.group(1)) if width else 400.0
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    name = re.sub(r"\W", "-", picture.name)
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r'href="#', f'href="#{name}-', rest)
    rest = rest.replace("url(#", f"url(#{name}-")
    if picture.themed:
        for colour, variable in _THEME:
            rest = rest.replace(colour.lower(), variable)
    # A point is 1.33 pixels; shown a quarter larger at most.
    opening = Markup('{} role="img" aria-label="{}" style="max-width:{:.0f}px">').format(
        Markup(head), picture.caption, points * 1.67
    )
    return opening + Markup(rest)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
