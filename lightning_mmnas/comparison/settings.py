"""How much a comparison compares."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lightning_mmnas.data.spec import Task
from lightning_mmnas.errors import ConfigError

Budget = int | Literal["all"]


def _each_once(budgets: tuple[Budget, ...]) -> tuple[Budget, ...]:
    if not budgets or len(set(budgets)) < len(budgets):
        raise ValueError("it needs one label budget or several different ones")
    return budgets


_PerClass = Annotated[tuple[Annotated[int, Field(ge=1)] | Literal["all"], ...], AfterValidator(_each_once)]
_Total = Annotated[tuple[Annotated[int, Field(ge=2)] | Literal["all"], ...], AfterValidator(_each_once)]


class ComparisonSettings(BaseModel):
    """How much is compared; the content of ``comparison.yaml``.

    Attributes:
        labels_per_class: Label budgets of classes.
        labels_total: Label budgets of a regression: labelled samples in all; None: ``("all",)``.
        draws: Label draws of each budget; with all labels, as many seeds of the classifier.
        random_architectures: Number of random architectures.
        steps: Fine-tuning steps of each network where labels are few.
        steps_all: Fine-tuning steps with all labels.
        batch_size: Batch size of the fine-tuning where labels are few.
        batch_size_all: Batch size of the fine-tuning with all labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels_per_class: _PerClass = (5, 20, "all")
    labels_total: _Total | None = None
    draws: int = Field(default=3, ge=1)
    random_architectures: int = Field(default=3, ge=1)
    steps: int = Field(default=100, ge=1)
    steps_all: int = Field(default=200, ge=1)
    batch_size: int = Field(default=64, ge=2)
    batch_size_all: int = Field(default=128, ge=2)

    def counts(self, task: Task | None) -> tuple[int, int]:
        """Number of label budgets of a task that are not all labels, and of those that are."""
        budgets = self.budgets(task)
        every = budgets.count("all")
        return len(budgets) - every, every

    def budgets(self, task: Task | None) -> tuple[Budget, ...]:
        """The label budgets of a task.

        Raises:
            ConfigError: They are given for the other kind of task.
        """
        if task != "regression":
            if self.labels_total is not None:
                raise ConfigError("comparison: labels_total is for a regression; classes have labels_per_class")
            return self.labels_per_class
        if "labels_per_class" in self.model_fields_set:
            raise ConfigError(
                "comparison: labels_per_class is for classes, and a regression has none; set labels_total, labelled "
                "samples in all, such as [20, 100, all]"
            )
        return self.labels_total or ("all",)
