"""The search of `mmnas sample`: the stage's data, space and objective, Optuna's study, and what is written of it."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lightning_mmnas.callbacks.caching import FeatureCaching
from lightning_mmnas.callbacks.progress import quiet
from lightning_mmnas.callbacks.selection import GenotypeSelection
from lightning_mmnas.commands.compare import read_features
from lightning_mmnas.commands.impossible import callbacks_of
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.versions import versions
from lightning_mmnas.costs.measuring import CostKind
from lightning_mmnas.costs.table import CostTable
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.errors import ConfigError, GenotypeError, Terminated
from lightning_mmnas.modules import fingerprint
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.modules.transfer import BatchTransfer
from lightning_mmnas.sampling import record
from lightning_mmnas.sampling.evaluators import Inherited, TrainedAlone
from lightning_mmnas.sampling.storage import without_password
from lightning_mmnas.sampling.study import FusionStudy, SampledNetwork

_HERE = ("root", "cache_dir", "num_workers", "encoder_weights", "table")
"""Arguments of data and model that differ between machines though the search is the same."""


def search(args: list[str], options: Any, overrides: list[str]) -> None:
    """Runs a search without gradients, or continues one.

    Args:
        args: The command line, to be written down.
        options: Those of `mmnas sample`.
        overrides: Those of `mmnas fit`.
    """
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
        record.write_trials(folder, study, how)  # before a genotype is: a command that is killed knows its folder again
        try:
            if isinstance(evaluate, Inherited) and study.finished < options.trials:
                console.print(f"supernet of {options.supernet_steps} steps …", highlight=False)
                evaluate.prepare()
            _run(study, evaluate, options.trials, folder, console)
        except KeyboardInterrupt as error:
            record.write(folder, study, how)
            stopped = "terminated" if isinstance(error, Terminated) else "interrupted"
            raise type(error)(
                f"{stopped} after {study.finished} trials, which are kept; the same command continues: {command}"
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
        transfer = BatchTransfer(self.module, self.data)
        loaders: Any = self.data.train_dataloader()
        return {name: transfer.loader(loader, name) for name, loader in loaders.iterables.items()}


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
    module.trainer = cli.trainer  # whose precision and hooks count
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


def _facts(stage: SearchStage, options: Any) -> dict[str, Any]:
    """All that decides what a network is worth; two machines that share a study must agree on it."""
    config: dict[str, Any] = {}
    for part in ("model", "data"):
        arguments = dict((stage.config[part] or {}).get("init_args", {}))
        config[part] = {name: value for name, value in arguments.items() if name not in _HERE}
    criterion = stage.selection.criterion
    given = [
        (entry.get("init_args") or {}).get("criterion")
        for entry in callbacks_of(stage.config["trainer"])
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
    module, nodes = stage.module, stage.module.built_with
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
