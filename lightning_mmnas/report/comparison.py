"""What the search gained: the found network beside random architectures and simple baselines, equal budgets.

All networks stand on the same frozen encoders, see the same label draws in the same order and are trained for the
same number of steps; those that are pretrained see the same number of unlabelled batches as the found one.
"""

import copy
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from lightning_mmnas.baselines import LateFusion
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.splits import label_budget
from lightning_mmnas.genotype import Genotype
from lightning_mmnas.modules.base import FusionObjective, build_optimizer, projection_head
from lightning_mmnas.modules.finetune import FineTuning, build_metrics
from lightning_mmnas.modules.pretrain import FusionPretraining
from lightning_mmnas.network import FusionNetwork
from lightning_mmnas.objectives import classification_loss
from lightning_mmnas.readout import LateFeatures
from lightning_mmnas.selection import ViewPair, local_objective, train_together

Features = dict[str, Tensor]
Budget = int | Literal["all"]


@dataclass(frozen=True)
class ComparisonSettings:
    """How much is compared.

    Attributes:
        labels_per_class: Label budgets.
        draws: Label draws of each budget; with all labels, as many seeds of the classifier.
        random_architectures: Number of random architectures.
        steps: Fine-tuning steps of each network at a budget of 20 labels per class or fewer.
        steps_all: Fine-tuning steps with all labels.
        batch_size: Batch size of the fine-tuning.
    """

    labels_per_class: list[Budget] = field(default_factory=lambda: [5, 20, "all"])
    draws: int = 3
    random_architectures: int = 3
    steps: int = 60
    steps_all: int = 200
    batch_size: int = 64


@dataclass
class Split:
    """One split, encoded: features of every sample, and its labels."""

    features: Features
    labels: Tensor

    def subset(self, indices: Tensor) -> "Split":
        """The samples at the indices."""
        return Split({name: value[indices] for name, value in self.features.items()}, self.labels[indices])


class Comparison:
    """Pretrains, fine-tunes and scores the found network and everything it has to beat.

    Args:
        pretraining: The pretraining stage as configured, with the found network and the encoders.
        finetuning: The fine-tuning stage as configured: learning rates, pretrained weights of the found network.
        unlabelled: Data of the pretraining stage.
        labelled: Data of the fine-tuning stage, with all labels.
        epochs: Epochs of the pretraining stage.
        settings: How much is compared.
        seed: Seed of random architectures, label draws and weights.
        advance: Called after each of `total` units of work, for a progress bar.
    """

    def __init__(
        self,
        pretraining: FusionPretraining,
        finetuning: FineTuning,
        unlabelled: MultimodalDataModule,
        labelled: MultimodalDataModule,
        epochs: int,
        settings: ComparisonSettings,
        seed: int,
        advance: Callable[[], None] = lambda: None,
    ) -> None:
        self.pretraining = pretraining
        self.finetuning = finetuning
        self.unlabelled = unlabelled
        self.labelled = labelled
        self.epochs = epochs
        self.settings = settings
        self.seed = seed
        self.advance = advance

    def run(self) -> list[dict[str, Any]]:
        """Returns one row per name and label budget; see the README for their meaning."""
        torch.manual_seed(self.seed)
        networks = self._networks()
        pretrained = {name: n for name, n in networks.items() if name.endswith("+ssl") or name.startswith("modality:")}
        found = copy.deepcopy(self.finetuning.network)  # pretrained by its own stage, with the same budget
        self._pretrain({name: n for name, n in pretrained.items()})
        networks["found+ssl"] = found
        train, test = self._encode("fit", "train"), self._encode("test", "test")
        rows = []
        for budget in self.settings.labels_per_class:
            scores: dict[str, list[float]] = {name: [] for name in [*networks, "raw_features"]}
            for draw in range(self.settings.draws):
                part = self._draw(train, budget, draw)
                for name, network in networks.items():
                    scores[name].append(self._finetune(network, part, test, budget, draw))
                    self.advance()
                scores["raw_features"].append(self._logistic_regression(part, test, draw))
            rows += self._rows(scores, budget)
        return rows

    def _networks(self) -> dict[str, nn.Module]:
        """Every network but the pretrained found one, freshly initialised."""
        shapes = self.pretraining.encoders.feature_shapes
        genotype = self.finetuning.network.genotype
        assert isinstance(genotype, Genotype)
        generator = torch.Generator().manual_seed(self.seed)
        hparams = self.finetuning.hparams
        options = {name: hparams[name] for name in ("readout", "dropout", "pool", "grid")}
        networks: dict[str, nn.Module] = {"found": FusionNetwork(genotype, shapes, **options)}
        for i in range(self.settings.random_architectures):
            networks[f"random{i}+ssl"] = FusionNetwork(genotype.space.sample(generator), shapes, **options)
        networks["late_fusion"] = LateFusion(shapes)
        networks["late_fusion+ssl"] = LateFusion(shapes)
        networks["late_fusion_all_levels"] = LateFusion(shapes, all_levels=True)
        networks["late_fusion_linear"] = LateFusion(shapes, hidden=None)
        for modality in genotype.space.modalities:
            networks[f"modality:{modality}"] = LateFusion(shapes, modalities=[modality])
        return networks

    def _pretrain(self, networks: Mapping[str, nn.Module]) -> None:
        module = self.pretraining
        hparams = module.hparams
        loader = self.unlabelled.train_dataloader()
        steps = self.epochs * len(loader)
        objectives = {
            name: FusionObjective(
                network,
                projection_head(int(network.out_features), hparams["projection_hidden"], hparams["projection_out"]),
                local_objective(module.objective),
                module.fusion.cross_modal_weight,
                hparams["temperature"],
            )
            for name, network in networks.items()
        }

        def views() -> Iterator[ViewPair]:
            for _ in range(self.epochs):
                for batch in loader:
                    first, second = module.views(batch)
                    yield module.encoders(first), module.encoders(second)
                    self.advance()

        train_together(
            objectives,
            views(),
            lambda network: build_optimizer(
                [{"params": list(network.parameters()), "lr": module.lr}],
                module.weight_decay,
                module.schedule,
                steps,
            ),
        )

    def _encode(self, stage: str, split: Literal["train", "test"]) -> Split:
        self.labelled.setup(stage)
        batch = self.labelled.tensors(split)
        count = len(batch["label"])
        parts = [self.pretraining.encoders({n: v[i : i + 512] for n, v in batch.items()}) for i in range(0, count, 512)]
        features = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return Split(features, batch["label"])

    def _draw(self, train: Split, budget: Budget, draw: int) -> Split:
        if budget == "all":
            return train
        return train.subset(label_budget(train.labels, budget, draw, self.labelled.class_names))

    def _finetune(self, network: nn.Module, train: Split, test: Split, budget: Budget, draw: int) -> float:
        """Accuracy (weighted F1 for multi-label data) on the test split after fine-tuning a copy."""
        module, settings = self.finetuning, self.settings
        steps = settings.steps_all if budget == "all" else settings.steps
        with isolate_rng():
            torch.manual_seed(1000 * self.seed + draw)
            network = copy.deepcopy(network)
            assert self.labelled.num_classes is not None
            head = nn.Linear(int(network.out_features), self.labelled.num_classes)
            optimizer, schedule = build_optimizer(
                [
                    {"params": list(head.parameters()), "lr": module.head_lr},
                    {"params": list(network.parameters()), "lr": module.lr},
                ],
                module.weight_decay,
                module.schedule,
                steps,
            )
            network.train()
            for indices in _batches(len(train.labels), settings.batch_size, steps):
                batch = train.subset(indices)
                loss = classification_loss(head(network(batch.features)), batch.labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            logits = torch.cat(
                [
                    head(network.eval()(test.subset(torch.arange(i, min(i + 512, len(test.labels)))).features))
                    for i in range(0, len(test.labels), 512)
                ]
            )
        return self._score(logits, test.labels)

    def _logistic_regression(self, train: Split, test: Split, draw: int) -> float:
        """Logistic regression on the pooled features of all levels of the frozen encoders."""
        pooled = LateFeatures(list(train.features), self.pretraining.encoders.feature_shapes)
        scaler = StandardScaler().fit(pooled(train.features).numpy())
        model = LogisticRegression(max_iter=1000)
        model.fit(scaler.transform(pooled(train.features).numpy()), train.labels.numpy())
        scores = torch.from_numpy(model.predict_proba(scaler.transform(pooled(test.features).numpy())))
        return self._score(scores, test.labels)

    def _score(self, logits: Tensor, labels: Tensor) -> float:
        assert self.labelled.task is not None
        assert self.labelled.num_classes is not None
        metrics = build_metrics(self.labelled.task, self.labelled.num_classes)
        return float(metrics(logits, labels)[self.metric])

    @property
    def metric(self) -> str:
        """What the numbers are."""
        return "accuracy" if self.labelled.task == "multiclass" else "f1_weighted"

    def _rows(self, scores: Mapping[str, list[float]], budget: Budget) -> list[dict[str, Any]]:
        """Rows of one budget; of the random architectures, the one of median mean."""
        random = sorted((name for name in scores if name.startswith("random")), key=lambda n: _mean(scores[n]))
        kept = {name: values for name, values in scores.items() if name not in random}
        if random:
            kept["random+ssl"] = scores[random[(len(random) - 1) // 2]]
        order = ["found+ssl", "found", "random+ssl"]
        names = [n for n in order if n in kept] + [n for n in kept if n not in order]
        return [
            {
                "name": name,
                "labels_per_class": budget,
                "metric": self.metric,
                "mean": _mean(kept[name]),
                "std": statistics.stdev(kept[name]) if len(kept[name]) > 1 else 0.0,
                "n": len(kept[name]),
            }
            for name in names
        ]


def _mean(values: list[float]) -> float:
    return statistics.fmean(values)


def _batches(count: int, size: int, steps: int) -> Iterator[Tensor]:
    """Shuffled batches of indices, epoch after epoch; a last batch of one sample is left out."""
    done = 0
    while True:
        for indices in torch.randperm(count).split(size):
            if len(indices) > 1:
                yield indices
                done += 1
                if done == steps:
                    return
