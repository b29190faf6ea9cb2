"""What Lightning offers beside a search: it works, or is refused in a line before anything is trained."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    LearningRateMonitor,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.optim import LBFGS
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from lightning_mmnas import ArchitectureAlternation, FeatureCaching, FusionPretraining
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.errors import ConfigError
from tests.callbacks.searchers import Part, Searcher, loaders, trainer
from tests.callbacks.test_caching import data_of, parts, search_of
from tests.sampling.toys import CONFIG


class Another(ArchitectureAlternation):
    """A second one, of its own class: Lightning itself refuses two of one class."""


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([Another()], "several ArchitectureAlternation in the callbacks"),
        ([StochasticWeightAveraging(0.1)], "StochasticWeightAveraging averages the architecture logits too"),
        ([LearningRateFinder()], r"LearningRateFinder trains on its own .* remove it from the callbacks of the search"),
        ([BatchSizeFinder()], "BatchSizeFinder trains on its own"),
    ],
)
def test_callbacks_that_are_refused(callbacks: list[Any], message: str, tmp_path: Path) -> None:
    run = trainer(tmp_path, ArchitectureAlternation(), *callbacks)
    with pytest.raises(MisconfigurationException, match=message):
        run.fit(search_of(), datamodule=data_of())
    assert run.global_step == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheduler": ReduceLROnPlateau}, "ReduceLROnPlateau follows a metric, .* another scheduler"),
        ({"scheduler": lambda optimizer: None}, "scheduler of ArchitectureAlternation returned NoneType: let it"),
        ({"optimizer": lambda logits: None}, "optimizer of ArchitectureAlternation returned NoneType: let it return"),
        ({"optimizer": LBFGS}, "LBFGS computes the loss again in its step, .* give the logits another optimizer"),
        (  # before the second, fourth and sixth of six weight steps
            {"scheduler": partial(OneCycleLR, max_lr=0.1, total_steps=2), "every_n_steps": 2},
            "laid out for total_steps=2, and the search makes 3 architecture steps: set its total_steps to 3",
        ),
    ],
)
def test_what_cannot_train_the_logits(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    module = Searcher()
    with pytest.raises(MisconfigurationException, match=message):
        trainer(tmp_path, ArchitectureAlternation(**arguments)).fit(module, loaders())
    assert not module.losses


def test_a_schedule_as_long_as_the_search(tmp_path: Path) -> None:
    alternation = ArchitectureAlternation(scheduler=partial(OneCycleLR, max_lr=0.1, total_steps=6))
    trainer(tmp_path, alternation).fit(Searcher(), loaders())
    assert alternation.steps == 6


@pytest.mark.parametrize("finder", [LearningRateFinder(num_training_steps=4), BatchSizeFinder(max_trials=1)])
def test_finders_and_schedules(finder: Any, tmp_path: Path) -> None:
    genotype = search_of().space.sample(torch.Generator().manual_seed(0))
    data = data_of(architecture_fraction=None)
    for schedule in ("one_cycle", "cosine"):
        module = FusionPretraining(data.modalities, genotype=genotype, schedule=schedule, **parts())
        with pytest.raises(
            ConfigError, match=f"{type(finder).__name__} changes what schedule '{schedule}' was made for"
        ):
            trainer(tmp_path, finder).fit(module, datamodule=data)


def test_overfit_batches(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    cached = trainer(tmp_path, FeatureCaching(str(folder)), ArchitectureAlternation(), overfit_batches=1)
    with pytest.raises(
        MisconfigurationException, match=r"overfit_batches reads .* set the callback's enabled to false"
    ):
        cached.fit(search_of(), datamodule=data_of())
    assert not folder.exists()
    off = FeatureCaching(str(folder), enabled=False)
    alternation = ArchitectureAlternation()
    with pytest.warns(UserWarning, match="overfit"):
        trainer(tmp_path, off, alternation, overfit_batches=1).fit(search_of(), datamodule=data_of())
    assert alternation.steps == 2


def test_the_rate_of_the_logits_is_beside_that_of_the_weights(tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path), "", "")
    alternation = ArchitectureAlternation(
        lr=0.5, scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    )
    run = trainer(tmp_path, alternation, LearningRateMonitor(), logger=logger, log_every_n_steps=1)
    run.fit(Searcher(), loaders())
    lines = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    place = lines[0].index("arch/lr")
    rates = [float(line[place]) for line in lines[1:] if line[place]]
    assert {0.5**k for k in range(2, 8)} <= set(rates)  # after each of the six steps
    assert any(name.startswith("lr-SGD") for name in lines[0])


class SometimesSilent(Searcher):
    """Has no loss for the second batch of an epoch."""

    def training_step(self, batch: dict[str, Part], batch_idx: int) -> Any:
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_second_order_leaves_a_batch_without_a_loss_out(accumulate: int, tmp_path: Path) -> None:
    module, alternation = SometimesSilent(), ArchitectureAlternation(lr=0.1, order=2)
    trainer(tmp_path, alternation, max_epochs=1, accumulate_grad_batches=accumulate).fit(module, loaders())
    assert len(module.architecture_losses) == 2  # of three batches
    assert alternation.steps == 2


class Skipping(Searcher):
    """Skips the rest of an epoch from some batch on."""

    skip = 1

    def __init__(self) -> None:
        super().__init__()
        self.before: list[Tensor] = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == self.skip else None

    def on_train_batch_end(self, *rest: Any) -> None:
        self.before.append(torch.cat([p.flatten().clone() for p in self.net.logits()]))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_skipped_batch_has_no_architecture_step(accumulate: int, tmp_path: Path) -> None:
    module, alternation = Skipping(), ArchitectureAlternation(lr=0.1)
    module.skip = accumulate  # after one weight step
    trainer(tmp_path, alternation, max_epochs=1, accumulate_grad_batches=accumulate).fit(module, loaders())
    after = torch.cat([p.flatten() for p in module.net.logits()])
    assert torch.equal(after, module.before[-1])
    assert alternation.steps == 1
    state = alternation.state_dict()["architecture"]
    assert state["gradients"] is None
    assert {entry["step"].item() for entry in state["optimizer"]["state"].values()} == {1.0}


def command(tmp_path: Path, *options: str) -> MMNASCLI:
    path = tmp_path / "search.yaml"
    callbacks = "callbacks: [{class_path: ArchitectureAlternation, init_args: {lr: 0.1}},"
    path.write_text(CONFIG.replace("callbacks: [", callbacks))
    arguments = ["fit", "--config", str(path), "--run_dir", str(tmp_path / "run")]
    return MMNASCLI([*arguments, "--trainer.enable_progress_bar=false", *options])


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. will be overridden")
def test_optimizer_of_the_command_line(tmp_path: Path) -> None:
    options = ["--optimizer=SGD", "--optimizer.lr=0.01", "--lr_scheduler=ExponentialLR", "--lr_scheduler.gamma=0.5"]
    cli = command(tmp_path, *options)
    (optimizer,) = cli.trainer.optimizers
    assert isinstance(optimizer, torch.optim.SGD)
    logits = cli.model.architecture_parameters()
    assert any(bool(logit.any()) for logit in logits)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in cli.model.parameters() if p.requires_grad}
    assert optimizer.param_groups[0]["lr"] == 0.005
    (optimizer,) = command(tmp_path, "--optimizer=LBFGS", "--optimizer.max_iter=1").trainer.optimizers
    assert isinstance(optimizer, torch.optim.LBFGS)  # which keeps the list of its parameters
    assert optimizer.state_dict()["state"][0]["n_iter"] == 2
    (optimizer,) = command(tmp_path, "--optimizer=Adagrad").trainer.optimizers
    assert len(optimizer.state_dict()["state"]) == len(trained)  # it begins its state before any step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--trainer.callbacks.0.init_args.lr", "0.2"],
            r"--trainer.callbacks.0.init_args.lr is a part of an item of a list, .*: --trainer.callbacks '\[...\]'",
        ),
        (["--trainer.callbacks+=ArchitectureAlternation"], "has several ArchitectureAlternation"),
        (["--trainer.accumulate_grad_batches=0"], "accumulate_grad_batches is 0, and a step needs a batch: give 1"),
        (["--trainer.gradient_clip_val=-1"], "gradient_clip_val is -1, which would turn gradients round: give 0"),
    ],
)
def test_refused_at_the_command_line(options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        command(tmp_path, *options)
    assert not (tmp_path / "run").exists()


def test_a_device_among_the_arguments_of_a_callback(tmp_path: Path) -> None:
    """The default of this one is an object, and was written as a text that names none."""
    options = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"]
    with pytest.raises(MisconfigurationException, match="StochasticWeightAveraging averages the architecture logits"):
        command(tmp_path, *options)
