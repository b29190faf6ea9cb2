"""The weights of a search's choices after every epoch, in a file of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import read_json, write_json
from lightning_mmnas.fusion.pairing import TiedPairing
from lightning_mmnas.fusion.supernet import FusionSupernet

_DIGITS = 5


def choices(supernet: FusionSupernet) -> dict[str, dict[str, float]]:
    """What the supernet chooses between, and the present weight of every option, without chance.

    With independent pairing each choice is one input or one primitive and its weights sum to 1. With tied pairing the
    inputs of a cell or a step are one entry, of which every option has a weight in [0, 1] for itself.

    Examples:
        >>> from lightning_mmnas import FusionSpace
        >>> space = FusionSpace(inputs=("a/0", "b/0", "b/1"), cells=1, channels=4, length=2)
        >>> list(choices(FusionSupernet(space, {"a/0": (3,), "b/0": (3,), "b/1": (3,)})))
        ['cell0 x', 'cell0 y', 'cell0 step0']
    """
    space, logits, weights = supernet.space, supernet.logits, supernet.probabilities()
    tied = isinstance(logits, TiedPairing)
    variants = [f"{name}, swapped" if swapped else name for name, swapped in logits.variants]
    found: dict[str, dict[str, float]] = {}
    for i in range(space.cells):
        names = [*space.inputs, *(f"cell{j}" for j in range(i))]
        alpha = weights[f"alpha/{i}"]
        found |= _edges(f"cell{i} inputs", names, alpha) if tied else _pair(f"cell{i} x", f"cell{i} y", names, alpha)
        offset = 0
        for t in range(space.steps):
            states, label = ["x", "y", *(f"step{s}" for s in range(t))], f"cell{i} step{t}"
            if tied:
                beta = weights[f"beta/{i}"][offset : offset + len(states)]
                found |= _edges(f"{label} inputs", states, beta)
            elif t > 0:
                beta = weights[f"beta/{i * (space.steps - 1) + t - 1}"]
                found |= _pair(f"{label} first", f"{label} second", states, beta)
            offset += len(states)
            found[label] = _named(variants, weights[f"gamma/{i}"][t])
    return found


def record(path: Path, epoch: int, supernet: FusionSupernet) -> None:
    """Adds the weights after an epoch to a file; what it holds of that epoch and later ones is replaced.

    Args:
        path: A JSON file: ``{"choices": {choice: options}, "epochs": [{"epoch", "weights": {choice: weights}}]}``.
        epoch: Number of the epoch that has ended, from 0.
        supernet: The search's.

    Raises:
        RunDirectoryError: The file cannot be written.
    """
    now = choices(supernet)
    options = {name: list(weights) for name, weights in now.items()}
    try:
        before: dict[str, Any] = read_json(path) or {}
    except RunDirectoryError:  # damaged; nothing else depends on it
        before = {}
    kept = before.get("epochs", []) if before.get("choices") == options else []
    entry = {"epoch": epoch, "weights": {name: list(weights.values()) for name, weights in now.items()}}
    write_json(path, {"choices": options, "epochs": [*(e for e in kept if e["epoch"] < epoch), entry]})


def _pair(first: str, second: str, names: list[str], weights: Tensor) -> dict[str, dict[str, float]]:
    """Both inputs of independent pairing: the first is never the last candidate, nor the second the first one."""
    if len(names) == 1:
        return {first: _named(names, weights[0]), second: _named(names, weights[1])}
    return {first: _named(names[:-1], weights[0]), second: _named(names[1:], weights[1])}


def _edges(label: str, names: list[str], weights: Tensor) -> dict[str, dict[str, float]]:
    return {label: _named(names, weights[:, 1])}


def _named(names: list[str], weights: Tensor) -> dict[str, float]:
    return {name: round(w, _DIGITS) for name, w in zip(names, weights.tolist(), strict=True)}
