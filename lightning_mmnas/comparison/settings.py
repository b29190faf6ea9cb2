"""How much a comparison compares."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Budget = int | Literal["all"]


class ComparisonSettings(BaseModel):
    """How much is compared; the content of ``comparison.yaml``.

    Attributes:
        labels_per_class: Label budgets.
        draws: Label draws of each budget; with all labels, as many seeds of the classifier.
        random_architectures: Number of random architectures.
        steps: Fine-tuning steps of each network where labels are few.
        steps_all: Fine-tuning steps with all labels.
        batch_size: Batch size of the fine-tuning where labels are few.
        batch_size_all: Batch size of the fine-tuning with all labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels_per_class: tuple[Annotated[int, Field(ge=1)] | Literal["all"], ...] = (5, 20, "all")
    draws: int = Field(default=3, ge=1)
    random_architectures: int = Field(default=3, ge=1)
    steps: int = Field(default=100, ge=1)
    steps_all: int = Field(default=200, ge=1)
    batch_size: int = Field(default=64, ge=2)
    batch_size_all: int = Field(default=128, ge=2)
