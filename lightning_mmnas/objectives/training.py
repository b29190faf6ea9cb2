"""Trains several networks on the very same batches, each alone: whoever compares networks calls this.

A network here is a module that maps what a batch holds to its loss: two views of features (`FusionObjective`), or
features and labels (`Labelled`), or a group of such networks computed at once.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.grouped_layers import write_back
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.objectives.fusion_objective import FusionObjective
from lightning_mmnas.objectives.groups import ContrastiveGroup, LabelledGroup
from lightning_mmnas.objectives.labelled import Labelled

Schedule = Literal["one_cycle", "cosine", "constant"]
Optimizer = Callable[[Any], tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]]
"""Builds the optimiser and the schedule of a network."""

_GROUP = 16
"""Networks that are trained as one group: more would only need more memory."""


def build_optimizer(
    groups: Iterable[dict[str, Any]], weight_decay: float, schedule: Schedule, steps: int, fused: bool = True
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Builds AdamW and a schedule over a known number of steps; AdamW with `schedule`, stepped once per weight step.

    Args:
        groups: Parameter groups, each with ``params`` and ``lr``, the peak learning rate.
        weight_decay: Decoupled weight decay (AdamW), >= 0.
        schedule: ``"one_cycle"`` (warm-up and cosine decay, Smith 2018), ``"cosine"`` or ``"constant"``.
        steps: Number of weight steps.
        fused: Whether all parameters are updated by one kernel.
    """
    listed = list(groups)
    optimizer = torch.optim.AdamW(listed, weight_decay=weight_decay, fused=fused)
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if schedule == "one_cycle":
        rates = [group["lr"] for group in listed]
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=max(steps, 2) + 1)
    elif schedule == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(steps, 1))
    else:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return optimizer, scheduler


def rate_after(fraction: float, schedule: Schedule) -> float:
    """The learning rate of a schedule, relative to its peak, after a fraction of the training in [0, 1]."""
    if schedule == "cosine":
        return (1 + math.cos(math.pi * fraction)) / 2
    if schedule == "constant":
        return 1.0
    first, last, top = 1 / 25, 1 / 25e4, 0.3  # as torch's OneCycleLR
    low, way = (first, 1 - fraction / top) if fraction < top else (last, (fraction - top) / (1 - top))
    return low + (1 - low) * (1 + math.cos(math.pi * way)) / 2


def train_together(
    networks: Mapping[str, nn.Module], batches: Iterable[Sequence[Any]], optimizer: Optimizer, accumulate: int = 1
) -> None:
    """Trains networks side by side, each alone, all on the very same batches: a batch is made once.

    What a network draws in training, such as dropout, changes neither the batches nor the other networks: it has
    random numbers of its own in every step, the same for all networks.

    Args:
        networks: Each maps what a batch holds to its loss.
        batches: What is trained on, `accumulate` of them per step.
        optimizer: Builds a network's optimiser and schedule.
        accumulate: Batches whose gradients a step averages, as Lightning's ``accumulate_grad_batches``.
    """
    built = {name: optimizer(network) for name, network in networks.items()}
    for network in networks.values():
        network.train()
    seed = 1_000_003 * torch.initial_seed() % 2**62
    generators = _generators()
    for index, batch in enumerate(batches):
        for name, network in networks.items():
            step, schedule = built[name]
            if index % accumulate == 0:
                step.zero_grad(set_to_none=True)
            with _own_randomness(generators, seed + index):
                loss = network(*batch)
            (loss if accumulate == 1 else loss / accumulate).backward()
            if (index + 1) % accumulate == 0:
                step.step()
                schedule.step()


def train_candidates(
    members: Sequence[FusionObjective] | Sequence[Labelled], batches: Iterable[Sequence[Any]], optimizer: Optimizer
) -> None:
    """Trains networks of one space as `train_together` does: as groups where that is possible, which is faster.

    Args:
        members: The networks, all of one kind.
        batches: One per step.
        optimizer: Builds the optimiser and schedule of a network or group, elementwise such as AdamW.
    """
    listed: list[FusionObjective | Labelled] = [*members]
    train_grouped({str(i): member for i, member in enumerate(listed)}, batches, optimizer)


def train_grouped(
    networks: Mapping[str, FusionObjective | Labelled],
    batches: Iterable[Sequence[Any]],
    optimizer: Optimizer,
    accumulate: int = 1,
) -> None:
    """Trains networks as `train_together` does: those of one space as groups where that is possible, which is faster.

    Args:
        networks: By name, all of one kind.
        batches: See `train_together`.
        optimizer: Builds the optimiser and schedule of a network or group, elementwise such as AdamW.
        accumulate: See `train_together`.
    """
    members = [network for network in networks.values() if isinstance(_body(network), FusionNetwork)]
    alone = {name: network for name, network in networks.items() if not isinstance(_body(network), FusionNetwork)}
    try:
        groups: list[nn.Module] = [_grouped(members[i : i + _GROUP]) for i in range(0, len(members), _GROUP)]
    except GenotypeError:  # dropout, or primitives of the user's own: slower, but they can be trained one by one
        alone, groups = dict(networks), []
    train_together({f"group {i}": group for i, group in enumerate(groups)} | alone, batches, optimizer, accumulate)
    for group in groups:
        write_back(group)


def _body(network: FusionObjective | Labelled) -> nn.Module:
    return network.network if isinstance(network, Labelled) else network.fusion


def _grouped(members: Sequence[Any]) -> nn.Module:
    return LabelledGroup.of(members) if isinstance(members[0], Labelled) else ContrastiveGroup.of(members)


def _generators() -> list[torch.Generator]:
    """Those of the CPU and of the current GPU."""
    generators = [torch.default_generator]
    if torch.cuda.is_available():  # without a GPU torch looks for one each time that it is asked
        generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
    return generators


@contextmanager
def _own_randomness(generators: Sequence[torch.Generator], seed: int) -> Iterator[None]:
    """Seeds generators, and puts them back as they were."""
    states = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
