"""Searches of two gloo processes with strategies that draw, run by test_search_strategies_ddp.py under torchrun."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import seed_everything
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_mmnas import ArchitectureAlternation, FusionSearch, GenotypeSelection, GenotypeStability
from lightning_mmnas.fusion.relaxation import Dirichlet, GumbelHard, Relaxation
from tests.modules.tiny import ENCODERS, data_of, modalities, trainer_of

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


def main(root: Path) -> None:
    """Writes what this rank found to ``rank{r}.pt``."""
    warnings.simplefilter("ignore")
    rank = int(os.environ["RANK"])
    torch.save({name: search(root, name, rank) for name in RELAXATIONS}, root / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
