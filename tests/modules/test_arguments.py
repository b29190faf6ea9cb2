"""Arguments that a script gives to a stage: looked at as the command line does, where another value would be silent."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightly.loss import VICRegLoss
from torch import nn

from lightning_mmnas import EncoderPretraining, FineTuning, FusionNetwork, FusionPretraining, FusionSearch, FusionSpace
from lightning_mmnas.errors import ConfigError, GenotypeError
from tests.modules.tiny import ENCODERS, modalities

GENOTYPE = FusionSpace(inputs=("left/0", "right/1"), channels=4, length=2).sample(torch.Generator().manual_seed(0))
FINE = partial(FineTuning, modalities(), ENCODERS, 2, genotype=GENOTYPE)
CASES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "schedule": (FusionSearch, {"schedule": "linear"}, r"schedule must be one of \['one_cycle', .* got 'linear'"),
    "readout": (FusionSearch, {"readout": "mean"}, r"readout must be one of \['flatten', .* got 'mean'"),
    "pool": (FusionPretraining, {"genotype": GENOTYPE, "pool": "mean"}, r"pool must be one of \['max', 'avg'\]"),
    "objective": (
        EncoderPretraining,
        {"objective": VICRegLoss},
        "must be a module, got the class VICRegLoss, which is",
    ),
    "relaxation": (FusionSearch, {"relaxation": "gumbel"}, "relaxation must be a module, got 'gumbel'"),
    "rate": (EncoderPretraining, {"lr": -0.1}, "lr must be a number of at least 0, got -0.1"),
    "text": (EncoderPretraining, {"weight_decay": "1e-4"}, "weight_decay must be a number of at least 0, got '1e-4'"),
    "temperature": (FusionSearch, {"temperature": -0.2}, "temperature must be > 0, got -0.2"),
    "list": (FusionSearch, {"augmentations": [nn.Dropout()]}, r"augmentations are dicts by .*, got \[Dropout"),
    "class": (FusionSearch, {"augmentations": {"motion": nn.Dropout}}, "augmentation of 'motion' is no module"),
    "encoders": (FusionSearch, {"encoders": ENCODERS["motion"]}, "encoders and augmentations are dicts by"),
    "modalities": (FusionSearch, {"modalities": ["left", "right"]}, r"dict of ModalitySpec by name, .* got \['left'"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_in_a_line(case: str) -> None:
    kind, arguments, message = CASES[case]
    with pytest.raises(ConfigError, match=message):
        kind(**{"modalities": modalities(), "encoders": ENCODERS, **arguments})


def test_tasks_and_modes_of_fine_tuning() -> None:
    for task, message in (
        ("binary", "task must be one of .* got 'binary'"),
        (None, "needs the task beside num_classes"),
    ):
        with pytest.raises(ConfigError, match=message):
            FINE(task)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"mode must be one of .* got 'probe'"):
        FINE("multiclass", mode="probe")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="readout must be one of"):
        FusionNetwork(GENOTYPE, {"left/0": (4, 8), "right/1": (6, 4)}, "mean")  # type: ignore[arg-type]
    for words in ({"pool": "mean"}, {"grid": "round"}):
        with pytest.raises(ConfigError, match=f"{next(iter(words))} must be one of"):
            FusionNetwork(GENOTYPE, {"left/0": (4, 8), "right/1": (6, 4)}, **words)  # type: ignore[arg-type]


def test_genotypes(tmp_path: Path) -> None:
    path = tmp_path / "genotype.json"
    GENOTYPE.save(path)
    # Not in the annotation, from which the command line would make a Path that a stored configuration does not hold.
    module = FusionPretraining(modalities(), ENCODERS, genotype=path)  # type: ignore[arg-type]
    assert module.network.genotype == GENOTYPE
    for given, message in (
        (GENOTYPE.to_json(), "a path is needed, and JSON text was given"),
        ({}, "got dict; Genotype."),
    ):
        with pytest.raises(GenotypeError, match=message):
            FusionPretraining(modalities(), ENCODERS, genotype=given)  # type: ignore[arg-type]


def test_subclasses_have_arguments_of_their_own() -> None:
    class Mine(EncoderPretraining):
        def __init__(self, schedule: str = "mine", **arguments: Any) -> None:
            super().__init__(**arguments)
            self.save_hyperparameters(ignore=["modalities", "encoders"])

    assert Mine(modalities=modalities(), encoders=ENCODERS).hparams["schedule"] == "mine"
