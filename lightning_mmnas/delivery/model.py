"""A delivered model: predictions, probabilities, embeddings and scores of new data, and modules for one's own use."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_mmnas.data.samples import LABEL, labelled_rows
from lightning_mmnas.data.spec import ModalitySpec, Split, Task, unscaled
from lightning_mmnas.data.table.labels import Classes, cell_classes, encode_classes, known_classes
from lightning_mmnas.data.table.targets import no_target
from lightning_mmnas.data.targets import standardised
from lightning_mmnas.delivery.card import ModelCard
from lightning_mmnas.delivery.classifier import FusionClassifier
from lightning_mmnas.delivery.inputs import reading_of, samples_of
from lightning_mmnas.delivery.samples import Chunk, OnError, Row
from lightning_mmnas.delivery.scores import Scores, labels_of
from lightning_mmnas.delivery.splits import open_split
from lightning_mmnas.delivery.transforms import Transforms, Wrong
from lightning_mmnas.errors import DataError, ModelError
from lightning_mmnas.modules.frozen import FrozenEncoders
from lightning_mmnas.space.genotype import Genotype

Columns = Mapping[str, str | Sequence[str]]
_BATCH = 256


class DeliveredModel(nn.Module):
    """What a run has found, pretrained and trained; made by `lightning_mmnas.load`.

    As a module it maps a batch of prepared samples to logits, and can be a part of another module and be trained
    further: the fusion network and the classifier learn, the encoders are frozen.

    Args:
        card: What is known of the model.
        classifier: From raw samples to logits.
        transforms: From what a user has to samples.
        allow: Classes of the user's own that may be imported; see `load`.

    Attributes:
        card: What is known of the model: classes, modalities, labels, metrics, versions.
        transforms: One sample of raw values by modality -> tensors by modality.
    """

    def __init__(
        self, card: ModelCard, classifier: FusionClassifier, transforms: Transforms, allow: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.allow = tuple(allow)
        self.card = card
        self.classifier = classifier
        self.transforms = transforms

    @property
    def network(self) -> nn.Module:
        """The fusion network: features by name -> (b, d)."""
        return self.classifier.network

    @property
    def encoders(self) -> FrozenEncoders:
        """The frozen encoders: samples by modality -> features by name."""
        return self.classifier.encoders

    @property
    def genotype(self) -> Genotype | None:
        """The architecture that was found; None where the network is the user's own."""
        return getattr(self.network, "genotype", None)

    @property
    def class_names(self) -> list[str]:
        """In the order of the probabilities; of a regression the target's name."""
        return list(self.card.class_names)

    @property
    def task(self) -> Task | None:
        """Whether a sample has one class, several, or a target; None: the model was trained without labels."""
        return self.card.task

    @property
    def modalities(self) -> dict[str, ModalitySpec]:
        """What the encoders take."""
        return dict(self.transforms.modalities)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.classifier.shares.device

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Prepared samples by modality, as `transforms` gives them and batched -> logits (b, num_classes).

        Of a regression: standardised targets (b, 1); `values` brings them into their unit.
        """
        logits: Tensor = self.classifier(batch)
        return logits

    def predict(self, data: Any, **options: Any) -> Any:
        """The class of every sample, or its target.

        Args:
            data: The samples: a data frame (pandas, polars), the path of a table (CSV, JSON lines, Parquet) with the
                columns of training, or of a folder with that table (several Parquet files are one) or with one folder
                of files per modality; a dict of modalities (or columns) with one sample or many; a list of such dicts;
                or a `DataLoader`. In a dict, a value is what a cell of the table would be: a text, a path, numbers,
                with the same spellings of decimals and of missing values; or an array as a file would hold it
                (pictures (h, w, 3) or (3, h, w), motion (t, channels), a waveform (t,) or a tuple of it and its rate
                in Hz); None is a missing value. Sizes and rates are converted as in training. Of a model whose data
                were no table, dicts hold tensors as its data module gives them.
            **options: See `chunks`.

        Returns:
            A list of names of classes; of one sample its name alone. Of multi-label data lists of names. Of a
            regression numbers in the target's own unit. None where a sample has been skipped.

        Raises:
            DataError: A sample cannot be read, lacks a modality, or has another shape; names it.
            ModelError: The model was trained without labels; as in `predict_proba` and `evaluate`.
        """
        found: list[Any] = []
        single, chunks = self.chunks(data, self._values, **options)
        for chunk, values in chunks:
            found += self.whole(chunk, self.decide(values), None)
        return found[0] if single else found

    def predict_proba(self, data: Any, **options: Any) -> Tensor:
        """Probabilities of the classes, (n, num_classes), or (num_classes,) of one sample; see `predict`.

        Of multi-label data each label has its own. NaN where a sample has been skipped.

        Raises:
            DataError: The model is a regression.
        """
        if self.task == "regression":
            raise DataError("a regression has no probabilities; predict gives its targets")
        return self._tensor(data, self._values, options)

    def embed(self, data: Any, **options: Any) -> Tensor:
        """The fusion network's vectors, (n, d), or (d,) of one sample; see `predict`."""
        return self._tensor(data, self.vectors, options)

    def features(self, data: Any, **options: Any) -> dict[str, Tensor]:
        """The encoders' features by name ``<modality>/<level>``, (n, c, ...), of one sample (c, ...); see `predict`.

        A sample that cannot be read is left out where it is skipped; of a single one they are NaN.
        """
        found: dict[str, list[Tensor]] = {}
        single, chunks = self.chunks(data, self.encoders, **options)
        for _, values in chunks:
            for name, value in values.items():
                found.setdefault(name, []).append(value)
        whole = {name: torch.cat(values) for name, values in found.items()}
        if not single:
            return whole
        return {n: v[0] if len(v) else torch.full(v.shape[1:], torch.nan, dtype=v.dtype) for n, v in whole.items()}

    def evaluate(
        self,
        data: Any,
        *,
        label: str | None = None,
        advance: Callable[[int], None] = lambda _: None,
        **options: Any,
    ) -> dict[str, Any]:
        """Scores on samples whose classes are known.

        Args:
            data: See `predict`. Rows without a class are left out; tensors come with ``"label"``, numbers of classes
                or targets of a regression standardised by the card's ``target_scale``.
            label: The column of the classes; None: that of training.
            advance: Called with the number of samples of each chunk, for a progress bar.
            **options: See `chunks`.

        Returns:
            ``metrics`` by name, ``confusion`` (true classes in rows) or ``per_label`` F1, ``class_names``, ``samples``,
            and ``skipped``, those without a class or that could not be read. Of a regression MAE and RMSE are in the
            target's unit.

        Raises:
            DataError: There is no class in the data, or an unknown one; names it.
        """
        if self.task is None:
            raise ModelError("the model was trained without labels: there is nothing to be compared with")
        scores = Scores(self.task, self.class_names, self.classifier.thresholds, self.card.target_scale)
        column = label or (self.card.table.label if self.card.table is not None else LABEL)
        skipped = 0
        for chunk, logits in self.chunks(data, self.classifier, label=column, **options)[1]:
            if chunk.rows:
                labels = self._labels([chunk.rows[i] for i in chunk.usable], column)
            elif chunk.labels is None:
                raise DataError("the samples have no classes to be compared with: a DataLoader needs 'label'")
            else:
                labels = labels_of(chunk.labels, self.task, len(self.class_names))
            advance(len(chunk.rows) or len(labels))
            known = labelled_rows(labels, self.task) if len(labels) else torch.zeros(0, dtype=torch.bool)
            skipped += (len(chunk.rows) or len(labels)) - int(known.sum())
            if bool(known.any()):
                scores.update(logits[known], labels[known])
        return {**scores.compute(), "skipped": skipped}

    def chunks(
        self,
        data: Any,
        compute: Callable[[dict[str, Tensor]], Any],
        *,
        columns: Columns | None = None,
        batch_size: int = _BATCH,
        on_error: OnError | None = None,
        files_from: str | None = None,
        label: str | None = None,
    ) -> tuple[bool, Iterator[tuple[Chunk, Any]]]:
        """Samples chunk by chunk, with what is computed of each, in bounded memory.

        Args:
            data: See `predict`.
            compute: Prepared samples by modality on the model's device -> a tensor or a dict of them, (m, ...).
            columns: By modality, the column (or columns) of a table that it lies in, where another one than in
                training.
            batch_size: Samples of a chunk.
            on_error: What a sample that cannot be read does: "raise", or "skip" it; None: as in training.
            files_from: Folder that a table names files relative to; None: that of training where one was given, else
                the table's own; of a data frame, the current one.
            label: Column of the classes or targets, to be read with the rest; None: they are not wanted.

        Returns:
            Whether a single sample was given; and the chunks, each with the values of its usable samples on the CPU.
        """
        if on_error not in (None, "raise", "skip"):
            raise DataError(f"on_error {on_error!r} is not in ['raise', 'skip']")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise DataError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
        if not isinstance(columns, Mapping | None):
            raise DataError(f"columns must be a dict of column names by modality, got {columns!r}")
        table = self.card.table
        missing: OnError = on_error or ("skip" if table is not None and table.missing == "drop" else "raise")
        error: OnError = on_error or (table.on_error if table is not None else "raise")
        renamed = {name: [value] if isinstance(value, str) else list(value) for name, value in (columns or {}).items()}
        target = label if self.task == "regression" else None
        samples = samples_of(data, self.transforms, renamed, reading_of(table, files_from, target), label)

        def found() -> Iterator[tuple[Chunk, Any]]:
            some = False
            for chunk in samples.chunks(self.transforms, batch_size, error, missing):
                some = True
                if not chunk.usable:
                    yield chunk, self._nothing(compute)
                    continue
                with self._inference():
                    values = compute({name: self._taken(value) for name, value in chunk.tensors.items()})
                yield chunk, _to_cpu(values)
            if not some:
                raise DataError("there are no samples in the data")

        return samples.single, found()

    def vectors(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Prepared samples -> the fusion network's vectors (b, d)."""
        vectors: Tensor = self.network(self.encoders(batch))
        return vectors

    def values(self, logits: Tensor) -> Tensor:
        """Logits (b, num_classes) -> `probabilities`; of a regression targets in their own unit, float64 on the CPU."""
        if self.task == "regression":
            return unscaled(logits, self.card.target_scale)
        return self.probabilities(logits)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (b, num_classes) -> probabilities: softmax for classes, sigmoid for labels."""
        return logits.float().softmax(-1) if self.task == "multiclass" else logits.float().sigmoid()

    def decide(self, probabilities: Tensor) -> list[Any]:
        """Probabilities (b, num_classes) -> names of classes, lists of them for multi-label data; targets stay."""
        names = self.class_names
        if self.task == "regression":
            return [row[0] for row in probabilities.tolist()]
        if self.task == "multiclass":
            return [names[i] for i in probabilities.argmax(1).tolist()] if len(probabilities) else []
        assert self.classifier.thresholds is not None
        chosen = probabilities > self.classifier.thresholds.to(probabilities.device)
        return [[name for name, here in zip(names, row, strict=True) if here] for row in chosen.tolist()]

    def whole(self, chunk: Chunk, values: Sequence[Any], nothing: Any) -> list[Any]:
        """One value per row of a chunk, `nothing` for those that were skipped."""
        if len(chunk.usable) == len(chunk.rows) or not chunk.rows:
            return list(values)
        found = [nothing] * len(chunk.rows)
        for place, value in zip(chunk.usable, values, strict=True):
            found[place] = value
        return found

    def whole_tensor(self, chunk: Chunk, values: Tensor) -> Tensor:
        """The same of a tensor (m, ...) of floats: NaN where a sample was skipped."""
        if len(chunk.usable) == len(chunk.rows) or not chunk.rows:
            return values
        found = torch.full((len(chunk.rows), *values.shape[1:]), torch.nan, dtype=values.dtype)
        found[torch.tensor(chunk.usable, dtype=torch.long)] = values
        return found

    def data(self, split: Split) -> DataLoader[Any]:
        """A loader of a split of the data that the model was made with, read anew from where they were.

        Raises:
            DataError: It is not known where they came from.
            DatasetNotFoundError: They are not there.
        """
        return open_split(self.card, split, self.allow).loader

    def _values(self, batch: dict[str, Tensor]) -> Tensor:
        return self.values(self.classifier(batch))

    def _taken(self, value: Tensor) -> Tensor:
        """A prepared input on the model's device, pixels and numbers in the type of its weights."""
        value, own = value.to(self.device), self.classifier.shares.dtype
        if value.dtype == torch.uint8 and own != torch.get_default_dtype():
            return value.to(own) / 255
        return value.to(own) if value.is_floating_point() else value

    def _labels(self, rows: Sequence[Row], column: str | None) -> Tensor:
        table = self.card.table
        if column is None:
            raise DataError("the model does not know the column of the classes; give label, or --label COLUMN")
        found: list[Classes | None] = []
        targets: list[float] = []
        known = known_classes(self.class_names)
        for row in rows:
            if column not in row.cells:
                raise DataError(f"{row.place}: there is no column {column!r}; give label, or --label COLUMN")
            if table is None:
                continue
            place = f"{row.place}, column {column!r}"
            if self.task == "regression":
                target = row.numbers.get(column)
                if isinstance(target, Wrong):
                    raise no_target(target.reason, place)
                targets.append(math.nan if target is None else target)
                continue
            several = self.task == "multilabel"
            classes = cell_classes(row.cells[column], table.label_separator, several, place, known)
            if unknown := [name for name in classes or () if name not in known]:
                raise DataError(f"{place}: the model does not know the class {unknown[0]!r}, but {self.class_names}")
            found.append(classes)
        if table is None:
            return labels_of([row.cells[column] for row in rows], self.task, len(self.class_names))
        if self.task == "regression":
            return standardised(torch.tensor(targets, dtype=torch.float64), self.card.target_scale or (0.0, 1.0))
        return encode_classes(found, self.class_names, self.task == "multilabel")

    def _tensor(self, data: Any, compute: Callable[[dict[str, Tensor]], Tensor], options: dict[str, Any]) -> Tensor:
        found: list[Tensor] = []
        single, chunks = self.chunks(data, compute, **options)
        for chunk, values in chunks:
            found.append(self.whole_tensor(chunk, values))
        return found[0][0] if single else torch.cat(found)

    def _nothing(self, compute: Callable[[dict[str, Tensor]], Any]) -> Any:
        """What is computed of no samples: that of one sample, less the sample."""
        one = {n: torch.zeros(2, *s.shape, dtype=s.dtype, device=self.device) for n, s in self.modalities.items()}
        with self._inference():
            values = _to_cpu(compute(one))
        return {n: v[:0] for n, v in values.items()} if isinstance(values, dict) else values[:0]

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """In eval mode and without gradients; the mode of every part is what it was afterwards."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, training in modes:
                module.training = training


def _to_cpu(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: cast(Tensor, value).cpu() for name, value in values.items()}
    return values.cpu()
