"""The paper's question: what are search and pretraining without labels worth, against search and training with them?

    OMP_NUM_THREADS=1 python benchmarks/seeds.py avmnist --output runs/seeds/avmnist
    OMP_NUM_THREADS=1 python benchmarks/study.py avmnist --runs runs/seeds/avmnist --output runs/study/avmnist

Per run (a folder of `--runs`, named by its seed) it makes the searches that the run lacks, on the run's encoders, then
trains all rows side by side with a share of the labels. Every row is trained with each of three learning rates (the
configured one times RATES; BM-NAS's and the paper's rows also with ten times the configured one);
`benchmarks/study_report.py` takes the one that is best on the validation split. Finished
searches and runs are kept: the script can be interrupted and called again.

Rows, and what they are:
    bmnas            BM-NAS: tied inputs, flatten readout, logits and weights in turn by epochs, searched and trained
                     with the labels of the budget
    ssl_search       the same search with NT-Xent in place of labels, then trained with labels from scratch
    paper            the same, pretrained without labels, then fine-tuned (Suzuki & Ono)
    found            our search without labels, and our last stage from scratch
    found+ssl        our search, pretraining and last stage: what `mmnas run` delivers
    supervised+ssl   our search with all labels of the training split, then as found+ssl
    random, random+ssl   three random architectures, the last from scratch and pretrained
    best_of_ten+ssl  of ten random architectures the best one by NT-Xent after a short training
    late_fusion, late_fusion+ssl, modality:NAME, raw_features, raw_features:NAME   as in `mmnas run`
"""

import argparse
import contextlib
import copy
import io
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from lightning_mmnas import Genotype
from lightning_mmnas.callbacks.progress import quiet
from lightning_mmnas.callbacks.selection import GenotypeSelection
from lightning_mmnas.commands.compare import build_comparison, read_features, read_settings
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.stages import Stage, find_configs, read_stages
from lightning_mmnas.commands.versions import versions
from lightning_mmnas.comparison.comparison import Comparison, Features
from lightning_mmnas.comparison.logistic import logistic_rivals
from lightning_mmnas.comparison.rivals import random_genotypes
from lightning_mmnas.data.spec import Split
from lightning_mmnas.data.splits import label_fraction, split_groups
from lightning_mmnas.files import read_json, write_json
from lightning_mmnas.fusion.late_fusion import LateFusion
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.fusion.readout import ReadoutName, out_features
from lightning_mmnas.modules.frozen import read_checkpoint
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.objectives.labelled import Labelled

FRACTIONS = (0.01, 0.05, 0.2, 1.0)
RATES = (0.3, 1.0, 3.0)
PLAIN_RATES = (*RATES, 10.0)
"""Of the rows without our last stage, whose rates were published for other data."""
SPLITS: tuple[Split, ...] = ("val", "test")
MANY = 0.2
"""From this share on the last stage has the steps and batches of all labels."""

Config = dict[str, Any]
Change = Callable[[Config], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", help="the folder of configurations of the runs, or a shipped one")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, one per seed; made if missing")
    parser.add_argument("--output", type=Path, required=True, help="folder of what the study finds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--draws", type=int, default=2, help="label draws of each share below all (default: 2)")
    parser.add_argument("--results", type=Path, help="one JSON file of all seeds, for study_report.py")
    options, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    folder = find_configs(options.configs)
    for seed in options.seeds:
        path, run_dir = options.output / f"{seed}.json", options.runs / str(seed)
        if path.is_file():
            continue
        if not (run_dir / "results.json").is_file():
            command = ["run", options.configs, "--output", str(run_dir), "--seed", str(seed), *overrides]
            subprocess.run([sys.executable, "-m", "lightning_mmnas", *command], check=True)
        stages = {stage.name: stage for stage in read_stages(folder, overrides)}
        found, seconds = searches(stages["search"], run_dir, seed, options.output / str(seed))
        records, trained = rows(stages, run_dir, seed, found, options.draws)
        write_json(path, {"seed": seed, "seconds": {**seconds, **trained}, "records": records, "versions": versions()})
        print(f"seed {seed}: {sum(trained.values()) + sum(seconds.values()):.0f} s", flush=True)
    if options.results is not None:
        runs = [read_json(options.output / f"{seed}.json") for seed in options.seeds]
        write_json(options.results, {"configs": str(options.configs), "rates": RATES, "runs": runs})


def searches(stage: Stage, run_dir: Path, seed: int, output: Path) -> tuple[dict[str, Genotype], dict[str, float]]:
    """Every architecture that the rows need by name, and the CPU seconds of the searches; finished ones are read."""
    plans: dict[str, tuple[list[Change], float | None]] = {
        "found": ([], None),
        "supervised": ([_supervised], 1.0),
        "paper": (_bmnas(), None),
        **{f"bmnas {fraction:g}": ([*_bmnas(), _supervised], fraction) for fraction in FRACTIONS},
    }
    found, seconds = {}, {}
    for name, (changes, fraction) in plans.items():
        path = output / f"{name.replace(' ', '_')}.json"
        if not path.is_file():
            genotype, spent = search(stage, run_dir, seed, changes, fraction, path.with_suffix(""))
            write_json(path, {"genotype": json.loads(genotype.to_json()), "seconds": spent})
            print(f"seed {seed}, search {name}: {spent:.0f} s", flush=True)
        entry = read_json(path)
        assert entry is not None
        found[name], seconds[f"search {name}"] = Genotype.model_validate(entry["genotype"]), entry["seconds"]
    path = output / "random.json"
    if not path.is_file():
        start = time.process_time()
        entries = [
            json.loads(genotype.to_json()) for genotype in best_of_random(stage, run_dir, seed, path.with_suffix(""))
        ]
        write_json(path, {"genotypes": entries, "seconds": time.process_time() - start})
    entry = read_json(path)
    assert entry is not None
    best, *others = (Genotype.model_validate(value) for value in entry["genotypes"])
    seconds["search best_of_ten"] = entry["seconds"]
    return {**found, "best_of_ten": best, **{f"random{i}": g for i, g in enumerate(others)}}, seconds


def search(
    stage: Stage, run_dir: Path, seed: int, changes: list[Change], fraction: float | None, output: Path
) -> tuple[Genotype, float]:
    """One search: the run's search stage with changes, with as many weight steps, on its encoders and features.

    Args:
        stage: The search stage.
        run_dir: The run.
        seed: Its seed.
        changes: Of the stage's configuration.
        fraction: Share of the labels of a supervised search, halved between weights and logits; None: no labels.
        output: Folder of the search.
    """
    with _quiet():
        cli, selection = _build(stage, run_dir, seed, changes, output)
        data = cli.datamodule
        data.setup("fit")
        part = data.part("train")
        if fraction is not None:
            assert part.labels is not None
            parts = split_groups(len(part), part.groups, data.architecture_fraction, data.seed)
            steps = cli.trainer.max_epochs * (max(map(len, parts)) // data.batch_size)
            part.indices = part.indices[label_fraction(part.labels, fraction, 1000 * seed)]
            parts = split_groups(len(part), part.groups, data.architecture_fraction, data.seed)
            cli.trainer.fit_loop.max_epochs = max(3, round(steps / math.ceil(max(map(len, parts)) / data.batch_size)))
        start = time.process_time()
        cli.trainer.fit(cli.model, datamodule=data)
        assert selection.genotype is not None
        return selection.genotype, time.process_time() - start


def best_of_random(stage: Stage, run_dir: Path, seed: int, output: Path) -> list[Genotype]:
    """The best of ten random architectures by the selection's own criterion, then three of another draw."""
    with _quiet():
        cli, selection = _build(stage, run_dir, seed, [], output)
        module, data = cli.model, cli.datamodule
        assert isinstance(module, FusionSearch)
        data.setup("fit")
        module.take_means(data)
        read_features(cli, ["train"], module.device)
        space = module.space
        ten = random_genotypes(space, 10, torch.Generator().manual_seed(1000 + seed))
        torch.manual_seed(seed)
        scores = selection.score(module, ten, data.train_dataloader().iterables, selection.steps)
        best = ten[min(range(10), key=lambda i: scores[i])]
    return [best, *random_genotypes(space, 3, torch.Generator().manual_seed(seed))]


def rows(
    stages: dict[str, Stage], run_dir: Path, seed: int, found: dict[str, Genotype], draws: int
) -> tuple[list[Config], dict[str, float]]:
    """Trains all rows; one record per row, share of labels, draw and learning rate, and CPU seconds."""
    with _quiet():
        comparison = build_comparison(
            stages["pretrain"].arguments(run_dir, seed)[1:],
            stages["finetune"].arguments(run_dir, seed)[1:],
            int(read_checkpoint(run_dir / "pretrain" / "checkpoints" / "last.ckpt", "the run")["global_step"]),
            read_settings(stages["comparison"].config),
            seed,
        )
    if comparison is None:
        raise SystemExit(f"{run_dir} has stages of its own classes")
    start = time.process_time()
    networks, plain = build_networks(comparison, found)
    comparison.pretrain({name: n for name, n in networks.items() if name.endswith("+ssl")})
    networks["found+ssl"] = comparison.finetuning.network
    seconds = {"pretraining": time.process_time() - start}
    print(f"seed {seed}, pretraining: {seconds['pretraining']:.0f} s", flush=True)
    train = comparison.labelled.part("train")
    encoded = {split: comparison.encode(comparison.labelled.part(split)) for split in ("train", "val", "test")}
    records: list[Config] = []
    for fraction in FRACTIONS:
        start = time.process_time()
        for draw in range(draws if fraction < 1 else 1):
            assert train.labels is not None
            chosen = label_fraction(train.labels, fraction, 1000 * seed + draw)
            # the searches with labels have those of the first draw, and a seed stands for a draw of theirs
            names = [n for n in networks if not n.startswith("bmnas") or n == f"bmnas {fraction:g}"]
            for record in train_rows(
                comparison, {n: networks[n] for n in names}, plain, encoded, chosen, fraction, draw
            ):
                records.append({**record, "fraction": fraction, "draw": draw, "labels": len(chosen)})
        seconds[f"training {fraction:g}"] = time.process_time() - start
        print(f"seed {seed}, {fraction:g} of the labels: {seconds[f'training {fraction:g}']:.0f} s", flush=True)
    return records, seconds


def build_networks(comparison: Comparison, found: dict[str, Genotype]) -> tuple[dict[str, nn.Module], set[str]]:
    """Freshly initialised networks by row, those named "+ssl" to be pretrained; and the rows without our last stage."""
    hparams, shapes = comparison.finetuning.hparams, comparison.pretraining.encoders.feature_shapes
    common = {name: hparams[name] for name in ("dropout", "pool", "grid")}

    def network(name: str, readout: ReadoutName = hparams["readout"]) -> FusionNetwork:
        return FusionNetwork(found[name], shapes, readout, **common)

    torch.manual_seed(comparison.seed)
    networks: dict[str, nn.Module] = {name: network(name, "flatten") for name in found if name.startswith("bmnas")}
    networks["ssl_search"], networks["paper+ssl"] = network("paper", "flatten"), network("paper", "flatten")
    plain = set(networks)
    networks["found"], networks["supervised+ssl"] = network("found"), network("supervised")
    networks["best_of_ten+ssl"] = network("best_of_ten")
    for name in (name for name in found if name.startswith("random")):
        networks[name], networks[f"{name}+ssl"] = network(name), network(name)
    networks["late_fusion"], networks["late_fusion+ssl"] = LateFusion(shapes), LateFusion(shapes)
    for modality in found["found"].space.modalities:
        networks[f"modality:{modality}"] = LateFusion(shapes, modalities=[modality])
    return {name: module.to(comparison.device) for name, module in networks.items()}, plain


def train_rows(
    comparison: Comparison,
    networks: dict[str, nn.Module],
    plain: set[str],
    encoded: dict[str, Features],
    chosen: Tensor,
    fraction: float,
    draw: int,
) -> list[Config]:
    """Trains the last stage of every row with some labels at every learning rate, and scores it."""
    train, classes = comparison.labelled.part("train"), comparison.labelled.num_classes
    assert train.labels is not None
    assert classes is not None
    labels, seed = train.labels[chosen], 1000 * comparison.seed + draw
    groups = None if train.groups is None else train.groups[chosen]
    features = {name: value[chosen] for name, value in encoded["train"].items()}
    shapes = comparison.pretraining.encoders.feature_shapes
    regressions = logistic_rivals(features, labels, groups, shapes, classes, seed)
    ours = {name: network for name, network in networks.items() if name not in plain}
    starts = comparison.starts(ours, regressions, features, labels, groups, seed)
    for name in networks.keys() & plain:
        torch.manual_seed(seed)
        body = copy.deepcopy(networks[name])
        starts[name] = Labelled(body, nn.Linear(out_features(body), classes)).to(comparison.device)
    module = comparison.finetuning
    rated, rates = {}, {}
    for name, begin in starts.items():
        head_lr = 10 * module.lr if name in plain else module.head_lr  # as `FineTuning` in modes "full" and "mixture"
        for rate in PLAIN_RATES if name in plain else RATES:
            rated[f"{name}@{rate}"] = begin
            rates[f"{name}@{rate}"] = (rate * head_lr, rate * module.lr)
    budget: Any = "all" if fraction >= MANY else 1
    tuned = comparison.finetune(rated, train.subset(chosen), budget, draw, rates)
    records: list[Config] = []
    for name, network in tuned.items():
        row, _, text = name.rpartition("@")
        logits: dict[Split, Tensor] = {split: comparison.predict(network, encoded[split]) for split in SPLITS}
        records.append({"row": row.partition(" ")[0], "rate": float(text), **scores(comparison, logits)})
    for name, regression in regressions.items():
        if name != "raw_features_deepest":
            logits = {split: regression(encoded[split]) for split in SPLITS}
            records.append({"row": name, "rate": 1.0, **scores(comparison, logits)})
    return records


def scores(comparison: Comparison, logits: Mapping[Split, Tensor]) -> dict[str, float]:
    """The comparison's metric on both splits; thresholds of multi-label data are those of the validation split."""
    labels = {split: comparison.labelled.part(split).labels for split in SPLITS}
    tuning = (logits["val"], labels["val"]) if comparison.labelled.task == "multilabel" else (None, None)
    found: dict[str, float] = {}
    for split, value in logits.items():
        truth = labels[split]
        assert truth is not None
        found[split] = round(comparison.score(value, truth, *tuning), 6)
    return found


def _build(
    stage: Stage, run_dir: Path, seed: int, changes: list[Change], output: Path
) -> tuple[Any, GenotypeSelection]:
    """The search stage with changes and without files in the run's folder but for its feature cache."""
    config: Config = yaml.safe_load(stage.config.read_text(encoding="utf-8"))
    for change in changes:
        change(config)
    _callback("GenotypeSelection", output=str(output / "genotype.json"))(config)
    config["trainer"].update(default_root_dir=str(output), logger=False)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "search.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    arguments = [str(path) if a == str(stage.config) else a for a in stage.arguments(run_dir, seed)[1:]]
    shown = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    cli: Any = MMNASCLI([*arguments, *shown], run=False, save_config_callback=None)
    return cli, next(c for c in cli.trainer.callbacks if isinstance(c, GenotypeSelection))


def _bmnas() -> list[Change]:
    """What BM-NAS does otherwise; configs/avmnist/search_bmnas.yaml names the source of each number."""
    return [
        lambda config: config["model"]["init_args"].update(
            pairing="tied", readout="flatten", modality_dropout=0.0, lr=1e-3, schedule="cosine"
        ),
        _callback("ArchitectureAlternation", lr=3e-4, schedule="epoch", warmup_epochs=1),
        _callback("GenotypeSelection", rule="bmnas"),
    ]


def _supervised(config: Config) -> None:
    config["model"]["init_args"]["supervised"] = True
    config["data"]["init_args"]["labels"] = True


def _callback(name: str, **init_args: Any) -> Change:
    def change(config: Config) -> None:
        trainer = config["trainer"]
        entries = [*trainer.get("callbacks", []), *trainer.get("callbacks+", [])]
        next(entry for entry in entries if entry["class_path"] == name)["init_args"].update(init_args)

    return change


@contextlib.contextmanager
def _quiet() -> Any:
    """No words of Lightning."""
    with quiet(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
