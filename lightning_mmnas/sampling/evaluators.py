"""What a network is worth without labels: trained alone for a while, or with the weights of a single-path supernet."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_mmnas.costs.table import CostTable
from lightning_mmnas.errors import CheckpointError
from lightning_mmnas.files import write_bytes
from lightning_mmnas.fusion.batch_norm import batch_statistics
from lightning_mmnas.fusion.single_path import SinglePath
from lightning_mmnas.modules.candidates import Batch, candidate, endless, view_pairs
from lightning_mmnas.modules.frozen import read_checkpoint
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.objectives.criteria import Criterion, ViewPair
from lightning_mmnas.objectives.fusion_objective import FusionObjective
from lightning_mmnas.objectives.losses import local_objective
from lightning_mmnas.objectives.stored_pairs import StoredPairs
from lightning_mmnas.objectives.training import build_optimizer, train_together
from lightning_mmnas.sampling.study import Report
from lightning_mmnas.space.genotype import Genotype

T = TypeVar("T")

Loaders = Callable[[], Mapping[str, Iterable[Batch]]]
"""Makes the loaders of the parts ``"weights"`` and ``"architecture"`` anew, so that they start with the same order."""

KEPT = 2**29
"""Bytes of views that are kept for the next trial; where they need more, they are made again, the very same."""

REPORTS = 5
"""A trial is scored so many times on its way, where a pruner may stop it."""


class Evaluator:
    """What both evaluators share: the data, the same views for every network, and the score.

    Args:
        module: The search stage, on its device: encoders, views, space and objective are taken from it.
        loaders: Makes the loaders of both parts.
        criterion: Label-free score, lower is better.
        steps: Training steps.
        lr: Peak learning rate.
        seed: Seed of weights and views, the same for every network.
        costs: What else is told of every network, under the name of the cost's kind.
    """

    def __init__(
        self,
        module: FusionSearch,
        loaders: Loaders,
        criterion: Criterion,
        steps: int,
        lr: float,
        seed: int,
        costs: Sequence[CostTable],
    ) -> None:
        self.module = module
        self.loaders = loaders
        self.criterion = criterion
        self.steps = steps
        self.lr = lr
        self.seed = seed
        self.costs = tuple(costs)
        self._views: list[ViewPair] | None = None
        self._prepared: tuple[Any] | None = None

    def measured(self, genotype: Genotype, criterion: float) -> dict[str, float]:
        """The criterion and the costs of a network, by name."""
        return {"criterion": criterion, **{table.kind: table.of(genotype) for table in self.costs}}

    def training_views(self) -> Iterator[ViewPair]:
        """The views of every training step, without modality dropout; the same ones whenever they are asked for."""
        if self._views is not None:
            yield from self._views
            return
        pairs = view_pairs(self.module, islice(endless(self.loaders()["weights"]), self.steps), 0.0)
        kept: list[ViewPair] | None = []
        for pair in own_random_numbers(pairs, self.seed, self.module.device):
            if kept is not None:
                kept.append(pair)
                size = sum(view.numel() * view.element_size() for features in pair for view in features.values())
                kept = kept if size * self.steps <= KEPT else None
            yield pair
        self._views = kept

    def score(self, network: FusionObjective) -> float:
        """The criterion of a network in the mode it is in, on held-out views that are made once."""
        with torch.no_grad():
            if self._prepared is None:
                with self.seeded():
                    held_out = self.loaders()["architecture"]
                    prepared = self.criterion.prepare(lambda p: StoredPairs(view_pairs(self.module, held_out, p)))
                self._prepared = (prepared,)
            return self.criterion.combine([self.criterion.score(network.project, self._prepared[0])])[0]

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Starts torch's random numbers at the seed, and puts them back afterwards."""
        with torch.random.fork_rng(devices=_cuda(self.module.device)):
            torch.manual_seed(self.seed)
            yield

    def train(self, network: nn.Module, views: Iterable[ViewPair]) -> None:
        """Trains a network with AdamW and a one-cycle schedule, as `GenotypeSelection` trains its candidates."""
        train_together(
            {"network": network},
            views,
            lambda built: build_optimizer(
                [{"params": list(built.parameters()), "lr": self.lr}], self.module.weight_decay, "one_cycle", self.steps
            ),
        )


class TrainedAlone(Evaluator):
    """Trains the network of each genotype alone, every one from the same seed on the very same views, then scores it.

    Args:
        module: See `Evaluator`, as for all the others.
        loaders: Makes the loaders of both parts.
        criterion: Label-free score, lower is better.
        steps: Training steps of each network.
        lr: Peak learning rate.
        seed: Seed of weights and views.
        costs: What else is told of every network.
        reports: Whether to score the network on its way, for a pruner.
    """

    def __init__(
        self,
        module: FusionSearch,
        loaders: Loaders,
        criterion: Criterion,
        steps: int = 70,
        lr: float = 3e-3,
        seed: int = 0,
        costs: Sequence[CostTable] = (),
        reports: bool = False,
    ) -> None:
        super().__init__(module, loaders, criterion, steps, lr, seed, costs)
        self.reports = reports

    def __call__(self, genotype: Genotype, report: Report) -> dict[str, float]:
        """Returns criterion and costs."""
        with self.seeded():
            network = candidate(self.module, genotype)
            views = self.training_views()
            self.train(network, self._scored_on_the_way(network, views, report) if self.reports else views)
            return self.measured(genotype, self.score(network.eval()))

    def _scored_on_the_way(
        self, network: FusionObjective, views: Iterable[ViewPair], report: Report
    ) -> Iterator[ViewPair]:
        every = max(1, self.steps // REPORTS)
        for done, pair in enumerate(views):
            if done and done % every == 0:
                report(done, self.score(network.eval()))
                network.train()
            yield pair


class Inherited(Evaluator):
    """Scores every network with the weights of one supernet, trained with a uniformly drawn network in each step.

    SPOS (Guo et al., ECCV 2020), except that what is uniform are the networks of the space, not the choices of each
    block. Scored with batch statistics: running ones are averages over all networks.

    Args:
        module: See `Evaluator`, as for all the others; its supernet is trained.
        loaders: Makes the loaders of both parts.
        criterion: Label-free score, lower is better.
        steps: Training steps of the supernet.
        lr: Peak learning rate.
        seed: Seed of drawn networks and views.
        costs: What else is told of every network.
        checkpoint: Where the trained supernet is kept, and read from where it is there already; None: nowhere.
        facts: What the weights depend on; a checkpoint with other facts is refused.
    """

    def __init__(
        self,
        module: FusionSearch,
        loaders: Loaders,
        criterion: Criterion,
        steps: int = 500,
        lr: float = 3e-3,
        seed: int = 0,
        costs: Sequence[CostTable] = (),
        checkpoint: Path | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(module, loaders, criterion, steps, lr, seed, costs)
        self.checkpoint = checkpoint
        self.facts = json.dumps(facts, sort_keys=True)
        self.path = SinglePath(module.supernet)
        self.network = FusionObjective(self.path, module.fusion.projector, local_objective(module.objective))
        self.network.to(module.device)
        self._trained = False

    def prepare(self) -> None:
        """Trains the supernet, or reads it from its checkpoint; a second call changes nothing.

        Raises:
            CheckpointError: The checkpoint cannot be read, or was trained differently.
        """
        if self._trained:
            return
        if self.checkpoint is not None and self.checkpoint.is_file():
            self._load(self.checkpoint)
        else:
            with self.seeded():
                self.train(self.network, self._drawn(self.training_views()))
            if self.checkpoint is not None:
                content = io.BytesIO()  # torch ends the process where it cannot write a file of its own
                torch.save({"state_dict": self.network.state_dict(), "facts": self.facts}, content)
                write_bytes(self.checkpoint, content.getvalue())
        self._trained = True
        self._views = None

    def __call__(self, genotype: Genotype, report: Report) -> dict[str, float]:
        """Returns criterion and costs."""
        self.prepare()
        self.path.genotype = genotype
        with batch_statistics(self.network):
            return self.measured(genotype, self.score(self.network))

    def _drawn(self, views: Iterable[ViewPair]) -> Iterator[ViewPair]:
        """Sets another network before each step."""
        generator = torch.Generator().manual_seed(self.seed)
        for pair in views:
            self.path.genotype = self.module.space.sample(generator)
            yield pair

    def _load(self, path: Path) -> None:
        checkpoint = read_checkpoint(path, "supernet")
        if checkpoint.get("facts") != self.facts:
            raise CheckpointError(
                f"the supernet in {path} was trained with other settings; delete it, or choose another --output"
            )
        self.network.load_state_dict(checkpoint["state_dict"])


def own_random_numbers(items: Iterator[T], seed: int, device: torch.device) -> Iterator[T]:
    """Has an iterator draw from random numbers of its own, whatever is drawn between its items.

    Args:
        items: What is iterated over; draws from torch's global generators.
        seed: Seed of its random numbers.
        device: Whose generator it draws from, besides that of the CPU.
    """
    state: tuple[Tensor, Tensor | None] | None = None
    while True:
        with torch.random.fork_rng(devices=_cuda(device)):
            if state is None:
                torch.manual_seed(seed)
            else:
                torch.set_rng_state(state[0])
                if state[1] is not None:
                    torch.cuda.set_rng_state(state[1], device)
            item = next(items, None)
            state = torch.get_rng_state(), torch.cuda.get_rng_state(device) if _cuda(device) else None
        if item is None:
            return
        yield item


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []
