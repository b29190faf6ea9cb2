"""The tree and the figure of a genotype."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from lightning_mmnas.report.architecture import plot_genotype, render_tree
from lightning_mmnas.report.formulas import formula
from lightning_mmnas.space.genotype import FusionSpace, Genotype
from tests.space.test_genotype import GENOTYPE, SUM, make
from tests.space.test_space import small_spaces


def printed(genotype: Genotype) -> str:
    stream = io.StringIO()
    Console(file=stream, width=100, color_system=None).print(render_tree(genotype))
    return stream.getvalue()


def words(figure: Figure) -> list[str]:
    texts = figure.findobj(Text)
    return [text.get_text() for text in texts if isinstance(text, Text) and text.get_text()]


def test_formulas() -> None:
    assert formula("sum", "x", "step0") == "x + step0"
    assert formula("attention", "y", "x") == "norm(softmax(y xᵀ / √c) x)"
    assert formula("my.package.Bilinear", "x", "y") == "Bilinear(x, y)"


def test_tree() -> None:
    assert printed(GENOTYPE).splitlines() == [
        "fusion network: 2 cells of 1 step, 32 channels, 8 positions",
        "├── inputs",
        "│   ├── image",
        "│   │   ├── image/0 → cell1 as x",
        "│   │   └── image/1 → cell0 as x",
        "│   └── text",
        "│       └── text → cell0 as y",
        "├── cell0 = norm(out + x)",
        "│   ├── x = image/1",
        "│   ├── y = text",
        "│   ├── step0 = attention: norm(softmax(y xᵀ / √c) x)",
        "│   └── out = step0",
        "├── cell1 = norm(out + x)",
        "│   ├── x = image/0",
        "│   ├── y = cell0",
        "│   ├── step0 = sum: x + y",
        "│   └── out = step0",
        "├── output = [cell0; cell1]",
        "└── reads image, text",
    ]


def test_tree_says_what_is_not_used() -> None:
    space = FusionSpace(inputs=("a", "b", "[c]"), cells=2, cell_outputs=1, steps=2)
    cells = ((("a", "[c]"), SUM * 2), (("a", "b"), SUM * 2))
    text = printed(make(space, *cells, compatibility="bmnas"))
    assert "dead code" in text
    assert "reads a, b; does not read [c]" in text
    assert "out = relu(W [step0; step1])" in text
    unread = make(FusionSpace(inputs=("a", "b", "c"), cells=1), (("a", "b"), SUM))
    assert "c → not read" in printed(unread)


def test_figure_names_everything(tmp_path: Path) -> None:
    figure = plot_genotype(GENOTYPE)
    texts = words(figure)
    for name in (*GENOTYPE.space.inputs, "image", "cell0", "cell1", "attention", "sum", "readout"):
        assert name in texts
    assert texts.count("residual") == texts.count("norm") == 2
    assert "attention:  norm(softmax(a bᵀ / √c) b)" in texts
    figure.savefig(tmp_path / "genotype.png")
    assert (tmp_path / "genotype.png").read_bytes().startswith(b"\x89PNG")


@settings(max_examples=15, deadline=None)
@given(small_spaces(most=10**6), st.integers(0, 2**32))
def test_every_genotype_can_be_shown(space: FusionSpace, seed: int) -> None:
    assume(space.size())
    genotype = space.sample(torch.Generator().manual_seed(seed))
    texts = words(plot_genotype(genotype))
    assert texts.count("merge") == (space.cells if space.step_outputs > 1 else 0)
    assert all(f"cell{i} = " in printed(genotype) for i in range(space.cells))


@pytest.mark.slow
def test_texts_stay_inside_the_figure() -> None:
    space = FusionSpace(
        inputs=tuple(f"{name}/{level}" for name in ("image", "text", "audio") for level in range(3)),
        cells=3,
        steps=3,
        primitives=("sum", "attention", "linear_glu", "concat_fc", "my.own.VeryLongPrimitiveName"),
    )
    for seed in range(2):
        figure = plot_genotype(space.sample(torch.Generator().manual_seed(seed)))
        figure.canvas.draw()
        whole = figure.bbox
        for text in figure.axes[0].texts:
            box = text.get_window_extent()
            assert whole.x0 <= box.x0 < box.x1 <= whole.x1, text.get_text()
            assert whole.y0 <= box.y0 < box.y1 <= whole.y1, text.get_text()


@pytest.mark.slow
def test_matplotlib_is_imported_late_and_without_pyplot() -> None:
    code = (
        "import sys; from lightning_mmnas.report.architecture import plot_genotype;"
        "from lightning_mmnas.space.genotype import Genotype;"
        "assert 'matplotlib' not in sys.modules, 'early';"
        f"plot_genotype(Genotype.from_json({GENOTYPE.to_json()!r}));"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
