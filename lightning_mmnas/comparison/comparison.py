"""What the search gained: the found network beside random architectures and simple baselines, equal budgets.

All networks stand on the same frozen encoders, see the same label draws in the same order and are trained for the
same number of steps; those that are pretrained see the same number of unlabelled batches as the found one.
"""

import copy
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmnas.comparison.label_draws import check_budgets, draw_labels
from lightning_mmnas.comparison.logistic import LogisticRival, logistic_rivals
from lightning_mmnas.comparison.rivals import rivals
from lightning_mmnas.comparison.settings import Budget, ComparisonSettings
from lightning_mmnas.comparison.starts import mixture_start
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.samples import Part
from lightning_mmnas.data.spec import Split
from lightning_mmnas.fusion.compact import compact
from lightning_mmnas.fusion.readout import out_features
from lightning_mmnas.modules.finetune import FineTuning
from lightning_mmnas.modules.metrics import build_metrics, build_tuned_metrics, main_metric, tune_thresholds
from lightning_mmnas.modules.pretrain import FusionPretraining
from lightning_mmnas.modules.transfer import BatchTransfer
from lightning_mmnas.objectives.criteria import ViewPair
from lightning_mmnas.objectives.fusion_objective import FusionObjective, projection_head
from lightning_mmnas.objectives.groups import LabelledGroup
from lightning_mmnas.objectives.labelled import Labelled
from lightning_mmnas.objectives.losses import local_objective
from lightning_mmnas.objectives.training import build_optimizer, train_grouped, train_together
from lightning_mmnas.report.budgets import PER_CLASS, TOTAL, budget_name
from lightning_mmnas.space.genotype import Genotype

Features = dict[str, Tensor]
Batch = dict[str, Tensor]

_CHUNK = 512
"""Samples that pass through a network at once where nothing is trained."""


class Comparison:
    """Pretrains, fine-tunes and scores the found network and everything it has to beat.

    Args:
        pretraining: The pretraining stage as configured, with the found network and the encoders.
        finetuning: The fine-tuning stage as configured: learning rates, pretrained weights of the found network.
        unlabelled: Data of the pretraining stage.
        labelled: Data of the fine-tuning stage, with all labels.
        pretraining_steps: Steps of the pretraining stage; the others get as many.
        settings: How much is compared.
        seed: Seed of random architectures, label draws, folds and weights.
        accumulate: Batches per step of the pretraining stage.
        device: Where the networks are trained; None: the CPU.
        advance: Called after each of `total` units of work, for a progress bar.
        announce: Called with what is done next, in a few words.
    """

    def __init__(
        self,
        pretraining: FusionPretraining,
        finetuning: FineTuning,
        unlabelled: MultimodalDataModule,
        labelled: MultimodalDataModule,
        pretraining_steps: int,
        settings: ComparisonSettings,
        seed: int,
        accumulate: int = 1,
        device: torch.device | None = None,
        advance: Callable[[], None] = lambda: None,
        announce: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.pretraining = pretraining
        self.finetuning = finetuning
        self.unlabelled = unlabelled
        self.labelled = labelled
        self.pretraining_steps = pretraining_steps
        self.settings = settings
        self.seed = seed
        self.accumulate = accumulate
        self.device = device or torch.device("cpu")
        self.budgets = settings.budgets(labelled.task)
        self.advance = advance
        self.announce = announce
        self.pretraining.to(self.device)
        self.finetuning.to(self.device)

    @property
    def total(self) -> int:
        """Units of work: steps of which all networks take part."""
        few, every = self.settings.counts(self.labelled.task)
        tuning = self.settings.draws * (few * self.settings.steps + every * self.settings.steps_all)
        return self.pretraining_steps * self.accumulate + tuning

    def run(self) -> list[dict[str, Any]]:
        """Returns one row per name and label budget; the documentation says what the names mean."""
        self.labelled.setup("fit")
        train, class_names = self.labelled.part("train"), self.labelled.class_names
        labels = _labels(train)
        check_budgets(labels, self.budgets, self.labelled.task, class_names)
        torch.manual_seed(self.seed)
        networks = self._networks()
        found = copy.deepcopy(self.finetuning.network)  # pretrained by its own stage, with the same budget
        pretrained = {name: network for name, network in networks.items() if name.endswith("+ssl")}
        self.announce(f"pretraining {len(pretrained)} rivals")
        self.pretrain(pretrained)
        networks["found+ssl"] = found
        self.labelled.setup("test")
        test = self.labelled.part("test")
        targets = _labels(test)
        encoded = self.encode(train), self.encode(test, "test")
        # Thresholds of multi-label data are tuned on the validation split, for everybody alike.
        several = self.labelled.task == "multilabel"
        encoded_val = self.encode(self.labelled.part("val"), "val") if several else {}
        val_targets = _labels(self.labelled.part("val")) if several else None
        shapes, num_classes = self.pretraining.encoders.feature_shapes, len(class_names)
        rows = []
        for budget in self.budgets:
            scores: dict[str, list[float]] = {name: [] for name in networks}
            for draw in range(self.settings.draws):
                chosen = self.draw(labels, budget, draw)
                labelled = budget_name(budget, self.unit)
                place = f"{labelled}, draw {draw + 1}/{self.settings.draws}"
                self.announce(f"{place}: {'ridge' if self.unit == TOTAL else 'logistic'} regressions")
                seed = 1000 * self.seed + draw
                if draw == 0 or budget != "all":  # it is convex: with the same labels it would be the same again
                    features = {name: value[chosen] for name, value in encoded[0].items()}
                    groups = None if train.groups is None else train.groups[chosen]
                    regressions = logistic_rivals(
                        features, labels[chosen], groups, shapes, num_classes, seed, self.labelled.task
                    )
                if draw == 0 or budget != "all" or self.finetuning.mixture is None:
                    starts = self.starts(networks, regressions, features, labels[chosen], groups, seed)
                self.announce(f"{place}: {len(starts)} networks")
                tuned = self.finetune(starts, train.subset(chosen), budget, draw)
                for name, network in tuned.items():
                    seen = self.predict(network, encoded_val) if several else None
                    scores[name].append(self.score(self.predict(network, encoded[1]), targets, seen, val_targets))
                for name, regression in regressions.items():
                    seen = regression(encoded_val) if several else None
                    scores.setdefault(name, []).append(self.score(regression(encoded[1]), targets, seen, val_targets))
            rows += self._rows(scores, budget)
        return rows

    def _networks(self) -> dict[str, nn.Module]:
        """Every network but the pretrained found one, freshly initialised."""
        genotype, hparams = self.finetuning.network.genotype, self.finetuning.built_with
        assert isinstance(genotype, Genotype)
        options = {name: hparams[name] for name in ("readout", "dropout", "pool", "grid")}
        shapes, count = self.pretraining.encoders.feature_shapes, self.settings.random_architectures
        return rivals(genotype, shapes, count, self.seed, **options)

    def pretrain(self, networks: Mapping[str, nn.Module]) -> None:
        """Pretrains networks side by side as the pretraining stage does, each with a projection head of its own."""
        module = self.pretraining
        hparams = module.built_with
        steps = self.pretraining_steps
        objectives = {
            name: FusionObjective(
                network,
                projection_head(out_features(network), hparams["projection_hidden"], hparams["projection_out"]),
                local_objective(module.objective),
                module.fusion.cross_modal_weight,
                hparams["temperature"],
            ).to(self.device)
            for name, network in networks.items()
        }

        def views() -> Iterator[ViewPair]:
            transfer = BatchTransfer(module, self.unlabelled)
            for batch in islice(self.unlabelled_batches(), steps * self.accumulate):
                with transfer.context():
                    first, second = module.views(transfer(batch))
                    pair = self.compact(module.encoders(first)), self.compact(module.encoders(second))
                yield pair
                self.advance()

        train_grouped(
            objectives,
            views(),
            lambda network: build_optimizer(
                [{"params": list(network.parameters()), "lr": module.lr}],
                module.weight_decay,
                module.schedule,
                steps,
            ),
            self.accumulate,
        )

    def unlabelled_batches(self) -> Iterator[Batch]:
        """Epoch after epoch of one loader: a new one would repeat the order of the first epoch."""
        loader = self.unlabelled.train_dataloader()
        while True:
            yield from loader

    def encode(self, part: Part, split: Split = "train") -> Features:
        """Features of a whole part by name, (n, c_in, *rest), as small as the networks need; raw samples in chunks."""
        module = self.finetuning
        found: dict[str, list[Tensor]] = {}
        transfer = BatchTransfer(module, self.labelled, split=split)
        for start in range(0, len(part), _CHUNK):
            batch = transfer(part.__getitems__(range(start, min(start + _CHUNK, len(part)))))
            with transfer.context():
                features = self.compact(module.encoders(batch))
            for name, value in features.items():
                found.setdefault(name, []).append(value)
        return {name: torch.cat(values) for name, values in found.items()}

    def compact(self, features: Mapping[str, Tensor]) -> Features:
        """What the networks need of features, computed once for all of them."""
        module = self.finetuning
        genotype = module.network.genotype
        assert isinstance(genotype, Genotype)
        found = compact(features, genotype.space.length, module.built_with["pool"], module.built_with["grid"])
        return {name: value.float() for name, value in found.items()}  # whatever the precision, rivals are of float32

    def draw(self, labels: Tensor, budget: Budget, draw: int) -> Tensor:
        """Indices of the training samples whose labels may be used; see `draw_labels`."""
        seed = 1000 * self.seed + draw
        return draw_labels(labels, budget, seed, self.labelled.task, self.labelled.class_names)

    def starts(
        self,
        networks: Mapping[str, nn.Module],
        regressions: Mapping[str, LogisticRival],
        features: Features,
        labels: Tensor,
        groups: Tensor | None,
        seed: int,
    ) -> dict[str, Labelled]:
        """Where the fine-tuning of every network starts: its convex parts, or a random classifier in mode "full"."""
        hparams, num_classes = self.finetuning.built_with, self.labelled.num_classes
        assert num_classes is not None
        starts: dict[str, Labelled] = {}
        for name, network in networks.items():
            torch.manual_seed(seed)  # the same classifier for networks of the same width
            if self.finetuning.mixture is None:
                body = copy.deepcopy(network)
                classifier = nn.Linear(out_features(body), num_classes)
                found = Labelled(body, classifier, hparams["head_dropout"], loss=self.finetuning.criterion)
                starts[name] = found.to(self.device)
                continue
            kind, _, modality = name.partition(":")
            starts[name] = mixture_start(
                network,
                regressions[f"raw_features:{modality}" if kind == "modality" else "raw_features"],
                features,
                labels,
                groups,
                num_classes,
                seed,
                float(self.finetuning.mixture.interpolation) if name.endswith("+ssl") else None,
                hparams["head_dropout"],
                self.labelled.task,
                self.finetuning.criterion,
            )
        return starts

    def finetune(
        self,
        starts: Mapping[str, Labelled],
        train: Part,
        budget: Budget,
        draw: int,
        rates: Mapping[str, tuple[float, float]] | None = None,
    ) -> dict[str, Labelled]:
        """Fine-tunes copies of all networks side by side: same batches, same views, same number of steps.

        Args:
            starts: Networks by name.
            train: The labelled samples.
            budget: "all": the steps and batches of all labels, else those of few.
            draw: Which label draw; batches and views depend on it and the seed alone.
            rates: Peak learning rates of classifier and network by name; None: as configured.
        """
        module, settings = self.finetuning, self.settings
        transfer = BatchTransfer(module, self.labelled)
        everything = budget == "all"
        steps = settings.steps_all if everything else settings.steps
        batch_size = settings.batch_size_all if everything else settings.batch_size
        tuned = {name: copy.deepcopy(start) for name, start in starts.items()}
        torch.manual_seed(1000 * self.seed + draw)  # batches and views do not depend on which networks take part

        def batches() -> Iterator[tuple[Features, Tensor]]:
            for indices in _batches(len(train), batch_size, steps):
                batch = transfer(train.__getitems__(train.draw_views(indices)))
                with transfer.context():
                    features = self.compact(module.encoders(module.training_view(batch)))
                yield features, batch["label"]
                self.advance()

        def optimizer(labelled: Any) -> Any:
            several = isinstance(labelled, LabelledGroup)
            head = labelled.classifiers if several else labelled.classifier
            network = labelled.networks if several else labelled.network
            head_lr, lr = module.head_lr, module.lr
            if rates is not None:  # which differ, so that there are no groups
                head_lr, lr = next(rates[name] for name, other in tuned.items() if other is labelled)
            groups = [
                {"params": list(head.parameters()), "lr": head_lr},
                {"params": list(network.parameters()), "lr": lr},
            ]
            return build_optimizer(groups, module.weight_decay, module.schedule, steps)

        (train_grouped if rates is None else train_together)(tuned, batches(), optimizer)
        return tuned

    @torch.no_grad()
    def predict(self, network: Labelled, features: Features) -> Tensor:
        """Class logits (or standardised targets) of a whole split, (n, num_classes), on the CPU."""
        network.eval()
        count = len(next(iter(features.values())))
        parts = [
            network.logits({name: value[i : i + _CHUNK] for name, value in features.items()})
            for i in range(0, count, _CHUNK)
        ]
        return torch.cat(parts).cpu()

    def score(
        self, logits: Tensor, labels: Tensor, val_logits: Tensor | None = None, val_labels: Tensor | None = None
    ) -> float:
        """Accuracy, R2, or the weighted F1 with the thresholds that are best on the validation split."""
        assert self.labelled.task is not None
        assert self.labelled.num_classes is not None
        if val_logits is None or val_labels is None:
            metrics = build_metrics(self.labelled.task, self.labelled.num_classes)
            return float(metrics(logits, labels)[self.metric])
        thresholds = tune_thresholds(val_logits.sigmoid(), val_labels)
        decisions = (logits.sigmoid() > thresholds).float()
        return float(build_tuned_metrics(self.labelled.num_classes)(decisions, labels)[self.metric])

    @property
    def metric(self) -> str:
        """What the numbers are."""
        return main_metric(self.labelled.task)

    @property
    def unit(self) -> str:
        """What label budgets count."""
        return TOTAL if self.labelled.task == "regression" else PER_CLASS

    def _rows(self, scores: Mapping[str, list[float]], budget: Budget) -> list[dict[str, Any]]:
        """Rows of one budget; of the random architectures, the median of each draw."""
        random = [values for name, values in scores.items() if name.startswith("random")]
        kept = {name: values for name, values in scores.items() if not name.startswith("random")}
        if random:
            kept["random+ssl"] = [statistics.median(draw) for draw in zip(*random, strict=True)]
        order = ["found+ssl", "found", "random+ssl"]
        names = [n for n in order if n in kept] + [n for n in kept if n not in order]
        return [
            {
                "name": name,
                self.unit: budget,
                "metric": self.metric,
                "mean": statistics.fmean(kept[name]),
                "std": _deviation(kept[name]),
                "n": len(kept[name]),
                "scores": kept[name],
            }
            for name in names
        ]


def _deviation(scores: Sequence[float]) -> float:
    """Standard deviation over the draws; NaN where a score is not defined, as R2 of a single sample."""
    if not all(map(math.isfinite, scores)):
        return math.nan
    return statistics.stdev(scores) if len(scores) > 1 else 0.0


def _labels(part: Part) -> Tensor:
    """Labels of all the samples of a labelled part."""
    assert part.labels is not None
    return part.labels


def _batches(count: int, size: int, steps: int) -> Iterator[Tensor]:
    """Shuffled batches of indices, epoch after epoch; an incomplete last batch is left out (batch norm suffers)."""
    size = min(size, count)
    done = 0
    while done < steps:
        for indices in torch.randperm(count)[: count - count % size].view(-1, size)[: steps - done]:
            yield indices
            done += 1
