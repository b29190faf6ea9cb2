"""`MMNASCLI`: Lightning's command line, with interpolation, data-to-model links and short errors.

    mmnas fit --config configs/watch/common.yaml --config configs/watch/search.yaml --run_dir runs/mine

`${run_dir}` or `${model.init_args.hidden}` in a configuration follow later files and command-line
overrides; shapes and class counts go from the data module to the model without being typed twice.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, set_dumper, set_parsing_settings
from lightning.fabric.utilities import rank_zero_info
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from lightning.pytorch.cli import SaveConfigCallback as LightningSaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_mmnas.callbacks.caching import FeatureCaching
from lightning_mmnas.callbacks.ending import EndTogether
from lightning_mmnas.callbacks.last_checkpoint import LastCheckpoint
from lightning_mmnas.callbacks.lightning_private import (
    CommandLine,
    heeds_sigterm,
    is_started_by_lightning,
    synchronise_batch_norm,
)
from lightning_mmnas.callbacks.progress import hide_advertisements
from lightning_mmnas.commands.aside import FEATURES, renews_features
from lightning_mmnas.commands.changes import RUN_DIR, flat
from lightning_mmnas.commands.impossible import refuse_forks, refuse_impossible
from lightning_mmnas.commands.instantiation import (
    LINKED,
    Instantiator,
    compare_with_checkpoint,
    flatten,
    instantiation_error,
)
from lightning_mmnas.commands.lock import is_empty, locked
from lightning_mmnas.commands.memory import keep_freed_memory
from lightning_mmnas.commands.messages import shorten_interpolation_error, shorten_parser_error
from lightning_mmnas.commands.parser_types import read_whole_numbers_first, register_types, write_names_as_names
from lightning_mmnas.commands.processes import refuse_processes
from lightning_mmnas.commands.quoting import dump_yaml
from lightning_mmnas.commands.refusals import refuse_config, refuse_finished_stage
from lightning_mmnas.commands.saving import SaveConfigCallback, keep_metrics, keep_predictions
from lightning_mmnas.commands.shared import advice, given_configs, refuse_parts, refuse_tags
from lightning_mmnas.commands.termination import stops_itself
from lightning_mmnas.commands.threads import is_small, one_thread
from lightning_mmnas.errors import CheckpointError, ConfigError, Terminated
from lightning_mmnas.modules.frozen import read_checkpoint
from lightning_mmnas.modules.length import is_trial
from lightning_mmnas.parsing import read_yaml

# Where short class names (`--model FusionSearch`) are looked up.
_COMPONENTS = ("callbacks", "data", "encoders", "modules", "objectives", "views")
_SECTIONS = ("trainer", "model", "data", "shared")
_COMMANDS = ("fit", "validate", "test", "predict")
_INTERPOLATION = re.compile(r"\$\{([a-zA-Z][\w.\[\]]*)\}")

# So that `${run_dir}` written in a file is found below the command's name, too.
set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
# On its way a configuration is written and read again.
set_dumper("yaml", dump_yaml)
read_whole_numbers_first()
register_types()
write_names_as_names()


class MMNASArgumentParser(LightningArgumentParser):
    """Raises `ConfigError` with a short message where the parser would print its usage and exit."""

    @override
    def error(self, message: str, ex: Exception | None = None) -> Any:
        if not self.exit_on_error:  # an inner parser: its message becomes part of an outer one
            return super().error(message, ex)
        raise ConfigError(shorten_parser_error(message)) from ex


class MMNASCLI(CommandLine):
    """LightningCLI for any LightningModule and any LightningDataModule, ours or the user's.

    Adds the top-level keys `run_dir` (everything is written below it unless told otherwise) and
    `shared` (what several stages have in common, taken by `${shared.NAME}`), the links from the
    data module's `modalities`, `num_classes`, `task` and `target_scale` to arguments of the same name in the model,
    and errors a user can act on: `ConfigError`, `CheckpointError`.

    Args:
        args: command-line arguments without the program's name, or a dict or Namespace of them.
        run: whether the arguments start with a command (fit, validate, test, predict) to be run.
        trainer_defaults: defaults of the trainer; callbacks among them are always present.
        save_config_callback: writes the resolved configuration; None to write none.
    """

    def __init__(
        self,
        args: ArgsType = None,
        run: bool = True,
        trainer_defaults: dict[str, Any] | None = None,
        save_config_callback: type[LightningSaveConfigCallback] | None = SaveConfigCallback,
    ) -> None:
        words = sys.argv[1:] if args is None else args
        self._command = words[0] if isinstance(words, list) and words else None
        _import_components()
        keep_freed_memory()
        hide_advertisements()
        # Frozen encoders are in eval mode on purpose.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")
        # Lightning asks for a class that torch renamed.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
        super().__init__(
            args=args,
            run=run,
            trainer_defaults=trainer_defaults,
            save_config_callback=save_config_callback,
            seed_everything_default=0,
            parser_class=MMNASArgumentParser,
        )

    @override
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # of an instance: that of its command line
        """The command that the arguments start with, whose parser is the only one that is built; or all of them."""
        every = super().subcommands()
        return {name: skipped for name, skipped in every.items() if self._command in (name, None)} or every

    @override
    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        kwargs.setdefault("prog", "mmnas")
        kwargs.setdefault("parser_mode", "omegaconf+")
        # An abbreviated key is a misspelt one.
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("dump_header", [f"lightning_mmnas=={version('lightning-mmnas')}"])
        return super().init_parser(**kwargs)

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=str,
            default="runs/default",
            help="Folder of everything that is written; use it as ${run_dir} in a configuration.",
        )
        parser.add_argument(
            "--shared",
            type=dict,  # with values of type Any the parser would make classes of them, wherever they are used
            default={},
            help="What several stages have in common, by names of one's own; use it as ${shared.NAME}.",
        )
        parser.set_defaults({"trainer.default_root_dir": "${..run_dir}"})
        for name in LINKED:
            target = f"model.init_args.{name}"
            # The whole data module, since it need not have the attribute.
            parser.link_arguments("data", target, compute_fn=partial(_attribute, name), apply_on="instantiate")

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        words = sys.argv[1:] if args is None else [] if isinstance(args, dict | Namespace) else list(args)
        refuse_parts(words)
        refuse_tags(words)
        self._words = words
        for path in given_configs(words):
            content = read_yaml(path)  # what the parser would not survive
            for name in _SECTIONS if isinstance(content, dict) else ():
                if isinstance(content.get(name), list | int | float):
                    kind = type(content[name]).__name__
                    raise ConfigError(f"{path}: {name} is a {kind}, where keys and values are needed")
        try:
            if isinstance(args, dict | Namespace):
                self.config = parser.parse_object(args)
            else:
                self.config = parser.parse_args(None if args is None else _anchor(args))
            if self.config.get(self.config.get("subcommand") or "", self.config).get("shared"):
                # Once more: what ${shared.NAME} stood for has not got its classes' defaults yet.
                self.config = parser.parse_object(self.config)
        except OmegaConfBaseException as error:
            raise ConfigError(shorten_interpolation_error(error) + advice(words)) from error
        except ConfigError as error:
            if way_out := advice(words):
                raise ConfigError(f"{error}{way_out}") from error
            raise
        except (AttributeError, TypeError, LookupError, RecursionError) as error:  # of values where keys should be
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"a part of the configuration is of the wrong kind ({reason}){advice(words)}") from error
        if self.config.get("subcommand") == "fit":
            refuse_impossible(self.config.fit.as_dict())

    @override
    def merge_checkpoint(self) -> None:
        """Merges a checkpoint's hyperparameters as Lightning does, but says what they change."""
        config = self.config.get(self.config.get("subcommand") or "")
        path = config.get("ckpt_path") if config else None
        if path is None or path in ("best", "last", "hpc") or "://" in str(path):
            return
        if not Path(path).is_file():
            raise CheckpointError(f"there is no checkpoint {path}; check --ckpt_path")
        checkpoint = read_checkpoint(path, "--ckpt_path")
        if "pytorch-lightning_version" not in checkpoint:
            raise CheckpointError(f"--ckpt_path: {path} holds weights, but is no checkpoint that training goes on from")
        before = flatten(config.model.as_dict()) if config.model else {}
        try:
            self.merge_hyperparameters(checkpoint.get("hyper_parameters", {}))
        except ConfigError as error:
            raise CheckpointError(f"checkpoint {path} does not fit this model: {error}") from error
        except Exception as error:  # torch.load of a damaged file raises nearly anything
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise CheckpointError(f"cannot read checkpoint {path}: {reason}") from error
        after = flatten(self.config[self.config.subcommand].model.as_dict())
        compare_with_checkpoint(path, before, after)

    @override
    def before_instantiate_classes(self) -> None:
        """Refuses to train into a finished run of other settings; a checkpoint to go on from says it is meant."""
        if (command := self.config.get("subcommand")) is not None:
            refuse_processes(self.config[command].as_dict().get("trainer") or {})
        if command == "fit" and self._words:
            config, words = self.config.fit, self._words
            root, run_dir = Path(config.trainer.default_root_dir or "."), Path(config.run_dir)
            refuse_config(root)
            if config.get("ckpt_path") is None:
                refuse_finished_stage(root, run_dir, lambda: settings_of(words))

    @override
    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise instantiation_error(error) from error
        refuse_forks(self.trainer)
        synchronise_batch_norm(self.trainer)
        self.trainer.callbacks.insert(0, EndTogether())  # type: ignore[attr-defined]
        self._require_weights()
        run_dir = Path(self.config.get(self.config.get("subcommand") or "", self.config).run_dir)
        if renews_features(run_dir):
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, FeatureCaching) and callback.folder == run_dir / FEATURES:
                    callback.on_change = "rebuild"

    def _require_weights(self) -> None:
        """Refuses to score a stage that has not been trained; modules that are no stages may bring their weights."""
        command = self.config.get("subcommand")
        bases = [base.__module__ for base in type(self.model).__mro__]
        if command in (None, "fit") or not any(name.startswith("lightning_mmnas.modules.") for name in bases):
            return
        if self.config[command].get("ckpt_path") is None:
            last = Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt"
            found = f"--ckpt_path {last}" if last.is_file() else f"--ckpt_path FILE (there is no {last})"
            raise CheckpointError(f"mmnas {command} would score a network that is not trained; give {found}")

    @override
    def run_command(self, name: str) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if name == "predict":
            keep_predictions(self.trainer, self.model)
        try:
            few = one_thread(self.trainer.strategy.root_device, self._is_small())
            with few, self._locked(name), stops_itself(partial(heeds_sigterm, self.trainer)):
                super().run_command(name)
            if self.trainer.received_sigterm:  # at the very end, where nothing looks for it
                raise Terminated(f"terminated; {self._way_on()}")
            if name in ("test", "validate"):
                keep_metrics(self.trainer, name)
        except SIGTERMException as error:
            if is_started_by_lightning(self.trainer):  # and watched: another code would have the first process killed
                raise SystemExit(0) from error
            raise Terminated(f"terminated; {self._way_on()}") from error
        except SystemExit as error:
            # Lightning turns Ctrl-C into exit code 1 and leaves SIGINT ignored.
            cause = error.__context__
            if not isinstance(cause, KeyboardInterrupt):
                raise
            signal.signal(signal.SIGINT, handler)
            if is_started_by_lightning(self.trainer):
                raise SystemExit(0) from error
            how = "terminated" if isinstance(cause, Terminated) else "interrupted"
            raise type(cause)(f"{how}; {self._way_on()}") from error

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Keeps a second training from replacing this one's last checkpoint."""
        callbacks: list[Any] = self.trainer.checkpoint_callbacks
        folders = {Path(c.dirpath) for c in callbacks if isinstance(c, LastCheckpoint) and c.dirpath}
        with ExitStack() as stack:
            if name == "fit" and self.trainer.is_global_zero and not is_trial(self.trainer):
                for folder in sorted(path for path in folders if "://" not in str(path)):
                    if is_empty(folder):  # but for the lock, of which Lightning would warn
                        stack.enter_context(warnings.catch_warnings())
                        warnings.filterwarnings("ignore", message=re.escape(f"Checkpoint directory {folder} exists"))
                    stack.enter_context(locked(folder, rank_zero_info))
            yield

    def _way_on(self) -> str:
        """How a command that was stopped is continued: from the newest checkpoint, which the first rank has written."""
        if not self.trainer.is_global_zero:
            return "the first process says how it goes on"
        callbacks: list[Any] = self.trainer.checkpoint_callbacks
        paths = [getattr(c, name, "") for c in callbacks for name in ("last_model_path", "best_model_path")]
        written = [Path(path) for path in paths if path and Path(path).is_file()]
        newest = max(written, key=lambda path: path.stat().st_mtime, default=None)
        remote = next((path for path in paths if "://" in str(path)), None)
        found = newest or remote or self.config[self.config.subcommand].get("ckpt_path")
        return f"continue with the same command and --ckpt_path {found}" if found else "start anew"

    def _is_small(self) -> bool:
        encoders, modalities = getattr(self.model, "encoders", None), getattr(self.datamodule, "modalities", None)
        return (
            isinstance(encoders, nn.Module) and isinstance(modalities, dict) and is_small(encoders, modalities.values())
        )

    @staticmethod
    @override
    def configure_optimizers(
        lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: LRSchedulerTypeUnion | None = None
    ) -> Any:
        """The optimiser of ``--optimizer``, of what takes gradients: no frozen weights, no architecture logits."""
        for group in optimizer.param_groups:
            # In place: some optimisers, such as LBFGS, keep the list itself.
            group["params"][:] = [parameter for parameter in group["params"] if parameter.requires_grad]
        for parameter in list(optimizer.state):  # some, such as Adagrad, begin it when they are made
            if not parameter.requires_grad:
                del optimizer.state[parameter]
        return CommandLine.configure_optimizers(lightning_module, optimizer, lr_scheduler)

    @override
    def instantiators(self) -> dict[str, Callable[..., Any]]:
        return {key: Instantiator(self.resolved, key) for key in ("model", "data")}


class ConfigCheck(MMNASCLI):
    """Reads a command's configuration as `MMNASCLI` does, and stops there: for mistakes told before anything runs."""

    @override
    def seed(self) -> None:
        """Leaves the random state alone."""

    @override
    def before_instantiate_classes(self) -> None:
        """Refuses nothing."""

    @override
    def instantiate_classes(self) -> None:
        """Builds nothing."""

    @override
    def run_command(self, name: str) -> None:
        """Runs nothing."""


def settings_of(arguments: Sequence[str]) -> dict[str, Any]:
    """What arguments of `mmnas fit` resolve to, by full key, without defaults and whatever the run directory is."""
    given = ConfigCheck([*arguments, "--run_dir", RUN_DIR]).given()
    return flat({name: value for name, value in given.items() if name not in ("run_dir", "shared")})


def _import_components() -> None:
    for component in _COMPONENTS:
        name = f"lightning_mmnas.{component}"
        module = importlib.import_module(name)
        for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
            importlib.import_module(f"{name}.{info.name}")


def _anchor(args: list[str]) -> list[str]:
    """Makes `${key}` on the command line mean the same as in a file: a key of the command."""
    prefix = f"{args[0]}." if args and args[0] in _COMMANDS else ""
    # The space keeps jsonargparse from making it relative to the argument it stands in.
    return [_INTERPOLATION.sub(rf"${{ {prefix}\1}}", arg) for arg in args]


def _attribute(name: str, data: Any) -> Any:
    """An attribute of the data module, None where it has no such one."""
    return getattr(data, name, None)
