"""Checkpoints of stages: what they bring, and what need not be given to load them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_mmnas import EncoderPretraining, FineTuning, FusionPretraining, FusionSearch, FusionSpace
from lightning_mmnas.errors import CheckpointError
from lightning_mmnas.modules.frozen import FrozenEncoders, build_encoders, load_part
from tests.modules.tiny import ENCODERS, data_of, modalities, same, state_of, trainer_of

SMALL: dict[str, Any] = {"channels": 4, "length": 2, "projection_hidden": 8, "projection_out": 4}
GENOTYPE = FusionSpace(inputs=("left/0", "left/1", "right/0", "right/1"), channels=4, length=2).sample(
    torch.Generator().manual_seed(0)
)


class HandsOn(FineTuning):
    """As users write it who want to change nothing about the arguments."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)


class Wired(FineTuning):
    """One architecture, which nobody is to give."""

    def __init__(self, **given: Any) -> None:
        super().__init__(genotype=GENOTYPE, **given)


class Taught(FineTuning):
    """With a teacher that is not among its weights."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        teacher = FrozenEncoders(build_encoders(given["modalities"], given["encoders"]))
        load_part(teacher.encoders, given["encoder_weights"], "encoders.", "teacher")
        self.teacher = (teacher,)


def test_checkpoints_bring_their_genotype(tmp_path: Path) -> None:
    path = tmp_path / "stage.ckpt"
    stages: list[tuple[Any, dict[str, Any]]] = [
        (FusionPretraining(modalities(), ENCODERS, genotype=GENOTYPE), {}),
        (FineTuning(modalities(), ENCODERS, 2, "multiclass", genotype=GENOTYPE), {"labels": True}),
    ]
    for stage, changes in stages:
        trainer_of(tmp_path).fit(stage, data_of(**changes))
        stage.trainer.save_checkpoint(path)
        loaded = type(stage).load_from_checkpoint(path, modalities=modalities(), encoders=ENCODERS)
        assert loaded.network.genotype == GENOTYPE
        assert same(state_of(loaded), state_of(stage))
    loaded = HandsOn.load_from_checkpoint(path, modalities=modalities(), encoders=ENCODERS)
    assert loaded.network.genotype == GENOTYPE
    with path.open("rb") as file:  # from a file that is open it is given, as before
        FineTuning.load_from_checkpoint(file, modalities=modalities(), encoders=ENCODERS, genotype=GENOTYPE)
    with pytest.raises(FileNotFoundError):
        FineTuning.load_from_checkpoint(tmp_path / "none.ckpt", modalities=modalities(), encoders=ENCODERS)


def test_checkpoints_load_where_the_files_of_earlier_stages_are_gone(tmp_path: Path) -> None:
    earlier, path = tmp_path / "encoders.ckpt", tmp_path / "stage.ckpt"
    network = tmp_path / "network.ckpt"
    trainer = trainer_of(tmp_path)
    for stage, file in (
        (EncoderPretraining(modalities(), ENCODERS, projection_hidden=8, projection_out=4), earlier),
        (FusionPretraining(modalities(), ENCODERS, genotype=GENOTYPE), network),
    ):
        trainer.strategy.connect(stage)
        trainer.save_checkpoint(file)
    given: dict[str, Any] = {"modalities": modalities(), "encoders": ENCODERS}
    first = str(earlier)
    stages: list[Any] = [
        FusionSearch(**given, encoder_weights=first, **SMALL),
        FusionPretraining(**given, encoder_weights=first, genotype=GENOTYPE),
        FineTuning(
            **given,
            num_classes=2,
            task="multiclass",
            encoder_weights=first,
            network_weights=str(network),
            genotype=GENOTYPE,
        ),
    ]
    earlier.unlink()
    network.unlink()
    for stage in stages:
        trainer.strategy.connect(stage)
        trainer.save_checkpoint(path)
        loaded = type(stage).load_from_checkpoint(path, **given)
        assert same(state_of(loaded), state_of(stage))
        assert getattr(loaded, "pretrained", True)  # as it was, though nothing was read
        assert same(state_of(type(stage).load_from_checkpoint(path, **given, strict=False)), state_of(stage))
        content = torch.load(path, weights_only=True)
        del content["state_dict"][next(iter(loaded.encoders.state_dict(prefix="encoders.")))]
        torch.save(content, path)
        with (
            pytest.raises(CheckpointError, match=r"no checkpoint at '.*encoders.ckpt'"),
            pytest.warns(UserWarning, match="in the model state dict but not in the checkpoint"),
        ):
            type(stage).load_from_checkpoint(path, **given, strict=False)


def test_a_subclass_that_gives_the_genotype_itself_is_loaded(tmp_path: Path) -> None:
    path, trainer = tmp_path / "stage.ckpt", trainer_of(tmp_path)
    given: dict[str, Any] = {"modalities": modalities(), "encoders": ENCODERS}
    stage = Wired(**given, num_classes=2, task="multiclass")
    trainer.strategy.connect(stage)
    trainer.save_checkpoint(path)
    assert same(state_of(Wired.load_from_checkpoint(path, **given)), state_of(stage))


def test_weights_that_a_checkpoint_does_not_hold_are_read_from_their_file(tmp_path: Path) -> None:
    earlier, path, trainer = tmp_path / "encoders.ckpt", tmp_path / "stage.ckpt", trainer_of(tmp_path)
    given: dict[str, Any] = {"modalities": modalities(), "encoders": ENCODERS}
    encoders = EncoderPretraining(**given, projection_hidden=8, projection_out=4)
    trainer.strategy.connect(encoders)
    trainer.save_checkpoint(earlier)
    stage = Taught(**given, encoder_weights=str(earlier), num_classes=2, task="multiclass", genotype=GENOTYPE)
    trainer.strategy.connect(stage)
    trainer.save_checkpoint(path)
    (teacher,) = Taught.load_from_checkpoint(path, **given, encoder_weights=str(earlier)).teacher
    assert same(state_of(teacher.encoders), state_of(encoders.encoders))
    earlier.unlink()
    with pytest.raises(CheckpointError, match=r"teacher: no checkpoint at '.*encoders.ckpt'"):
        Taught.load_from_checkpoint(path, **given, encoder_weights=str(earlier))
