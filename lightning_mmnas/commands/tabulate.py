"""`mmnas tabulate`: trains the architectures of a space, in blocks that can be interrupted, shared and continued."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.errors import ConfigError, RunDirectoryError, Terminated
from lightning_mmnas.files import read_json, write_json

if TYPE_CHECKING:
    from lightning import Trainer

    from lightning_mmnas.callbacks.caching import FeatureCaching
    from lightning_mmnas.space.genotype import FusionSpace
    from lightning_mmnas.tabular.protocol import TableData

_VIEWS = 8
"""Stored views where the configuration has no feature cache."""

_BLOCK = 16
"""Architectures that are trained together."""

_CARD = "card.json"
_FEW_STEPS, _STEPS = 60, 100
"""Fine-tuning steps with fewer than ten labels per class, and with more."""


def command(args: list[str]) -> None:
    """Runs `mmnas tabulate`.

    Raises:
        ConfigError: An option, a key or a value is wrong.
        RunDirectoryError: The folder holds a table of something else.
    """
    parser = Parser(
        prog="mmnas tabulate",
        description="Trains every architecture of a configuration's search space without labels, then with few and "
        "with all of them, and writes what came out. Called again, it continues; several processes or machines can "
        "share the work (--share 0/4 to 3/4 on one folder, after one of them has finished with --limit 0). At any "
        "time the architectures done are a uniform sample of the space.",
        epilog="Further options override the stages' configurations, as for mmnas run.",
        allow_abbrev=False,
    )
    parser.add_argument("configs", help="a folder of stage configurations, or a shipped one: avmnist")
    parser.add_argument("--output", required=True, help="the folder of the table", metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of whole runs (default: 0 1)")
    parser.add_argument("--limit", type=int, help="stop after so many architectures; 0: encoders and features only")
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[5, 20], help="label budgets per class (default: 5 20)"
    )
    parser.add_argument("--share", default="0/1", help="i/n: this process does every n-th block (default: 0/1)")
    parser.add_argument("--table", help="write what is there into this Parquet file at the end", metavar="FILE")
    options, overrides = parser.parse_known_args(args)
    if options.limit is not None and options.limit < 0:
        raise ConfigError(f"--limit must be at least 0, got {options.limit}")
    if min(options.labels) < 1:
        raise ConfigError(f"--labels must be at least 1, got {options.labels}")
    try:
        tabulate(
            options.configs,
            Path(options.output),
            seeds=options.seeds,
            limit=options.limit,
            labels=options.labels,
            share=_share(options.share),
            overrides=overrides,
        )
    except KeyboardInterrupt as error:
        how = "terminated" if isinstance(error, Terminated) else "interrupted"
        again = shlex.join(["mmnas", "tabulate", *args])
        raise type(error)(f"{how}; finished blocks are kept, the same command continues: {again}") from error
    if options.table is not None:
        from lightning_mmnas.tabular.collecting import collect

        table = collect(Path(options.output))
        table.save(options.table)
        print(f"{len(table)} architectures in {options.table}")


def tabulate(
    configs: str,
    output: Path,
    *,
    seeds: Sequence[int],
    limit: int | None = None,
    labels: Sequence[int] = (5, 20),
    share: tuple[int, int] = (0, 1),
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Trains the architectures of a space, block by block; finished blocks are not done again.

    Args:
        configs: Folder of stage configurations, or a shipped one.
        output: Folder of the table.
        seeds: Seeds; each has encoders, features, label draws and first weights of its own.
        limit: Number of architectures in all, rounded up to whole blocks; None: the whole space, if it can be listed.
        labels: Label budgets per class.
        share: (i, n): this process does blocks i, i + n, ...
        overrides: As for `mmnas run`.
        console: Where progress is shown.
    """
    from lightning_mmnas.callbacks.progress import quiet
    from lightning_mmnas.commands.refusals import refuse_run
    from lightning_mmnas.commands.run import train_encoders
    from lightning_mmnas.commands.stages import find_configs, stage_arguments, stage_digests
    from lightning_mmnas.commands.versions import versions
    from lightning_mmnas.objectives.criteria import label_free_criteria
    from lightning_mmnas.tabular.features import protocol_of
    from lightning_mmnas.tabular.numbering import architectures, numbers
    from lightning_mmnas.tabular.protocol import GroupTraining
    from lightning_mmnas.tabular.simple import simple_baselines

    console = console or Console()
    folder = find_configs(configs)
    trainings: dict[int, GroupTraining] = {}
    if not seeds or min(seeds) < 0:
        raise ConfigError(f"a table needs one or more seeds of at least 0, got {list(seeds)}")
    words = ["mmnas", "tabulate", str(configs), "--seeds", *map(str, seeds), "--labels", *map(str, labels), *overrides]
    # Before anything is trained: is this folder that of the same configurations and packages?
    refuse_run(output)
    made = {"configurations": stage_digests(folder, overrides), "versions": versions()}
    _check(output, made)
    _check_task(stage_arguments(folder, "finetune", output, seeds[0], overrides))
    budgets = {"finetune_steps": {budget: _FEW_STEPS if budget < 10 else _STEPS for budget in labels}}
    for seed in seeds:
        run_dir = output / f"seed{seed}"
        train_encoders(folder, run_dir, seed=seed, overrides=overrides, console=console)
        arguments = {name: stage_arguments(folder, name, run_dir, seed, overrides) for name in ("search", "finetune")}
        with quiet():
            space, data, settings = read_features(arguments["search"], arguments["finetune"], run_dir, labels)
        training = GroupTraining(data, protocol_of(settings, **budgets), seed, label_free_criteria())
        trainings[seed] = training
        facts = {
            "space": json.loads(space.model_dump_json()),
            "protocol": json.loads(training.protocol.model_dump_json()),
            "criteria": list(training.criteria),
            **made,
        }
        _check(output, facts)
        if not (output / _CARD).is_file():
            write_json(output / _CARD, {**facts, "command": shlex.join(words)})
        baselines = output / f"baselines-{seed}.json"
        if share[0] == 0 and limit != 0 and not baselines.is_file():
            write_json(baselines, simple_baselines(training))
    order = numbers(space, None if limit is None else -(-limit // _BLOCK) * _BLOCK)
    blocks = [order[i : i + _BLOCK] for i in range(0, len(order), _BLOCK)]
    todo = [
        (number, block, seed, output / "blocks" / f"{number:05d}-{seed}.json")
        for number, block in list(enumerate(blocks))[share[0] :: share[1]]
        for seed in trainings
    ]
    todo = [job for job in todo if not job[3].is_file()]
    genotypes = architectures(space, {index for _, block, _, _ in todo for index in block})
    start = time.monotonic()
    for done, (number, block, seed, path) in enumerate(todo, 1):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, trainings[seed].run({index: genotypes[index] for index in block}))
        pace = (time.monotonic() - start) / done
        console.print(
            f"block {number + 1} of {len(blocks)}, seed {seed}: {pace / len(block):.2f} s per network, "
            f"{pace * (len(todo) - done) / 60:.0f} min left",
            highlight=False,
        )


def _check_task(finetune: list[str]) -> None:
    """Refuses a regression before encoders are trained for it; other tasks are known once the data are read.

    Raises:
        ConfigError: It is one.
    """
    from lightning_mmnas.commands.lightning_cli import settings_of
    from lightning_mmnas.tabular.features import require_classes

    task = settings_of(["fit", *finetune]).get("data.init_args.task")
    if task is not None:
        require_classes(task)


def read_features(
    search: list[str], finetune: list[str], run_dir: Path, budgets: Iterable[int] = ()
) -> tuple[FusionSpace, TableData, dict[str, Any]]:
    """Builds what a table is made from.

    Args:
        search: Arguments of the search stage, without the command ``fit``.
        finetune: Arguments of the fine-tuning stage, likewise.
        run_dir: Run directory, whose encoders have been trained.
        budgets: Labels per class that will be asked for.

    Returns:
        The space, the features, and settings of the stages that the protocol takes over.

    Raises:
        ConfigError: The stages or the data are of another kind than a table can be made of.
        DataError: A class has fewer training samples than a budget asks for.
    """
    import torch

    from lightning_mmnas.commands.lightning_cli import MMNASCLI
    from lightning_mmnas.tabular.features import checked_search, make_table_data

    first = MMNASCLI(search, run=False, save_config_callback=None)
    model, unlabelled = checked_search(first.model, first.datamodule)
    model.trainer = first.trainer  # whose hooks count
    any_genotype = run_dir / "any_genotype.json"  # fine-tuning is configured for some network, whichever
    model.space.sample(torch.Generator().manual_seed(0)).save(any_genotype)
    second = MMNASCLI(
        [*finetune, "--model.init_args.genotype", str(any_genotype), "--model.init_args.network_weights", "null"],
        run=False,
        save_config_callback=None,
    )
    second.model.trainer = second.trainer
    data, settings = make_table_data(
        model, unlabelled, second.model, second.datamodule, _caching(first.trainer, run_dir), budgets
    )
    return model.space, data, settings


def _caching(trainer: Trainer, run_dir: Path) -> FeatureCaching:
    from lightning_mmnas.callbacks.caching import FeatureCaching

    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    found = [callback for callback in callbacks if isinstance(callback, FeatureCaching)]
    return found[0] if found else FeatureCaching(str(run_dir / "features"), views=_VIEWS)


def _check(output: Path, facts: dict[str, Any]) -> None:
    """Refuses a folder whose table is made of something else.

    Raises:
        RunDirectoryError: So it is, and what differs is named; or its card cannot be read.
    """
    from lightning_mmnas.commands.changes import free_folder

    known = read_json(output / _CARD)
    if known is None and not (output / _CARD).is_file():
        return
    if known is None:
        raise RunDirectoryError(
            f"{output / _CARD} says nothing of a table; choose another --output, or delete {output}"
        )
    different = [name for name, value in facts.items() if known.get(name) != json.loads(json.dumps(value))]
    if different:
        raise RunDirectoryError(
            f"{output} holds a table of other {' and '.join(different)}; choose another --output, such as "
            f"{free_folder(output)}, or delete it"
        )


def _share(text: str) -> tuple[int, int]:
    i, slash, n = text.partition("/")
    if not slash or not i.isdigit() or not n.isdigit() or not int(i) < int(n):
        raise ConfigError(f"--share must be i/n with i from 0 to n - 1, such as 0/2, got {text!r}")
    return int(i), int(n)
