"""The weights of a search's choices after every epoch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_mmnas.callbacks.weight_record import choices, record
from lightning_mmnas.fusion.pairing import Pairing
from lightning_mmnas.fusion.supernet import FusionSupernet
from lightning_mmnas.space import FusionSpace, Genotype

INPUTS = ("a/0", "a/1", "b/0")


def supernet(pairing: Pairing = "independent", **arguments: Any) -> FusionSupernet:
    space = FusionSpace(inputs=INPUTS, **{"cells": 2, "steps": 2, "channels": 4, "length": 2, **arguments})
    return FusionSupernet(space, dict.fromkeys(space.inputs, (3,)), pairing=pairing)


def test_of_one_hot_logits_the_largest_weights_are_the_genotype() -> None:
    net = supernet()
    genotype = Genotype.model_validate(net.space.sample(torch.Generator().manual_seed(3)).model_dump())
    net.set_architecture(genotype)
    found = {name: max(weights, key=lambda option: weights[option]) for name, weights in choices(net).items()}
    for i, cell in enumerate(genotype.cells):
        assert {found[f"cell{i} x"], found[f"cell{i} y"]} == set(cell.inputs)
        for t, step in enumerate(cell.steps):
            assert found[f"cell{i} step{t}"].removesuffix(", swapped") == step.primitive
        assert {found[f"cell{i} step1 first"], found[f"cell{i} step1 second"]} == set(cell.steps[1].inputs)


@pytest.mark.parametrize("pairing", ["independent", "tied"])
def test_undecided_weights_are_uniform(pairing: Pairing) -> None:
    for name, weights in choices(supernet(pairing)).items():
        even = 0.5 if name.endswith("inputs") else 1 / len(weights)
        assert list(weights.values()) == pytest.approx([even] * len(weights), abs=1e-4)


def test_an_epoch_is_written_once_whatever_was_there(tmp_path: Path) -> None:
    path, net = tmp_path / "genotype.weights.json", supernet()
    for epoch in (0, 1, 2, 1):  # resumed from a checkpoint after epoch 0
        record(path, epoch, net)
    content = json.loads(path.read_text())
    assert [entry["epoch"] for entry in content["epochs"]] == [0, 1]
    assert content["epochs"][0]["weights"].keys() == content["choices"].keys()
    record(path, 1, supernet(cells=1))  # another search: nothing of the old one is kept
    assert [entry["epoch"] for entry in json.loads(path.read_text())["epochs"]] == [1]
    path.write_text("{")
    record(path, 5, net)
    assert [entry["epoch"] for entry in json.loads(path.read_text())["epochs"]] == [5]
