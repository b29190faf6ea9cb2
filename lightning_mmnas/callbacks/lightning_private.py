"""Everything that depends on Lightning's private parts: where its loops stand, and private steps of its command line.

Nothing else in the package reads a private attribute of Lightning, but for one in `modules/averaging.py`, which stands
below. Tested with Lightning 2.6.0 to 2.6.6; an update of Lightning is an update of this file.
"""

import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from types import FrameType
from typing import Any

import torch
import yaml
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from typing_extensions import override

from lightning_mmnas.callbacks.batch_norm_sync import BatchNormSync

_NOT_RESUMABLE = "You're resuming from a checkpoint that ended before the epoch ended"


def begun_and_done(trainer: Trainer) -> tuple[int, int]:
    """How many batches of this epoch were begun, and how many had their weight step."""
    current: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return current.ready, current.processed


def batch_index(trainer: Trainer) -> int:
    """The number of the batch at hand in its epoch."""
    return trainer.fit_loop.batch_idx


def leave_finished_epoch(trainer: Trainer) -> None:
    """Keeps Lightning (2.6) from adding a batch to an epoch that was over.

    With ``max_steps`` it restarts the epoch of a checkpoint written at an epoch's end.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop.epoch_loop.reset_restart_stage()
        loop.epoch_loop.restarting = False


def iterates_anew(trainer: Trainer) -> bool:
    """Whether Lightning, at the start of an epoch, is about to iterate the train loaders (the condition is its own)."""
    loop = trainer.fit_loop
    return trainer.current_epoch > 0 and not loop.is_resuming and not loop.epoch_loop.restarting


def loaded_checkpoint(trainer: Trainer) -> Mapping[str, Any]:
    """The checkpoint that a training goes on from, before Lightning has restored all of it; empty if there is none."""
    return trainer._checkpoint_connector._loaded_checkpoint


def restore_float64(trainer: Trainer) -> None:
    """Restores weights of 64 bits, which Lightning has loaded into a module of 32 bits before it converted that."""
    checkpoint = loaded_checkpoint(trainer)
    weights = checkpoint.get("current_model_state", checkpoint.get("state_dict", {}))  # those that are trained
    for name, tensor in trainer.lightning_module.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.dtype == torch.float64 and name in weights:
            tensor.copy_(weights[name])


def train_loaders(trainer: Trainer) -> list[Any]:
    """The train loaders, those of a combined loader one by one."""
    combined = trainer.fit_loop._combined_loader
    return [] if combined is None else combined.flattened


def validation_loaders(trainer: Trainer) -> list[Any]:
    """The loaders of the validation that belongs to training."""
    combined = trainer.fit_loop.epoch_loop.val_loop._combined_loader
    return [] if combined is None else combined.flattened


def own_sampler(sampler: Any) -> Any:
    """The user's sampler, of which Lightning gives each rank a part; any other sampler as it is."""
    return getattr(getattr(sampler, "dataset", None), "_sampler", sampler)


def seed_workers_apart(loader: Any, rank: int) -> None:
    """Lets workers of different ranks draw different numbers, as after ``seed_everything(workers=True)``."""
    if getattr(loader, "num_workers", 0) and loader.worker_init_fn is None:
        loader.worker_init_fn = partial(pl_worker_init_function, rank=rank)


def epochs_begun(trainer: Trainer) -> int:
    """The number that Lightning gives to a sampler's ``set_epoch``."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def batches_begun(trainer: Trainer) -> int:
    """Batches of all epochs so far, that at hand included."""
    return int(trainer.fit_loop.epoch_loop.total_batch_idx) + 1


def has_iterators(trainer: Trainer) -> bool:
    """Whether there is something that fetches batches from the train loaders."""
    return trainer.fit_loop._data_fetcher is not None


def requeues(trainer: Trainer) -> bool:
    """Whether Lightning, told by a signal of SLURM's, writes a checkpoint at once and has the job started again."""
    environment = trainer._accelerator_connector.cluster_environment
    return isinstance(environment, SLURMEnvironment) and environment.auto_requeue


def heeds_sigterm(trainer: Trainer) -> bool:
    """Whether Lightning ends the training by itself after SIGTERM: at the next batch, or as SLURM's requeueing does."""
    heard = trainer.received_sigterm or bool(vars(trainer._signal_connector).get("ends"))
    return heard and (requeues(trainer) or has_iterators(trainer))


def hear_signals_together(trainer: Trainer) -> Callable[..., None]:
    """Has all ranks heed SIGTERM, and SLURM's signal before its time limit, before the same batch.

    Lightning's handlers broadcast and save in the midst of whatever the ranks are doing, which hangs where ranks are
    told at different moments, or one of them twice. Here a handler only takes note (and passes SIGTERM on to processes
    that this one started), and the ranks tell each other where Lightning asks rank 0: before a batch.

    Args:
        trainer: With its strategy, before it handles signals.

    Returns:
        What the ranks call together: it requeues if any was told to, and raises `SIGTERMException` if any is to end.
        It may be given the number of a place, where all ranks must be; Lightning's call before a batch has 0.
    """
    connector: Any = trainer._signal_connector
    loop: Any = trainer.fit_loop.epoch_loop
    requeue = connector._slurm_sigusr_handler_fn
    ends: list[int] = []
    requeues: list[int] = []

    def note_end(number: int, frame: FrameType | None) -> None:
        if not ends and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(number)
        ends.append(number)

    def note_requeue(number: int, frame: FrameType | None) -> None:
        requeues.append(number)

    def tell(place: int = 0) -> None:
        numbers = [bool(requeues), bool(ends), place, -place]
        own = torch.tensor(numbers, dtype=torch.int32, device=trainer.strategy.root_device)
        told: Any = trainer.strategy.reduce(own, reduce_op="max")
        requeued, ended, last, first = told.tolist()
        if requeued and place == 0:  # elsewhere other callbacks still have their turn, which a resume would leave out
            requeue(signal.SIGUSR1, None)
            requeues.clear()
        if ended and place == 0:
            connector.received_sigterm = True
            raise SIGTERMException
        if last != -first:
            raise MisconfigurationException(
                "a rank has left its epoch, and another would train on and wait for it for ever: give all ranks equally"
                " many batches, and let what ends a training or an epoch, such as trainer.should_stop or -1 of "
                "on_train_batch_start, come to all of them"
            )

    own_handlers = {"_sigterm_notifier_fn": note_end, "_slurm_sigusr_handler_fn": note_requeue, "ends": ends}
    vars(connector).update(own_handlers)
    vars(loop).update(_broadcast_sigterm_tensor=tell)
    return tell


def is_started_by_lightning(trainer: Trainer) -> bool:
    """Whether this process is a rank that Lightning's launcher in another one has started, and watches over."""
    elsewhere = ("TORCHELASTIC_RUN_ID", "GROUP_RANK", "SLURM_PROCID")
    return trainer.local_rank > 0 and not any(name in os.environ for name in elsewhere)


def forks_or_spawns(trainer: Trainer) -> bool:
    """Whether the ranks are to be forks of this process, or to be started by Python's multiprocessing."""
    return type(trainer.strategy.launcher) is _MultiProcessingLauncher


def waits_for_all_gradients(trainer: Trainer) -> bool:
    """Whether DDP would end a training in which a step has no gradient for some weights."""
    return not getattr(trainer.strategy, "_ddp_kwargs", {"find_unused_parameters": True}).get("find_unused_parameters")


def stop_if_terminated(trainer: Trainer) -> None:
    """Ends the training as Lightning does after a batch, if SIGTERM has come.

    Raises:
        SIGTERMException: It has.
    """
    if trainer.received_sigterm:
        raise SIGTERMException


def restore_loaders(trainer: Trainer) -> None:
    """Gives loaders with a state of their own what Lightning kept from them.

    It does so where they were made before it read the checkpoint's loops: for whoever asks it for the number of steps.
    """
    loop = trainer.fit_loop
    if loop._combined_loader_states_to_load and has_iterators(trainer):
        loop._load_combined_loader_states()
        assert loop._data_fetcher is not None
        iter(loop._data_fetcher)


def iterate_and_skip(trainer: Trainer, batches: int, quiet: ExitStack) -> None:
    """Starts the epoch's iterators anew, and loads and drops some batches; where all samplers can skip, loads none.

    Args:
        trainer: At the start of training.
        batches: How many.
        quiet: Closed by the caller after the first batch: until then Lightning would warn of what this does away with.
    """
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    loaders = train_loaders(trainer)
    skips = [getattr(getattr(loader, "sampler", None), "skip_batches", None) for loader in loaders]
    if all(callable(skip) for skip in skips):
        for loader, skip in zip(loaders, skips, strict=True):
            skip(batches, len(loader), loader.batch_size)  # type: ignore[misc]
        iter(fetcher)
    else:
        iter(fetcher)
        for _ in range(batches):
            next(fetcher)
            stop_if_terminated(trainer)
        fetcher.fetched -= batches  # Lightning adds them again
    if batches or trainer.global_step:  # Lightning counts as if every epoch had as many steps as this one
        quiet.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=_NOT_RESUMABLE)


def before_first_iteration(trainer: Trainer, call: Callable[[], None]) -> None:
    """Has something called whenever Lightning has made the train loaders and is about to iterate them."""
    loop = trainer.fit_loop
    load = type(loop)._load_combined_loader_states

    def load_states() -> None:
        load(loop)
        call()

    vars(loop)["_load_combined_loader_states"] = load_states


def no_more_before_first_iteration(trainer: Trainer) -> None:
    """Takes back `before_first_iteration`."""
    vars(trainer.fit_loop).pop("_load_combined_loader_states", None)


def own_iterator(loader: Any) -> Iterator[Any]:
    """An iterator of a loader whose other one is in use: a loader with persistent workers would give that one again."""
    if isinstance(loader, DataLoader) and loader.persistent_workers:
        return iter(loader._get_iterator())
    return iter(loader)


def synchronise_batch_norm(trainer: Trainer, twice: bool = False) -> None:
    """Has ``sync_batchnorm`` work where torch's own layer does not: on a CPU, and for second derivatives.

    Args:
        trainer: Before its strategy is set up.
        twice: Whether second derivatives are needed.
    """
    strategy: Any = trainer.strategy
    asked = isinstance(getattr(strategy, "_layer_sync", None), TorchSyncBatchNorm)
    if asked and (twice or strategy.root_device.type == "cpu"):
        strategy._layer_sync = BatchNormSync()


def leave_out_of_averages(trainer: Trainer, tensors: Iterable[Tensor]) -> None:
    """Has `WeightAveraging` average everything but some parameters and buffers of the module, which stay as they are.

    Args:
        trainer: Just before its training starts.
        tensors: What is not averaged; frozen weights would change by rounding, and logits lag behind.
    """
    module, kept = trainer.lightning_module, {id(tensor) for tensor in tensors}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        average = callback._average_model if isinstance(callback, WeightAveraging) else None
        if average is None:
            continue
        averages = chain(average.module.parameters(), average.module.buffers())
        pairs = zip(averages, chain(module.parameters(), module.buffers()), strict=True)
        shared = [(ours, own) for ours, own in pairs if id(own) in kept]
        for ours, own in shared:
            ours.data = own.data  # one tensor: whatever is exchanged or copied, it stays what it is
        left_out = vars(average).setdefault("_left_out", [])  # of other callbacks too
        left_out += [own for _, own in shared]
        vars(average)["update_parameters"] = partial(_update_others, average, left_out)


def _update_others(average: AveragedModel, kept: list[Tensor], module: nn.Module) -> None:
    before = [tensor.detach().clone() for tensor in kept]
    AveragedModel.update_parameters(average, module)
    for tensor, value in zip(kept, before, strict=True):
        tensor.data.copy_(value)


class CommandLine(LightningCLI):
    """LightningCLI with names for some of its private steps, which a subclass may override."""

    def merge_checkpoint(self) -> None:
        """Lets the hyperparameters of the checkpoint in ``ckpt_path`` replace those of the configuration."""
        super()._parse_ckpt_path()

    def merge_hyperparameters(self, found: Mapping[str, Any]) -> None:
        """The same with the hyperparameters of a checkpoint that has been read."""
        known = {name: value for name, value in found.items() if name != "_instantiator"}
        if not known:
            return
        class_path = known.pop("_class_path", None)
        model = known if class_path is None else {"class_path": class_path, "dict_kwargs": known}
        self.config = self.parser.parse_object({self.config.subcommand: {"model": model}}, self.config)

    def seed(self) -> None:
        """Seeds everything as configured."""
        super()._set_seed()

    def run_command(self, name: str) -> None:
        """Runs fit, validate, test or predict."""
        super()._run_subcommand(name)

    def instantiators(self) -> dict[str, Callable[..., Any]]:
        """What builds the model (``"model"``) and the data module (``"data"``); none: Lightning's own builds both.

        Called as ``(class, *args, applied_instantiation_links=…, **kwargs)``.
        """
        return {}

    def resolved(self) -> dict[str, Any]:
        """The configuration as plain values, without the command's name."""
        super()._dump_config()
        config: dict[str, Any] = self.config_dump
        return config

    def given(self) -> dict[str, Any]:
        """The configuration as plain values, without what is a default of the trainer, the model or the data."""
        command = self.config.get("subcommand")
        config, parser = self.config.get(command or "", self.config), self._parser(command)
        content: dict[str, Any] = yaml.safe_load(parser.dump(config, skip_default=True, skip_link_targets=False))
        return content

    @override
    def _parse_ckpt_path(self) -> None:
        self.merge_checkpoint()

    @override
    def _set_seed(self) -> None:
        self.seed()

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        self.run_command(subcommand)

    @override
    def _add_instantiators(self) -> None:
        own = self.instantiators()
        if not own:
            super()._add_instantiators()
        bases = {"model": self._model_class, "data": self._datamodule_class}
        for key, build in own.items():
            self.parser.add_instantiator(build, bases[key], subclasses=True)


@contextmanager
def given_hyperparameters(hparams: dict[str, Any]) -> Iterator[None]:
    """Has ``save_hyperparameters`` store these values instead of a constructor's arguments.

    Without Lightning's own mark of an instantiator: `load_from_checkpoint` then takes what is not a plain value
    (encoders, modalities) as arguments, as it does for modules built in Python.
    """
    token = _given_hyperparameters.set(hparams)
    try:
        yield
    finally:
        _given_hyperparameters.reset(token)
