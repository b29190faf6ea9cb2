"""Lightning's averages and pruning of weights: beside frozen parts, of nothing, and of any layout in memory."""

from functools import partial
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelPruning, StochasticWeightAveraging
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_mmnas.errors import ConfigError
from lightning_mmnas.modules.length import weight_steps


def prepare_averages(trainer: Trainer) -> None:
    """Refuses averages of nothing, and has Lightning's callbacks do with our encoders what they do with others.

    The last epoch of `StochasticWeightAveraging` takes the statistics of all batch norms anew; those of frozen parts,
    which see no batch in training mode, would stay at zeros and ones. `ModelPruning` cannot take weights that lie with
    their channels last.

    Raises:
        ConfigError: An average would begin after the training has ended, which would put the weights from before the
            training in the place of the trained ones; or frozen weights would be pruned.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, StochasticWeightAveraging):
            vars(callback)["reset_batch_norm_and_save_state"] = partial(_reset_batch_norm, callback)
            if callback.swa_start > callback.swa_end:
                raise ConfigError(_never(callback, f"swa_epoch_start={callback.swa_start + 1}"))
        elif isinstance(callback, EMAWeightAveraging) and not _is_updated(callback, trainer):
            names = ("update_starting_at_step", "update_starting_at_epoch", "update_every_n_steps")
            raise ConfigError(_never(callback, ", ".join(f"{name}={getattr(callback, name)}" for name in names)))
        elif isinstance(callback, ModelPruning):
            _prepare_pruning(callback)


def _prepare_pruning(callback: ModelPruning) -> None:
    pruned = callback._parameters_to_prune or ()
    if not all(getattr(part, name).requires_grad for part, name in pruned):
        raise ConfigError(
            "ModelPruning would prune frozen weights too, such as the encoders', which all stages share: give its "
            "parameters_to_prune, of the network alone, or remove it"
        )
    for parameter in (parameter for part, _ in pruned for parameter in part.parameters(recurse=False)):
        parameter.data = parameter.data.contiguous()


def _never(callback: Any, settings: str) -> str:
    return (
        f"{type(callback).__name__} ({settings}) would begin to average after the training has ended, and leave the "
        "weights from before it; let it begin earlier, or train longer"
    )


def _is_updated(callback: EMAWeightAveraging, trainer: Trainer) -> bool:
    """Whether there will be a step or an epoch at which the average is updated, as far as that is known."""
    steps, epochs = weight_steps(trainer), trainer.max_epochs
    if steps is None or epochs is None or epochs < 0:
        return True
    known = any(callback.should_update(step_idx=step) for step in range(steps))
    return steps == 0 or known or any(callback.should_update(epoch_idx=epoch) for epoch in range(epochs))


def _reset_batch_norm(callback: StochasticWeightAveraging, module: LightningModule) -> None:
    kept = {
        norm: (norm.running_mean, norm.running_var, norm.num_batches_tracked.clone(), norm.momentum)
        for norm in _idle_batch_norms(module)
        if norm.num_batches_tracked is not None
    }
    StochasticWeightAveraging.reset_batch_norm_and_save_state(callback, module)
    for norm, (mean, variance, count, momentum) in kept.items():
        norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum = mean, variance, count, momentum
        del callback.momenta[norm]


def _idle_batch_norms(module: nn.Module) -> set[_BatchNorm]:
    """Batch norms that see no batch in training mode: those in eval mode, or in a part whose weights are all frozen."""
    found: set[_BatchNorm] = set()
    for part in module.modules():
        parameters = list(part.parameters())
        if not part.training or (parameters and not any(p.requires_grad for p in parameters)):
            found.update(norm for norm in part.modules() if isinstance(norm, _BatchNorm))
    return found
