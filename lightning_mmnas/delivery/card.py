"""`model.json`: everything about a delivered model but its weights."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from typing_extensions import Self

from lightning_mmnas.data.names import flaw
from lightning_mmnas.data.spec import Kind, ModalitySpec, TargetScale, Task, Vocabulary
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.errors import DataError, ModelError
from lightning_mmnas.fusion.input_nodes import Grid, Pool
from lightning_mmnas.fusion.readout import ReadoutName
from lightning_mmnas.parsing import parse_json
from lightning_mmnas.space.value import describe_errors

CARD = "model.json"
WEIGHTS = "model.safetensors"
FORMAT = 2
"""Of the folder; a newer one is refused. 2: regression, and models without labels."""


_LARGEST = 2**32
"""Numbers that a sample of a modality may have."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VocabularyCard(_Record):
    """A `Vocabulary`."""

    size: int
    pad: int
    unknown: int
    mask: int
    special: tuple[int, ...] = ()


class ModalityCard(_Record):
    """A `ModalitySpec`; its type is a name such as ``"uint8"``."""

    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    vocabulary: VocabularyCard | None = None

    @classmethod
    def of(cls, spec: ModalitySpec) -> "ModalityCard":
        """Writes a specification down."""
        known = spec.vocabulary
        vocabulary = None if known is None else VocabularyCard(**vars(known))
        return cls(
            kind=spec.kind, shape=spec.shape, dtype=str(spec.dtype).removeprefix("torch."), vocabulary=vocabulary
        )

    def spec(self) -> ModalitySpec:
        """The specification."""
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise ModelError(f"{CARD}: {self.dtype!r} is no type of numbers")
        if min(self.shape, default=1) < 1 or math.prod(self.shape) > _LARGEST:
            raise ModelError(f"{CARD}: {self.shape} is no shape of a sample")
        vocabulary = None if self.vocabulary is None else Vocabulary(**self.vocabulary.model_dump())
        return ModalitySpec(self.kind, self.shape, dtype, vocabulary)


class PartCard(_Record):
    """A module by its class and what it is built with.

    Attributes:
        class_path: ``package.module.Class``.
        arguments: Plain values by name; those for weights are left out.
        files: By name of an argument, the file in the model's folder that it is given.
        parts: By name of an argument, the module that the class it is given builds.
    """

    class_path: str
    arguments: dict[str, Any] = {}
    files: dict[str, str] = {}
    parts: dict[str, "PartCard"] = {}

    @property
    def classes(self) -> list[str]:
        """The class paths of the module and of those inside."""
        return [self.class_path, *(name for part in self.parts.values() for name in part.classes)]


class NetworkCard(_Record):
    """The fusion network: a genotype and how it is built, or the user's own class."""

    genotype: dict[str, Any] | None = None
    part: PartCard | None = None
    readout: ReadoutName = "branch"
    dropout: float = 0.0
    pool: Pool = "max"
    grid: Grid = "auto"


class TableCard(_Record):
    """How the rows of a table become samples; see `TableDataModule`."""

    columns: dict[str, ColumnSpec]
    label: str | None = None
    label_separator: str | None = None
    group: str | None = None
    id: str | None = None
    missing: Literal["error", "drop", "mask"] = "error"
    on_error: Literal["raise", "skip"] = "raise"
    separator: str | None = None
    decimal: Literal[".", ","] | None = None
    header: bool | None = None
    empty: list[str] | None = None
    files_from: str | None = None


class DataCard(_Record):
    """The data module of the run, for its splits to be read again."""

    class_path: str
    arguments: dict[str, Any] = {}


class LabelCard(_Record):
    """The labels that the model was trained with.

    Attributes:
        per_class: The budget; "all".
        samples: Their number.
        total: The budget of a regression.
    """

    per_class: int | Literal["all"]
    samples: int
    total: int | Literal["all"] | None = None


class ModelCard(_Record):
    """A delivered model; ``thresholds``, ``mean``, ``std`` and ``fill`` of modalities lie with the weights.

    Attributes:
        format: Of the folder.
        task: See `Task`; None: it was trained without labels, and embeds only.
        class_names: In the order of the probabilities; of a regression the target's.
        modalities: What a sample has.
        encoders: Of each modality.
        network: From features to a vector.
        linear: Whether a linear model of the encoders' features stands beside the network; see `Mixture`.
        labels: What it was trained with.
        metrics: By name, such as ``test/accuracy``; None where it is not defined, as R2 of a single sample.
        table: How to read a table like that of the run; None: the run's data are no table.
        data: Where the splits of the run come from; None: not known.
        made_by: Command, seed, versions.
        target_scale: Mean and standard deviation of a regression's targets, by which outputs become predictions.
        digests: BLAKE2b of the folder's other files by name; none in folders of earlier versions.
        digest: BLAKE2b of the card itself without this, see `own_digest`; None: it is not checked.
    """

    format: int
    task: Task | None
    class_names: tuple[str, ...]
    modalities: dict[str, ModalityCard]
    encoders: dict[str, PartCard]
    network: NetworkCard
    linear: bool
    labels: LabelCard
    metrics: dict[str, float | None]
    table: TableCard | None = None
    data: DataCard | None = None
    made_by: dict[str, Any] = {}
    target_scale: TargetScale | None = None
    digests: dict[str, str] = {}
    digest: str | None = None

    @field_validator("modalities")
    @classmethod
    def _names(cls, modalities: dict[str, ModalityCard]) -> dict[str, ModalityCard]:
        for name in modalities:
            if (reason := flaw(name)) is not None:
                raise ValueError(f"{name!r} cannot be the name of a modality: {reason}")
        return modalities

    @model_validator(mode="after")
    def _outputs(self) -> Self:
        if (self.task is None) != (not self.class_names) or (self.task == "regression") != bool(self.target_scale):
            raise ValueError(f"task {self.task}, class_names and target_scale do not belong together")
        return self

    @property
    def classes(self) -> list[str]:
        """The class paths that loading needs: of encoders, of primitives, and of a network of the user's own."""
        parts = [*self.encoders.values(), *([self.network.part] if self.network.part is not None else [])]
        space = (self.network.genotype or {}).get("space") or {}
        primitives = [name for name in space.get("primitives", ()) if "." in name]
        return [*(name for part in parts for name in part.classes), *primitives]


def read_card(folder: Path) -> ModelCard:
    """Reads ``model.json``.

    Raises:
        ModelError: It is missing, damaged, or of a newer version.
    """
    path = folder / CARD
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"there is no model in {folder}: {CARD} is missing") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {error}; `mmnas run` with the run's command writes it again") from None
    if isinstance(content, dict) and isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise ModelError(
            f"{path} has format {content['format']}, this version reads up to {FORMAT}; "
            "run: pip install -U lightning-mmnas"
        )
    try:
        card = ModelCard.model_validate(content)
    except (ValidationError, DataError) as error:
        reason = describe_errors(error) if isinstance(error, ValidationError) else error
        raise ModelError(f"{path} is damaged: {reason}") from None
    if card.digest is not None and own_digest(content) != card.digest:
        raise ModelError(
            f"{path} is damaged: it is not what was delivered; `mmnas run` with the run's command writes it again "
            "(if it was changed on purpose, remove its digest)"
        )
    for name, digest in card.digests.items():
        file = folder / name
        if not (file.is_file() and file.resolve().is_relative_to(folder.resolve())):
            raise ModelError(f"{file} is missing; `mmnas run` with the run's command writes it again")
        if digest_of(file) != digest:
            raise ModelError(
                f"{file} is damaged: it is not what was delivered; `mmnas run` with the run's command writes it again"
            )
    return card


def own_digest(content: Mapping[str, Any]) -> str:
    """BLAKE2b of a card's content but for its ``digest``, whatever its layout and the order of its keys."""
    known = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=16).hexdigest()


def digests_of(folder: Path) -> dict[str, str]:
    """BLAKE2b of the files in a model's folder that are read with its card."""
    files = [folder / WEIGHTS, *sorted(path for path in folder.glob("*/**/*") if path.is_file())]
    return {path.relative_to(folder).as_posix(): digest_of(path) for path in files}


def digest_of(path: Path) -> str:
    """BLAKE2b of a file, read piece by piece."""
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(2**20):
            state.update(piece)
    return state.hexdigest()
