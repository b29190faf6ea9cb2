"""How every architecture of a table is trained and scored: many networks at once, over features computed before."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, cast

import torch
from lightly.loss import NTXentLoss
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_mmnas.data.splits import label_budget
from lightning_mmnas.fusion.grouped_layers import GroupedLinear, GroupedSequential
from lightning_mmnas.fusion.input_nodes import Grid, Pool
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.fusion.network_group import NetworkGroup
from lightning_mmnas.fusion.readout import ReadoutName
from lightning_mmnas.objectives.criteria import Criterion, ViewPair
from lightning_mmnas.objectives.fusion_objective import projection_head
from lightning_mmnas.objectives.groups import ContrastiveGroup, LabelledGroup
from lightning_mmnas.objectives.training import Schedule, build_optimizer, train_together
from lightning_mmnas.space.genotype import Genotype
from lightning_mmnas.tabular.projections import nth, once
from lightning_mmnas.views.pair import ModalityDropout

Features = dict[str, Tensor]
State = dict[str, Tensor]

_CHUNK = 500
"""Samples that pass through a group at once where nothing is trained."""


class Protocol(BaseModel):
    """How much every architecture of a table is trained; part of the table's card.

    Attributes:
        screen_steps: Self-supervised steps, with the pool readout, before the label-free criteria are taken.
        pretrain_steps: Self-supervised steps with the final readout.
        batch_size: Samples of a self-supervised step; it sees two views of each.
        finetune_steps: Fine-tuning steps where labels are few, by labels per class.
        finetune_batch_size: Batch size there.
        supervised_steps: Supervised steps with all labels, from scratch.
        supervised_batch_size: Batch size there.
        probe_steps: Full-batch steps of the linear probe.
        temperature: Softmax temperature of NT-Xent, unitless.
        lr: Peak learning rate of the self-supervised steps.
        finetune_lr: Peak learning rate of networks where labels are used.
        head_lr: Peak learning rate of classifiers.
        probe_lr: Learning rate of the linear probe.
        weight_decay: Decoupled weight decay.
        readout: Readout of the final networks.
        pool: See `InputNode`.
        grid: See `InputNode`.
        projection_hidden: Hidden size of the projection head.
        projection_out: Size of the projections.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    screen_steps: int = Field(default=60, ge=1)
    pretrain_steps: int = Field(default=100, ge=1)
    batch_size: int = Field(default=128, ge=2)
    finetune_steps: dict[int, int] = {5: 60, 20: 100}
    finetune_batch_size: int = Field(default=64, ge=2)
    supervised_steps: int = Field(default=150, ge=1)
    supervised_batch_size: int = Field(default=128, ge=2)
    probe_steps: int = Field(default=100, ge=1)
    temperature: float = 0.2
    lr: float = 1e-2
    finetune_lr: float = 5e-3
    head_lr: float = 1e-2
    probe_lr: float = 5e-2
    weight_decay: float = 1e-4
    readout: ReadoutName = "branch"
    pool: Pool = "max"
    grid: Grid = "auto"
    projection_hidden: int = 128
    projection_out: int = 64


@dataclass
class TableData:
    """Features of one seed's encoders, in memory.

    Attributes:
        feature_shapes: Shapes that the encoders promise, by name.
        train_views: Stored views of the training samples, each (n, v, *feature).
        train: The training samples as they are.
        val_views: Stored views of the validation samples.
        test: The test samples as they are.
        train_labels: Class of every training sample, (n,).
        test_labels: Class of every test sample.
        class_names: Names of the classes.
        means: Features of the training-set means, for modality dropout.
        train_groups: Group of every training sample, such as its recording; None: each is one of its own.
    """

    feature_shapes: Mapping[str, Sequence[int]]
    train_views: Features
    train: Features
    val_views: Features
    test: Features
    train_labels: Tensor
    test_labels: Tensor
    class_names: list[str]
    means: Features
    train_groups: Tensor | None = None


class GroupTraining:
    """Trains groups of architectures by a protocol, on the features of one seed.

    Networks, batches, views and label draws depend on the seed, the phase and, for a network's first weights, its
    index; not on which networks are trained together.

    Args:
        data: The features.
        protocol: How much is trained.
        seed: Seed of everything random.
        criteria: Label-free criteria by column.
    """

    def __init__(self, data: TableData, protocol: Protocol, seed: int, criteria: Mapping[str, Criterion]) -> None:
        self.data = data
        self.protocol = protocol
        self.seed = seed
        self.criteria = criteria
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_seed(seed, "criteria"))
            self.prepared = {name: c.prepare(self._validation_pairs) for name, c in criteria.items()}
        self.chosen = {
            budget: label_budget(data.train_labels, budget, seed, data.class_names)
            for budget in protocol.finetune_steps
        }

    def run(self, genotypes: Mapping[int, Genotype]) -> list[dict[str, Any]]:
        """One row of numbers per architecture.

        Args:
            genotypes: Architectures by their index in the space.
        """
        start = time.process_time()
        rows: list[dict[str, Any]] = [{"index": index, "seed": self.seed} for index in genotypes]
        _add(rows, self._screen(genotypes))
        networks = [self._network(index, genotype, self.protocol.readout) for index, genotype in genotypes.items()]
        group = NetworkGroup(networks)
        _add(rows, self.with_labels(group, len(networks)))
        parameters = [sum(p.numel() for p in network.parameters()) for network in networks]
        _add(rows, {"parameters": parameters, "flops": [self._flops(network) for network in networks]})
        _add(rows, {"seconds": [(time.process_time() - start) / len(rows)] * len(rows)})
        return rows

    def with_labels(self, group: nn.Module, size: int) -> dict[str, list[float]]:
        """Pretrains a group, then takes everything that labels decide: test accuracies by column.

        Args:
            group: Freshly initialised; features by name -> (g, b, out_features).
            size: g.
        """
        protocol = self.protocol
        fresh = _snapshot(group)
        self._pretrain(group, size, protocol.pretrain_steps, "pretrain")
        pretrained = _snapshot(group)
        found = {f"probe_{budget}": self._probe(group, chosen) for budget, chosen in self.chosen.items()}
        for budget, steps in protocol.finetune_steps.items():
            for name, state in (("finetune", pretrained), ("scratch", fresh)):
                group.load_state_dict(state)
                found[f"{name}_{budget}"] = self._finetune(
                    group, size, self.chosen[budget], steps, protocol.finetune_batch_size
                )
        group.load_state_dict(fresh)
        everything = torch.arange(len(self.data.train_labels))
        found["supervised"] = self._finetune(
            group, size, everything, protocol.supervised_steps, protocol.supervised_batch_size
        )
        return found

    def _network(self, index: int, genotype: Genotype, readout: ReadoutName) -> FusionNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_seed(self.seed, readout, index))
            protocol = self.protocol
            return FusionNetwork(genotype, self.data.feature_shapes, readout, pool=protocol.pool, grid=protocol.grid)

    def _screen(self, genotypes: Mapping[int, Genotype]) -> dict[str, list[float]]:
        """The label-free criteria after a short training with the pool readout."""
        networks = [self._network(index, genotype, "pool") for index, genotype in genotypes.items()]
        group = NetworkGroup(networks)
        head = self._pretrain(group, len(networks), self.protocol.screen_steps, "screen")
        group.eval()
        head.eval()
        scores: dict[str, list[float]] = {}
        with torch.no_grad():
            for name, criterion in self.criteria.items():
                prepared = self.prepared[name]
                projections = once(lambda features: head(group(features)), prepared)
                found = [criterion.score(nth(projections, g), prepared) for g in range(len(networks))]
                scores[name] = criterion.combine(found)
        return scores

    def _pretrain(self, group: nn.Module, size: int, steps: int, phase: str) -> nn.Module:
        """Trains a group with NT-Xent; returns the projection heads."""
        protocol = self.protocol
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_seed(self.seed, "projection"))
            width = cast(int, group.out_features)
            one = projection_head(width, protocol.projection_hidden, protocol.projection_out)
        head = GroupedSequential([cast(nn.Module, one.layers)] * size)
        objectives = [NTXentLoss(temperature=protocol.temperature)] * size
        self._train(
            ContrastiveGroup(group, head, objectives),
            self._training_pairs(steps, phase),
            lambda both: [{"params": [*both.networks.parameters(), *both.heads.parameters()], "lr": protocol.lr}],
            "one_cycle",
            steps,
        )
        return head

    def _finetune(self, group: nn.Module, size: int, chosen: Tensor, steps: int, batch_size: int) -> list[float]:
        """Trains a group and its classifiers with the labels of some training samples; accuracy on the test split.

        Args:
            group: Features by name -> (g, b, out_features).
            size: g.
            chosen: Indices of the training samples whose labels are used.
            steps: Number of steps.
            batch_size: Samples of a step, one stored view of each.
        """
        protocol, data = self.protocol, self.data
        head = self._classifier(cast(int, group.out_features), size)
        stored = next(iter(data.train_views.values())).shape[1]
        generator = torch.Generator().manual_seed(_seed(self.seed, "finetune", len(chosen)))

        def batches() -> Iterator[tuple[Features, Tensor]]:
            for places in _batches(len(chosen), batch_size, steps, generator):
                rows = chosen[places]
                views = torch.randint(stored, (len(rows),), generator=generator)
                features = {name: _plain(value[rows, views]) for name, value in data.train_views.items()}
                yield features, data.train_labels[rows]

        self._train(
            LabelledGroup(group, head),
            batches(),
            lambda both: [
                {"params": list(both.classifiers.parameters()), "lr": protocol.head_lr},
                {"params": list(both.networks.parameters()), "lr": protocol.finetune_lr},
            ],
            "one_cycle",
            steps,
        )
        return self._accuracy(group, head)

    def _train(
        self, group: nn.Module, batches: Iterable[Sequence[Any]], rates: Any, schedule: Schedule, steps: int
    ) -> None:
        """Trains one group; `rates` makes the parameter groups of its optimiser."""
        train_together(
            {"group": group},
            batches,
            lambda both: build_optimizer(rates(both), self.protocol.weight_decay, schedule, steps),
        )

    def _classifier(self, width: int, size: int) -> GroupedLinear:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_seed(self.seed, "classifier"))
            return GroupedLinear([nn.Linear(width, len(self.data.class_names))] * size)

    def _probe(self, group: nn.Module, chosen: Tensor) -> list[float]:
        """Test accuracy of logistic regression on the frozen networks' standardised vectors."""
        data, protocol = self.data, self.protocol
        vectors = _vectors(group, {name: value[chosen] for name, value in data.train.items()})
        mean, std = vectors.mean(1, keepdim=True), vectors.std(1, keepdim=True).clamp_min(1e-3)
        vectors = (vectors - mean) / std
        head = self._classifier(vectors.shape[2], len(vectors))
        self._train(
            LabelledGroup(nn.Identity(), head),
            repeat((vectors, data.train_labels[chosen]), protocol.probe_steps),
            lambda both: [{"params": list(both.classifiers.parameters()), "lr": protocol.probe_lr}],
            "cosine",
            protocol.probe_steps,
        )
        return self._accuracy(group, lambda found: head((found - mean) / std))

    @torch.no_grad()
    def _accuracy(self, group: nn.Module, head: Callable[[Tensor], Tensor]) -> list[float]:
        logits = head(_vectors(group, self.data.test))
        correct = (logits.argmax(-1) == self.data.test_labels).sum(1)
        return [int(count) / len(self.data.test_labels) for count in correct]

    def _training_pairs(self, steps: int, phase: str) -> Iterator[ViewPair]:
        """Two different stored views of each sample of a batch."""
        views = self.data.train_views
        first = next(iter(views.values()))
        size, stored = first.shape[:2]
        generator = torch.Generator().manual_seed(_seed(self.seed, phase))
        for rows in _batches(size, self.protocol.batch_size, steps, generator):
            drawn = torch.rand(len(rows), stored, generator=generator).argsort(1)[:, :2]
            yield (
                {name: _plain(value[rows, drawn[:, 0]]) for name, value in views.items()},
                {name: _plain(value[rows, drawn[:, 1]]) for name, value in views.items()},
            )

    def _validation_pairs(self, dropout: float) -> list[ViewPair]:
        """The first two stored views of every whole validation batch, with modality dropout."""
        views, size = self.data.val_views, self.protocol.batch_size
        drop = ModalityDropout(dropout)
        count = len(next(iter(views.values())))
        size = min(size, count)
        pairs = []
        for start in range(0, count - count % size, size):
            first, second = (
                drop(
                    {n: _plain(v[start : start + size, k]) for n, v in views.items()},
                    self.data.means,
                )
                for k in (0, 1)
            )
            pairs.append((first, second))
        return pairs

    def _flops(self, network: FusionNetwork) -> int:
        """Floating-point operations of one sample, as torch counts them (matrix products only)."""
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network.eval()({name: value[:1] for name, value in self.data.test.items()})
        return int(counter.get_total_flops())


def _vectors(group: nn.Module, features: Features) -> Tensor:
    """Features of a split -> (g, n, out_features), without gradients, in eval mode."""
    group.eval()
    count = len(next(iter(features.values())))
    with torch.no_grad():
        parts = [
            group({name: _plain(value[i : i + _CHUNK]) for name, value in features.items()})
            for i in range(0, count, _CHUNK)
        ]
    return torch.cat(parts, dim=1)


def _plain(stored: Tensor) -> Tensor:
    """Stored features in the type that networks have."""
    return stored.to(torch.get_default_dtype())


def _snapshot(module: nn.Module) -> State:
    return {name: value.clone() for name, value in module.state_dict().items()}


def _add(rows: Sequence[dict[str, Any]], columns: Mapping[str, Sequence[Any]]) -> None:
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value


def _batches(count: int, size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled batches of indices, epoch after epoch; an incomplete last batch is left out."""
    size = min(size, count)
    done = 0
    while done < steps:
        order = torch.randperm(count, generator=generator)
        for rows in order[: count - count % size].view(-1, size)[: steps - done]:
            yield rows
            done += 1


def _seed(*parts: int | str) -> int:
    """A seed of its own for every purpose."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")
