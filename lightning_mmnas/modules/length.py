"""How long a training is and how far it has come: the one answer for schedules, temperatures, regularisation and bars.

A training ends by epochs, by weight steps or by time. Steps are counted where they can be: those of ``max_steps``, and
of epochs of data with a length, ``limit_train_batches`` and accumulation that changes between epochs included. Time
counts where it alone ends the training. Early stopping is nobody's plan, so that it does not count.
"""

import math

from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging, Timer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau

from lightning_mmnas.errors import ConfigError

WAYS_OUT = "set trainer.max_steps, or trainer.max_epochs with data that have a length, or trainer.max_time"


def load_train_data(trainer: Trainer) -> None:
    """Has Lightning make the train loaders now, if it has not yet."""
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()


def epoch_batches(trainer: Trainer) -> int | None:
    """Batches of an epoch; None for data without a length. Loads the train loader where that has not been done yet."""
    if trainer.limit_train_batches == 0:  # Lightning loads no data then
        return 0
    load_train_data(trainer)
    batches = trainer.num_training_batches
    return None if math.isinf(batches) else int(batches)


def steps_of_epochs(trainer: Trainer, epochs: int) -> int | None:
    """Weight steps of the first so many epochs, whatever else may end the training; None for data without a length."""
    batches = epoch_batches(trainer)
    if batches is None:
        return None
    scheduler = _accumulation(trainer)
    if scheduler is None:
        return epochs * math.ceil(batches / trainer.accumulate_grad_batches)
    return sum(math.ceil(batches / scheduler.get_accumulate_grad_batches(epoch)) for epoch in range(epochs))


def set_accumulation(trainer: Trainer) -> None:
    """Sets an epoch's accumulation where it changes: Lightning does not in an epoch that goes on from a checkpoint."""
    if (scheduler := _accumulation(trainer)) is not None:
        trainer.accumulate_grad_batches = scheduler.get_accumulate_grad_batches(trainer.current_epoch)


def weight_steps(trainer: Trainer) -> int | None:
    """Weight steps of the whole training; None where they cannot be known."""
    epochs = trainer.max_epochs
    limits = [] if epochs is None or epochs < 0 else [steps_of_epochs(trainer, epochs)]
    limits += [trainer.max_steps] if trainer.max_steps >= 0 else []
    return min((limit for limit in limits if limit is not None), default=None)


def require_long_schedules(trainer: Trainer) -> None:
    """Refuses a schedule of the learning rate that would raise an error in the midst of the training, at its own end.

    A resume puts back that of the checkpoint. One of this package's would end early too, or climb again behind its end.

    Raises:
        ConfigError: It is laid out for fewer steps, or epochs, than there are.
    """
    resumed = trainer.ckpt_path is not None
    ours = type(trainer.lightning_module).configure_optimizers.__module__.startswith("lightning_mmnas.")
    if any(isinstance(c, StochasticWeightAveraging) for c in trainer.callbacks):  # type: ignore[attr-defined]
        return  # which puts another one in its place
    for config in trainer.lr_scheduler_configs:
        there = weight_steps(trainer) if config.interval == "step" else trainer.max_epochs
        planned, needed = _planned(config.scheduler, resumed and ours), (there or 0) // config.frequency
        if planned is None or needed <= planned:
            continue
        if resumed:
            raise ConfigError(
                f"{type(config.scheduler).__name__} of the checkpoint is laid out for {planned} steps, and the "
                f"training makes {needed}: resume with the length of the first run, use a schedule without an end such "
                "as 'constant' from the start, or train anew from its weights, without ckpt_path"
            )
        raise ConfigError(
            f"{type(config.scheduler).__name__} is laid out for total_steps={planned}, and the training makes "
            f"{needed} of its steps, one for each {config.interval}: set its total_steps to {needed}"
        )


def _planned(scheduler: LRScheduler | ReduceLROnPlateau, cosine: bool) -> int | None:
    """The steps for which a schedule is laid out, where it says so; that of a cosine counts if it is to end there."""
    if cosine and isinstance(scheduler, CosineAnnealingLR):
        return int(scheduler.T_max)
    steps: int | None = getattr(scheduler, "total_steps", None)
    return steps


def seconds(trainer: Trainer) -> tuple[float, float] | None:
    """Seconds trained and seconds there are, where time alone ends the training; the same on every rank."""
    timers = [c for c in trainer.callbacks if isinstance(c, Timer) and c.time_remaining() is not None]  # type: ignore[attr-defined]
    if not timers or weight_steps(trainer) is not None:
        return None
    done, left = timers[0].time_elapsed(), timers[0].time_remaining() or 0.0
    if trainer.world_size > 1:
        done = trainer.strategy.broadcast(done)
    return done, done + left


def fraction_done(trainer: Trainer) -> float | None:
    """The fraction of training done, in [0, 1]; None where nothing says how long it will be."""
    steps = weight_steps(trainer)
    if steps is not None:
        return min(trainer.global_step / max(steps, 1), 1.0)
    time = seconds(trainer)
    return None if time is None else min(time[0] / max(time[1], 1e-9), 1.0)


def _accumulation(trainer: Trainer) -> GradientAccumulationScheduler | None:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((c for c in callbacks if isinstance(c, GradientAccumulationScheduler)), None)


def is_trial(trainer: Trainer) -> bool:
    """Whether this is a try of a few batches (``fast_dev_run``), which should not read or store everything."""
    return bool(getattr(trainer, "fast_dev_run", False))
