"""The notebooks run from their first cell to their last, and are stored with what they give."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks import FOLDER, NOTEBOOKS, execute, kinds, read

PACKAGES = {"quickstart": ("seglearn", "demo")}
"""Package that a notebook needs, and the extra that it comes with."""


def printed(notebook: Any) -> str:
    """All that the cells of a notebook have printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", "")) for o in outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_stored(name: str) -> None:
    pytest.importorskip("nbformat")
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)], "stored in the order of the cells"
    assert "picture" in {kind for cell in cells for kind in kinds(cell)}
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not any(output.get("name") == "stderr" for output in outputs)
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    for path in ("/tmp/", "/home/", "/root/", "site-packages"):
        assert path not in text, f"{path} of the machine on which it ran"
    assert len(text) < 500_000


def check_quickstart(notebook: Any, folder: Path) -> None:
    assert "from scratch: {'test/accuracy'" in printed(notebook)
    assert {path.name for path in folder.iterdir()} >= {"genotype.json", "encoders.ckpt", "network.ckpt"}


def check_own_table(notebook: Any, folder: Path) -> None:
    assert len((folder / "predictions.csv").read_text().splitlines()) == 1 + 6
    assert (folder / "runs" / "birds" / "report.html").is_file()
    assert "{'accuracy'" in printed(notebook)


def check_inside_a_search(notebook: Any, folder: Path) -> None:
    assert "5100 architectures" in printed(notebook)
    (reads,) = (line for line in printed(notebook).splitlines() if line.startswith("reads ["))
    assert "ankle" not in reads, "the sensor that reports nothing is left out"


def check_table_of_a_space(notebook: Any, folder: Path) -> None:
    assert "best of 10: percentile" in printed(notebook)
    assert not [*folder.iterdir()]


CHECKS: dict[str, Callable[[Any, Path], None]] = {
    "quickstart": check_quickstart,
    "own_table": check_own_table,
    "inside_a_search": check_inside_a_search,
    "table_of_a_space": check_table_of_a_space,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Jupyter's own packages
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, extra = PACKAGES.get(name, (None, None))
    if package is not None and find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install '.[{extra}]'")
    pytest.importorskip("nbclient")
    # The kernel is this Python, whatever kernels are installed; what Jupyter writes, it writes here.
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (kernel / "kernel.json").write_text(f'{{"argv": {command}, "display_name": "Python 3", "language": "python"}}')
    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    root = str(FOLDER.parent)  # the kernel starts elsewhere
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]))
    folder = tmp_path / "work"
    folder.mkdir()

    notebook = execute(name, folder)
    CHECKS[name](notebook, folder)
    drawn, stored = ([kinds(cell).count("picture") for cell in book.cells] for book in (notebook, read(name)))
    assert drawn == stored, "the pictures that are stored are those that it draws"
