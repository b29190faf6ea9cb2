"""Searches of several gloo processes with strategies that draw, run by test_search_strategies_ddp.py under torchrun."""

import os
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import seed_everything
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_mmnas import (
    ArchitectureAlternation,
    ExactResume,
    FusionSearch,
    GenotypeSelection,
    GenotypeStability,
    TensorDataModule,
)
from lightning_mmnas.fusion.relaxation import Dirichlet, GumbelHard, Relaxation
from lightning_mmnas.objectives.criteria import ViewLoss
from tests.modules.tiny import ENCODERS, KINDS, data_of, modalities, split_of, trainer_of

SMALL: dict[str, Any] = {"channels": 4, "length": 2, "projection_hidden": 8, "projection_out": 4}
RELAXATIONS: dict[str, type[Relaxation]] = {"gumbel": GumbelHard, "dirichlet": Dirichlet}


class Noted(FusionSearch):
    """Keeps every weight that its relaxation gave."""

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.given: list[Tensor] = []
        self.supernet.logits.relaxation.register_forward_hook(
            lambda module, inputs, output: self.given.append(output.detach().flatten().clone())
        )


def search(root: Path, name: str, rank: int) -> dict[str, Any]:
    seed_everything(0, verbose=False)
    module = Noted(modalities(), ENCODERS, **SMALL, relaxation=RELAXATIONS[name]())
    torch.manual_seed(rank)  # ranks that draw their views differently
    run: Trainer = trainer_of(
        root,
        devices=2,
        strategy="ddp_find_unused_parameters_true" if name == "gumbel" else "ddp",
        # Logits that are equal up to rounding: the genotype stays the same.
        callbacks=[
            ArchitectureAlternation(lr=1e-14, check_every_n_steps=1),
            GenotypeStability(patience=3),
            # In a folder of each rank's own: what a rank writes is seen.
            GenotypeSelection(str(root / f"{name}-rank{rank}" / "genotype.json"), num_candidates=1),
        ],
        max_epochs=5,
        limit_val_batches=0,
    )
    run.fit(module, data_of(architecture_fraction=0.5, batch_size=4))
    state = {key: value.clone() for key, value in module.state_dict().items() if "running" not in key}
    return {"given": torch.cat(module.given), "epochs": run.current_epoch, "state": state}


class Drawing(nn.Module):
    """Leaves samples as they are, and notes a random number in training."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        number = float(torch.rand(()))
        self.drawn += [number] if self.training else []
        return x


class Slow(ViewLoss):
    """Takes longer on rank 1, where there is one, than the ranks' collectives may."""

    patience = timedelta(seconds=0.3)

    def score(self, project: Any, prepared: Any) -> float:
        if dist.is_initialized() and dist.get_rank() == 1:
            time.sleep(3 * self.patience.total_seconds())
        return super().score(project, prepared)


class Patience(Callback):
    """From here on, collectives fail that take longer."""

    def __init__(self, patience: timedelta) -> None:
        self.patience = patience

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.patience == Slow.patience:
            trainer.strategy.barrier("trained")
        dist.distributed_c10d._set_pg_timeout(self.patience)


def selecting(root: Path, name: str) -> GenotypeSelection:
    return GenotypeSelection(
        str(root / f"{name}.json"), num_candidates=4, steps=3, criterion=Slow(modality_dropout=0.5)
    )


def searching(drawing: nn.Module) -> FusionSearch:
    return FusionSearch(modalities(), ENCODERS, **SMALL, augmentations={"motion": drawing})


def samples() -> TensorDataModule:
    """Parts of 16 in batches of 3, which no number of ranks divides, and fewer samples for validation than ranks."""
    settings: dict[str, Any] = {"architecture_fraction": 0.5, "labels": False, "batch_size": 3}
    return TensorDataModule(split_of(32, 0), split_of(1, 1), kinds=KINDS, **settings)


def select(root: Path, ranks: int) -> dict[str, Any]:
    """A search of ranks with the same seed, then the same one resumed from the end of its first epoch."""
    found: dict[str, Any] = {}
    for name, path in (("unbroken", None), ("resumed", root / "epoch=0.ckpt")):
        seed_everything(0, verbose=False)
        drawing, selection = Drawing(), selecting(root, "genotype")
        module = searching(drawing)
        save = ModelCheckpoint(root, filename="{epoch}", save_top_k=-1)
        last = [Patience(Slow.patience), selection, Patience(timedelta(minutes=5))] if path else [save]
        run = trainer_of(
            root,
            devices=ranks,
            strategy="ddp",
            callbacks=[ExactResume(), ArchitectureAlternation(lr=0.1), *last],
            enable_checkpointing=path is None,
            max_epochs=2,
            num_sanity_val_steps=0,
        )
        run.fit(module, samples(), ckpt_path=path)
        state = {key: value.clone() for key, value in module.state_dict().items()}
        found[name] = {"drawn": drawing.drawn, "state": state, "genotype": str(selection.genotype)}
    return found


def main(root: Path) -> None:
    """Writes what this rank found to ``rank{r}.pt``."""
    warnings.simplefilter("ignore")
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    found: dict[str, Any] = {name: search(root, name, rank) for name in RELAXATIONS} if ranks == 2 else {}
    found["select"] = select(root, ranks)
    torch.save(found, root / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
