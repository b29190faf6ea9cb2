"""Draws docs/pictures/way.svg, the way of a sample through the stages, and table.svg, that of a table of one's own.

One file for light and dark pages: text stands on filled boxes, or has a tone that is read on both.
Command: python benchmarks/drawings.py
"""

from pathlib import Path

WIDTH = 420
FONT = "font-family='Helvetica, Arial, sans-serif'"
GREY, TONE, INK = "#90a4ae", "#667f8c", "#1c2b33"
FILLS = {
    "data": "#cfd8dc",
    "encoders": "#a9d0f0",
    "search": "#f6cf9b",
    "pretrain": "#b7dfc3",
    "finetune": "#e3c3de",
    "result": "#eceff1",
}


class Drawing:
    """Parts of an SVG, from the top down."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str, *lines: str) -> None:
        """A filled box around lines of text, the first of them bold; (x, y) is its upper left corner."""
        self.parts.append(
            f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='6' fill='{FILLS[fill]}' stroke='{TONE}'/>"
        )
        top = y + height / 2 - 8 * (len(lines) - 1) + 4.5
        for i, line in enumerate(lines):
            weight = " font-weight='bold'" if i == 0 else ""
            self.text(x + width / 2, top + 16 * i, line, INK, "middle", 13 if i == 0 else 12, weight)

    def text(
        self, x: float, y: float, text: str, colour: str = TONE, anchor: str = "middle", size: int = 12, more: str = ""
    ) -> None:
        """One line of text; y is its base line."""
        self.parts.append(
            f"<text x='{x}' y='{y}' {FONT} font-size='{size}' fill='{colour}' text-anchor='{anchor}'{more}>"
            f"{text}</text>"
        )

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        """A line through points, with a head at its end."""
        path = " ".join(f"{x},{y}" for x, y in points)
        dashes = " stroke-dasharray='5 4'" if dashed else ""
        self.parts.append(
            f"<polyline points='{path}' fill='none' stroke='{GREY}' stroke-width='2'{dashes} marker-end='url(#head)'/>"
        )

    def save(self, path: Path, height: float, title: str) -> None:
        """Writes the file."""
        head = (
            f"<marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' orient='auto'>"
            f"<path d='M0 0L10 5L0 10z' fill='{GREY}'/></marker>"
        )
        path.write_text(
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' "
            f"role='img'>\n<title>{title}</title>\n<defs>{head}</defs>\n" + "\n".join(self.parts) + "\n</svg>\n",
            encoding="utf-8",
        )


def draw_way(path: Path) -> None:
    """The way of a sample: data, views, encoders, supernet, objective; then the network that is found."""
    d = Drawing()
    d.box(10, 10, 180, 40, "data", "files", "images, sounds, texts, numbers")
    d.arrow((190, 30), (228, 30))
    d.box(230, 10, 180, 40, "data", "sample", "one tensor per modality")
    d.arrow((320, 50), (320, 67), (100, 67), (100, 82))
    d.arrow((320, 50), (320, 82))
    d.box(10, 84, 180, 32, "data", "a random view of it")
    d.box(230, 84, 180, 32, "data", "another random view")
    d.arrow((100, 116), (100, 142))
    d.arrow((320, 116), (320, 142))
    d.box(10, 144, 400, 46, "encoders", "encoders, frozen", "features image/0 … image/2, audio/0 … audio/2")
    d.arrow((28, 190), (28, 216))
    d.text(40, 208, "stage 0 has trained them, each on its own; stage 1:", TONE, "start")
    d.box(10, 218, 400, 46, "search", "input nodes", "every feature becomes (b, l, c): l positions, c channels")
    d.arrow((210, 264), (210, 290))
    d.box(10, 292, 240, 62, "search", "supernet", "cells of steps: all choices at once,", "weighted by the logits")
    d.box(290, 292, 120, 62, "search", "logits", "alpha, beta,", "gamma")
    d.arrow((290, 323), (252, 323))
    d.arrow((130, 354), (130, 380))
    d.box(10, 382, 240, 46, "search", "projections", "one vector of each view")
    d.arrow((130, 428), (130, 454))
    d.box(10, 456, 240, 46, "search", "NT-Xent", "views of one sample: near; others: far")
    d.arrow((250, 479), (350, 479), (350, 356), dashed=True)
    d.text(346, 498, "ArchitectureAlternation", TONE)
    d.arrow((28, 502), (28, 528))
    d.text(40, 520, "decode the logits, try a few candidates, keep one", TONE, "start")
    d.box(10, 530, 400, 46, "search", "genotype", "who reads which features, and by which operation")
    d.arrow((28, 576), (28, 602))
    d.text(40, 594, "stage 2: the same views and objective, no labels", TONE, "start")
    d.box(10, 604, 400, 32, "pretrain", "network of the genotype, pretrained")
    d.arrow((28, 636), (28, 662))
    d.text(40, 654, "stage 3: labels come in", TONE, "start")
    d.box(10, 664, 400, 46, "finetune", "classifier", "the network, and logistic regression beside it")
    d.arrow((28, 710), (28, 736))
    d.text(40, 728, "the test split, once", TONE, "start")
    d.box(10, 738, 190, 46, "result", "report", "beside random, late fusion, …")
    d.box(220, 738, 190, 46, "result", "model", "predict, embed, export")
    d.arrow((315, 710), (315, 736))
    d.save(
        path,
        794,
        "The way of a sample: data, views, encoders, supernet, objective; genotype, network, classifier, report",
    )


def draw_table(path: Path) -> None:
    """The way of a table: its columns become modalities, groups and classes; configurations; a run."""
    d = Drawing()
    columns = {"photo": 70, "song": 70, "mass": 60, "wing": 60, "site": 60, "label": 80}
    cells = ("000.jpg", "000.wav", "102.4", "19.8", "site0", "blackbird")
    kinds = ("encoders", "pretrain", "search", "search", "data", "finetune")
    x = 10
    middles = []
    for (name, width), cell, kind in zip(columns.items(), cells, kinds, strict=True):
        d.box(x, 26, width - 4, 44, kind, name, cell)
        middles.append(x + (width - 4) / 2)
        x += width
    d.text(12, 16, "birds.csv, one row per sample", TONE, "start")
    targets = {"image": (10, 76, "encoders"), "audio": (92, 76, "pretrain"), "features": (174, 76, "search")}
    targets |= {"group": (256, 66, "data"), "class": (328, 78, "finetune")}
    readers = {"image": (0,), "audio": (1,), "features": (2, 3), "group": (4,), "class": (5,)}
    for name, (left, width, kind) in targets.items():
        for column in readers[name]:
            d.arrow((middles[column], 70), (left + width / 2, 110))
        d.box(left, 112, width, 32, kind, name)
    d.text(12, 164, "mmnas init looks at the columns, and at every file", TONE, "start")
    d.arrow((380, 144), (380, 170))
    d.box(10, 172, 400, 46, "data", "my_configs/", "common.yaml, one file per stage, comparison.yaml")
    d.text(12, 238, "mmnas run", TONE, "start")
    d.arrow((380, 218), (380, 244))
    d.box(10, 246, 190, 46, "result", "report.html", "what it found, and how sure")
    d.box(220, 246, 190, 46, "result", "model/", "predict, embed, export")
    d.save(path, 302, "The way of a table: columns, modalities, configurations, a run with report and model")


if __name__ == "__main__":
    pictures = Path(__file__).parents[1] / "docs" / "pictures"
    draw_way(pictures / "way.svg")
    draw_table(pictures / "table.svg")
