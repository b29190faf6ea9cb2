"""`mmnas run`: the four stages of a configuration folder in a row, then the comparison.

Each stage is an ordinary `mmnas fit --config common.yaml --config <stage>.yaml`; what one leaves for the
next are files in the run directory. A finished stage is not run again, an interrupted one goes on from its last
checkpoint. With other settings of a stage, that one and those after it are run again, if the command says so.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lightning_mmnas.commands.aside import redoing
from lightning_mmnas.commands.changes import digest_of, is_done, read_record, same
from lightning_mmnas.commands.claiming import Claim, await_claim, claim, resolve
from lightning_mmnas.commands.contents import changed_since, content_of
from lightning_mmnas.commands.lock import locked
from lightning_mmnas.commands.loggers import ended_loggers, require_loggers
from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.commands.stages import STAGES, Stage, find_configs, read_stages
from lightning_mmnas.commands.versions import versions
from lightning_mmnas.commands.workload import workload
from lightning_mmnas.errors import ConfigError, GenotypeError, MMNASError, ModelError, RunDirectoryError, Terminated
from lightning_mmnas.files import read_json, write_json
from lightning_mmnas.report.budgets import score_text, unit_of
from lightning_mmnas.report.progress import RunProgress

if TYPE_CHECKING:
    from lightning_mmnas.comparison.settings import ComparisonSettings


def command(args: list[str]) -> None:
    """Runs `mmnas run`.

    Raises:
        ConfigError: An option or a configuration is wrong.
        RunDirectoryError: The output folder cannot be written, or belongs to another run.
    """
    parser = Parser(
        prog="mmnas run",
        description="Runs the stages encoders, search, pretrain and finetune of a configuration "
        "folder one after another, each as `mmnas fit` would, then the comparison. Run again, it "
        "continues with the first unfinished stage. Without finetune.yaml, as for data without labels, it ends after "
        "pretrain.",
        epilog="Further options override the stages' configurations: --trainer.accelerator cpu in "
        "all of them, --search.trainer.max_epochs 12 in one, --comparison.draws 1 in the comparison.",
        allow_abbrev=False,
    )
    parser.add_argument("configs", help="a folder of stage configurations, or a shipped one: watch")
    parser.add_argument("--output", required=True, help="the run directory", metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="seed of every stage (default: 0)")
    parser.add_argument(
        "--overwrite", action="store_true", help="run stages with other settings again, and those after them"
    )
    parser.add_argument("--reuse", metavar="RUN", help="take over the finished stages of a run with the same settings")
    parser.add_argument(
        "--logger",
        action="append",
        default=[],
        metavar="NAME",
        help="a logger of every stage, tensorboard, mlflow, wandb or csv; may be repeated (default: as configured)",
    )
    options, overrides = parser.parse_known_args(args)
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed must be from 0 to 4294967295, got {options.seed}")
    run(
        options.configs,
        options.output,
        seed=options.seed,
        overrides=overrides,
        overwrite=options.overwrite,
        reuse=options.reuse,
        loggers=options.logger,
    )


def run(
    configs: str | Path,
    output: str | Path,
    *,
    seed: int = 0,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    reuse: str | Path | None = None,
    loggers: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """Runs the unfinished stages of a configuration folder and writes `results.json`.

    Args:
        configs: folder with search.yaml, pretrain.yaml, finetune.yaml (not for data without labels), and if
            wanted encoders.yaml, comparison.yaml and common.yaml, which comes before each stage's file; or the name
            of a shipped one, such as "watch".
        output: the run directory; new, empty, or that of the same run.
        seed: seed of every stage.
        overrides: `--search.key value` for one stage, `--key value` for all.
        overwrite: whether stages with other settings than those in the run directory are run again, and those after
            them; the earlier result stays until the new one is whole.
        reuse: another run's directory, whose finished stages are taken over up to the first with other settings.
        loggers: "tensorboard", "wandb", "mlflow" or "csv", for all stages; none: those of the configurations.
        console: where progress is shown.

    Returns:
        The content of `results.json`.

    Raises:
        ConfigError: a configuration is missing or wrong.
        RunDirectoryError: the run directory cannot be written, or belongs to another run.
    """
    # With several devices Lightning starts this very command once more per rank: those only train.
    main = _is_main()
    console = (console or Console()) if main else Console(file=io.StringIO())
    folder, run_dir = find_configs(configs), Path(output)
    require_loggers(loggers)
    stages = read_stages(folder, overrides, loggers)
    wanted = Claim(
        str(configs), run_dir, seed, tuple(overrides), overwrite, Path(reuse) if reuse else None, tuple(loggers)
    )
    with RunProgress(console, [stage.name for stage in stages]) as progress:
        # Mistakes in any stage are told now: nothing is trained or written before.
        with progress.activity("loading libraries and configurations"):
            stages = [resolve(stage, run_dir, seed) for stage in stages]
            settings = _compared(stages)
            progress.workload = partial(workload, {s.name: s.settings for s in stages if s.name in STAGES}, settings)
            if main and settings is not None and not is_done(stages[-1], run_dir, seed):
                from lightning_mmnas.commands.label_budgets import check_label_budgets

                check_label_budgets(stages[-2].arguments(run_dir, seed)[1:], settings)
        if settings is None:
            progress.say(f"{folder} has no finetune.yaml: nothing is fine-tuned or compared")
        with locked(run_dir, progress.say) if main else nullcontext():
            if main:
                claim(wanted, stages, progress.say)
            else:
                await_claim(run_dir)
            with redoing(run_dir, progress.say) if main else nullcontext():
                results = _run(stages, wanted, progress)
    if results:
        _report(results, run_dir, console)
    return results


def _run(stages: Sequence[Stage], wanted: Claim, progress: RunProgress) -> dict[str, Any]:
    run_dir, seed, main = wanted.run_dir, wanted.seed, _is_main()
    # Without --output, which is the folder that it is written into: equal runs give equal files but for the seconds.
    made_by = shlex.join(["mmnas", "run", wanted.configs, "--seed", str(seed), *wanted.overrides])
    records: dict[str, dict[str, Any]] = {}
    last = [stage.name for stage in stages if stage.name in STAGES][-1]
    for stage in stages:
        try:
            if not main and stage.name == "comparison":
                return {}
            if stage.name == "comparison":
                records[stage.name] = _compare(stages, run_dir, seed, progress)
            else:
                records[stage.name] = _train(stage, run_dir, seed, progress)
            if stage.name == last:
                _part()
            if main and stage.name == last:
                records["model"] = _deliver(stage, wanted, records[last], progress, made_by)
        except KeyboardInterrupt as error:
            how = "terminated" if isinstance(error, Terminated) else "interrupted"
            raise type(error)(
                f"{how} in stage {stage.name}; finished stages are kept, "
                f"the same command continues: {shlex.join(wanted.words())}"
            ) from error
        except MMNASError as error:
            raise error.at(f"stage {stage.name}") from None

    if not main:
        return {}
    results = _results(run_dir, records)
    results |= {"seed": seed, "versions": versions(), "command": made_by}
    write_json(run_dir / "results.json", results)
    return results


def _compared(stages: Sequence[Stage]) -> ComparisonSettings | None:
    """How much is compared; None where nothing is.

    Raises:
        ConfigError: Its label budgets are for another task than that of the last stage's data.
    """
    if stages[-1].name != "comparison":
        return None
    from lightning_mmnas.commands.compare import read_settings

    settings = read_settings(stages[-1].config, stages[-1].overrides)
    data = stages[-2].settings
    if data.get("data.init_args.task") == "regression":
        settings.budgets("regression")
    elif str(data.get("data.class_path")).startswith("lightning_mmnas."):  # a class of the user's own may be one unsaid
        settings.budgets(None)
    return settings


def train_encoders(
    folder: Path, run_dir: Path, *, seed: int, overrides: Sequence[str] = (), console: Console | None = None
) -> None:
    """Runs the encoders' stage of a configuration folder alone, where there is one and it has not been run before."""
    stage = read_stages(folder, overrides)[0]
    if stage.name != "encoders":
        return
    stage, record = resolve(stage, run_dir, seed), read_record(run_dir, stage.name)
    if record is not None and not same(record["digest"], stage, seed):
        raise RunDirectoryError(
            f"{run_dir / stage.name} holds encoders trained with other settings; choose another --output, or delete it"
        )
    with RunProgress(console or Console(), ["encoders"]) as progress:
        _train(stage, run_dir, seed, progress)


def _train(stage: Stage, run_dir: Path, seed: int, progress: RunProgress) -> dict[str, Any]:
    digest, done = digest_of(stage.settings), run_dir / stage.name / "done.json"
    record = read_record(run_dir, stage.name)
    genotype = run_dir / "genotype.json"
    complete = record is not None and (genotype.is_file() or not record.get("genotype"))
    if record is not None and same(record["digest"], stage, seed) and complete:
        progress.say(f"{stage.name:<10} done before, in {record['seconds']:.1f} s{changed_since(record, stage)}")
        progress.finished(stage.name, record["seconds"])
        return record
    if _is_main():
        done.unlink(missing_ok=True)
    arguments = stage.arguments(run_dir, seed)
    last = run_dir / stage.name / "checkpoints" / "last.ckpt"
    resume = ["--ckpt_path", str(last)] if last.is_file() else []
    progress.say(f"$ {shlex.join(['mmnas', *arguments, *resume])}", style="dim")

    from lightning_mmnas.callbacks.progress import StageProgress, metrics_line, quiet
    from lightning_mmnas.commands.lightning_cli import MMNASCLI

    start, table = time.monotonic(), content_of(stage)
    with quiet(), progress.stage(stage.name), ended_loggers():
        cli = MMNASCLI(
            [*arguments, *resume],
            trainer_defaults={
                "callbacks": [StageProgress(stage.name, progress)],
                "enable_progress_bar": False,
                "enable_model_summary": False,
            },
        )
    record = {
        "seconds": round(time.monotonic() - start, 3),
        "digest": digest,
        "table": table,
        "resumed": bool(resume),
        "command": shlex.join(["mmnas", *arguments]),
        "versions": versions(),
        "genotype": stage.name == "search" and genotype.is_file(),
        "parameters": {
            name: sum(p.numel() for p in getattr(cli.model, name).parameters())
            for name in ("supernet", "network")
            if hasattr(cli.model, name)
        },
    }
    if _is_main():
        write_json(done, record)
    progress.say(f"{stage.name:<10} done in {record['seconds']:.1f} s  {metrics_line(cli.trainer)}")
    return record


def _deliver(
    stage: Stage, wanted: Claim, trained: dict[str, Any], progress: RunProgress, made_by: str
) -> dict[str, Any]:
    """Writes `model/`; a stage that cannot be delivered is said to be one, and the run goes on."""
    of, done = {name: trained[name] for name in ("digest", "seconds")}, wanted.run_dir / "model" / "done.json"
    record = read_json(done)
    if record is not None and record.get("of") == of:
        return record
    from lightning_mmnas.callbacks.progress import quiet
    from lightning_mmnas.commands.deliver import deliver

    start = time.monotonic()
    try:
        with quiet(), progress.activity("delivering the model"):
            found = deliver(
                stage.arguments(wanted.run_dir, wanted.seed)[1:],
                wanted.run_dir,
                {"command": made_by, "seed": wanted.seed, "versions": versions()},
            )
    except ModelError as error:
        progress.say(f"{'model':<10} not delivered: {error}")
        return {"seconds": 0.0}
    record = {"seconds": round(time.monotonic() - start, 3), "of": of, "delivered": found}
    write_json(done, record)
    if "score" not in found:
        progress.say(f"{'model':<10} embeds samples; pretrained with {found['samples']}, without labels")
        return record
    scored = f"{found['metric']} {score_text(found['score'])} on the test split"
    progress.say(f"{'model':<10} {scored}, trained with {found['samples']} labels")
    return record


def _compare(stages: Sequence[Stage], run_dir: Path, seed: int, progress: RunProgress) -> dict[str, Any]:
    stage = stages[-1]
    assert stage.name == "comparison"
    digest, done = digest_of(stage.settings), run_dir / stage.name / "done.json"
    record = read_record(run_dir, stage.name)
    if record is not None and same(record["digest"], stage, seed):
        changed = changed_since(record, stages[-2])
        progress.say(f"{stage.name:<10} done before, in {record['seconds']:.1f} s{changed}")
        return record
    from lightning_mmnas.callbacks.progress import quiet
    from lightning_mmnas.commands.compare import compare, read_settings
    from lightning_mmnas.modules.frozen import read_checkpoint

    settings = read_settings(stage.config, stage.overrides)
    start, table = time.monotonic(), content_of(stages[-2])
    arguments = {s.name: s.arguments(run_dir, seed)[1:] for s in stages[:-1]}
    with quiet(), progress.stage(stage.name):
        checkpoint = read_checkpoint(run_dir / "pretrain" / "checkpoints" / "last.ckpt", "comparison")
        steps = int(checkpoint["global_step"])
        results = compare(arguments["pretrain"], arguments["finetune"], steps, settings, seed, progress)
    seconds = round(time.monotonic() - start, 3)
    progress.say(f"{stage.name:<10} done in {seconds:.1f} s")
    record = {"seconds": seconds, "digest": digest, "table": table, "versions": versions(), "results": results}
    write_json(done, record)
    return record


def _results(run_dir: Path, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    parameters: dict[str, int] = {}
    for record in records.values():
        parameters |= record.get("parameters", {})
    genotype = read_json(run_dir / "genotype.json")
    results: dict[str, Any] = {
        "stages": {name: {"seconds": records[name]["seconds"]} for name in STAGES if name in records},
        "comparison_seconds": records["comparison"]["seconds"] if "comparison" in records else 0.0,
        "total_seconds": round(sum(record["seconds"] for record in records.values()), 3),
        "genotype": genotype,
        "space_size": None,
        "search": _searched(run_dir),
        "parameters": parameters,
        "comparison": [],
    }
    if genotype is not None:
        from lightning_mmnas.space.genotype import Genotype

        with suppress(GenotypeError):  # too large a space to be counted
            results["space_size"] = Genotype.load(run_dir / "genotype.json").space.size()
    if "comparison" in records:
        results |= records["comparison"]["results"]
    if delivered := records.get("model", {}).get("delivered"):
        results["model"] = delivered
        if results["comparison"]:
            results["comparison"] = [*results["comparison"], _row(delivered)]
    return results


def _searched(run_dir: Path) -> dict[str, Any]:
    """How much the search has trained the architecture logits, and how decided they are."""
    selection = read_json(run_dir / "genotype.selection.json") or {}
    return {name: selection.get(name) for name in ("architecture_steps", "entropy")}


def _row(delivered: dict[str, Any]) -> dict[str, Any]:
    """The delivered model as a row of the comparison: what is shown is what is delivered."""
    score = delivered["score"]
    unit = unit_of(delivered)
    shown = {"name": "delivered", unit: delivered[unit], "metric": delivered["metric"]}
    return {**shown, "mean": score, "std": 0.0, "n": 1, "scores": [score]}


def _report(results: dict[str, Any], run_dir: Path, console: Console) -> None:
    if results["comparison"]:
        from lightning_mmnas.report.table import render_comparison

        console.print(render_comparison(results["comparison"]))
    from lightning_mmnas.commands.report import report_after_run

    if (page := report_after_run(run_dir)) is not None:
        console.print(f"report in {page}", highlight=False, markup=False, soft_wrap=True)
    seconds = results["total_seconds"]
    console.print(f"{seconds:.0f} s; results in {run_dir / 'results.json'}", highlight=False, markup=False)


def _part() -> None:
    """What follows the last stage is done by one process: the metrics of a group would wait for those that have ended.

    Where nothing was trained, nothing is imported.
    """
    if (ranks := sys.modules.get("lightning_mmnas.modules.ranks")) is not None:
        ranks.part()


def _is_main() -> bool:
    """Whether this is the process the user started, or the first of torchrun's, of srun's or of several machines'."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name) or 0) == 0 for name in ranks)
