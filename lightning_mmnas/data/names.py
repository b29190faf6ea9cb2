"""Names of modalities: which can be one, and how a column's name becomes one."""

import keyword
import re
import unicodedata
from collections.abc import Collection

from torch import nn

from lightning_mmnas.data.samples import LABEL

_YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf")
_CONFIG_WORDS = ("class_path", "init_args", "dict_kwargs")
_LONGEST = 40


def flaw(name: str) -> str | None:
    """Why a name cannot be that of a modality; None: it can."""
    if not name or any(character in name for character in "./\\") or not name.isprintable() or "${" in name:
        return "it is empty, or holds a dot, a slash, '${' or a character that cannot be printed"
    if name == LABEL:
        return "that is what the label of a sample is called"
    if name in _CONFIG_WORDS:
        return "that is a word of configurations"
    if hasattr(nn.ModuleDict(), name):
        return "modules have an attribute of that name"
    return None


def safe_name(text: str, instead: str, taken: Collection[str] = ()) -> str:
    """A name for a modality that is safe wherever it is written: files, configurations, options, modules.

    Args:
        text: What it is made from, such as a column's name.
        instead: What to call it where nothing of that can be kept.
        taken: Names in use, from which it differs in more than upper and lower case.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9]+", "_", plain)[:_LONGEST].strip("_") or instead
    if name[0].isdigit():
        name = f"{instead}_{name}"
    if flaw(name) is not None or keyword.iskeyword(name) or name.lower() in _YAML_WORDS:
        name = f"{name}_"
    used = {one.lower() for one in taken}
    number, unique = 1, name
    while unique.lower() in used:
        number += 1
        unique = f"{name}_{number}"
    return unique
