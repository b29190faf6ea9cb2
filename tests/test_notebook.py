"""The notebook runs from its first cell to its last, and is committed without outputs."""

import asyncio
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


def read() -> Any:
    return pytest.importorskip("nbformat").read(NOTEBOOK, as_version=4)


def test_outputs_are_clean() -> None:
    for cell in read().cells:
        assert not cell.get("outputs"), f"outputs of the cell {cell.source[:40]!r}"
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Jupyter's own packages
def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("seglearn") is None:
        pytest.skip("seglearn, which holds the watch recordings, is not installed: pip install '.[demo]'")
    nbclient = pytest.importorskip("nbclient")
    # The kernel is this Python, whatever kernels are installed; what Jupyter writes, it writes here.
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (kernel / "kernel.json").write_text(f'{{"argv": {command}, "display_name": "Python 3", "language": "python"}}')
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    root = str(NOTEBOOK.parents[1])  # the kernel starts elsewhere
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]))
    folder = tmp_path / "work"
    folder.mkdir()

    notebook = read()
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    asyncio.run(client.async_execute())
    texts = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("from scratch: {'test/accuracy'" in text for text in texts)
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == 2, "the sample and the architecture are drawn"
    assert {path.name for path in folder.iterdir()} >= {"genotype.json", "encoders.ckpt", "network.ckpt"}
