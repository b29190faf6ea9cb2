"""Configurations are written so that every loader reads them as they were meant."""

import math

import pytest
import yaml
from jsonargparse._loaders_dumpers import yaml_load
from lightning.pytorch.callbacks.timer import Interval
from omegaconf import OmegaConf

from lightning_mmnas.commands.quoting import dump_yaml

TEXTS = [
    "2e5",
    "1_0",
    "1e5",
    "1.5",
    ".5",
    "-1e-3",
    "0x1f",
    "0o7",
    ".inf",
    "nan",
    ".nan",
    "1:30",
    "on",
    "null",
    "~",
    "",
    "a: b",
]
VALUES = [1e-05, 1e20, 2e5, 1.5, 3, True, None, math.inf]


@pytest.mark.parametrize("value", [*TEXTS, *VALUES])
def test_all_loaders_agree(value: object) -> None:
    text = dump_yaml({"a": value, "b": [value]})
    expected = {"a": value, "b": [value]}
    assert yaml.safe_load(text) == expected
    assert yaml_load(text) == expected  # type: ignore[no-untyped-call]
    assert OmegaConf.to_container(OmegaConf.create(text)) == expected


def test_a_default_that_is_an_enumeration_s_member() -> None:
    """Of `Timer`, whose argument is a text otherwise."""
    assert yaml.safe_load(dump_yaml({"interval": Interval.step})) == {"interval": "step"}
