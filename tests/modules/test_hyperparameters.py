"""Checkpoints of subclasses that save whatever they are built with load with `weights_only=True`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning import LightningModule
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_mmnas import (
    ArchitectureAlternation,
    EncoderPretraining,
    ExactResume,
    FineTuning,
    FusionNetwork,
    FusionPretraining,
    FusionSearch,
    ModalitySpec,
    TensorDataModule,
)
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.data.watch import load_watch
from lightning_mmnas.errors import MissingExtraError
from lightning_mmnas.modules.frozen import EncoderFactory
from tests.modules.tiny import ENCODERS, KINDS, data_of, modalities, same, split_of, state_of, trainer_of


def _fusion(shapes: dict[str, tuple[int, ...]]) -> nn.Module:
    from lightning_mmnas import FusionSpace

    space = FusionSpace(inputs=tuple(shapes), cells=1, channels=4, length=2)
    return FusionNetwork(next(iter(space.enumerate())), shapes)


class MyEncoders(EncoderPretraining):
    def __init__(self, modalities: dict[str, ModalitySpec], encoders: dict[str, Any], note: Any = 1) -> None:
        super().__init__(modalities, encoders)
        self.save_hyperparameters()


class MySearch(FusionSearch):
    def __init__(self, modalities: dict[str, ModalitySpec], encoders: dict[str, Any], note: Any = 1) -> None:
        super().__init__(modalities, encoders, cells=1, channels=4, length=2)
        self.save_hyperparameters()


class MyPretraining(FusionPretraining):
    def __init__(self, modalities: dict[str, ModalitySpec], encoders: dict[str, Any], note: Any = 1) -> None:
        super().__init__(modalities, encoders, fusion=_fusion)
        self.save_hyperparameters()


class MyFineTuning(FineTuning):
    def __init__(self, modalities: dict[str, ModalitySpec], encoders: dict[str, Any], note: Any = 1) -> None:
        super().__init__(modalities, encoders, 2, "multiclass", fusion=_fusion, mode="full")
        self.save_hyperparameters()


LEFT_OUT = pytest.mark.filterwarnings("default:The hyperparameters:UserWarning", "ignore:.*does not have many workers")


@LEFT_OUT
@pytest.mark.parametrize("kind", [MyEncoders, MySearch, MyPretraining, MyFineTuning])
def test_subclasses_that_save_everything_are_resumed(kind: type[Any], tmp_path: Path) -> None:
    data = data_of(architecture_fraction=0.5 if kind is MySearch else None, labels=kind is MyFineTuning)
    path = tmp_path / "first.ckpt"

    def fit(epochs: int, checkpoint: Path | None = None) -> LightningModule:
        torch.manual_seed(0)
        with pytest.warns(UserWarning, match=rf"'modalities', 'encoders'.* of {kind.__name__} are no plain values"):
            module: LightningModule = kind(data.modalities, ENCODERS, note=Path("a"))
        trainer = trainer_of(tmp_path, max_epochs=epochs, callbacks=_callbacks(kind), limit_val_batches=0)
        trainer.fit(module, data, ckpt_path=checkpoint)
        trainer.save_checkpoint(path)
        return module

    fit(2)
    stored = torch.load(path, weights_only=True)["hyper_parameters"]
    assert stored["note"] == "a"
    assert not {"modalities", "encoders"} & stored.keys()
    module = fit(2, path)  # finished: nothing changes
    with pytest.warns(UserWarning, match="no plain values"):
        loaded = kind.load_from_checkpoint(path, modalities=modalities(), encoders=ENCODERS, weights_only=True)
    assert loaded.hparams["note"] == "a"
    assert same(state_of(loaded), state_of(module))


def _callbacks(kind: type[Any]) -> list[Any]:
    return [ArchitectureAlternation()] if kind is MySearch else []


class Own(LightningModule):
    """No stage at all."""

    def __init__(self, settings: Any, loss: Any, table: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(3, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch).square().mean()
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Looks at nothing."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OwnData(TensorDataModule):
    def __init__(self, folder: Path, hidden: Any) -> None:
        super().__init__(split_of(8, 0), split_of(8, 1), split_of(8, 2), kinds=KINDS)
        self.save_hyperparameters()

    def train_dataloader(self) -> Any:
        samples: Any = torch.ones(4, 3)
        return DataLoader(samples)


@LEFT_OUT
def test_exact_resume_keeps_any_checkpoint_loadable(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"folder": Path("a"), "size": np.int64(3), "shape": (np.float32(2), None)}

    def build() -> tuple[Own, OwnData]:
        return Own(settings, abs, np.zeros(2)), OwnData(Path("b"), object())

    def fit(epochs: int, checkpoint: Path | None = None) -> None:
        module, data = build()
        trainer = trainer_of(tmp_path, max_epochs=epochs, callbacks=[ExactResume()])
        trainer.fit(module, data, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "own.ckpt")

    with pytest.warns(UserWarning, match="The hyperparameters") as told:
        fit(1)
    texts = [str(warning.message) for warning in told if "no plain values" in str(warning.message)]
    assert len(texts) == 2
    assert "['loss', 'table'] of Own are" in texts[0]
    assert "['hidden'] of OwnData are" in texts[1]
    stored = torch.load(tmp_path / "own.ckpt", weights_only=True)
    assert stored["hyper_parameters"] == {"settings": {"folder": "a", "size": 3, "shape": (2.0, None)}}
    assert stored["datamodule_hyper_parameters"] == {"folder": "b"}
    with pytest.warns(UserWarning, match="no plain values"):
        fit(2, tmp_path / "own.ckpt")


class FromConfig(FusionSearch):
    def __init__(self, modalities: dict[str, ModalitySpec], encoders: dict[str, Any], config: Any) -> None:
        super().__init__(modalities, encoders, cells=config["cells"], channels=4, length=2)
        self.save_hyperparameters(config)


def test_omegaconf_containers_are_saved_as_plain_values(tmp_path: Path) -> None:
    module = FromConfig(modalities(), ENCODERS, OmegaConf.create({"cells": 1, "more": {"a": "${cells}"}}))
    trainer = trainer_of(tmp_path, callbacks=[ArchitectureAlternation()])
    trainer.fit(module, data_of(architecture_fraction=0.5))
    trainer.save_checkpoint(tmp_path / "search.ckpt")
    stored = torch.load(tmp_path / "search.ckpt", weights_only=True)["hyper_parameters"]
    assert stored["more"] == {"a": 1}
    assert stored["cells"] == 1


class Narrow(FusionSearch):
    """Hides most arguments of the search, which the parser then does not know."""

    def __init__(
        self, modalities: dict[str, ModalitySpec], encoders: dict[str, EncoderFactory], note: Path = Path("a")
    ) -> None:
        super().__init__(modalities, encoders, cells=1, channels=4, length=2)
        self.save_hyperparameters()


@pytest.mark.slow
def test_a_subclass_with_fewer_arguments_on_the_command_line(tmp_path: Path) -> None:
    try:
        load_watch()
    except MissingExtraError as error:
        pytest.skip(str(error))
    last = tmp_path / "last.ckpt"
    callbacks = [
        {"class_path": "LastCheckpoint", "init_args": {"dirpath": str(tmp_path)}},
        {"class_path": "ArchitectureAlternation"},
    ]
    encoder = {"class_path": "MotionEncoder", "init_args": {"channels": [4, 4]}}
    content = {
        "run_dir": str(tmp_path),
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False, "callbacks": callbacks}
        | {"enable_progress_bar": False, "enable_model_summary": False, "limit_train_batches": 1}
        | {"limit_val_batches": 0},
        "model": {"class_path": f"{__name__}.Narrow", "init_args": {"encoders": {"motion": encoder}}},
        "data": {
            "class_path": "WatchDataModule",
            "init_args": {"stride": 512, "batch_size": 8, "labels": False, "architecture_fraction": 0.5},
        },
    }
    (tmp_path / "configs").mkdir()
    config = tmp_path / "configs" / "search.yaml"
    config.write_text(yaml.safe_dump(content))
    arguments = ["fit", "--config", str(config)]
    assert main(arguments) == 0
    assert torch.load(last, weights_only=True)["hyper_parameters"]["note"] == "a"
    assert main([*arguments, "--ckpt_path", str(last)]) == 0
