"""What pretraining on unlabelled data adds, one setting at a time, for the network that a finished run found.

    OMP_NUM_THREADS=1 python benchmarks/pretraining_variants.py films --runs runs/f/0 runs/f/1 --seeds 0 1

Every variant is pretrained as the configured stage with one thing changed, then read by logistic regression (no
fine-tuning), alone and beside the linear path on the encoders' features. Scored is the validation split; the test split
is not looked at. Printed is the mean over runs and label draws, and the same less that of the linear path alone, with
the standard deviation of this difference over runs.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from last_stage import score
from lightly.loss import BarlowTwinsLoss, VICRegLoss
from torch import nn

from lightning_mmnas.commands.compare import build_comparison, read_settings
from lightning_mmnas.commands.stages import find_configs, read_stages
from lightning_mmnas.comparison.comparison import Comparison
from lightning_mmnas.comparison.logistic import logistic_rivals
from lightning_mmnas.comparison.starts import mixture_start
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.fusion.readout import out_features
from lightning_mmnas.modules.frozen import read_checkpoint
from lightning_mmnas.objectives.criteria import ViewPair
from lightning_mmnas.objectives.fusion_objective import FusionObjective, projection_head
from lightning_mmnas.objectives.losses import nt_xent
from lightning_mmnas.objectives.training import build_optimizer, train_together
from lightning_mmnas.space.genotype import Genotype

VARIANTS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "no pretraining": {"longer": 0},
    "4 times as long": {"longer": 4},
    "temperature 0.1": {"temperature": 0.1},
    "temperature 0.5": {"temperature": 0.5},
    "learning rate / 3": {"lr": 1 / 3},
    "Barlow Twins": {"objective": BarlowTwinsLoss},
    "VICReg": {"objective": VICRegLoss},
    "cross-modal term, weight 1": {"cross_modal": 1.0},
    "modality dropout 0.5": {"modality_dropout": 0.5},
    "channels x 4": {"channels": 4},
    "channels x 4, 4 times as long": {"channels": 4, "longer": 4},
    "readout pool": {"readout": "pool"},
    "readout neck": {"readout": "neck"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", help="the folder of configurations of the runs, or a shipped one")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run directories")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="their seeds")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, help="which (default: all)")
    parser.add_argument("--budgets", nargs="+", default=["5", "20"], help="labels per class (default: 5 20)")
    parser.add_argument("--output", type=Path, help="a JSON file for all the numbers")
    options, overrides = parser.parse_known_args()
    budgets: list[int | str] = [budget if budget == "all" else int(budget) for budget in options.budgets]
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))  # one number per run
    seconds: dict[str, list[float]] = defaultdict(list)
    for run_dir, seed in zip(options.runs, options.seeds, strict=True):
        stages = read_stages(find_configs(options.configs), overrides)
        arguments = {stage.name: stage.arguments(run_dir, seed)[1:] for stage in stages[:-1]}
        weights = read_checkpoint(run_dir / "pretrain" / "checkpoints" / "last.ckpt", "the run")
        comparison = build_comparison(
            arguments["pretrain"],
            arguments["finetune"],
            int(weights["global_step"]),
            read_settings(stages[-1].config),
            seed,
        )
        if comparison is None:
            parser.error("the run has stages of its own classes")
        for name in options.variants:
            begin = time.process_time()
            network = pretrain(comparison, **VARIANTS[name])
            seconds[name].append(time.process_time() - begin)
            for column, value in evaluate(comparison, network, budgets, trained=VARIANTS[name].get("longer", 1) > 0):
                found[name][column].append(value)
            numbers = {column: round(values[-1], 4) for column, values in found[name].items()}
            print(f"{run_dir}  {name:<30} {numbers}", flush=True)
    columns = [f"{what}, {budget}" for budget in budgets for what in ("start", "with linear path")]
    print(f"\n{len(options.runs)} runs; {comparison.metric}, and less the linear path alone ± deviation over runs")
    print(f"| | {' | '.join(columns)} | s |\n|-|{'-|' * (len(columns) + 1)}")
    for name in options.variants:
        cells = []
        for column in columns:
            values, base = found[name][column], found[name][f"linear path, {column.rpartition(' ')[2]}"]
            gains = [value - other for value, other in zip(values, base, strict=True)]
            spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
            cells.append(f"{statistics.fmean(values):.3f} ({statistics.fmean(gains):+.3f} ± {spread:.3f})")
        print(f"| {name} | {' | '.join(cells)} | {statistics.fmean(seconds[name]):.0f} |")
    if options.output is not None:
        options.output.write_text(json.dumps({"seeds": options.seeds, "found": found, "seconds": seconds}, indent=1))


def pretrain(
    comparison: Comparison,
    longer: int = 1,
    temperature: float | None = None,
    lr: float = 1.0,
    objective: type[nn.Module] | None = None,
    cross_modal: float = 0.0,
    modality_dropout: float = 0.0,
    channels: int = 1,
    readout: str | None = None,
) -> FusionNetwork:
    """The found architecture, pretrained as the run's own stage but for what is given."""
    module, steps = comparison.pretraining, comparison.pretraining_steps * longer
    genotype = comparison.finetuning.network.genotype
    assert isinstance(genotype, Genotype)
    space = genotype.space.model_copy(update={"channels": genotype.space.channels * channels})
    options = {name: module.hparams[name] for name in ("readout", "dropout", "pool", "grid")}
    if readout is not None:
        options["readout"] = readout
    torch.manual_seed(comparison.seed)
    network = FusionNetwork(
        genotype.model_copy(update={"space": space}), comparison.pretraining.encoders.feature_shapes, **options
    )
    head = projection_head(out_features(network), module.hparams["projection_hidden"], module.hparams["projection_out"])
    loss = objective() if objective is not None else nt_xent(temperature or module.hparams["temperature"])
    whole = FusionObjective(network, head, loss, cross_modal, module.hparams["temperature"])
    module.views.dropout.p = modality_dropout

    def views() -> Iterator[ViewPair]:
        batches = comparison.unlabelled_batches()
        for _ in range(steps * comparison.accumulate):
            first, second = module.views(next(batches))
            yield comparison.compact(module.encoders(first)), comparison.compact(module.encoders(second))

    train_together(
        {"": whole},
        views(),
        lambda trained: build_optimizer(
            [{"params": list(trained.parameters()), "lr": module.lr * lr}], module.weight_decay, module.schedule, steps
        ),
        comparison.accumulate,
    )
    module.views.dropout.p = module.hparams["modality_dropout"]
    return network


def evaluate(
    comparison: Comparison, network: FusionNetwork, budgets: list[int | str], trained: bool
) -> Iterator[tuple[str, float]]:
    """Scores of the validation split, each the mean over label draws."""
    train, val = comparison.labelled.part("train"), comparison.labelled.part("val")
    classes, labels, truth = comparison.labelled.num_classes, train.labels, val.labels
    assert classes is not None
    assert labels is not None
    assert truth is not None
    whole, seen = comparison.encode(train), comparison.encode(val)
    shapes = comparison.pretraining.encoders.feature_shapes
    for budget in budgets:
        scores: dict[str, list[float]] = defaultdict(list)
        for draw in range(comparison.settings.draws if budget != "all" else 1):
            chosen = comparison.draw(labels, budget, draw)
            seed = 1000 * comparison.seed + draw
            groups = None if train.groups is None else train.groups[chosen]
            features = {name: value[chosen] for name, value in whole.items()}
            regressions = logistic_rivals(features, labels[chosen], groups, shapes, classes, seed)
            regression = regressions["raw_features"]
            start = mixture_start(
                network, regression, features, labels[chosen], groups, classes, seed, 0.0 if trained else None, 0.0
            )
            assert start.mixture is not None
            scores["linear path"].append(score(comparison, regression(seen), truth))
            scores["with linear path"].append(score(comparison, comparison.predict(start, seen), truth))
            start.mixture.shares.copy_(torch.tensor([0.0, 1.0]))
            scores["start"].append(score(comparison, comparison.predict(start, seen), truth))
        for what, values in scores.items():
            yield f"{what}, {budget}", statistics.fmean(values)


if __name__ == "__main__":
    main()
