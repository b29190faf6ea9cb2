"""Settings that a resumed run cannot change: what is refused, and what is said not to count."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, StochasticWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_mmnas.callbacks import lightning_private as private
from lightning_mmnas.callbacks.contract import require

_LOADERS, _SEEDS = "batches, batch size and samples of the loaders", "seeds of the batches"
_ANEW = "or train anew from its weights, without ckpt_path"
# How an optimiser computes, how far a schedule has come, and what follows from the rest, is no setting.
_NO_SETTINGS = ("params", "fused", "foreach", "capturable", "differentiable", "initial_lr", "max_lr", "min_lr")
_NO_PLAN = (
    "base_lrs",
    "last_epoch",
    "_step_count",
    "_last_lr",
    "_is_initial",
    "_get_lr_called_within_step",
    "_schedule_phases",
)


def refuse_finders(trainer: Trainer) -> None:
    """Refuses to go on beside what looks for another learning rate or batch size first.

    Raises:
        MisconfigurationException: There is such a callback.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        require(
            not isinstance(callback, LearningRateFinder | BatchSizeFinder) or trainer.state.fn != TrainerFn.FITTING,
            f"{type(callback).__name__} would begin again and change the training that is to go on: remove it from the"
            " callbacks, and give the value that it has found",
        )


def require_resumable(trainer: Trainer) -> None:
    """Refuses to go on from weights alone, and says what does not go on exactly; to be called in ``on_fit_start``.

    Raises:
        MisconfigurationException: A training is resumed, and its optimisers' states are missing.
    """
    if not (checkpoint := private.loaded_checkpoint(trainer)):
        return
    require(
        "optimizer_states" in checkpoint,
        "The checkpoint holds the weights alone (save_weights_only), and a training goes on with the states of its"
        " optimizers too: give one that LastCheckpoint or ModelCheckpoint(save_weights_only=False) has written,"
        f" {_ANEW}",
    )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StochasticWeightAveraging):
            rank_zero_warn(
                "StochasticWeightAveraging keeps no state that goes on exactly: the resumed run will differ from an"
                " unbroken one, and one from its last epochs may fail. EMAWeightAveraging resumes exactly."
            )
    if any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs):
        rank_zero_warn(
            "A checkpoint holds no metrics, so that ReduceLROnPlateau leaves out the epoch that the checkpoint was"
            " written in: the resumed run may lower its learning rate later than an unbroken one."
        )


def optimizer_settings(optimizer: Optimizer, scheduler: LRScheduler | None) -> dict[str, Any]:
    """What an optimiser and its schedule were built with, as plain values; to be called before their first step."""
    groups = []
    for group in optimizer.param_groups:
        peak = group.get("max_lr", group.get("initial_lr", group["lr"]))
        groups.append(_flat({k: v for k, v in group.items() if k not in _NO_SETTINGS} | {"lr": peak}))
    return {
        "optimizer": type(optimizer).__name__,
        "groups": groups,
        "scheduler": type(scheduler).__name__ if scheduler is not None else None,
        "schedule": _flat(scheduler.state_dict()) if scheduler is not None else {},
    }


def all_optimizer_settings(trainer: Trainer) -> list[dict[str, Any]]:
    """`optimizer_settings` of the optimisers of the weights; to be called before the first step."""
    schedulers = {id(getattr(c.scheduler, "optimizer", None)): c.scheduler for c in trainer.lr_scheduler_configs}
    found: list[dict[str, Any]] = []
    for optimizer in trainer.optimizers:
        scheduler = schedulers.get(id(optimizer))
        found.append(optimizer_settings(optimizer, scheduler if isinstance(scheduler, LRScheduler) else None))
    return found


def run_length(trainer: Trainer) -> dict[str, Any]:
    """What the length of a training follows from, as plain values; the loaders must have been made."""
    return {
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "batches in an epoch": trainer.num_training_batches,
        _LOADERS: [_sizes(loader) for loader in private.train_loaders(trainer)],
        _SEEDS: [_seed(loader) for loader in private.train_loaders(trainer)],
    }


def check_run_length(before: Mapping[str, Any], now: Mapping[str, Any], batches: int) -> str:
    """Refuses to go on within an epoch whose batches are others.

    Args:
        before: `run_length` in the checkpoint.
        now: `run_length` of this run.
        batches: How many batches of its epoch were done when the checkpoint was written.

    Returns:
        How the lengths differ, in words; "" if they do not.

    Raises:
        MisconfigurationException: The checkpoint is from the middle of an epoch with other batches.
    """
    changed = {key: f"{key} {before[key]} -> {now[key]}" for key in before if before[key] != now.get(key)}
    other = [text for key, text in changed.items() if "batches" in key and "accumulate" not in key]
    require(
        batches == 0 or not other,
        f"The checkpoint is from the middle of an epoch, after {batches} batches, and the batches of this run are"
        f" others ({', '.join(other)}): resume with the data, batch size, seed and number of processes of the"
        f" first run, {_ANEW}",
    )
    as_many = len(before[_LOADERS]) == len(now[_LOADERS])  # else they are refused later
    if as_many and (_SEEDS in changed or _samples(before) != _samples(now)):
        rank_zero_warn(
            f"This run draws from other data than the checkpoint's ({', '.join(other)}): what one of its splits, or of"
            " the two parts of a search, has held may be in another one now."
        )
    return ", ".join(changed.values())


def check_settings(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], what: str, longer: str = ""
) -> None:
    """Refuses other optimisers, and says which other values do not count.

    Args:
        before: `optimizer_settings` in the checkpoint.
        now: `optimizer_settings` of this run.
        what: What they train.
        longer: How the length of the training differs; "" if it does not.

    Raises:
        MisconfigurationException: Another optimiser, kind of schedule or division into groups, or a schedule that is
            laid out for another length.
    """
    kinds = [[(s["optimizer"], s["scheduler"], len(s["groups"])) for s in settings] for settings in (before, now)]
    old, new = (" and ".join(map(_kind, settings)) for settings in (before, now))
    require(
        kinds[0] == kinds[1],
        f"The checkpoint trains {what} by {old}, and this run by {new}: resume with {old}, {_ANEW}",
    )
    different: list[str] = []
    for stored, given in zip(before, now, strict=True):
        laid_out = _differences(stored["schedule"], given["schedule"])
        require(
            not longer or not laid_out,
            f"{stored['scheduler']} of the checkpoint is laid out for a training of another length ({longer};"
            f" {', '.join(laid_out)}): resume with the length of the first run, use a schedule without an end such as"
            f" 'constant' from the start, {_ANEW}",
        )
        for group, other in zip(stored["groups"], given["groups"], strict=True):
            different += [text for text in _differences(group, other) if text not in different]
        different += laid_out
    if different:
        rank_zero_warn(
            f"Resumed are the settings of the checkpoint, for {what} too; this run's do not count: "
            f"{', '.join(different)}. For other ones train anew from its weights, without ckpt_path."
        )


def check_groups(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], what: str) -> None:
    """Refuses another optimiser where a checkpoint does not name its own.

    Args:
        before: ``param_groups`` in the checkpoint.
        now: ``param_groups`` of this run.
        what: What they train.

    Raises:
        MisconfigurationException: Their values are not of the same names.
    """
    names = [{name for group in groups for name in group} - set(_NO_SETTINGS) for groups in (before, now)]
    require(
        names[0] == names[1] and len(before) == len(now),
        f"The checkpoint trains {what} by another optimiser (its values are {sorted(names[0])}, this run's are"
        f" {sorted(names[1])}): resume with that optimiser, {_ANEW}",
    )


def _kind(settings: Mapping[str, Any]) -> str:
    schedule = f" with {settings['scheduler']}" if settings["scheduler"] else ""
    groups = f" in {len(settings['groups'])} groups" if len(settings["groups"]) > 1 else ""
    return f"{settings['optimizer']}{schedule}{groups}"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [*before, *(name for name in now if name not in before)]
    return [f"{n} {before.get(n)} (not {now.get(n)})" for n in names if before.get(n) != now.get(n)]


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Numbers, words and switches in nested values, by dotted name."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    found: dict[str, Any] = {}
    for key, item in items:
        if key not in _NO_PLAN:
            found |= _flat(item, f"{name}.{key}" if name else str(key))
    return found | ({name: value} if value is None or isinstance(value, bool | int | float | str) else {})


def _sizes(loader: Any) -> list[int | None]:
    return [_size(loader), getattr(loader, "batch_size", None), _size(getattr(loader, "dataset", None))]


def _samples(length: Mapping[str, Any]) -> list[int | None]:
    return [sizes[-1] for sizes in length[_LOADERS]]


def _seed(loader: Any) -> int | None:
    seed = getattr(private.own_sampler(getattr(loader, "sampler", None)), "seed", None)
    return seed if isinstance(seed, int) else None


def _size(value: Any) -> int | None:
    try:
        return len(value)
    except (TypeError, NotImplementedError):
        return None
