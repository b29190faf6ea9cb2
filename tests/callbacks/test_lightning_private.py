"""Lightning's private parts are used in one file, so that an update of Lightning is an update of that file."""

import ast
import re
from pathlib import Path
from typing import Any

import lightning
import pytest
from lightning.pytorch import Trainer
from packaging.version import Version

import lightning_mmnas
from lightning_mmnas.callbacks import lightning_private
from lightning_mmnas.callbacks.batch_norm_sync import BatchNormSync

PACKAGE = Path(lightning_mmnas.__file__).parent
OWN = {"self", "cls", "super()"}


def private_uses(path: Path) -> list[str]:
    """Private attributes of other objects, private imports from Lightning, and overridden private methods."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(attr=name, value=value) if re.match(r"_(?!_)", name):
                if ast.unparse(value) not in OWN and name != "_replace":  # of a named tuple
                    found.append(ast.unparse(node))
            case ast.ImportFrom(module=str(module)) if module.startswith("lightning."):
                found += [f"{module}.{alias.name}" for alias in node.names if alias.name.startswith("_")]
            case ast.FunctionDef(name=name) if re.match(r"_(?!_)", name):
                if any(ast.unparse(decorator) == "override" for decorator in node.decorator_list):
                    found.append(name)
    return found


def test_private_parts_stand_in_one_file() -> None:
    home = Path(lightning_private.__file__)
    assert len(private_uses(home)) >= 8  # so that this test can see them
    elsewhere = {str(p.relative_to(PACKAGE)): uses for p in PACKAGE.rglob("*.py") if (uses := private_uses(p))}
    # torch has no public way to ask whether a function is being transformed
    assert set(elsewhere.pop("fusion/fused.py")) == {"torch._C", "torch._C._are_functorch_transforms_active"}
    # nor to see that a module is compiled, or to compile it with inputs of one layout
    assert set(elsewhere.pop("fusion/compiling.py")) == {
        "fusion._call_impl",
        "fusion._compiled_call_impl",
        "part._compiled_call_impl",
    }
    assert elsewhere.pop("modules/averaging.py") == [
        "callback._parameters_to_prune"
    ]  # which stands below the callbacks
    assert elsewhere.keys() == {str(home.relative_to(PACKAGE))}
    loops = [
        p for p in PACKAGE.rglob("*.py") if re.search(r"\bfit_loop\b|\bepoch_loop\b", p.read_text(encoding="utf-8"))
    ]
    assert sorted(loops) == [home, PACKAGE / "modules" / "length.py"]  # which stands below the callbacks


def test_the_installed_lightning_is_among_those_it_was_tested_with() -> None:
    assert lightning_private.__doc__ is not None
    oldest, newest = re.findall(r"2\.\d+\.\d+", lightning_private.__doc__)
    assert Version(oldest) <= Version(lightning.__version__)
    assert Version(lightning.__version__).release[:2] <= Version(newest).release[:2]


@pytest.mark.parametrize(("asked", "kind"), [(True, BatchNormSync), (False, type(None))])
def test_batch_norm_is_synchronised_where_asked(asked: bool, kind: type) -> None:
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=asked, logger=False)
    lightning_private.synchronise_batch_norm(trainer)
    strategy: Any = trainer.strategy
    assert type(strategy._layer_sync) is kind
