"""The two published forms of MM-IMDB: a folder of posters and JSON files, and one HDF5 file."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import Column, damaged
from lightning_mmnas.data.columns.texts import check_text
from lightning_mmnas.data.spec import Split
from lightning_mmnas.errors import DamagedFilesError, DataError, MissingExtraError, MMNASError
from lightning_mmnas.parsing import parse_json

PlotChoice = Literal["longest", "first"]

SPLIT_NAMES: dict[Split, str] = {"train": "train", "val": "dev", "test": "test"}
"""What the release calls our splits."""


class Film(NamedTuple):
    """One film of the raw release.

    Attributes:
        source: Its JSON file.
        plot: Its plot.
        genres: The names of its genres.
    """

    source: Path
    plot: str
    genres: list[str]


def read_split(path: Path) -> dict[Split, list[str]]:
    """The ids of every split, in order, from `split.json`; numbers stand for names of seven digits.

    Raises:
        DataError: It is not what MM-IMDB's is: a list of ids for each of train, dev and test, no id in two of them.
    """
    content = _json(path)
    lists = {split: content.get(name) if isinstance(content, dict) else None for split, name in SPLIT_NAMES.items()}
    found: dict[Split, list[str]] = {}
    for split, ids in lists.items():
        name = SPLIT_NAMES[split]
        if not isinstance(ids, list):
            raise DataError(f"{path} has no list of ids named {name!r}")
        if wrong := [i for i in ids if not isinstance(i, str | int) or isinstance(i, bool)]:
            raise DataError(f"{path}: its list {name!r} holds {wrong[0]!r}; ids are texts or whole numbers")
        found[split] = [i if isinstance(i, str) else f"{i:07}" for i in ids]
    every = [i for ids in found.values() for i in ids]
    if len(set(every)) < len(every):
        twice = sorted({i for i in every if every.count(i) > 1})[:5] if len(every) < 10_000 else "some"
        raise DataError(f"{path} names ids more than once: {twice}")
    return found


def read_film(path: Path, choice: PlotChoice) -> Film:
    """Reads one film's JSON file.

    Args:
        path: The file; `plot` is a list of texts, or one text, and `genres` a list of names.
        choice: Which of several plots.

    Raises:
        DamagedFilesError: It is missing, no JSON in UTF-8, lacks plot or genres, or its plot is not Unicode.
    """
    if not path.is_file():
        raise damaged(path, "there is no such file")
    try:
        content = _json(path)
    except DataError as error:
        raise damaged(path, str(error).removeprefix(f"{path} ")) from error
    if not isinstance(content, dict):
        raise damaged(path, "it is not a JSON object")
    plots, genres = content.get("plot"), content.get("genres")
    plots = [plots] if isinstance(plots, str) else plots
    if not isinstance(plots, list) or not plots or not all(isinstance(plot, str) for plot in plots):
        raise damaged(path, "its 'plot' is not a list of texts")
    if not isinstance(genres, list) or not all(isinstance(genre, str) for genre in genres):
        raise damaged(path, "its 'genres' is not a list of names")
    plot = max(plots, key=len) if choice == "longest" else plots[0]
    return Film(path, check_text(plot, path), genres)


def _json(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON in UTF-8: {str(error).splitlines()[0]}") from error


class HDF5File:
    """`multimodal_imdb.hdf5`, opened once per process (extra ``hdf5``).

    Args:
        path: The file.

    Raises:
        MissingExtraError: h5py is not installed.
        DataError: It is not HDF5, or lacks what is read here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, Any] | None = None
        with _reading(self.path):
            missing = [name for name in ("images", "genres") if name not in self.file]
            if missing:
                raise DataError(f"{path} has no {missing}; it has {sorted(self.file)}")
            if len(self.file["images"].shape) != 4 or len(self.file["genres"].shape) != 2:
                raise DataError(
                    f"{path}: images of shape {self.file['images'].shape} and genres of shape "
                    f"{self.file['genres'].shape} are not those of MM-IMDB, (n, 3, h, w) and (n, genres)"
                )

    @property
    def file(self) -> Any:
        """The open file; workers of a loader open it anew."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                import h5py
            except ImportError as error:
                raise MissingExtraError(
                    f"{self.path} needs the package h5py; run: pip install 'lightning-mmnas[hdf5]'"
                ) from error
            try:
                self._opened = (os.getpid(), h5py.File(self.path, "r"))
            except OSError as error:
                raise DataError(f"{self.path} cannot be read as HDF5: {error}") from error
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    def __len__(self) -> int:
        return int(self.file["images"].shape[0])

    def rows(self, split: Split, split_file: Path) -> list[int]:
        """Rows of a split: by the file's own attribute `split` (Fuel's), or by its ids and `split.json`.

        Raises:
            DataError: There is neither.
        """
        with _reading(self.path):
            name = SPLIT_NAMES[split]
            if "split" in self.file.attrs:
                for entry in self.file.attrs["split"]:
                    labels = [_text(entry[key]) for key in ("split", "source")]
                    if labels == [name, "images"] or labels == [str(split), "images"]:
                        return list(range(int(entry["start"]), int(entry["stop"])))
                raise DataError(f"{self.path}: its attribute 'split' has no {name!r}")
            if "imdb_ids" not in self.file or not split_file.is_file():
                raise DataError(
                    f"{self.path} does not say which rows are of which split, and there is no {split_file}; put "
                    "MM-IMDB's split.json there"
                )
            wanted = set(read_split(split_file)[split])
            return [row for row, found in enumerate(self.file["imdb_ids"][:]) if _text(found).zfill(7) in wanted]

    def genre_names(self) -> list[str] | None:
        """Names of the columns of `genres`, where the file gives them."""
        with _reading(self.path):
            names = self.file["genres"].attrs.get("target_names")
            if names is None:
                return None
            listed = parse_json(_text(names)) if isinstance(names, str | bytes) else [_text(n) for n in names]
            return [str(name) for name in listed]

    def genres(self, rows: Sequence[int]) -> Tensor:
        """Genres of some rows, 0 and 1, shape (n, genres)."""
        with _reading(self.path):
            values = np.asarray(self.file["genres"][:])[list(rows)]
            if not np.isin(values, (0, 1)).all():
                raise DataError(f"{self.path}: its genres hold other numbers than 0 and 1")
            return torch.from_numpy(values.astype(np.int64))

    def vectors(self, rows: Sequence[int]) -> Tensor:
        """Text vectors of some rows, float32, shape (n, d).

        Raises:
            DataError: The file has none.
        """
        with _reading(self.path):
            if "features" not in self.file or len(self.file["features"].shape) != 2:
                raise DataError(f"{self.path} has no table 'features' of text vectors")
            return torch.from_numpy(np.asarray(self.file["features"][:], dtype=np.float32)[list(rows)])

    def vector_size(self) -> int:
        """Size of a text vector."""
        return int(self.vectors([]).shape[1])


class HDF5Posters(Column):
    """Posters of the HDF5 file, brought to one size.

    Args:
        source: The file.
        rows: Which rows.
        size: (h, w) of a sample; the stored size is (256, 160).
        bgr: Whether the channels are stored as B, G, R.
    """

    def __init__(self, source: HDF5File, rows: Sequence[int], size: tuple[int, int], bgr: bool) -> None:
        self.hdf5 = source
        self.rows = list(rows)
        self.size = size
        self.bgr = bgr

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Tensor:
        """One poster, uint8, shape (3, h, w).

        Raises:
            DamagedFilesError: The row cannot be read, or is not a picture of values from 0 to 255.
        """
        try:
            values = np.asarray(self.hdf5.file["images"][self.rows[index]], dtype=np.float32)
        except (OSError, LookupError, ValueError, RuntimeError, TypeError) as error:
            raise damaged(self.source(index), " ".join(str(error).split())) from error
        if values.shape[0] != 3 or not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
            raise damaged(self.source(index), f"it is no RGB picture from 0 to 255, but of shape {values.shape}")
        pixels = torch.from_numpy(values[::-1].copy() if self.bgr else values)
        if tuple(pixels.shape[1:]) != self.size:
            options = {"mode": "bilinear", "antialias": True}
            pixels = torch.nn.functional.interpolate(pixels[None], self.size, **options)[0]  # type: ignore[arg-type]
        return pixels.round().clamp(0, 255).to(torch.uint8)

    def source(self, index: int) -> str:
        """File and row."""
        return f"{self.hdf5.path}, images, row {self.rows[index]}"

    def fingerprint(self, index: int) -> str:
        """Size and time of change of the file, and the row."""
        status = self.hdf5.path.stat()
        return f"{self.hdf5.path} {status.st_size} {status.st_mtime_ns} {self.rows[index]} {self.size} {self.bgr}"


def films(folder: Path, ids: Sequence[str], choice: PlotChoice) -> list[Film | DamagedFilesError]:
    """Reads the JSON files of films; in the place of a damaged one stands what is wrong with it."""
    found: list[Film | DamagedFilesError] = []
    for imdb_id in ids:
        try:
            found.append(read_film(folder / f"{imdb_id}.json", choice))
        except DamagedFilesError as error:
            found.append(error)
    return found


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says of which file it is that h5py complains."""
    try:
        yield
    except MMNASError:
        raise
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}") from error


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
