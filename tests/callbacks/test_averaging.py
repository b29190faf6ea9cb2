"""Averages of weights beside a search and a feature cache: of what is trained by the weights' optimiser alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelPruning, StochasticWeightAveraging, WeightAveraging
from torch import Tensor

from lightning_mmnas import ArchitectureAlternation, EncoderPretraining, FeatureCaching
from lightning_mmnas.callbacks.last_checkpoint import LastCheckpoint
from lightning_mmnas.commands.messages import explain
from lightning_mmnas.errors import ConfigError
from tests.callbacks.searchers import Searcher, differences, loaders, trainer, values
from tests.callbacks.test_caching import data_of, finetuning_of, search_of
from tests.modules import tiny
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


def test_neither_logits_nor_encoders_are_averaged(tmp_path: Path) -> None:
    """Two callbacks that leave something out, each its own."""
    module = search_of()
    encoders = values(module.encoders)
    caching, averaging = FeatureCaching(str(tmp_path / "features"), views=2), EMAWeightAveraging(decay=0.99)
    run = trainer_of(tmp_path, callbacks=[caching, averaging, ArchitectureAlternation()])
    run.fit(module, datamodule=data_of())
    assert not differences(encoders, values(module.encoders))


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
@pytest.mark.parametrize("mode", ["mixture", "linear_probe"])
def test_swa_spares_batch_norms_that_see_no_batch(mode: Any, tmp_path: Path) -> None:
    """They would be left at zeros and ones; those that are trained take their statistics anew."""
    module = finetuning_of(mode=mode)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d) and part.running_mean is not None:
            part.running_mean.fill_(0.5)
    encoders, network = values(module.encoders), values(module.network)
    data = data_of(labels=True, architecture_fraction=None)
    trainer_of(tmp_path, callbacks=[StochasticWeightAveraging(1e-3)], max_epochs=2).fit(module, datamodule=data)
    assert not differences(encoders, values(module.encoders))
    changed = [name for name in differences(network, values(module.network)) if "running_mean" in name]
    assert bool(changed) == (mode == "mixture")
    if module.mixture is not None:
        start = {n: v for n, v in module.mixture.start.named_buffers() if n.endswith("num_batches_tracked")}
        assert start
        assert all(start.values())


def test_a_mixture_is_averaged(tmp_path: Path) -> None:
    module = finetuning_of(mode="mixture")
    data = data_of(labels=True, architecture_fraction=None)
    trainer_of(tmp_path, callbacks=[WeightAveraging()], max_epochs=2).fit(module, datamodule=data)
    assert module.mixture is not None
    assert bool(module.mixture.fitted)


@pytest.mark.parametrize(
    ("averaging", "message"),
    [
        (EMAWeightAveraging(update_starting_at_step=1000), r"update_starting_at_step=1000, .* begin earlier"),
        (EMAWeightAveraging(update_every_n_steps=0), "update_every_n_steps=0"),
        (StochasticWeightAveraging(0.1, swa_epoch_start=3), "swa_epoch_start=3"),
    ],
)
def test_an_average_of_nothing_is_refused(averaging: Any, message: str, tmp_path: Path) -> None:
    data = data_of(labels=True, architecture_fraction=None)
    run = trainer_of(tmp_path, callbacks=[averaging], max_epochs=2)
    with pytest.raises(ConfigError, match=f"{type(averaging).__name__} .*{message}"):
        run.fit(finetuning_of(), datamodule=data)


def test_frozen_weights_are_not_pruned(tmp_path: Path) -> None:
    data = data_of(labels=True, architecture_fraction=None)
    run = trainer_of(tmp_path, callbacks=[ModelPruning("l1_unstructured", amount=0.5)])
    with pytest.raises(ConfigError, match="ModelPruning would prune frozen weights too"):
        run.fit(finetuning_of(), datamodule=data)
    module = finetuning_of()
    encoders = values(module.encoders)
    pruning = ModelPruning("l1_unstructured", parameters_to_prune=[(module.classifier, "weight")], amount=0.5)
    trainer_of(tmp_path, callbacks=[pruning]).fit(module, datamodule=data)
    assert not differences(encoders, values(module.encoders))
    assert (module.classifier.weight == 0).float().mean() == 0.5


@pytest.mark.parametrize("everywhere", [True, False], ids=["all together", "each alone"])
def test_encoders_are_pruned_whatever_their_layout_in_memory(everywhere: bool, tmp_path: Path) -> None:
    """Their channels lie last, which torch's pruning cannot take."""
    module = EncoderPretraining(tiny.modalities(), tiny.ENCODERS, projection_hidden=8, projection_out=4)
    convolutions = [part for part in module.encoders.modules() if isinstance(part, torch.nn.Conv2d)]
    assert not all(part.weight.is_contiguous() for part in convolutions)
    pruning = ModelPruning("l1_unstructured", use_global_unstructured=everywhere, amount=0.5)
    trainer_of(tmp_path, callbacks=[pruning], max_epochs=2).fit(module, datamodule=tiny.data_of())
    parts = [part for part in module.modules() if isinstance(part, torch.nn.Conv2d | torch.nn.Linear)]
    zeros = sum(int((part.weight == 0).sum()) for part in parts) / sum(part.weight.numel() for part in parts)
    assert zeros == pytest.approx(0.75, abs=0.05)  # half, and half of the rest


def test_pruning_of_whole_rows_of_vectors_is_told_in_a_line(tmp_path: Path) -> None:
    module = EncoderPretraining(tiny.modalities(), tiny.ENCODERS, projection_hidden=8, projection_out=4)
    pruning = ModelPruning("random_structured", pruning_dim=0, use_global_unstructured=False)
    with pytest.raises(ValueError, match="Structured pruning can only be applied to multidimensional") as raised:
        trainer_of(tmp_path, callbacks=[pruning]).fit(module, datamodule=tiny.data_of())
    assert explain(raised.value) == str(raised.value)
