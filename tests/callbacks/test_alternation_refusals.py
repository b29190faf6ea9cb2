"""What the callback cannot work with is refused with a message that names the way out."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightly.loss import DCLLoss
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_mmnas.callbacks import ArchitectureAlternation
from lightning_mmnas.callbacks.contract import check_gathers, require_workable
from lightning_mmnas.fusion.relaxation import GumbelHard
from lightning_mmnas.objectives.losses import nt_xent
from tests.callbacks.searchers import Part, Searcher, dataset, loaders, trainer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0.0}, "lr=0.0 is not positive"),
        ({"lr": "0.1"}, "lr must be a number, got '0.1'"),
        ({"betas": 0.9}, "betas must be two numbers, got 0.9"),
        ({"betas": (0.5,)}, "betas must be two numbers, got"),
        ({"betas": ("0.5", 0.9)}, "betas must be two numbers, got"),
        ({"weight_decay": None}, "weight_decay must be a number, got None"),
        ({"every_n_steps": 2.5}, "every_n_steps must be a whole number, got 2.5"),
        ({"warmup_epochs": "1"}, "warmup_epochs must be a whole number, got '1'"),
        ({"betas": (0.9, 1.0)}, "betas=.* not in"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 is negative"),
        ({"warmup_epochs": -1}, "warmup_epochs=-1 is negative"),
        ({"every_n_steps": 0}, "every_n_steps=0 is less than 1"),
        ({"check_every_n_steps": 0}, "check_every_n_steps=0"),
        ({"order": 3}, "order=3 is neither 1 nor 2"),
        ({"schedule": "day"}, "schedule='day' is not 'step' or 'epoch'"),
        ({"schedule": "epoch", "order": 2}, "use schedule='step'"),
        ({"schedule": "epoch", "every_n_steps": 2}, "leave it at 1"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        ArchitectureAlternation(**arguments)


class WithoutStep(LightningModule):
    def architecture_parameters(self) -> list[nn.Parameter]:
        return []


class NoLogits(Searcher):
    def architecture_parameters(self) -> list[nn.Parameter]:
        return []


class Twice(Searcher):
    def architecture_parameters(self) -> list[nn.Parameter]:
        return [self.net.alpha, self.net.alpha]


class Unregistered(Searcher):
    def architecture_parameters(self) -> list[nn.Parameter]:
        return [nn.Parameter(torch.zeros(2), requires_grad=False)]


class Trainable(Searcher):
    def __init__(self) -> None:
        super().__init__()
        self.net.alpha.requires_grad_(True)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.first.parameters(), lr=0.1)


class AllOptimised(Searcher):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Manual(Searcher):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Detached(Searcher):
    def architecture_step(self, batch: Part) -> Tensor:
        return super().architecture_step(batch).detach()


class Vector(Searcher):
    def architecture_step(self, batch: Part) -> Tensor:
        loss: Tensor = self.net(batch[0])[:, 0]
        return loss


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (LightningModule, r"no method architecture_parameters\(\): add it, or remove"),
        (WithoutStep, r"no method architecture_step\(\): add it, or remove"),
        (NoLogits, "returned no logits, so there is nothing to search: return them"),
        (Twice, "the same tensor twice: return it once"),
        (Unregistered, "missing from checkpoints: make them nn.Parameter"),
        (Trainable, r"requires_grad=True.*create them as nn.Parameter\(..., requires_grad=False\)"),
        (AllOptimised, r"in the weight optimiser too.*pass \[p for p in self.parameters\(\) if"),
        (Manual, "needs automatic optimisation: leave automatic_optimization=True"),
        (Detached, "did not return a scalar loss .* return the loss tensor, not detached"),
        (Vector, "did not return a scalar loss"),
    ],
)
def test_modules(module: type[LightningModule], message: str, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        _setup_or_fit(module(), tmp_path)


def _setup_or_fit(module: LightningModule, root: Path) -> None:
    run = trainer(root)
    if isinstance(module, Searcher):
        run.fit(module, loaders())
    else:  # Lightning itself refuses to fit these
        ArchitectureAlternation().setup(run, module, "fit")


@pytest.mark.parametrize(("unused", "refused"), [(False, True), (True, False)])
def test_samples_of_primitives_under_ddp(unused: bool, refused: bool, tmp_path: Path) -> None:
    """A step has no gradient for primitives that were not sampled."""
    module, run = Searcher(), trainer(tmp_path)
    module.net.add_module("relaxation", GumbelHard())
    run._accelerator_connector.strategy = DDPStrategy(find_unused_parameters=unused)
    message = "GumbelHard samples primitives.*use strategy='ddp_find_unused_parameters_true'"
    with pytest.raises(MisconfigurationException, match=message) if refused else nullcontext():
        require_workable(run, module, 1, ArchitectureAlternation)


@pytest.mark.parametrize("strategy", [FSDPStrategy, ModelParallelStrategy])
def test_sharded_strategies(strategy: type[Any], tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run._accelerator_connector.strategy = strategy()
    with pytest.raises(MisconfigurationException, match=r"shards .* use strategy='ddp'"):
        ArchitectureAlternation().setup(run, Searcher(), "fit")


def test_second_order_with_a_scaler(tmp_path: Path) -> None:
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    run = trainer(tmp_path, ArchitectureAlternation(order=2), plugins=[precision])
    with pytest.raises(MisconfigurationException, match="precision='bf16-mixed' or '32-true'"):
        run.fit(Searcher(), loaders())


def test_second_order_without_a_loss(tmp_path: Path) -> None:
    class Silent(Searcher):
        def training_step(self, batch: dict[str, Part], batch_idx: int) -> Any:
            return {"loss": 3.0}

    run = trainer(tmp_path, ArchitectureAlternation(order=2))
    with pytest.raises(MisconfigurationException, match=r"or add weight_step_loss\(batch\)"):
        run.fit(Silent(), loaders())


@pytest.mark.parametrize("schedule", ["step", "epoch"])
@pytest.mark.parametrize("parts", ["plain", "weights only", "max_size"])
def test_data_without_an_architecture_part(parts: str, schedule: Any, tmp_path: Path) -> None:
    long, short = (DataLoader(dataset(n, n), batch_size=4) for n in (12, 4))
    data: Any = long
    if parts == "weights only":
        data = CombinedLoader({"weights": long}, "max_size_cycle")
    if parts == "max_size":
        data = CombinedLoader({"weights": long, "architecture": short}, "max_size")
    alternation = ArchitectureAlternation(warmup_epochs=1, schedule=schedule)
    found = r"'architecture' part of the data has fewer batches" if parts == "max_size" else "'architecture' part"
    with pytest.raises(MisconfigurationException, match=found + r".*CombinedLoader\(\{\"weights\": ..., "):
        trainer(tmp_path, alternation).fit(Searcher(), data)


def test_a_gather_without_a_second_derivative_is_refused() -> None:
    module = Searcher()
    module.objective = DCLLoss(gather_distributed=True)
    with pytest.raises(MisconfigurationException, match=r"objective .DCLLoss. gathers .* use order=1"):
        check_gathers(module)
    module.objective = nt_xent()
    check_gathers(module)
