"""What each part of the last stage is worth, for the network that a finished run found, on its validation split.

    OMP_NUM_THREADS=1 python benchmarks/last_stage.py digits --runs runs/seeds/0 runs/seeds/1 --seeds 0 1

The run must have been made with the same configurations. The test split is not looked at. Printed is the mean over
runs and label draws of the accuracy, or of the weighted F1 with thresholds tuned on one half of the validation split
and scored on the other, and of the loss per sample.
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_mmnas.commands.compare import build_comparison, read_settings
from lightning_mmnas.commands.stages import find_configs, read_stages
from lightning_mmnas.comparison.comparison import Comparison, Features
from lightning_mmnas.comparison.logistic import logistic_rivals
from lightning_mmnas.fusion.readout import out_features
from lightning_mmnas.modules.frozen import read_checkpoint
from lightning_mmnas.modules.metrics import build_tuned_metrics, tune_thresholds
from lightning_mmnas.objectives.labelled import Labelled
from lightning_mmnas.objectives.losses import classification_loss
from lightning_mmnas.objectives.mixture import Mixture

PARTS = [
    "linear path alone",
    "start alone (pretrained network, logistic regression on it)",
    "linear path and start, no fine-tuning",
    "network alone, fine-tuned from the start",
    "network alone, half-way",
    "linear path and fine-tuned network",
    "linear path and network half-way: the last stage",
    "plain fine-tuning of a random classifier (mode full)",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", help="the folder of configurations of the runs, or a shipped one")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run directories")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="their seeds")
    options, overrides = parser.parse_known_args()
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    losses: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run_dir, seed in zip(options.runs, options.seeds, strict=True):
        stages = read_stages(find_configs(options.configs), overrides)
        arguments = {stage.name: stage.arguments(run_dir, seed)[1:] for stage in stages[:-1]}
        weights = read_checkpoint(run_dir / "pretrain" / "checkpoints" / "last.ckpt", "the run")
        settings = read_settings(stages[-1].config)
        comparison = build_comparison(
            arguments["pretrain"], arguments["finetune"], int(weights["global_step"]), settings, seed
        )
        if comparison is None:
            parser.error("the run has stages of its own classes")
        whole, seen = (comparison.encode(comparison.labelled.part(split)) for split in ("train", "val"))
        for budget in settings.labels_per_class:
            for draw in range(settings.draws):
                for part, logits, labels in evaluate(comparison, whole, seen, budget, draw):
                    scores[part, str(budget)].append(score(comparison, logits, labels))
                    loss = float(classification_loss(logits, labels))
                    losses[part, str(budget)].append(loss * (labels.shape[1] if labels.ndim > 1 else 1))
    budgets = list(dict.fromkeys(budget for _, budget in scores))
    print(f"\nruns {[str(run) for run in options.runs]}; {comparison.metric} / loss")
    print(f"| | {' | '.join(budgets)} |\n|-|{'-|' * len(budgets)}")
    for part in PARTS:
        cells = [
            f"{statistics.fmean(scores[part, budget]):.3f} / {statistics.fmean(losses[part, budget]):.3f}"
            for budget in budgets
        ]
        print(f"| {part} | {' | '.join(cells)} |")


def evaluate(
    comparison: Comparison, whole: Features, seen: Features, budget: int | str, draw: int
) -> list[tuple[str, Tensor, Tensor]]:
    """Trains the last stage once, and returns the logits that each of its parts gives for the validation split."""
    train, val = comparison.labelled.part("train"), comparison.labelled.part("val")
    labels = train.labels
    assert labels is not None
    chosen = comparison.draw(labels, budget, draw)
    seed = 1000 * comparison.seed + draw
    features = {name: value[chosen] for name, value in whole.items()}
    groups = None if train.groups is None else train.groups[chosen]
    module, classes = comparison.finetuning, comparison.labelled.num_classes
    shapes = comparison.pretraining.encoders.feature_shapes
    assert classes is not None
    assert val.labels is not None
    regressions = logistic_rivals(features, labels[chosen], groups, shapes, classes, seed)
    networks = {"found+ssl": module.network}
    start = comparison.starts(networks, regressions, features, labels[chosen], groups, seed)
    torch.manual_seed(seed)
    plain = Labelled(module.network, nn.Linear(out_features(module.network), classes))
    tuned = comparison.finetune({**start, "plain": plain}, train.subset(chosen), budget, draw)
    mixed, mixture = tuned["found+ssl"], tuned["found+ssl"].mixture
    assert isinstance(mixture, Mixture)
    shares = mixture.shares.clone()

    def logits(interpolation: float, own: Tensor) -> Tensor:
        mixture.interpolation.fill_(interpolation)
        mixture.shares.copy_(own)
        return comparison.predict(mixed, seen)

    linear, network = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    found = [
        logits(0.0, linear),
        logits(0.0, network),
        logits(0.0, shares),
        logits(1.0, network),
        logits(0.5, network),
        logits(1.0, shares),
        logits(0.5, shares),
        comparison.predict(tuned["plain"], seen),
    ]
    return [(part, value, val.labels) for part, value in zip(PARTS, found, strict=True)]


def score(comparison: Comparison, logits: Tensor, labels: Tensor) -> float:
    """The comparison's metric; thresholds from the other half of the samples."""
    if labels.ndim == 1:
        return comparison.score(logits, labels)
    probabilities, half = logits.sigmoid(), torch.arange(len(labels)) % 2 == 0
    found = []
    for own, other in ((half, ~half), (~half, half)):
        decisions = (probabilities[other] > tune_thresholds(probabilities[own], labels[own])).float()
        found.append(float(build_tuned_metrics(labels.shape[1])(decisions, labels[other])[comparison.metric]))
    return statistics.fmean(found)


if __name__ == "__main__":
    main()
