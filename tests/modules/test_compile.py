"""``compile: true``: the numbers of a training without it, and what is refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, seed_everything
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lightning_mmnas import ArchitectureAlternation, FineTuning, FusionPretraining, FusionSearch, FusionSpace
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.fusion import compiling
from lightning_mmnas.fusion.fused import readable
from lightning_mmnas.fusion.relaxation import GumbelHard, Softmax
from tests.modules.tiny import ENCODERS, data_of, modalities, split_of, state_of, trainer_of

SMALL: dict[str, Any] = {
    "cells": 1,
    "channels": 4,
    "length": 2,
    "primitives": ("sum", "linear_glu"),
    "projection_hidden": 8,
    "projection_out": 4,
}

GENOTYPE = FusionSpace(inputs=("left/0", "right/0"), cells=1, channels=4, length=2, primitives=("sum",)).sample(
    torch.Generator().manual_seed(0)
)


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR", "")  # set by torch; taken back after the test
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class BySGD(LightningModule):
    """Adam would step by the rounding of gradients that are zero, such as a bias's before a batch norm."""

    was_compiled = False

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)

    def on_train_batch_end(self, *given: Any) -> None:
        self.was_compiled = any(part._compiled_call_impl is not None for part in self.modules())


class Search(BySGD, FusionSearch):
    pass


class Tuning(BySGD, FineTuning):
    pass


class Pretraining(BySGD, FusionPretraining):
    pass


def search(folder: Path, compile: bool, order: Any = 1, **changes: Any) -> FusionSearch:
    seed_everything(0, verbose=False)
    module = Search(modalities(), ENCODERS, compile=compile, **SMALL, **changes)
    data = data_of(architecture_fraction=0.5)
    trainer_of(folder, max_epochs=2, limit_val_batches=1, callbacks=[ArchitectureAlternation(lr=0.1, order=order)]).fit(
        module, data
    )
    assert module.was_compiled == compile
    return module


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_a_compiled_search_ends_in_the_same_logits(tmp_path: Path, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is captured and differentiated, without the minutes of a C++ compiler.
    monkeypatch.setattr(compiling, "OPTIONS", {"backend": "aot_eager", "fullgraph": True})
    terms = {"relaxation": Softmax(2.0, 0.2), "cross_modal_weight": 0.5 * (order == 1)}
    with readable():  # the fused forms round otherwise
        plain, compiled = (state_of(search(tmp_path, compile, order, **terms)) for compile in (False, True))
    assert compiled.keys() == plain.keys()
    assert max(float(logit.abs().max()) for name, logit in plain.items() if "alpha" in name) > 0.1
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_compiled_pretraining_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a pool of compiling threads, which would stay.
    monkeypatch.setitem(compiling.OPTIONS["options"], "compile_threads", 1)
    states = []
    for compile in (False, True):
        seed_everything(0, verbose=False)
        module = Pretraining(modalities(), ENCODERS, GENOTYPE, compile=compile, projection_hidden=8, projection_out=4)
        trainer_of(tmp_path, limit_val_batches=0).fit(module, data_of())
        states.append(state_of(module))
        assert module.was_compiled == compile
        assert module.network._compiled_call_impl is None  # after the training
    torch.testing.assert_close(states[1], states[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["mixture", "linear_probe"])
def test_a_compiled_fine_tuning_ends_in_the_same_weights(tmp_path: Path, mode: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(compiling, "OPTIONS", {"backend": "aot_eager", "fullgraph": True})
    counters.clear()
    states = []
    for compile in (False, True):
        seed_everything(0, verbose=False)
        module = Tuning(modalities(), ENCODERS, 2, "multiclass", GENOTYPE, mode=mode, compile=compile)
        trainer_of(tmp_path, limit_val_batches=1).fit(module, data_of(labels=True))
        assert module.was_compiled == compile
        states.append(state_of(module))
    torch.testing.assert_close(states[1], states[0], rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1  # of the steps: PyTorch keeps eight


class Masked(nn.Module):
    """Of one's own: features that are no tensors, and an argument besides."""

    out_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 3)

    def forward(self, features: Any, twice: bool = False) -> Tensor:
        value, mask = features["left/0"]
        out: Tensor = self.last(value * mask)
        return 2 * out if twice else out


def broken(graph: Any, inputs: Any) -> Any:
    raise ValueError("no such device\nin many lines")


def test_networks_of_ones_own_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "OPTIONS", {"backend": "aot_eager"})
    network = Masked()
    features: Any = {"left/0": (torch.ones(2, 3), torch.zeros(2, 1))}
    expected = network(features, twice=True)
    compiling.compile_fusion(network, torch.device("cpu"))
    torch.testing.assert_close(network(features, twice=True), expected)
    monkeypatch.setattr(compiling, "OPTIONS", {"backend": broken})
    torch.compiler.reset()
    compiling.compile_fusion(network, torch.device("cpu"))
    with pytest.raises(
        ConfigError, match=r"Masked cannot be compiled \(.*no such device\): leave model.init_args.comp"
    ):
        network(features)


@pytest.mark.parametrize("compile", [False, True])
def test_a_batch_of_one_sample_is_told_likewise(compile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "OPTIONS", {"backend": "aot_eager"})
    module = FineTuning(modalities(), ENCODERS, 2, "multiclass", GENOTYPE, mode="full")
    if compile:
        compiling.compile_fusion(module.network, torch.device("cpu"))
    with pytest.raises(DataError, match="a training batch has one sample, and batch norm needs two"):
        module.training_step({name: value[:1] for name, value in split_of(4, 0).items()}, 0)


def test_what_cannot_be_compiled_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"GumbelHard draws anew in each pass, .*leave model.init_args.compile at fal"
    ):
        search(tmp_path, True, relaxation=GumbelHard())
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "/opt/c++-12" else None)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler, and none was found: install"):
        search(tmp_path, True)
    monkeypatch.setenv("CXX", "/opt/c++-12")  # which PyTorch takes
    compiling.compile_fusion(Masked(), torch.device("cpu"))
