"""Runs the notebooks; ``python -m tests.notebooks [NAME …]`` stores their outputs anew."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def read(name: str) -> Any:
    """A notebook as it is stored."""
    import nbformat

    read_file: Any = nbformat.read  # untyped
    return read_file(FOLDER / f"{name}.ipynb", as_version=4)


def execute(name: str, folder: Path) -> Any:
    """A notebook with new outputs.

    Args:
        name: Of the notebook.
        folder: Where it runs, and writes its files.
    """
    import nbclient

    notebook = read(name)
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    asyncio.run(client.async_execute())
    return notebook


def kinds(cell: Any) -> list[str]:
    """What the outputs of a cell are: texts, pictures; not what was printed as an error of some library."""
    return [
        "picture" if "image/png" in output.get("data", {}) else "text"
        for output in cell.get("outputs", [])
        if output.get("name") != "stderr"
    ]


def _store(name: str) -> None:
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(name, Path(folder))
    root = f"{Path(folder).resolve()}{os.sep}"
    for i, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = {}, f"cell{i}"  # no times of execution; the same in every run
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    write: Any = nbformat.writes
    text = write(notebook)
    (FOLDER / f"{name}.ipynb").write_text(text.replace(root, "") + "\n", encoding="utf-8")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NOTEBOOKS:
        _store(chosen)
