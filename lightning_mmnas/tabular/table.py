"""FusionTable: what every architecture of a space turned out to be worth, to be asked in milliseconds."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_mmnas.errors import GenotypeError, TableError
from lightning_mmnas.files import write_bytes
from lightning_mmnas.parsing import parse_json
from lightning_mmnas.space.genotype import FusionSpace, Genotype
from lightning_mmnas.tabular.numbering import architectures

Values = NDArray[np.float64]

_TABLES = Path(__file__).parent / "tables"
_KEYS = ("index", "seed")
_CARD = b"lightning_mmnas"


@dataclass(frozen=True)
class Correlation:
    """A rank correlation and its bootstrap interval.

    Attributes:
        value: The correlation, in [-1, 1].
        low: Lower end of the 95 % interval, architectures resampled.
        high: Upper end.
    """

    value: float
    low: float
    high: float


class FusionTable:
    """Every architecture of a space (or a uniform sample of them), trained with several seeds.

    Accuracies are of the test split, in [0, 1]: ``probe_<k>``, ``finetune_<k>`` (pretrained without labels),
    ``scratch_<k>`` for k labels per class and ``supervised`` (from scratch, all labels). Label-free criteria are
    oriented so that lower is better. What a column is, and how it was made, is in `card`.

    Args:
        space: The space.
        columns: By name, one row per architecture and one column per seed, (n, seeds); NaN where there is none.
        indices: Which architecture each row is: its number, see `numbering.py`: its place in ``space.enumerate()``,
            or in a fixed sequence of draws from a space too large to be listed.
        seeds: The seeds.
        card: How the table was made.
        baselines: By name, the simple baselines' columns, mean over seeds.

    Examples:
        >>> table = FusionTable.load("avmnist")
        >>> genotype, accuracy = table.best("finetune_20")[0]
        >>> table.rank(genotype, "finetune_20"), table.regret(genotype, "finetune_20")
        (1, 0.0)
    """

    def __init__(
        self,
        space: FusionSpace,
        columns: Mapping[str, Values],
        indices: Sequence[int],
        seeds: Sequence[int],
        card: Mapping[str, Any],
        baselines: Mapping[str, Mapping[str, float]],
    ) -> None:
        self.space = space
        self.columns = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
        self.indices = tuple(int(index) for index in indices)
        self.seeds = tuple(int(seed) for seed in seeds)
        self.card = dict(card)
        self.baselines = {name: dict(values) for name, values in baselines.items()}

    @classmethod
    def load(cls, table: str | os.PathLike[str]) -> "FusionTable":
        """Reads a table: a shipped one by name ("avmnist", "watch"), or a Parquet file.

        Raises:
            TableError: There is no such table, or the file is not one.
        """
        import pyarrow.parquet as parquet
        from pyarrow import ArrowException

        shipped = sorted(path.stem for path in _TABLES.glob("*.parquet"))
        path = _TABLES / f"{table}.parquet" if str(table) in shipped else Path(table)
        if not path.is_file():
            raise TableError(f"there is no table {os.fspath(table)}; the shipped ones are {shipped}")
        try:
            found = parquet.read_table(path)
            card = parse_json((found.schema.metadata or {})[_CARD])
            names = [name for name in found.column_names if name not in _KEYS]
            rows = {name: found.column(name).to_numpy() for name in found.column_names}
            read = cls._from_rows(rows, names, card)
            if read.indices[-1] >= read.space.size():
                raise ValueError(f"architecture {read.indices[-1]} of a space of {read.space.size()}")
            return read
        except (ArrowException, OSError, LookupError, TypeError, AttributeError, ValueError, GenotypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TableError(f"{path} is not a table of mmnas tabulate ({reason})") from None

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]], card: Mapping[str, Any]) -> "FusionTable":
        """Builds a table from one record per architecture and seed.

        Args:
            records: Each with ``index``, ``seed`` and the columns.
            card: With the ``space`` and, under ``baselines``, the simple baselines.
        """
        names = [name for name in records[0] if name not in _KEYS]
        rows = {name: np.array([record[name] for record in records]) for name in (*_KEYS, *names)}
        return cls._from_rows(rows, names, card)

    @classmethod
    def _from_rows(cls, rows: Mapping[str, Any], names: Sequence[str], card: Mapping[str, Any]) -> "FusionTable":
        indices, row = np.unique(rows["index"], return_inverse=True)
        seeds, column = np.unique(rows["seed"], return_inverse=True)
        columns = {}
        for name in names:
            values = np.full((len(indices), len(seeds)), np.nan)
            values[row, column] = rows[name]
            columns[name] = values
        kept = {key: value for key, value in card.items() if key not in ("space", "baselines")}
        space = FusionSpace(**card["space"])
        return cls(space, columns, indices.tolist(), seeds.tolist(), kept, card.get("baselines", {}))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as one Parquet file, whole or not at all."""
        import pyarrow
        import pyarrow.parquet as parquet

        n, seeds = len(self), len(self.seeds)
        data: dict[str, Any] = {
            "index": np.repeat(np.array(self.indices, dtype=np.uint32), seeds),
            "seed": np.tile(np.array(self.seeds, dtype=np.uint32), n),
        }
        # Accuracies are fractions of a whole number of samples, the rest is noisy after a few digits.
        data |= {name: values.astype(np.float32).reshape(-1) for name, values in self.columns.items()}
        card = {**self.card, "space": json.loads(self.space.model_dump_json()), "baselines": self.baselines}
        table = pyarrow.table(data).replace_schema_metadata({_CARD: json.dumps(card).encode()})
        buffer = BytesIO()
        parquet.write_table(table, buffer, compression="zstd", compression_level=19)
        write_bytes(Path(path), buffer.getvalue())

    def __len__(self) -> int:
        """Number of architectures."""
        return len(self.indices)

    def __contains__(self, genotype: object) -> bool:
        return isinstance(genotype, Genotype) and self._rows.get(genotype) is not None

    @cached_property
    def genotypes(self) -> list[Genotype]:
        """The architectures, row by row."""
        found = architectures(self.space, self.indices)
        return [found[index] for index in self.indices]

    @cached_property
    def _rows(self) -> dict[Genotype, int]:
        return {genotype: row for row, genotype in enumerate(self.genotypes)}

    def row(self, genotype: Genotype) -> int:
        """Row of an architecture.

        Raises:
            GenotypeError: It is of another space, or not among those that were trained.
        """
        genotype.require_space(self.space)
        row = self._rows.get(genotype)
        if row is None:
            raise GenotypeError(
                f"not among the {len(self)} of {self.space.size()} architectures of the table; sample from "
                "table.genotypes, or train it by the table's protocol (GroupTraining):\n" + genotype.describe()
            )
        return row

    def values(self, column: str, seed: int | None = None) -> Values:
        """A column of one seed, or its mean over seeds, (n,).

        Args:
            column: Its name.
            seed: One of `seeds`; None: the mean.

        Raises:
            TableError: There is no such column or seed.
        """
        values = self._column(column)
        if seed is None:
            mean: Values = values.mean(1)
            return mean
        if seed not in self.seeds:
            raise TableError(f"the table has no seed {seed}; it has {list(self.seeds)}")
        return values[:, self.seeds.index(seed)]

    def value(self, genotype: Genotype, column: str, seed: int | None = None) -> float:
        """What an architecture is worth, with one seed or in the mean over seeds."""
        return float(self.values(column, seed)[self.row(genotype)])

    def best(self, column: str, count: int = 1) -> list[tuple[Genotype, float]]:
        """The best architectures and their values: the highest accuracies, or the lowest of a criterion or cost."""
        values = self.values(column)
        order = np.argsort(-self._gain(column, values), kind="stable")[:count]  # NaN comes last
        return [(self.genotypes[i], float(values[i])) for i in order]

    def rank(self, genotype: Genotype, column: str) -> int:
        """Place of an architecture, 1 the best; equals share the better place."""
        gain = self._gain(column, self.values(column))
        return 1 + int((gain > gain[self.row(genotype)]).sum())

    def percentile(self, genotype: Genotype, column: str) -> float:
        """Share of architectures that are worse, equals counted half, in [0, 100]."""
        return self.percentile_of(self.value(genotype, column), column)

    def percentile_of(self, value: float, column: str, seed: int | None = None) -> float:
        """Percentile that a value would have in a column; values that agree to six digits are equal."""
        values = self.values(column, seed)
        gain = self._gain(column, np.round(values[~np.isnan(values)], 6))
        here = self._gain(column, np.round(np.array(value), 6))
        return float(100 * ((gain < here).mean() + (gain == here).mean() / 2))

    def regret(self, genotype: Genotype, column: str) -> float:
        """How far an architecture is from the best of the table, in the column's unit, >= 0."""
        return self.regret_of(self.value(genotype, column), column)

    def regret_of(self, value: float, column: str, seed: int | None = None) -> float:
        """How far a value is from the best of the table; negative above it."""
        gain = self._gain(column, self.values(column, seed))
        return float(np.nanmax(gain) - self._gain(column, np.array(value)))

    def correlation(
        self,
        criterion: str,
        column: str,
        method: Literal["spearman", "kendall"] = "spearman",
        rows: Sequence[int] | None = None,
        resamples: int = 500,
    ) -> Correlation:
        """Rank correlation of what is good by one column with what is good by another.

        Positive where the criterion picks good architectures, whatever the columns' orientation.

        Args:
            criterion: A column, such as a label-free criterion.
            column: Another one, such as an accuracy.
            method: Spearman's rho or Kendall's tau-b.
            rows: Only these architectures.
            resamples: Bootstrap resamples of architectures.
        """
        from scipy import stats

        def measure(first: Values, second: Values) -> float:
            if not np.ptp(first) or not np.ptp(second):
                return float("nan")  # a constant has no ranks
            ranked = stats.spearmanr if method == "spearman" else stats.kendalltau
            return float(ranked(first, second).statistic)

        chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
        a = self._gain(criterion, self.values(criterion))[chosen]
        b = self._gain(column, self.values(column))[chosen]
        generator = np.random.default_rng(0)
        draws = generator.integers(len(chosen), size=(resamples, len(chosen)))
        found = [value for draw in draws if not np.isnan(value := measure(a[draw], b[draw]))]
        low, high = np.percentile(found, [2.5, 97.5]) if found else (np.nan, np.nan)
        return Correlation(measure(a, b), float(low), float(high))

    def noise(self, column: str) -> float:
        """Standard deviation of one training around its architecture's mean, what a seed does to all alike left out.

        The mean over s seeds that the table answers with is uncertain by this over the root of s.
        """
        values = self._column(column)
        residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        n, seeds = values.shape
        return float(np.sqrt((residual**2).sum() / ((n - 1) * (seeds - 1)))) if seeds > 1 and n > 1 else float("nan")

    def _column(self, name: str) -> Values:
        if name not in self.columns:
            raise TableError(f"the table has no column {name!r}; it has {list(self.columns)}")
        return self.columns[name]

    def _gain(self, column: str, values: Values) -> Values:
        """Values with the sign that makes more better."""
        return values if is_accuracy(column) else -values


def is_accuracy(column: str) -> bool:
    """Whether more is better: accuracies; criteria and costs are better where they are lower."""
    return column == "supervised" or column.startswith(("probe_", "finetune_", "scratch_"))
