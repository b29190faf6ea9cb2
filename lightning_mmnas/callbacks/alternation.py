"""Alternates Lightning's own weight steps with steps of the architecture logits."""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, Literal

import torch
from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from lightning_mmnas.callbacks import lightning_private as private
from lightning_mmnas.callbacks.contract import (
    architecture_loader,
    architecture_loss,
    checked_logits,
    left_out,
    log_architecture,
    log_beside_monitor,
    look_ahead,
    part,
    require,
    require_betas,
    require_numbers,
    require_search,
    require_workable,
    warn_nothing_searched,
    weight_loss,
)
from lightning_mmnas.callbacks.logits import check_ranks, in_float32, made_by, requires_grad
from lightning_mmnas.callbacks.resume import ExactResume
from lightning_mmnas.callbacks.resumed_settings import check_groups, check_settings, optimizer_settings
from lightning_mmnas.callbacks.second_order import flat_mean, mean_over_ranks, or_zeros, sum_of, unrolled_gradient
from lightning_mmnas.fusion.batch_norm import statistics_kept
from lightning_mmnas.modules.length import is_trial
from lightning_mmnas.modules.transfer import BatchTransfer


class ArchitectureAlternation(Callback):
    """Trains the architecture logits of any ``LightningModule`` between its weight steps.

    The module has ``architecture_parameters() -> list[Parameter]``, whose tensors have ``requires_grad=False``, and
    ``architecture_step(batch) -> loss``. A train batch is a dict with the parts ``"weights"``, which the module's own
    ``training_step`` reads, and ``"architecture"``, which ``architecture_step`` is given. Everything about the weights
    stays Lightning's automatic optimisation, and ``global_step`` counts weight steps only.

    Before a weight step, the gradient of ``architecture_step`` with respect to the logits alone is taken on the bare
    module (no gradient buffers for the weights, none of their ``.grad`` touched). It is accumulated over the batches of
    ``accumulate_grad_batches`` exactly as Lightning accumulates those of the weights: each divided by their number, and
    the remainder at the end of an epoch makes a step too. It is then averaged over ranks in one reduction, and the
    architecture's own optimiser and scheduler step. A step whose averaged gradient is not finite is left out. Under
    ``precision: bf16-true`` or ``16-true`` the optimiser works on float32 copies of logits that the module lets be
    converted (`FusionSupernet` keeps its own in float32). In fp16 the loss is scaled by the weights' ``GradScaler``,
    read only.

    Loggers get ``arch/lr`` once per epoch (beside `LearningRateMonitor` in steps), and what the module's
    ``architecture_weights() -> dict[str, float]`` returns, if it has that method.

    A killed run ends bit-identical to an unbroken one, by ``ExactResume``: the trainer's own, or one that this adds.

    Random relaxations must draw the same numbers on every rank: let them seed their generator from
    a seed and a counter that is a buffer (as `RandomRelaxation` does), not from the global
    generator, which may differ by rank.

    Args:
        lr: learning rate of the default optimiser, Adam. This and the next two are BM-NAS's values,
            and are not used if ``optimizer`` is given.
        betas: Adam's decay rates of its moments, each in [0, 1).
        weight_decay: Adam's L2 penalty on the logits.
        optimizer: makes another optimiser from the logits.
        scheduler: makes a learning rate scheduler from the optimiser; it steps after every
            architecture step.
        warmup_epochs: epochs of weight steps alone before the alternation starts, fewer than the training has; none
            under ``fast_dev_run``, which is to try everything.
        every_n_steps: an architecture step before every n-th weight step, those with
            ``global_step`` a multiple of n.
        order: 1 takes the weights as constants; 2 differentiates exactly through one step of
            gradient descent on the weights, w - xi * dL/dw (DARTS, eq. 7), with the current
            learning rates of the weight optimiser as xi. Its momentum, adaptive scaling, weight
            decay and clipping have no part in that virtual step, which is on the one batch at hand.
            The training loss is the module's ``weight_step_loss(batch["weights"])`` if it has that
            method, else its ``training_step`` with logging switched off (give the method if
            ``training_step`` has other effects, such as updating metrics). Where that returns None, the batch has no
            architecture step either. Buffers such as
            counters are not changed by order 2, and by order 1 as by any forward pass; the running statistics of
            batch norm are changed by neither.
        schedule: "step", or "epoch" as in BM-NAS: a whole pass of architecture steps over the
            ``"architecture"`` loader, before the first weight step of every epoch after the
            warm-up; ``warmup_epochs=1`` starts with the weights.
        check_every_n_steps: with several ranks, architecture steps between two checks that the
            logits are equal on all of them.

    Raises:
        MisconfigurationException: for wrong arguments, and when training starts for a module, an
            optimiser, a strategy or data that this cannot work with.
        RuntimeError: when ranks have different logits.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> alternation = ArchitectureAlternation(lr=0.1, warmup_epochs=5)
        >>> trainer = Trainer(callbacks=[alternation], max_epochs=15, logger=False)
    """

    def __init__(
        self,
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        optimizer: Callable[[Iterable[Tensor]], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        warmup_epochs: int = 0,
        every_n_steps: int = 1,
        order: Literal[1, 2] = 1,
        schedule: Literal["step", "epoch"] = "step",
        check_every_n_steps: int = 100,
    ) -> None:
        super().__init__()
        require_numbers(lr=lr, weight_decay=weight_decay)
        require_numbers(True, warmup_epochs=warmup_epochs, every_n_steps=every_n_steps)
        require_numbers(True, check_every_n_steps=check_every_n_steps)
        require(lr > 0, f"lr={lr} is not positive")
        require_betas(betas)
        require(weight_decay >= 0, f"weight_decay={weight_decay} is negative")
        require(warmup_epochs >= 0, f"warmup_epochs={warmup_epochs} is negative")
        require(every_n_steps >= 1, f"every_n_steps={every_n_steps} is less than 1")
        require(check_every_n_steps >= 1, f"check_every_n_steps={check_every_n_steps} < 1")
        require(order in (1, 2), f"order={order!r} is neither 1 nor 2")
        require(schedule in ("step", "epoch"), f"schedule={schedule!r} is not 'step' or 'epoch'")
        if schedule == "epoch":
            require(every_n_steps == 1, "every_n_steps is for schedule='step'; leave it at 1")
            require(order == 1, "order=2 needs a batch of both parts; use schedule='step'")
        adam = partial(torch.optim.Adam, lr=lr, betas=(betas[0], betas[1]), weight_decay=weight_decay)
        self._make_optimizer = adam if optimizer is None else optimizer
        self._make_scheduler = scheduler
        self._warmup_epochs = warmup_epochs
        self._every_n_steps = every_n_steps
        self._order = order
        self._schedule = schedule
        self._check_every_n_steps = check_every_n_steps
        self._logits: list[nn.Parameter] = []
        self._exact: list[nn.Parameter] = []  # they, or float32 copies of those that a precision made less
        self._optimizer: Optimizer | None = None
        self._scheduler: LRScheduler | None = None
        self._gradients: list[Tensor | None] | None = None  # the accumulated ones
        self._settings: dict[str, Any] = {}
        self._steps = 0
        self._warned = False
        self._loaded: dict[str, Any] | None = None
        self._resume: ExactResume | None = None
        self._before_batch: dict[str, Any] | None = None  # this callback's state
        self._unconfirmed: tuple[dict[str, Any], list[Tensor]] | None = None  # state and logits before the batch

    @property
    def warmup_epochs(self) -> int:
        """Epochs of weight steps alone."""
        return self._warmup_epochs

    @property
    def steps(self) -> int:
        """Architecture steps made so far."""
        return self._steps

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            require_workable(trainer, pl_module, self._order, ArchitectureAlternation)
            require_search(self._warmup_epochs, trainer.max_epochs, is_trial(trainer))
            private.synchronise_batch_norm(trainer, twice=self._order == 2)
        self._resume = ExactResume.companion(trainer, self, stage)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._logits = checked_logits(trainer, pl_module)
        self._exact = [in_float32(logit) for logit in self._logits]
        self._optimizer, self._scheduler = made_by(self._make_optimizer, self._make_scheduler, self._exact)
        self._settings = optimizer_settings(self._optimizer, self._scheduler)
        self._gradients, self._steps, self._warned, self._before_batch = None, 0, False, None
        if self._loaded is not None:
            self._restore(self._loaded)
            self._loaded = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._schedule == "epoch":
            architecture_loader(trainer)
        if self._steps == 0:
            planned = getattr(self._scheduler, "total_steps", None) if self._schedule == "step" else None
            look_ahead(trainer, self._warmup(trainer), self._every_n_steps, planned)
        check_ranks(trainer, self._logits, self._steps)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert self._resume is not None
        if self._resume.protects:
            self._before_batch = deepcopy(self._state())
            ours = {id(logit) for logit in self._logits}
            named = pl_module.named_parameters(remove_duplicate=False)  # a checkpoint has them under every name
            self._resume.protect({name: parameter for name, parameter in named if id(parameter) in ours})
        if is_overridden("on_train_batch_start", pl_module):  # comes after this, and may skip the batch
            self._unconfirmed = deepcopy(self._state()), [logit.clone() for logit in self._logits]
        architecture_part = part(batch, "architecture")
        if trainer.current_epoch < self._warmup(trainer):
            return
        last = trainer.is_last_batch or batch_idx + 1 == trainer.num_training_batches
        if self._schedule == "epoch":
            if batch_idx == 0:
                with self._resume.generators_kept():
                    self._pass_over_architecture_part(trainer, pl_module)
        elif trainer.global_step % self._every_n_steps == 0:
            if self._order == 1:
                self._accumulate(trainer, self._gradient(trainer, pl_module, architecture_part))
            else:
                with left_out(trainer):
                    self._accumulate(trainer, self._second_order_gradient(trainer, pl_module, batch, batch_idx))
            if (last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0) and self._gradients is not None:
                self._step(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._optimizer is not None
        log_beside_monitor(trainer, pl_module, self._optimizer.param_groups[0]["lr"])
        self._unconfirmed = None
        self._before_batch = None  # what comes next may fail before this callback's turn: then nothing is to be undone

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._optimizer is not None
        if self._unconfirmed is not None:  # the module has skipped the batch, and with it the rest of the epoch
            state, values = self._unconfirmed
            self._restore(state)
            for logit, value in zip(self._logits, values, strict=True):
                logit.copy_(value)
        self._unconfirmed = None
        log_architecture(trainer, pl_module, self._optimizer.param_groups[0]["lr"])

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_ranks(trainer, self._logits, self._steps)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._steps == 0 and not self._warned:  # not in on_train_end: a training without a batch has none
            warn_nothing_searched(trainer, self._warmup_epochs)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._loaded = None

    @override
    def state_dict(self) -> dict[str, Any]:
        state = self._before_batch if self._resume is not None and self._resume.undoes else None
        if state is None:
            state = self._state() if self._optimizer is not None else self._loaded
        return {"architecture": state or {}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["architecture"] or None
        if "run" in state_dict and self._resume is not None:  # written before exact resume was a callback of its own
            self._resume.load_state_dict(state_dict["run"])

    def _warmup(self, trainer: Trainer) -> int:
        return 0 if is_trial(trainer) else self._warmup_epochs

    def _state(self) -> dict[str, Any]:
        assert self._optimizer is not None
        return {
            "steps": self._steps,
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict() if self._scheduler else None,
            "gradients": self._gradients,
            "exact": [exact.detach() for exact in self._copies().values()],
            "settings": self._settings,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        assert self._optimizer is not None
        if "settings" in state:
            check_settings([state["settings"]], [self._settings], "the architecture logits")
        else:  # written by an earlier version
            check_groups(state["optimizer"]["param_groups"], self._optimizer.param_groups, "the architecture logits")
        self._steps = state["steps"]
        for exact, value in zip(self._copies().values(), state.get("exact", []), strict=False):
            exact.data.copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        if self._scheduler is not None and state["scheduler"] is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        self._gradients = None
        if state["gradients"] is not None:
            pairs = zip(state["gradients"], self._logits, strict=True)
            self._gradients = [g if g is None else g.to(logit) for g, logit in pairs]

    def _copies(self) -> dict[nn.Parameter, nn.Parameter]:
        """The logits that are copies of float32 ones, and these."""
        pairs = zip(self._logits, self._exact, strict=True)
        return {logit: exact for logit, exact in pairs if logit is not exact}

    def _gradient(self, trainer: Trainer, pl_module: LightningModule, part: Any) -> list[Tensor | None]:
        """The first-order gradient of ``architecture_step``; nothing else is changed."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        weights = [p for p in pl_module.parameters() if p.requires_grad]
        with statistics_kept(pl_module), requires_grad(weights, False), requires_grad(self._logits, True):
            with trainer.precision_plugin.forward_context():
                loss = architecture_loss(pl_module, part)
            gradients = torch.autograd.grad(loss * scale, self._logits, allow_unused=True)
        if scale == 1.0:
            return list(gradients)
        return [g if g is None else g / scale for g in gradients]

    def _second_order_gradient(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> list[Tensor | None]:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        rates = {id(weight): float(group["lr"]) for group in groups for weight in group["params"]}
        context = trainer.precision_plugin.forward_context

        def on_weights() -> Tensor:
            with context():
                return weight_loss(pl_module, batch, batch_idx)

        def on_architecture() -> Tensor:
            with context():
                return architecture_loss(pl_module, part(batch, "architecture"))

        with requires_grad(self._logits, True):
            return unrolled_gradient(
                pl_module,
                self._logits,
                {
                    name: rates[id(weight)]
                    for name, weight in pl_module.named_parameters()
                    if weight.requires_grad and id(weight) in rates
                },
                on_weights,
                on_architecture,
                mean_over_ranks(trainer),
            )

    def _accumulate(self, trainer: Trainer, gradients: Sequence[Tensor | None]) -> None:
        n = trainer.accumulate_grad_batches
        new = [g if g is None else g / n for g in gradients]
        if self._gradients is not None:
            new = [sum_of(a, b) for a, b in zip(self._gradients, new, strict=True)]
        self._gradients = new

    def _step(self, trainer: Trainer) -> None:
        """Averages the accumulated gradient over ranks, and steps optimiser and scheduler."""
        assert self._gradients is not None
        assert self._optimizer is not None
        gradients, self._gradients = self._gradients, None
        used = torch.tensor([float(g is not None) for g in gradients]).to(self._logits[0])
        tensors = [*or_zeros(gradients, self._logits), used]
        *means, used = flat_mean(tensors, mean_over_ranks(trainer))
        finite = torch.stack([torch.isfinite(gradient).all() for gradient in means]).all()
        if not finite:
            if not self._warned:
                rank_zero_warn(
                    f"The gradient of the architecture logits is not finite after {self._steps}"
                    " architecture steps: such steps are left out. If it happens often, lower the"
                    " learning rates or use precision='bf16-mixed'."
                )
            self._warned = True
            return
        for exact, gradient, is_used in zip(self._exact, means, used.tolist(), strict=True):
            exact.grad = gradient.to(exact.dtype) if is_used else None
        self._optimizer.step()
        for exact in self._exact:
            exact.grad = None
        for logit, exact in self._copies().items():
            logit.data.copy_(exact)
        if self._scheduler is not None:
            self._scheduler.step()
        self._steps += 1
        if self._steps % self._check_every_n_steps == 0:
            check_ranks(trainer, self._logits, self._steps)

    def _pass_over_architecture_part(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One architecture step per accumulated batches of the whole ``"architecture"`` loader."""
        batches = private.own_iterator(architecture_loader(trainer))
        index, transfer = 0, BatchTransfer(pl_module, trainer=trainer)
        while index < trainer.num_training_batches:
            batch = next(batches, None)
            if batch is None:
                break
            self._accumulate(trainer, self._gradient(trainer, pl_module, transfer(batch, "architecture")))
            index += 1
            if trainer.world_size == 1:  # else all ranks have to agree, as they do after the batch
                private.stop_if_terminated(trainer)
            if index % trainer.accumulate_grad_batches == 0:
                self._step(trainer)
        if self._gradients is not None:
            self._step(trainer)
