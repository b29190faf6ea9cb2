"""`mmnas sample`: search without gradients, from the configuration of a search stage."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch.utilities.seed import isolate_rng
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lightning_mmnas.callbacks.caching import FeatureCaching
from lightning_mmnas.callbacks.progress import quiet
from lightning_mmnas.callbacks.selection import GenotypeSelection
from lightning_mmnas.commands.compare import read_features
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.commands.versions import versions
from lightning_mmnas.costs.measuring import CostKind
from lightning_mmnas.costs.table import CostTable
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.errors import ConfigError, GenotypeError
from lightning_mmnas.modules import fingerprint
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.sampling import record
from lightning_mmnas.sampling.evaluators import Inherited, TrainedAlone
from lightning_mmnas.sampling.samplers import PrunerName, SamplerName
from lightning_mmnas.sampling.storage import without_password
from lightning_mmnas.sampling.study import FusionStudy, SampledNetwork

_OBJECTIVES = ("criterion", "parameters", "flops")

_HERE = ("root", "cache_dir", "num_workers", "encoder_weights", "table")
"""Arguments of data and model that differ between machines though the search is the same."""


def command(args: list[str]) -> None:
    """Runs the command.

    Raises:
        ConfigError: An option or the configuration is wrong.
        StudyError: The storage cannot be used, or holds another search under the study's name.
        RunDirectoryError: The output folder holds something else, or cannot be written.
    """
    options, overrides = _parser().parse_known_args(args)
    _check(options)
    console, folder = Console(), Path(options.output)
    storage = options.storage or f"sqlite:///{folder / 'study.db'}"
    command = without_password(shlex.join(["mmnas", "sample", *args]))
    record.claim(folder)
    with isolate_rng(), quiet():
        stage = open_stage([*overrides, "--seed_everything", str(options.seed)])
        facts = _facts(stage, options)
        study = FusionStudy(
            stage.module.space,
            options.sampler,
            options.objectives,
            seed=options.seed,
            storage=storage,
            name=options.study,
            facts=facts,
            pruner=options.pruner,
            steps=options.steps or stage.steps,
        )
        record.claim(folder, study.facts)
        evaluate = _evaluator(stage, options, folder, facts)
        console.print(_headline(study, options), highlight=False, markup=False, soft_wrap=True)
        how = {
            "command": command,
            "seed": options.seed,
            "sampler": options.sampler,
            "study": options.study,
            "storage": without_password(storage),
            "versions": versions("optuna"),
        }
        try:
            if isinstance(evaluate, Inherited) and study.finished < options.trials:
                console.print(f"supernet of {options.supernet_steps} steps …", highlight=False)
                evaluate.prepare()
            _run(study, evaluate, options.trials, folder, console)
        except KeyboardInterrupt as error:
            record.write(folder, study, how)
            raise KeyboardInterrupt(
                f"interrupted after {study.finished} trials, which are kept; the same command continues: {command}"
            ) from error
        except Exception:
            with suppress(Exception):  # the first error counts; all trials are in the storage
                record.write(folder, study, how)
            raise
        record.write(folder, study, how)
    console.print(record.render_best(study))
    console.print(f"{study.finished} trials in {folder / record.RECORD}", highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True)
class SearchStage:
    """A search stage that is ready to give views and networks.

    Attributes:
        module: The search, on its device.
        data: Its data, set up, reading from the stage's feature cache where it has one.
        selection: How the stage scores its candidates.
        config: The resolved configuration.
    """

    module: FusionSearch
    data: MultimodalDataModule
    selection: GenotypeSelection
    config: dict[str, Any]
    cached: dict[str, Any] | None

    @property
    def steps(self) -> int:
        """Training steps of a candidate."""
        return self.selection.steps

    def loaders(self) -> Any:
        """Makes the loaders of both parts anew."""
        return getattr(self.data.train_dataloader(), "iterables", None)


def open_stage(args: list[str]) -> SearchStage:
    """Builds a search stage from the arguments of ``mmnas fit``.

    Raises:
        ConfigError: The configuration is wrong, or not that of a search without labels.
    """
    cli = MMNASCLI(args, run=False, save_config_callback=None)
    module, data = cli.model, cli.datamodule
    if not isinstance(module, FusionSearch) or not isinstance(data, MultimodalDataModule):
        raise ConfigError(
            f"mmnas sample needs a FusionSearch and a MultimodalDataModule, not {type(module).__name__} and "
            f"{type(data).__name__}; give that of a search stage: --config common.yaml --config search.yaml"
        )
    if module.classifier is not None:
        raise ConfigError("networks are compared without labels; set model.init_args.supervised to false")
    if data.architecture_fraction is None and data.architecture_split is None:
        raise ConfigError("a search needs training data in two parts; set data.init_args.architecture_fraction")
    data.setup("fit")
    module.take_means(data)
    device = cli.trainer.strategy.root_device
    callbacks: list[Any] = cli.trainer.callbacks  # type: ignore[attr-defined]
    read_features(cli, ["train", "val"] if data.architecture_split == "val" else ["train"], device)
    caches = [callback for callback in callbacks if isinstance(callback, FeatureCaching) and callback.enabled]
    found = [callback for callback in callbacks if isinstance(callback, GenotypeSelection)]
    selection = found[0] if found else GenotypeSelection("genotype.json")
    if selection.criterion.comparative:
        raise ConfigError(
            f"{type(selection.criterion).__name__} compares candidates with each other, but mmnas sample scores "
            "networks one at a time; give GenotypeSelection another one, such as "
            "lightning_mmnas.objectives.criteria.ViewLoss"
        )
    return SearchStage(
        module.to(device),
        data,
        selection,
        cli.resolved(),
        {"views": caches[0].views, "dtype": caches[0].dtype, "seed": caches[0].seed} if caches else None,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="mmnas sample",
        description="Searches without gradients: Optuna proposes networks of the space of a search stage; each is "
        "trained alone for a short while and scored without labels, or scored with the weights of one supernet. "
        "Run again, it continues; so do other processes with the same --storage and --study.",
        epilog="Further options are those of mmnas fit: --config common.yaml --config search.yaml "
        "--run_dir runs/mine --model.init_args.cells 3",
        allow_abbrev=False,
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of genotype.json and trials.json")
    parser.add_argument(
        "--sampler", default="tpe", help=f"one of {', '.join(get_args(SamplerName))} (default: %(default)s)"
    )
    parser.add_argument("--trials", type=int, default=50, help="finished trials in all (default: %(default)s)")
    parser.add_argument("--evaluator", default="train", help="train or inherited (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="training steps of a network (default: those of GenotypeSelection)")
    parser.add_argument(
        "--supernet_steps", type=int, default=500, help="training steps of the supernet (default: %(default)s)"
    )
    parser.add_argument(
        "--objectives", nargs="+", default=["criterion"], help=f"what is minimised, of {', '.join(_OBJECTIVES)}"
    )
    parser.add_argument("--pruner", default="none", help=f"one of {', '.join(get_args(PrunerName))}")
    parser.add_argument("--storage", metavar="URL", help="sqlite:///FILE.db, another database, or a journal FILE.log")
    parser.add_argument("--study", default="sample", metavar="NAME", help="name in the storage (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything (default: %(default)s)")
    return parser


def _check(options: Any) -> None:
    for name, value, known in (
        ("--sampler", options.sampler, get_args(SamplerName)),
        ("--pruner", options.pruner, get_args(PrunerName)),
        ("--evaluator", options.evaluator, ("train", "inherited")),
        *(("--objectives", objective, _OBJECTIVES) for objective in options.objectives),
    ):
        if value not in known:
            raise ConfigError(f"{name} {value!r} is not known; accepted: {', '.join(known)}")
    for name in ("trials", "steps", "supernet_steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} must be at least 1, got {value}")
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed must be from 0 to 4294967295, got {options.seed}")
    if options.pruner != "none" and options.evaluator == "inherited":
        raise ConfigError("--pruner stops a training, but with --evaluator inherited networks are not trained")


def _facts(stage: SearchStage, options: Any) -> dict[str, Any]:
    """All that decides what a network is worth; two machines that share a study must agree on it."""
    config: dict[str, Any] = {}
    for part in ("model", "data"):
        arguments = dict((stage.config[part] or {}).get("init_args", {}))
        config[part] = {name: value for name, value in arguments.items() if name not in _HERE}
    criterion = stage.selection.criterion
    callbacks = stage.config["trainer"].get("callbacks") or []
    given = [
        (entry.get("init_args") or {}).get("criterion")
        for entry in callbacks
        if "GenotypeSelection" in entry["class_path"]
    ]
    trained = {"supernet_steps": options.supernet_steps} if options.evaluator == "inherited" else {}
    steps = {} if trained else {"steps": options.steps or stage.steps}
    return {
        "evaluator": options.evaluator,
        **trained,
        **steps,
        "lr": stage.selection.lr,
        "criterion": {"class": type(criterion).__name__, "given": given},
        "seed": options.seed,
        **config,
        "samples": {name: len(loader.dataset) for name, loader in stage.loaders().items()},
        "encoder_weights": fingerprint.weights(stage.module.encoders),
        "features": stage.cached,
    }


def _evaluator(stage: SearchStage, options: Any, folder: Path, facts: dict[str, Any]) -> TrainedAlone | Inherited:
    module, nodes = stage.module, stage.module.hparams
    shapes, readout = module.encoders.feature_shapes, nodes["cost_readout"]
    kinds: list[CostKind] = ["parameters", "flops"] if "flops" in options.objectives else ["parameters"]
    costs = [
        CostTable.measure(module.space, shapes, kind, readout, pool=nodes["pool"], grid=nodes["grid"]) for kind in kinds
    ]
    common = (module, stage.loaders, stage.selection.criterion)
    if options.evaluator == "inherited":
        checkpoint = folder / "supernet.ckpt"
        return Inherited(*common, options.supernet_steps, stage.selection.lr, options.seed, costs, checkpoint, facts)
    steps, reports = options.steps or stage.steps, options.pruner != "none"
    return TrainedAlone(*common, steps, stage.selection.lr, options.seed, costs, reports)


def _headline(study: FusionStudy, options: Any) -> str:
    try:
        size = f"{study.space.size():,} networks"
    except GenotypeError:
        size = f"up to {study.space.raw_size():,} networks"
    done = f", {study.finished} trials done before" if study.finished else ""
    return f"{options.sampler} over {size}, {' and '.join(options.objectives)}{done}"


def _run(study: FusionStudy, evaluate: TrainedAlone | Inherited, trials: int, folder: Path, console: Console) -> None:
    columns = [TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
    best = {network.number for network in study.best()}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("trials", total=trials, completed=study.finished)

        def done(network: SampledNetwork) -> None:
            nonlocal best
            progress.update(task, completed=study.finished)
            now = {other.number for other in study.best()}
            if network.number in now - best:
                measured = ", ".join(f"{name} {record.number(value)}" for name, value in network.measured.items())
                kind = "best so far" if len(study.objectives) == 1 else "beaten by none so far"
                line = f"trial {network.number}: {measured}; {kind}"
                console.print(line, highlight=False, markup=False, soft_wrap=True)
                record.write_best(folder, study)
            best = now

        study.run(evaluate, trials, done)
