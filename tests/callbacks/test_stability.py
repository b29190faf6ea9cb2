"""The search ends when its answer stays the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_mmnas import ArchitectureAlternation, FusionSpace, FusionSupernet, GenotypeStability
from tests.callbacks.searchers import Part, Searcher, loaders, trainer
from tests.callbacks.test_alternation_resume import SaveAlways

SPACE = FusionSpace(inputs=("a", "b", "c"), cells=2, channels=4, length=2)


class Scripted(LightningModule):
    """In every epoch its logits favour the genotype that a letter stands for."""

    def __init__(self, script: str) -> None:
        super().__init__()
        self.script = script
        self.supernet = FusionSupernet(SPACE)
        self.weight = nn.Parameter(torch.ones(1))

    def architecture_parameters(self) -> list[nn.Parameter]:
        return self.supernet.architecture_parameters()

    def architecture_step(self, batch: Part) -> Tensor:
        return torch.stack([logits.sum() for logits in self.architecture_parameters()]).sum()

    def training_step(self, batch: dict[str, Part], batch_idx: int) -> Tensor:
        letter = self.script[self.current_epoch]
        self.supernet.set_architecture(SPACE.sample(torch.Generator().manual_seed(ord(letter))))
        return self.weight.square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.1)


def epochs(root: Path, script: str, *callbacks: Any, checkpoint: Path | None = None, patience: int = 3) -> int:
    """Epochs that were trained in all, those before the checkpoint included."""
    stability = GenotypeStability(patience, coverage=False, distinct=False)
    run = trainer(root, *callbacks, stability, max_epochs=len(script))
    run.fit(Scripted(script), loaders(4, 4), ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return int(run.current_epoch)


@pytest.mark.parametrize(
    ("script", "patience", "wanted"),
    [
        ("ABBBBB", 3, 4),
        ("ABABAB", 2, 6),  # never stable
        ("ABABBB", 2, 5),
        ("AAAAAA", 1, 1),
        ("AABBAA", 3, 6),
        ("AAB", 3, 3),
    ],
)
def test_stops_after_so_many_equal_epochs(script: str, patience: int, wanted: int, tmp_path: Path) -> None:
    assert epochs(tmp_path, script, patience=patience) == wanted


def test_warm_up_does_not_count(tmp_path: Path) -> None:
    assert epochs(tmp_path, "AAAAAAAA", ArchitectureAlternation(warmup_epochs=2)) == 5


def test_an_interrupted_search_stops_in_the_same_epoch(tmp_path: Path) -> None:
    save = SaveAlways(tmp_path)
    script = "ABABBBBBB"
    assert epochs(tmp_path, script, ArchitectureAlternation(), save) == 6
    assert len(save.paths) == 12
    resumed = [epochs(tmp_path, script, ArchitectureAlternation(), checkpoint=path) for path in save.paths]
    assert resumed == [6] * 12


def test_a_second_search_begins_anew(tmp_path: Path) -> None:
    stability = GenotypeStability(3, coverage=False, distinct=False)
    for _ in range(2):
        run = trainer(tmp_path, stability, max_epochs=5)
        run.fit(Scripted("AAAAA"), loaders(4, 4))
        assert run.current_epoch == 3


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="patience=0 is less than 1"):
        GenotypeStability(0)
    with pytest.raises(MisconfigurationException, match="Searcher has no attribute supernet that is a FusionSupernet"):
        trainer(tmp_path, GenotypeStability(1)).fit(Searcher(), loaders())
