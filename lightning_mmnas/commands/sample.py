"""`mmnas sample`: search without gradients, from the configuration of a search stage."""

from __future__ import annotations

from typing import Any

from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.errors import ConfigError

SAMPLERS = ("random", "tpe", "nsga2", "brute_force")
PRUNERS = ("none", "median", "hyperband")
_OBJECTIVES = ("criterion", "parameters", "flops")


def command(args: list[str]) -> None:
    """Runs the command.

    Raises:
        ConfigError: An option or the configuration is wrong.
        MissingExtraError: Optuna is not installed.
        StudyError: The storage cannot be used, or holds another search under the study's name.
        RunDirectoryError: The output folder holds something else, or cannot be written.
    """
    options, overrides = _parser().parse_known_args(args)
    _check(options)
    from lightning_mmnas.commands.sampled_search import search

    search(args, options, overrides)


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
    parser.add_argument("--sampler", default="tpe", help=f"one of {', '.join(SAMPLERS)} (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=50, help="finished trials in all (default: %(default)s)")
    parser.add_argument("--evaluator", default="train", help="train or inherited (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="training steps of a network (default: those of GenotypeSelection)")
    parser.add_argument(
        "--supernet_steps", type=int, default=500, help="training steps of the supernet (default: %(default)s)"
    )
    parser.add_argument(
        "--objectives", nargs="+", default=["criterion"], help=f"what is minimised, of {', '.join(_OBJECTIVES)}"
    )
    parser.add_argument("--pruner", default="none", help=f"one of {', '.join(PRUNERS)}")
    parser.add_argument("--storage", metavar="URL", help="sqlite:///FILE.db, another database, or a journal FILE.log")
    parser.add_argument("--study", default="sample", metavar="NAME", help="name in the storage (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything (default: %(default)s)")
    return parser


def _check(options: Any) -> None:
    for name, value, known in (
        ("--sampler", options.sampler, SAMPLERS),
        ("--pruner", options.pruner, PRUNERS),
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
