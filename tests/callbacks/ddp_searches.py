"""Searches of two gloo processes, run by test_alternation_ddp.py under torchrun."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from lightning_mmnas.callbacks import ArchitectureAlternation
from lightning_mmnas.fusion.input_nodes import InputNode
from lightning_mmnas.fusion.primitives import ConcatFC, LinearGLU
from lightning_mmnas.fusion.readout import PoolReadout
from lightning_mmnas.objectives.losses import nt_xent
from tests.callbacks.searchers import Mixture, Part, Searcher, dataset, loaders, trainer, values
from tests.callbacks.test_alternation_resume import SaveAlways


class GumbelMixture(Mixture):
    """Adds noise to the logits that is a function of a seed and of a counter in the state."""

    counter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counter", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(17 + int(self.counter))
        noise = torch.empty(2, dtype=x.dtype).exponential_(generator=generator).log().neg()
        self.counter += 1
        a, b = (self.alpha + noise).softmax(0)
        out: Tensor = self.head(a * torch.tanh(self.first(x)) + b * torch.relu(self.second(x)))
        return out


class Gumbel(Searcher):
    def __init__(self) -> None:
        super().__init__()
        self.net = GumbelMixture().double()


class Drifting(Searcher):
    """Changes its logits on one rank only."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.global_rank == 1 and self.global_step == 1:
            self.net.alpha.data += 1e-9


class Dropout(Searcher):
    def __init__(self) -> None:
        super().__init__(dropout=0.3, batch_norm=True)


class Fused(Mixture):
    """Two primitives on an input node, with as many positions as channels, mixed by the softmax of alpha."""

    def __init__(self, batch_norm: bool) -> None:
        super().__init__()
        del self.first, self.second, self.head
        self.nodes = nn.ModuleList(InputNode(3, 5, 5) for _ in range(2))
        self.primitives = nn.ModuleList([LinearGLU(5, 5), ConcatFC(5, 5)])
        self.readout, self.out = PoolReadout(5), nn.Linear(10, 4)
        if not batch_norm:
            for part in [*self.nodes, *self.primitives, self.readout]:
                part.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        u, v = (node(half) for node, half in zip(self.nodes, x.chunk(2, dim=1), strict=True))
        a, b = self.alpha.softmax(0)
        glu, fc = (primitive(u, v) for primitive in self.primitives)
        out: Tensor = self.out(self.readout(a * glu + b * fc))
        return out


class Contrastive(Searcher):
    """NT-Xent between a sample and its mirror image; the last batch is not equally large on both ranks."""

    sizes = (11, 7)
    batch_norm = False

    def __init__(self) -> None:
        super().__init__()
        self.net = Fused(self.batch_norm).double()
        self.objective = nt_xent(0.5)

    def loss(self, part: Part) -> Tensor:
        x, _ = part
        loss: Tensor = self.objective(*self.net(torch.cat([x, x.flip(1).tanh()])).chunk(2))
        return loss


class Normalised(Contrastive):
    batch_norm = True


SYNC = {"sync_batchnorm": True}
CASES: dict[str, tuple[type[Searcher], dict[str, Any], dict[str, Any]]] = {
    "plain": (Searcher, {}, {}),
    "accumulated": (Searcher, {}, {"accumulate_grad_batches": 2}),
    "clipped, second order": (Searcher, {"order": 2}, {"gradient_clip_val": 0.05}),
    "per epoch": (Searcher, {"schedule": "epoch"}, {}),
    "gumbel": (Gumbel, {}, {}),
    "contrastive": (Contrastive, {}, {}),
    "contrastive, second order": (Contrastive, {"order": 2}, {}),
    "synchronised": (Normalised, {}, SYNC),
    "synchronised, per epoch": (Normalised, {"schedule": "epoch"}, SYNC),
    "synchronised, second order": (Normalised, {"order": 2}, SYNC),
}


def search(root: Path, case: str, world_size: int) -> dict[str, Tensor]:
    """Searches with joined batches of four; a rank sees its share of each."""
    module_class, arguments, options = CASES[case]
    torch.manual_seed(0)
    module = module_class()
    alternation = ArchitectureAlternation(lr=0.1, check_every_n_steps=1, **arguments)
    # Lightning's own distributed sampler always shuffles
    trainer = run(root, alternation, world_size=world_size, use_distributed_sampler=False, **options)
    trainer.fit(module, shares(trainer.global_rank, world_size, module.sizes))
    return values(module)


def shares(rank: int, world_size: int, sizes: tuple[int, int]) -> CombinedLoader:
    """Every ``world_size``-th sample, so that the ranks' batches join to one process's."""
    parts = {"weights": dataset(sizes[0], 1), "architecture": dataset(sizes[1], 2)}
    return CombinedLoader(
        {
            name: DataLoader(Subset(part, range(rank, len(part), world_size)), batch_size=4 // world_size)
            for name, part in parts.items()
        },
        "max_size_cycle",
    )


def run(root: Path, *callbacks: Any, world_size: int = 2, **options: Any) -> Trainer:
    strategy = "ddp" if world_size > 1 else "auto"
    return trainer(root, *callbacks, devices=world_size, strategy=strategy, **options)


def drift(root: Path) -> str:
    alternation = ArchitectureAlternation(check_every_n_steps=3)
    try:
        run(root, alternation).fit(Drifting(), loaders(batch_size=2))
    except RuntimeError as error:
        return str(error)
    return "nothing was noticed"


def resume(root: Path, rank: int) -> list[dict[str, Tensor]]:
    """An unbroken search, and the same one resumed from each of its checkpoints."""
    save = SaveAlways(root)
    results = []

    def fit(callbacks: list[Any], seed: int, checkpoint: Path | None) -> None:
        seed_everything(5, verbose=False)
        torch.manual_seed(seed + rank)  # ranks that draw differently
        module = Dropout()
        torch.manual_seed(seed + rank)
        data = loaders(batch_size=2, shuffle=True)
        run(root, ArchitectureAlternation(lr=0.1), *callbacks).fit(module, data, ckpt_path=checkpoint)
        results.append(values(module))

    fit([save], 0, None)
    for path in save.paths:
        fit([], 50, path)
    return results


def main(root: Path) -> None:
    """Writes what this rank found to ``rank{r}.pt``."""
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {case: search(root, case, 2) for case in CASES}
    rank = torch.distributed.get_rank()
    found["drift"] = drift(root)
    found["resume"] = resume(root, rank)
    torch.save(found, root / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
