"""The page of a run: what is on it, what is left out, and that users' words stay words."""

import logging
import math
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lightning_mmnas.report import page as of_page
from lightning_mmnas.report import plots
from lightning_mmnas.report.facts import Facts, read_facts
from lightning_mmnas.report.page import run_page, write_page
from lightning_mmnas.report.runs import runs_page
from lightning_mmnas.report.scores import render_scores
from lightning_mmnas.report.section import Section
from lightning_mmnas.report.sections_model import predictions
from lightning_mmnas.report.table import render_comparison
from tests.report.make_facts import comparison, make_run, model

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c626001000000ffff03000006000557bfabd40000000049454e44ae426082"
)


class Reader(HTMLParser):
    """Collects tags with their attributes, and complains of what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def facts_of(tmp_path: Path, task: str | None = "multiclass", **changes: Any) -> Facts:
    facts = read_facts(make_run(tmp_path / "run", **changes))
    return {**facts, "model": model(task) if task else None, "why_no_model": None, "memory": {"process": 2**30}}


def written(facts: Facts, folder: Path) -> tuple[str, list[tuple[str, dict[str, str | None]]]]:
    (folder / "pictures").mkdir(exist_ok=True)
    (folder / "pictures" / "error-1.png").write_bytes(PIXEL)
    write_page(run_page(facts, "my run", strict=True), folder / "report.html", folder / "pictures")
    text = (folder / "report.html").read_text()
    return text, Reader(text).tags


@pytest.mark.slow
def test_the_page_needs_nothing_else_and_keeps_words_words(tmp_path: Path) -> None:
    text, tags = written(facts_of(tmp_path), tmp_path)
    links = [value for _, attrs in tags for key, value in attrs.items() if key in ("src", "href", "xlink:href")]
    assert links
    assert [link for link in links if link and not link.startswith(("#", "data:image/png"))] == []
    assert "<b>cat" not in text
    assert "&lt;b&gt;cat&lt;/b&gt;" in text
    assert "<script>alert" not in text
    names = [attrs["id"] for _, attrs in tags if attrs.get("id")]
    assert {name for name in names if names.count(name) > 1} == set()
    targets = {link[1:] for link in links if link and link.startswith("#")}
    assert targets <= set(names)

    assert "With all labels the found network (accuracy 0.910) is better than random architectures (0.811)" in text
    assert "95 % interval" in text
    assert "An input such as text/0 is level 0 of the features" in text
    assert "2, chosen" in text  # of the candidates, the one that is the run's genotype
    assert "1,024 MiB" in text
    assert "Left out" not in text
    drawn = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {
        f"{name}.{kind}" for name in ("comparison-all", "weights-cell0", "missing") for kind in ("png", "svg")
    } <= drawn


@pytest.mark.slow
def test_of_labels_the_page_shows_f1(tmp_path: Path) -> None:
    text, _ = written(facts_of(tmp_path, "multilabel"), tmp_path)
    assert "The largest errors" in text
    assert "given probability 0.010, but it has it" in text
    assert "0.667" in text


def test_many_classes_are_numbered_and_long_names_told_apart(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    names = [f"a name that begins like all others, {k}" for k in range(41)]
    confusion = [[3 * (i == j) for j in range(41)] for i in range(41)]
    confusion[7][9] = 2
    for count in (41, 40):
        several = [row[:count] for row in confusion[:count]]
        facts["model"] |= {"classes": names[:count], "confusion": several, "errors": []}
        section = predictions(facts)
        assert isinstance(section, Section)
        assert ("numbered from 0" in section.pictures[0].caption) == (count == 41)
        pairs = [[f"{names[7]} (7)", f"{names[9]} (9)", "2"]]
        assert [table.rows for table in section.tables[1:]] == ([pairs] if count == 41 else [])
    (axes,) = section.pictures[0].figure.axes  # type: ignore[union-attr]
    shown = [text.get_text() for text in axes.get_xticklabels()]
    assert len(set(shown)) == 40
    assert max(map(len, shown)) == 18


def test_what_there_is_not_is_said_once(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, None, comparison=[], genotype=None)
    facts |= {"why_no_model": "It is a class of your own.", "architecture": None, "selection": None, "curves": {}}
    text, _ = written(facts, tmp_path)
    assert text.count("It is a class of your own.") == 1
    assert "A finished run without a comparison" in text
    page = run_page(facts, "x", strict=True)
    assert [section.title for section in page.sections] == ["How it was made"]
    assert len(page.left_out) == 6


def test_scores_that_are_not_defined_are_said_to_be_so(tmp_path: Path) -> None:
    rows = [{**row, "mean": math.nan, "std": math.nan, "scores": [math.nan] * 3} for row in comparison()]
    facts = facts_of(tmp_path, comparison=rows)
    facts["model"] |= {"scores": {"accuracy": math.nan}}
    page = run_page(facts, "x", strict=True)
    assert page.headline.startswith("With all labels the found network and random architectures cannot be compared")
    assert page.tiles[0] == ("not defined", "accuracy, fine-tuned model")
    assert page.sections[0].pictures == []
    assert page.sections[0].tables[0].rows[0] == ["found+ssl", "not defined", "not defined"]
    runs = runs_page(["a", "b"], [facts, facts], strict=True)
    assert runs.sections[0].tables[0].rows[0][2] == "accuracy not defined"
    console = Console(file=StringIO(), width=120)
    console.print(render_scores({"samples": 1, "skipped": 0, "metrics": {"r2": math.nan}}))
    assert "not defined" in str(console.file.getvalue())  # type: ignore[attr-defined]
    console = Console(file=StringIO(), width=120)
    console.print(render_comparison(rows))
    assert "not defined" in str(console.file.getvalue())  # type: ignore[attr-defined]


def test_a_section_that_fails_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(facts: Facts) -> Section:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(of_page, "SECTIONS", (broken, *of_page.SECTIONS[-1:]))
    facts = facts_of(tmp_path)
    with caplog.at_level(logging.WARNING):
        page = run_page(facts, "x")
    assert [section.title for section in page.sections] == ["How it was made"]
    assert page.left_out == ["The section of broken could not be made (ZeroDivisionError)."]
    assert "without its section 'broken'" in caplog.text
    with pytest.raises(ZeroDivisionError):
        run_page(facts, "x", strict=True)


def test_several_runs_on_one_page(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    page = runs_page(["a", "<b>"], [facts, {**facts, "model": None, "comparison": []}], strict=True)
    write_page(page, tmp_path / "both.html", tmp_path / "both-pictures")
    text = (tmp_path / "both.html").read_text()
    Reader(text)
    assert "2 runs compared" in text
    assert "a: With all labels the found network" in text
    assert "&lt;b&gt;" in text
    titles = [section.title for section in page.sections]
    assert titles == ["Overview", "The found networks", "Losses", "Architectures"]


def test_curves_leave_out_rates_and_the_weights_of_choices() -> None:
    line = [[0, 0.5], [1, 0.4]]
    curves = {"train/loss": line, "arch/entropy": line, "arch/lr": line, "alpha/cell0.x/image/2": line}
    axes = plots.plot_curves(curves, "search").axes
    legends = [legend for one in axes if (legend := one.get_legend()) is not None]
    drawn = [text.get_text() for legend in legends for text in legend.get_texts()]
    assert drawn == ["train/loss", "arch/entropy"]
