"""From trained logits to the architecture that is kept: decode, select among candidates, write it down."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import rank_zero_warn
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.utils.data import DistributedSampler
from typing_extensions import override

from lightning_mmnas.callbacks.alternation import ArchitectureAlternation
from lightning_mmnas.callbacks.weight_record import record
from lightning_mmnas.costs.budget import Budget
from lightning_mmnas.costs.table import UNITS
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.samples import unshard
from lightning_mmnas.files import write_bytes, write_text
from lightning_mmnas.fusion.supernet import DecodeRule
from lightning_mmnas.modules.candidates import candidate, endless, labelled_batches, labelled_candidate, view_pairs
from lightning_mmnas.modules.length import is_trial
from lightning_mmnas.modules.ranks import WaitingRanks, waiting_ranks
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.modules.transfer import BatchTransfer
from lightning_mmnas.objectives.criteria import Criterion, ViewLoss
from lightning_mmnas.objectives.selection import candidates
from lightning_mmnas.objectives.stored_pairs import StoredPairs
from lightning_mmnas.objectives.training import build_optimizer, train_candidates
from lightning_mmnas.report.progress import activity
from lightning_mmnas.space.genotype import Genotype

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")


class Share:
    """Which of several candidates a rank scores: every so many-th.

    Args:
        ranks: All ranks; None: this one alone.
        among: Of how many, the first ones, the candidates are shared out; None: among all.
    """

    def __init__(self, ranks: WaitingRanks | None = None, among: int | None = None) -> None:
        self._ranks = ranks or WaitingRanks(None)
        self._among = among or self._ranks.count
        self.first = self._ranks.rank == 0

    def own(self, items: Sequence[T]) -> list[T]:
        """The part of this rank."""
        return list(items[self._ranks.rank :: self._among]) if self._ranks.rank < self._among else []

    def joined(self, own: list[Any]) -> list[Any]:
        """The answers of all ranks in the order of the candidates."""
        parts = self._ranks.gather(apply_to_collection(own, Tensor, Tensor.cpu))[: self._among]
        return [part[row] for row in range(len(parts[0])) for part in parts if row < len(part)]


class GenotypeSelection(Callback):
    """At the end of a search, writes the genotype that was found, its picture and how it was chosen.

    A few candidates (the favoured architecture, and others drawn from the logits) are each trained alone for a short
    while on the weights' part of the data and scored on the architecture's part, without labels. Several ranks share
    the candidates, each on the same batches and from the same random numbers as one process would use, and wait for
    each other whatever the strategy's ``timeout``. Where it is not known that all ranks read the same (loaders that are
    neither a `MultimodalDataModule`'s nor sharded by a ``DistributedSampler``), rank 0 scores them all. Rank 0 writes
    the files.

    Args:
        output: Path of the genotype's JSON file; its picture goes beside it as ``.png``, the candidates and their
            scores as ``.selection.json``, with the number of architecture steps and the relative entropy of the
            mixtures (1: as undecided as they began, 0: decided), the weights of all choices after every epoch as
            ``.weights.json``, and if the search knows a cost, a picture of scores and costs as ``.pareto.png``.
        num_candidates: Number of candidates; 1 keeps the favoured architecture.
        steps: Training steps of each candidate.
        criterion: Label-free score, lower is better; None: NT-Xent (`ViewLoss`), one of those that rank
            best in docs/search-quality.md.
        lr: Peak learning rate of the candidates' training.
        coverage: Every modality must be read; see `FusionSupernet.decode`.
        distinct: No two cells have the same inputs; see `FusionSupernet.decode`.
        rule: ``"covering"``, or ``"bmnas"``: the published rule on its own, without candidates.
        seed: Seed of draws, weights and views.
        max_cost: Candidates that cost more are not considered; in the unit of the search's ``cost``, which must be set.
            None: no budget.

    Raises:
        CostError: When training starts: no architecture that keeps to the rules is so cheap.
    """

    def __init__(
        self,
        output: str,
        num_candidates: int = 16,
        steps: int = 60,
        criterion: Criterion | None = None,
        lr: float = 1e-2,
        coverage: bool = True,
        distinct: bool = True,
        rule: DecodeRule = "covering",
        seed: int = 0,
        max_cost: float | None = None,
    ) -> None:
        if max_cost is not None and rule == "bmnas":
            raise MisconfigurationException("rule='bmnas' knows no budget; leave max_cost out, or use rule='covering'")
        if num_candidates < 1 or steps < 1:
            raise MisconfigurationException(
                f"num_candidates and steps must be at least 1, got {num_candidates} and {steps}"
            )
        self.output = Path(output)
        self.num_candidates = num_candidates
        self.steps = steps
        self.criterion = criterion or ViewLoss()
        self.lr = lr
        self.coverage = coverage
        self.distinct = distinct
        self.rule: DecodeRule = rule
        self.seed = seed
        self.max_cost = max_cost
        self._genotype: Genotype | None = None
        self._before = _stamp(self.output)

    @property
    def genotype(self) -> Genotype | None:
        """The choice; None before the end of the search; read from the file where processes were spawned."""
        if self._genotype is None and _stamp(self.output) != self._before:
            self._genotype = Genotype.load(self.output)
        return self._genotype

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not isinstance(pl_module, FusionSearch):
            raise MisconfigurationException(
                f"GenotypeSelection works on FusionSearch, not on {type(pl_module).__name__}; remove the callback, "
                "or subclass FusionSearch"
            )
        if self.max_cost is not None and pl_module.cost.kind is None:
            raise MisconfigurationException(
                f"max_cost={self.max_cost} of what? set model.init_args.cost to 'parameters', 'flops' or 'latency'"
            )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FusionSearch)
        if (budget := self._budget(pl_module)) is not None:  # impossible? then say so before the search
            pl_module.supernet.decode(coverage=self.coverage, distinct=self.distinct, budget=budget)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FusionSearch)
        if trainer.is_global_zero:
            record(self.output.with_suffix(".weights.json"), trainer.current_epoch, pl_module.supernet)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, FusionSearch)
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with waiting_ranks() as ranks:
            loaders, shared = _loaders(trainer)
            transfer = BatchTransfer(pl_module, trainer=trainer)
            loaders = {name: transfer.loader(loader, name) for name, loader in loaders.items()}
            steps = self.steps
            if is_trial(trainer):
                steps, batches = 1, trainer.num_training_batches
                loaders = {name: list(islice(loader, int(batches))) for name, loader in loaders.items()}
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(self.seed)
                share = Share(ranks) if shared else Share(ranks, 1)
                found, scores = self.select(pl_module, loaders, steps, share)
            if trainer.is_global_zero:
                self._write(found, scores, steps, pl_module, _architecture_steps(trainer, pl_module))
            ranks.barrier()
        self._genotype = found

    def select(
        self, module: FusionSearch, loaders: dict[str, Any], steps: int, share: "Share | None" = None
    ) -> tuple[Genotype, list[dict[str, Any]]]:
        """Chooses an architecture.

        Args:
            module: The trained search.
            loaders: Batches of the ``"weights"`` and of the ``"architecture"`` part, as `BatchTransfer` gives them.
            steps: Training steps of each candidate.
            share: How the candidates are shared among ranks, which all get the same answer; None: they are not.

        Returns:
            The choice, and every candidate with its score, best first.
        """
        if self.rule == "bmnas":
            return module.supernet.decode("bmnas"), []
        rules = (self.coverage, self.distinct, self._budget(module))
        found = candidates(module.supernet, self.num_candidates, self.seed, *rules)
        if len(found) == 1:
            return found[0], []
        values = self.score(module, found, loaders, steps, share)
        order = sorted(range(len(found)), key=lambda i: (values[i], i))
        scores = [{"score": values[i], "genotype": json.loads(found[i].to_json())} for i in order]
        return found[order[0]], scores

    def score(
        self,
        module: FusionSearch,
        genotypes: list[Genotype],
        loaders: dict[str, Any],
        steps: int,
        share: "Share | None" = None,
    ) -> list[float]:
        """Trains a network of every genotype alone and scores it on held-out samples; lower is better.

        Args:
            module: The search: its space, objective and encoders.
            genotypes: Architectures of its space.
            loaders: Batches of the ``"weights"`` and of the ``"architecture"`` part.
            steps: Training steps of each network.
            share: See `select`.

        Returns:
            A score per genotype, infinite where the training diverged.
        """
        by = self._by_criterion if module.classifier is None else self._by_labels
        values = by(module, genotypes, loaders, steps, share or Share())
        return [v if math.isfinite(v) else math.inf for v in values]

    def _by_criterion(
        self, module: FusionSearch, found: list[Genotype], loaders: dict[str, Any], steps: int, share: "Share"
    ) -> list[float]:
        """Scores without labels: networks trained with the search's objective, then the criterion."""
        networks = share.own([candidate(module, genotype) for genotype in found])  # all are drawn, so that each is
        scores = []  # what it would be in one process
        if networks:
            batches = view_pairs(module, islice(endless(loaders["weights"]), steps), 0.0)
            self._train(networks, batches, module, steps, share.first)
            doing = activity("scoring candidates", len(networks), "candidates", shown=share.first)
            with torch.no_grad(), doing as shown:
                prepared = self.criterion.prepare(lambda p: StoredPairs(view_pairs(module, loaders["architecture"], p)))
                for network in networks:
                    scores.append(self.criterion.score(network.eval().project, prepared))
                    shown.advance()
        return self.criterion.combine(share.joined(scores))

    def _by_labels(
        self, module: FusionSearch, found: list[Genotype], loaders: dict[str, Any], steps: int, share: "Share"
    ) -> list[float]:
        """Scores of a supervised search: the loss on the architecture's part of networks trained with labels."""
        networks = share.own([labelled_candidate(module, genotype) for genotype in found])
        scores: list[float] = []
        if networks:
            batches = labelled_batches(module, islice(endless(loaders["weights"]), steps))
            self._train(networks, batches, module, steps, share.first)
            with torch.no_grad():
                held_out = labelled_batches(module, loaders["architecture"])
                losses = [torch.stack([network.eval()(*batch) for network in networks]) for batch in held_out]
            scores = torch.stack(losses).mean(0).tolist()
        return share.joined(scores)

    def _train(self, networks: Any, batches: Iterable[Any], module: FusionSearch, steps: int, first: bool) -> None:
        """Trains the candidates side by side."""
        doing = activity(f"training {len(networks)} candidates", steps, "steps", part=1, shown=first)
        with doing as shown:

            def counted() -> Iterator[Any]:
                for batch in batches:
                    yield batch
                    shown.advance()

            train_candidates(networks, counted(), lambda network: self._optimizer(network, module, steps))

    def _optimizer(self, network: nn.Module, module: FusionSearch, steps: int) -> Any:
        groups = [{"params": list(network.parameters()), "lr": self.lr}]
        return build_optimizer(groups, module.weight_decay, "one_cycle", steps)

    def _budget(self, module: FusionSearch) -> Budget | None:
        table = module.cost.table
        return None if self.max_cost is None or table is None else Budget(table, self.max_cost)

    def _write(
        self, genotype: Genotype, scores: list[dict[str, Any]], steps: int, module: FusionSearch, searched: int
    ) -> None:
        from lightning_mmnas.report.architecture import plot_genotype
        from lightning_mmnas.report.pareto import plot_pareto

        os.makedirs(self.output.parent, exist_ok=True)
        genotype.save(self.output)
        write_bytes(self.output.with_suffix(".png"), _png(plot_genotype(genotype)))
        table = module.cost.table
        criterion = type(self.criterion).__name__ if module.classifier is None else "labels"
        made: dict[str, Any] = {"criterion": criterion, "steps": steps, "seed": self.seed}
        made |= {"architecture_steps": searched, "entropy": module.entropy()}
        if table is not None:
            costs = [table.of(Genotype.model_validate(entry["genotype"])) for entry in scores]
            scores = [{**entry, "cost": cost} for entry, cost in zip(scores, costs, strict=True)]
            made["cost"] = {"kind": table.kind, "chosen": table.of(genotype), "max_cost": self.max_cost}
            if scores:
                points = [(cost, entry["score"]) for cost, entry in zip(costs, scores, strict=True)]
                figure = plot_pareto(points, UNITS[table.kind], criterion, chosen=0, limit=self.max_cost)
                write_bytes(self.output.with_suffix(".pareto.png"), _png(figure))
        made["candidates"] = scores
        write_text(self.output.with_suffix(".selection.json"), json.dumps(made, indent=2) + "\n")


def _png(figure: "Figure") -> bytes:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def _stamp(path: Path) -> tuple[int, int] | None:
    """Tells a file that was written anew."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _architecture_steps(trainer: Trainer, module: FusionSearch) -> int:
    """Steps of the logits; a warning where nothing could make any, and they are all alike."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    found = [callback for callback in callbacks if isinstance(callback, ArchitectureAlternation)]
    if not found and (module.entropy() or 0.0) > 1 - 1e-6:
        rank_zero_warn("Nothing has trained the architecture logits: add ArchitectureAlternation to the callbacks.")
    return sum(callback.steps for callback in found)


def _loaders(trainer: Trainer) -> tuple[dict[str, Any], bool]:
    """The two parts' loaders with all their samples, and whether every rank reads the same from them."""
    datamodule = getattr(trainer, "datamodule", None)
    loaders = datamodule.train_dataloader() if datamodule is not None else trainer.train_dataloader
    iterables = getattr(loaders, "iterables", loaders)
    if not isinstance(iterables, dict) or not {"weights", "architecture"} <= iterables.keys():
        raise MisconfigurationException(
            "GenotypeSelection needs train batches with the parts 'weights' and 'architecture'; set "
            "data.init_args.architecture_fraction"
        )
    samplers = [getattr(iterables[name], "sampler", None) for name in ("weights", "architecture")]
    sharded = [sampler for sampler in samplers if isinstance(sampler, DistributedSampler)]
    for sampler in sharded:
        unshard(sampler)
    return iterables, isinstance(datamodule, MultimodalDataModule) or len(sharded) == len(samplers)
