"""Which training samples' labels a comparison may use."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lightning_mmnas.comparison.settings import Budget
from lightning_mmnas.data.spec import Task
from lightning_mmnas.data.splits import label_budget, label_total


def draw_labels(labels: Tensor, budget: Budget, seed: int, task: Task | None, class_names: Sequence[str]) -> Tensor:
    """Indices of the labelled training samples that a label budget draws, ascending.

    Args:
        labels: Of all the labelled training samples: (n,), (n, num_classes), or targets.
        budget: Samples per class, or in all of a regression; "all": every one.
        seed: Which draw.
        task: The task.
        class_names: All the classes.

    Raises:
        DataError: There are fewer samples.
    """
    if budget == "all":
        return torch.arange(len(labels))
    if task == "regression":
        return label_total(len(labels), budget, seed)
    return label_budget(labels, budget, seed, class_names)


def check_budgets(labels: Tensor, budgets: Iterable[Budget], task: Task | None, class_names: Sequence[str]) -> None:
    """Refuses label budgets that are larger than a class or all the samples; see `draw_labels`.

    Raises:
        DataError: There is one.
    """
    for budget in budgets:
        draw_labels(labels, budget, 0, task, class_names)
