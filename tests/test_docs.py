"""The Python blocks of README.md and docs/ run as they stand, each file as one module of a user's project."""

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import lightning.pytorch  # noqa: F401  # its first import sets an environment variable: not within a test
import pytest

import lightning_mmnas

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = [
    path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if BLOCK.search(path.read_text())
]
# The user's project may warn; its blocks are about something else.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.filterwarnings("ignore:.*deprecated")]


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_python_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = path.read_text()
    if re.search(r"WatchDataModule|run\(\"watch\"", text) and find_spec("seglearn") is None:
        pytest.skip("seglearn, which holds the watch recordings, is not installed: pip install '.[demo]'")
    module = ModuleType("my_project")
    monkeypatch.setitem(sys.modules, "my_project", module)
    monkeypatch.chdir(tmp_path)
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        # Blank lines in front: an error names the line of the Markdown file.
        exec(compile("\n" * line + block[1], str(path), "exec"), module.__dict__)


def test_every_public_class_is_in_the_reference() -> None:
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    documented = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    for name in lightning_mmnas.__all__:
        home = getattr(lightning_mmnas, name).__module__
        assert home in documented, f"{name} of {home} is on no page of docs/reference"
    for module in documented:
        assert find_spec(module) is not None, f"docs/reference names {module}, which does not exist"


def test_every_module_is_in_the_reference_and_every_folder_on_the_map() -> None:
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    documented = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    package = Path(lightning_mmnas.__file__).parent
    modules = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for path in package.rglob("*.py")
        if not path.name.startswith("__")
    }
    assert modules - documented == {"lightning_mmnas.interop.old_paths"}
    shown = set(re.findall(r"^\| `(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert shown == {path.parent.name for path in package.glob("*/__init__.py")}
    named = re.findall(r"`([a-z_]+/[\w/]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 10
    named = [name for name in named if "NAME" not in name]  # of the data set to be added
    assert [name for name in named if not ((package / name).is_file() or (ROOT / name).is_file())] == []
    assert {path.name for path in package.glob("*.py")} == {
        *("__init__.py", "__main__.py", "errors.py", "files.py", "parsing.py"),
    }


def test_examples_are_shown_as_code() -> None:
    # The reference takes an "Example:" for text, and what a doctest prints for links.
    package = Path(lightning_mmnas.__file__).parent
    texts = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert sum(len(re.findall(r"^ +Examples:$", text, re.MULTILINE)) for text in texts.values()) > 40
    assert [str(path) for path, text in texts.items() if re.search(r"^ +Example:$", text, re.MULTILINE)] == []


def test_no_file_of_code_is_over_400_lines() -> None:
    files = [path for folder in ("lightning_mmnas", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    assert [str(path) for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 400] == []


def test_links_between_pages_lead_somewhere() -> None:
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which does not exist"


def templates() -> list[str]:
    """All texts in the package's code, with a character that is in no text in place of each value."""
    found = []
    for path in Path(lightning_mmnas.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_messages_of_troubleshooting_are_those_of_the_package() -> None:
    texts = templates()
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `(.+?)` \| ", page, re.MULTILINE)
    assert len(messages) > 30
    for message in messages:
        # Behind `…` is a value; where a template chooses between two texts, they are one value, too.
        parts = [part.strip() for part in message.split("…") if part.strip()]
        pattern = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
        assert any(pattern.search(text) for text in texts), f"no message of the package is {message!r}"
