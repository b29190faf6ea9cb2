"""What every search strategy finds, judged by a table of the whole space: searches, then the rank of what came out.

    mmnas tabulate avmnist --output runs/table/avmnist          # once: encoders, features, the table
    python benchmarks/strategies.py avmnist --table runs/table/avmnist --output runs/strategies/avmnist

Every search is the search stage of the configuration with a few changes (STRATEGIES below), run for several seeds on
the encoders of the table's seeds in turn. What a search returned is looked up in the table, or trained by the table's
protocol where the table is a sample and does not hold it. Finished searches are kept: the script can be interrupted
and called again. `benchmarks/search_quality.py` makes tables and pictures of the results.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_mmnas import FusionTable, Genotype
from lightning_mmnas.callbacks.progress import quiet
from lightning_mmnas.callbacks.selection import GenotypeSelection
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.mmnas import main as mmnas
from lightning_mmnas.commands.stages import find_configs, stage_arguments
from lightning_mmnas.commands.tabulate import read_features
from lightning_mmnas.commands.versions import versions
from lightning_mmnas.files import write_json
from lightning_mmnas.objectives.criteria import label_free_criteria
from lightning_mmnas.tabular.collecting import collect
from lightning_mmnas.tabular.protocol import GroupTraining, Protocol
from lightning_mmnas.tabular.table import is_accuracy

Config = dict[str, Any]
CANDIDATES = 16


def _model(**init_args: Any) -> Callable[[Config], None]:
    return lambda config: config["model"]["init_args"].update(init_args)


def _callback(name: str, **init_args: Any) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        found = [entry for entry in config["trainer"]["callbacks"] if entry["class_path"] == name]
        found[0].setdefault("init_args", {}).update(init_args)

    return change


def _append(name: str, **init_args: Any) -> Callable[[Config], None]:
    return lambda config: config["trainer"]["callbacks"].append({"class_path": name, "init_args": init_args})


def _supervised(config: Config) -> None:
    _model(supervised=True)(config)
    config["data"]["init_args"]["labels"] = True


def _named(name: str, **init_args: Any) -> Config:
    return {"class_path": name, "init_args": init_args}


_RELAXATION = "lightning_mmnas.fusion.relaxation."
_REGULARISATION = "lightning_mmnas.objectives.regularisation."
STRATEGIES: dict[str, list[Callable[[Config], None]]] = {
    "softmax (DARTS)": [],
    "softmax, annealed": [_model(relaxation=_named(_RELAXATION + "Softmax", temperature=2.0, final_temperature=0.2))],
    "Gumbel (GDAS)": [_model(relaxation=_named(_RELAXATION + "GumbelHard"))],
    "Dirichlet (DrNAS)": [
        _model(
            relaxation=_named(_RELAXATION + "Dirichlet"),
            regularisation=[_named(_REGULARISATION + "ConcentrationAnchor")],
        )
    ],
    "partial channels (PC-DARTS)": [_model(partial_channels=4)],
    "second order": [_callback("ArchitectureAlternation", order=2)],
    "tied pairing (BM-NAS)": [_model(pairing="tied")],
    "without modality dropout": [_model(modality_dropout=0.0)],
    "without warm-up": [_callback("ArchitectureAlternation", warmup_epochs=0)],
    "beta-decay": [_model(regularisation=[_named(_REGULARISATION + "BetaDecay")])],
    "entropy": [_model(regularisation=[_named(_REGULARISATION + "EntropyRegularisation")])],
    "stop when stable": [_append("lightning_mmnas.callbacks.stability.GenotypeStability", patience=2)],
    "supervised": [_supervised],
}
SAMPLERS = {
    "random + training (mmnas sample)": ["--sampler", "random", "--trials", "24"],
    "TPE": ["--sampler", "tpe", "--trials", "24"],
    "NSGA-II (criterion, parameters)": [
        "--sampler", "nsga2", "--trials", "24", "--objectives", "criterion", "parameters",
    ],
    "weight sharing (SPOS), 100 of random": [
        "--sampler", "random", "--trials", "100", "--evaluator", "inherited", "--supernet_steps", "160",
    ],
}  # fmt: skip


def main() -> None:
    """Runs the searches that are missing, then judges what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", help="a folder of configurations, or a shipped one: avmnist")
    parser.add_argument("--table", type=Path, required=True, help="the folder of mmnas tabulate")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="search seeds")
    parser.add_argument("--only", nargs="*", help="names of some strategies")
    parser.add_argument("--results", type=Path, help="write what search_quality.py reads into this JSON file")
    parser.add_argument("--fold", action="store_true", help="the table's seeds are folds: judge a search on its own")
    options, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    folder = find_configs(options.configs)
    table = collect(options.table)
    names = options.only or [*STRATEGIES, *SAMPLERS]
    for seed in options.seeds:  # seed by seed, so that an interrupted benchmark is one of fewer seeds
        for name in names:
            path = options.output / f"{_slug(name)}-{seed}.json"
            if path.is_file():
                continue
            home = table.seeds[seed % len(table.seeds)]
            run_dir = options.table / f"seed{home}"
            arguments = stage_arguments(folder, "search", run_dir, seed, overrides)
            arguments += ["--data.init_args.fold", str(home)] if options.fold else []
            path.parent.mkdir(parents=True, exist_ok=True)
            run = _search if name in STRATEGIES else _sample
            found = run(name, folder / "search.yaml", arguments, seed)
            write_json(path, {"strategy": name, "seed": seed, "encoders": home, **found, "versions": versions()})
            print(
                f"{name}, seed {seed}: {found['seconds']:.1f} s, selection {found['selection_seconds']:.1f} s",
                flush=True,
            )
    judge(options.output, options.table, table, folder, overrides, options.fold)
    if options.results is not None:
        runs = results(options.output, table, options.fold)
        write_json(options.results, {"versions": versions(), "by_seed": options.fold, "runs": runs})


def _prepared(stage: Path, candidates: int = CANDIDATES) -> Config:
    """The search stage without files of its own; with a feature cache, many candidates and NT-Xent as criterion."""
    config: Config = yaml.safe_load(stage.read_text(encoding="utf-8"))
    kept = ("FeatureCaching", "ArchitectureAlternation", "GenotypeSelection")
    # With a common file the stage adds to its callbacks; here all of them are replaced.
    given = [*config["trainer"].pop("callbacks", []), *config["trainer"].pop("callbacks+", [])]
    callbacks = [entry for entry in given if entry["class_path"] in kept]
    if callbacks[0]["class_path"] != "FeatureCaching":
        callbacks.insert(0, _named("FeatureCaching", folder="${run_dir}/features", views=8, dtype="float16"))
    config["trainer"].update(callbacks=callbacks, logger=False, enable_checkpointing=False)
    _callback("GenotypeSelection", num_candidates=candidates, steps=60, lr=0.01)(config)
    _callback("GenotypeSelection", criterion=_named("lightning_mmnas.objectives.criteria.ViewLoss"))(config)
    return config


def _in_place_of(stage: Path, path: Path, config: Config, arguments: list[str]) -> list[str]:
    """Writes a changed stage, and returns the arguments with its path in place of the stage's."""
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return [str(path) if argument == str(stage) else argument for argument in arguments]


def _search(name: str, stage: Path, arguments: list[str], seed: int) -> Config:
    """One search: its favourite, what the selection makes of it, and CPU seconds of both."""
    config = _prepared(stage)
    for change in STRATEGIES[name]:
        change(config)
    with tempfile.TemporaryDirectory() as folder:
        _callback("GenotypeSelection", output=f"{folder}/genotype.json", seed=seed)(config)
        arguments = _in_place_of(stage, Path(folder) / "search.yaml", config, arguments)
        with quiet(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            settings = ["--data.init_args.seed", str(seed), "--trainer.enable_progress_bar", "false"]
            settings += ["--trainer.enable_model_summary", "false"]
            cli = MMNASCLI([*arguments, *settings], run=False, save_config_callback=None)
            callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
            selection = next(callback for callback in callbacks if isinstance(callback, GenotypeSelection))
            seconds: list[float] = []
            select = selection.select

            def timed(*given: Any) -> Any:
                start = time.process_time()
                found = select(*given)
                seconds.append(time.process_time() - start)
                return found

            selection.select = timed  # type: ignore[method-assign]
            start = time.process_time()
            cli.trainer.fit(cli.model, cli.datamodule)
            total = time.process_time() - start
        record = json.loads((Path(folder) / "genotype.selection.json").read_text(encoding="utf-8"))
    supernet = cli.model.supernet
    entropy = [
        float(torch.special.entr(w).sum(-1).mean()) for w in supernet.probabilities().values() if w.shape[-1] > 1
    ]
    return {
        "favourite": json.loads(supernet.decode().to_json()),
        "favourite_without_rules": json.loads(supernet.decode(coverage=False, distinct=False).to_json()),
        "selected": (record["candidates"] or [{"genotype": json.loads(supernet.decode().to_json())}])[0]["genotype"],
        "candidates": record["candidates"],
        "entropy": sum(entropy) / len(entropy),
        "seconds": total - seconds[0],
        "selection_seconds": seconds[0],
    }


def _sample(name: str, stage: Path, arguments: list[str], seed: int) -> Config:
    """One search without gradients; what the criterion puts first."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "sample"
        config = _prepared(stage)
        _callback("GenotypeSelection", output=f"{folder}/genotype.json")(config)
        arguments = _in_place_of(stage, Path(folder) / "search.yaml", config, arguments)
        command = ["sample", *arguments, "--seed", str(seed), "--output", str(output)]
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = mmnas([*command, *SAMPLERS[name]])
        if code:
            raise SystemExit(f"mmnas {' '.join(command)} failed")
        total = time.process_time() - start
        trials = json.loads((output / "trials.json").read_text(encoding="utf-8"))["trials"]
        trials = [trial for trial in trials if trial.get("values")]
        best = min(trials, key=lambda trial: trial["values"]["criterion"])
    return {
        "selected": best["genotype"],
        "favourite": best["genotype"],
        "candidates": [
            {"score": t["values"]["criterion"], "genotype": t["genotype"], "seconds": t["seconds"]} for t in trials
        ],
        "seconds": total,
        "selection_seconds": 0.0,
    }


def judge(output: Path, folder: Path, table: FusionTable, configs: Path, overrides: list[str], by_seed: bool) -> None:
    """Trains, by the table's protocol, what was found and is not in the table; keeps it in ``extra.json``.

    With all seeds of the table; where these are folds (``by_seed``) with that of the search alone, whose test subjects
    the search has not seen.
    """
    wanted: dict[Genotype, set[int]] = {}
    for path in sorted(output.glob("*-[0-9]*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        kinds = ("favourite", "selected", "favourite_without_rules")
        found = [record[key] for key in kinds if key in record]
        if record["strategy"] in SAMPLERS:
            found += [entry["genotype"] for entry in running_best(record["candidates"])]
        for genotype in found:
            judges = {record["encoders"]} if by_seed else set(table.seeds)
            wanted.setdefault(Genotype.model_validate(genotype), set()).update(judges)
    known = json.loads((output / "extra.json").read_text()) if (output / "extra.json").is_file() else []
    done = {(row["index"], row["seed"]) for row in known}
    number = {genotype: index for index, genotype in enumerate(table.space.enumerate())}
    missing = {number[genotype]: judges for genotype, judges in wanted.items() if genotype not in table}
    genotypes = list(number)
    for seed in table.seeds:
        todo = [index for index in sorted(missing) if seed in missing[index] and (index, seed) not in done]
        if not todo:
            continue
        run_dir = folder / f"seed{seed}"
        arguments = [stage_arguments(configs, name, run_dir, seed, overrides) for name in ("search", "finetune")]
        with quiet(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            _, data, _ = read_features(arguments[0], arguments[1], run_dir)
        training = GroupTraining(data, Protocol(**table.card["protocol"]), seed, label_free_criteria())
        for start in range(0, len(todo), CANDIDATES):
            known += training.run({index: genotypes[index] for index in todo[start : start + CANDIDATES]})
            write_json(output / "extra.json", known)
            print(f"trained {min(start + CANDIDATES, len(todo))} of {len(todo)} with seed {seed}", flush=True)


def results(output: Path, table: FusionTable, by_seed: bool) -> list[Config]:
    """One compact record per search: what came out, in the table's columns, and what it took."""
    extra: dict[int, list[Config]] = {}
    for row in json.loads((output / "extra.json").read_text()) if (output / "extra.json").is_file() else []:
        extra.setdefault(row["index"], []).append(row)
    number = {genotype: index for index, genotype in enumerate(table.space.enumerate())}
    columns = [name for name in table.columns if is_accuracy(name) or name in ("parameters", "nt_xent")]

    def worth(entry: Config, home: int) -> Config:
        genotype = Genotype.model_validate(entry)
        index = number[genotype]
        if genotype in table:
            values = {name: table.value(genotype, name, home if by_seed else None) for name in columns}
        else:
            rows = [row for row in extra[index] if not by_seed or row["seed"] == home]
            values = {name: statistics.fmean(row[name] for row in rows) for name in columns}
        names = {step.primitive for cell in genotype.cells for step in cell.steps}
        return {
            "index": index,
            "blind": len(genotype.modalities_read()) < len(table.space.modalities),
            "parameter_free": not names & {"linear_glu", "concat_fc"},
            **{name: round(value, 6) for name, value in values.items()},
        }

    found = []
    for path in sorted(output.glob("*-[0-9]*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        kept = ("strategy", "seed", "encoders", "seconds", "selection_seconds", "entropy")
        entry = {key: record[key] for key in kept if key in record}
        entry |= {
            key: worth(record[key], record["encoders"])
            for key in ("favourite", "favourite_without_rules", "selected")
            if key in record
        }
        entry["candidates"] = max(1, len(record["candidates"]))
        if record["strategy"] in SAMPLERS:
            entry["path"] = [
                worth(trial["genotype"], record["encoders"]) for trial in running_best(record["candidates"])
            ]
            entry["path"] = [{name: found[name] for name in ("finetune_20", "supervised")} for found in entry["path"]]
            entry["trial_seconds"] = [round(trial.get("seconds", 0.0), 3) for trial in record["candidates"]]
        found.append(entry)
    return found


def running_best(trials: list[Config]) -> list[Config]:
    """For every trial the best one so far, by score."""
    found: list[Config] = []
    for trial in trials:
        found.append(trial if not found or trial["score"] < found[-1]["score"] else found[-1])
    return found


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_")


if __name__ == "__main__":
    main()
