"""Module paths of earlier versions lead to the new ones, and say so."""

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import lightning.pytorch  # noqa: F401  # its first import sets an environment variable: not within a test
import pytest

from lightning_mmnas.interop.old_paths import MOVED

# What the pages of the documentation showed at paths that are packages now.
STILL = {
    "commands": ["main", "Parser"],
    "costs": ["Conditions", "CostTable", "UNITS"],
    "data.avmnist": ["AVMNISTDataModule"],
    "data.columns": ["Column", "ColumnSamples", "FileColumn", "TensorColumn"],
    "data.mmimdb": ["MMIMDBDataModule"],
    "data.table": ["TableDataModule"],
    "objectives": ["CrossModalInfoNCE", "classification_loss", "nt_xent"],
    "space": ["FusionSpace", "SYMMETRIC_PRIMITIVES", "is_symmetric"],
}


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_warns_and_leads_to_the_new_one(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"lightning_mmnas.{old}"
    for new in MOVED[old]:
        assert find_spec(f"lightning_mmnas.{new}") is not None
    with pytest.warns(DeprecationWarning, match=f"{name} has moved to lightning_mmnas.{MOVED[old][0]}"):
        module = import_module(name)
    monkeypatch.delitem(sys.modules, name)
    for new in MOVED[old]:
        home = import_module(f"lightning_mmnas.{new}")
        own = [key for key, value in vars(home).items() if getattr(value, "__module__", None) == home.__name__]
        assert own
        for key in own:
            first = next(other for other in MOVED[old] if hasattr(import_module(f"lightning_mmnas.{other}"), key))
            assert getattr(module, key) is getattr(import_module(f"lightning_mmnas.{first}"), key)
    with pytest.raises(AttributeError, match="'nothing'"):
        module.nothing  # noqa: B018


@pytest.mark.parametrize("package", STILL)
def test_paths_that_are_packages_now_have_their_names(package: str) -> None:
    module = import_module(f"lightning_mmnas.{package}")
    assert not [name for name in STILL[package] if not hasattr(module, name)]


@pytest.mark.slow
def test_every_way_of_importing() -> None:
    code = """
from lightning_mmnas import measuring
from lightning_mmnas.genotype import FusionSpace, Genotype
import lightning_mmnas.supernet
from lightning_mmnas.selection import Criterion, train_together
assert lightning_mmnas.supernet.FusionSupernet and measuring.measure_latency
"""
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("DeprecationWarning: lightning_mmnas.") == 4
