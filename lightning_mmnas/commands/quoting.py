"""YAML that every loader reads as it was meant, whichever of them takes what for a number."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

import yaml

_NUMBER = re.compile(
    r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)|0[xXoObB]\w+"
)
"""What YAML 1.1 or 1.2 or OmegaConf takes for a number."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer quotes what its own reader takes for a number; OmegaConf takes ``2e5`` for one, too."""


# A default that is one, such as the interval of `Timer`, where the argument is a text.
_Dumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def dump_yaml(data: Any) -> str:
    """Plain data as YAML, as jsonargparse writes it, but with all texts quoted that may be read as something else."""
    return str(yaml.dump(data, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False))
