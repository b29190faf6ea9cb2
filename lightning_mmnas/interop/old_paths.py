"""Module paths of earlier versions, which lead to the new ones for this release, with a `DeprecationWarning`."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = "lightning_mmnas."

MOVED = {
    "baselines": ("fusion.late_fusion",),
    "budget": ("costs.budget",),
    "caching": ("commands.cache",),
    "canonical": ("space.canonical",),
    "cli": ("commands.lightning_cli", "commands.mmnas"),
    "compact": ("fusion.compact",),
    "compare": ("commands.compare",),
    "cost_command": ("commands.cost",),
    "counting": ("space.counting",),
    "criteria": ("objectives.criteria",),
    "data.arrays": ("data.columns.arrays",),
    "data.audio": ("data.columns.audio",),
    "data.images": ("data.columns.images",),
    "data.mmimdb_files": ("data.mmimdb.files",),
    "data.mnist": ("data.avmnist.mnist",),
    "data.prepare_avmnist": ("data.avmnist.prepare",),
    "data.skeletons": ("data.columns.skeletons",),
    "data.table_columns": ("data.table.columns",),
    "data.table_reading": ("data.table.reading",),
    "data.table_splits": ("data.table.splits",),
    "data.texts": ("data.columns.texts",),
    "data.video": ("data.columns.video",),
    "data_command": ("commands.data", "commands.data_summary"),
    "decoding": ("fusion.decoding",),
    "genotype": ("space.genotype",),
    "grouped_layers": ("fusion.grouped_layers",),
    "init": ("commands.init.command",),
    "init_columns": ("commands.init.columns",),
    "init_configs": ("commands.init.configs",),
    "input_nodes": ("fusion.input_nodes",),
    "measuring": ("costs.measuring",),
    "messages": ("commands.messages",),
    "modules.candidate": ("modules.candidates", "objectives.training", "objectives.groups"),
    "modules.cost": ("modules.search_cost",),
    "modules.encoders": ("modules.pretrain_encoders",),
    "network": ("fusion.network",),
    "network_group": ("fusion.network_group",),
    "pairing": ("fusion.pairing",),
    "patterns": ("space.patterns",),
    "pipeline": ("commands.run", "commands.stages", "commands.versions", "files"),
    "prepare": ("commands.prepare",),
    "primitives": ("fusion.primitives",),
    "readout": ("fusion.readout",),
    "regularisation": ("objectives.regularisation",),
    "relaxation": ("fusion.relaxation",),
    "report.comparison": ("comparison.comparison", "comparison.settings"),
    "report.data": ("report.data_summary",),
    "sampling.command": ("commands.sample", "commands.sampled_search"),
    "selection": ("objectives.criteria", "objectives.selection", "objectives.training", "objectives.losses"),
    "single_path": ("fusion.single_path",),
    "supernet": ("fusion.supernet",),
    "tabular.job": ("commands.tabulate",),
}
"""Old module: the new ones that its names went to."""


class OldPaths(MetaPathFinder, Loader):
    """Finds modules at the paths that they had in earlier versions, where nothing else is found."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A module of ours at its old path."""
        ours = fullname.startswith(_PACKAGE) and fullname.removeprefix(_PACKAGE) in MOVED
        return ModuleSpec(fullname, self) if ours else None

    def exec_module(self, module: ModuleType) -> None:
        """Fills the old module with a look-up in the new ones."""
        homes = [_PACKAGE + new for new in MOVED[module.__name__.removeprefix(_PACKAGE)]]
        warnings.warn(
            f"{module.__name__} has moved to {' and '.join(homes)}; the old path will go with the next release",
            DeprecationWarning,
            stacklevel=2,
        )

        def look_up(name: str) -> Any:
            # `__file__` and the like are asked for by whoever looks through all modules, such as torch while it loads.
            for home in homes if not name.startswith("__") else ():
                new = import_module(home)
                if hasattr(new, name):
                    return getattr(new, name)
            raise AttributeError(f"neither {' nor '.join(homes)} has {name!r}")

        module.__dict__["__getattr__"] = look_up


def install() -> None:
    """Makes the old paths importable, once."""
    if not any(isinstance(finder, OldPaths) for finder in sys.meta_path):
        sys.meta_path.append(OldPaths())
