"""The mixture weights of a supernet under names that say what is chosen, for loggers."""

import torch
from torch import Tensor

from lightning_mmnas.fusion.pairing import PairingLogits, TiedPairing


@torch.no_grad()
def named_weights(logits: PairingLogits) -> dict[str, float]:
    """Returns the weight of every choice without chance, in [0, 1].

    ``alpha/cell0.x/image/2`` is that of a feature as input x of a cell, ``beta/cell0.step1.y/step0`` that of an earlier
    step as second input of a step, ``gamma/cell0.step0/attention`` that of a primitive (``…-swapped``: with its inputs
    the other way round). Tied pairing has no x and y: ``alpha/cell0/image/2``.

    Args:
        logits: Those of a supernet; they are read in one transfer.
    """
    space, weights = logits.space, logits.relaxation.mean
    tied = isinstance(logits, TiedPairing)
    names: list[str] = []
    values: list[Tensor] = []

    def add(place: str, candidates: tuple[str, ...], rows: Tensor) -> None:
        if tied:  # one softmax over (none, skip) for every edge
            names.extend(f"{place}/{name}" for name in candidates)
            values.append(rows[:, 1])
            return
        last = max(len(candidates) - 1, 1)
        for side, named, row in zip("xy", (candidates[:last], candidates[-last:]), rows, strict=True):
            names.extend(f"{place}.{side}/{name}" for name in named)
            values.append(row)

    for i in range(space.cells):
        add(f"alpha/cell{i}", (*space.inputs, *(f"cell{j}" for j in range(i))), weights(logits.alpha[i]))
        for t in range(0 if tied else 1, space.steps):
            states = space.step_candidates(t)
            add(f"beta/cell{i}.step{t}", states, weights(logits.step_logits(i, t)))
        for t, row in enumerate(weights(logits.gamma[i])):
            named = (f"{name}-swapped" if swapped else name for name, swapped in logits.variants)
            names.extend(f"gamma/cell{i}.step{t}/{name}" for name in named)
            values.append(row)
    return dict(zip(names, torch.cat(values).tolist(), strict=True))
