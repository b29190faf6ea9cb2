"""Averages of weights beside a search and a feature cache: of what is trained by the weights' optimiser alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from lightning_mmnas import ArchitectureAlternation, FeatureCaching
from lightning_mmnas.callbacks.last_checkpoint import LastCheckpoint
from tests.callbacks.searchers import Searcher, differences, loaders, trainer, values
from tests.callbacks.test_caching import data_of, finetuning_of
from tests.modules.tiny import trainer_of


@pytest.mark.parametrize("first", [True, False])
def test_logits_are_not_averaged(first: bool, tmp_path: Path) -> None:
    """The default decay would have left them, after a short search, nearly where they began."""

    def searched(*averaging: Any) -> dict[str, Tensor]:
        module, alternation = Searcher(), ArchitectureAlternation(lr=0.1)
        order = [*averaging, alternation] if first else [alternation, *averaging]
        last = LastCheckpoint(tmp_path)
        trainer(tmp_path, *order, last, limit_val_batches=0).fit(module, loaders())
        found = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
        assert not differences(found, values(module))
        return values(module)

    plain, averaged = searched(), searched(EMAWeightAveraging(decay=0.9, update_every_n_steps=2))
    assert differences(plain, averaged) == [
        f"net.{layer}.{name}" for layer in ("first", "second", "head") for name in ("weight", "bias")
    ]
    assert (plain["net.alpha"] != 0).all()


def test_encoders_of_stored_features_are_not_averaged(tmp_path: Path) -> None:
    """They would not be the same any more, by rounding."""
    module = finetuning_of()
    data = data_of(labels=True, architecture_fraction=None)
    encoders = values(module.encoders)
    caching, averaging = FeatureCaching(str(tmp_path / "features"), views=2), EMAWeightAveraging(decay=0.99)
    run = trainer_of(tmp_path, callbacks=[caching, averaging])
    run.fit(module, datamodule=data)
    assert not differences(encoders, values(module.encoders))
    assert run.test(module, datamodule=data, verbose=False)
