"""MM-IMDB: posters and plots of films, and their genres."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split, Task
from lightning_mmnas.data.columns.column import (
    Column,
    ColumnSamples,
    KeptColumn,
    OnError,
    SelectedColumn,
    TensorColumn,
    usable_rows,
)
from lightning_mmnas.data.columns.images import image_column
from lightning_mmnas.data.columns.texts import TextColumn, TextTokenizer
from lightning_mmnas.data.columns.video import PresenceColumn
from lightning_mmnas.data.mmimdb.files import Film, HDF5File, HDF5Posters, PlotChoice, films, read_split
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, DatasetNotFoundError

GENRES = (
    "Drama",
    "Comedy",
    "Romance",
    "Thriller",
    "Crime",
    "Action",
    "Adventure",
    "Horror",
    "Documentary",
    "Mystery",
    "Sci-Fi",
    "Fantasy",
    "Family",
    "Biography",
    "War",
    "History",
    "Music",
    "Animation",
    "Musical",
    "Western",
    "Sport",
    "Short",
    "Film-Noir",
)
"""The 23 genres in the order of the HDF5 file."""

_HDF5 = "multimodal_imdb.hdf5"
_VECTOR = 300
"""Size of the published text vectors, means of word2vec."""


class MMIMDBDataModule(MultimodalDataModule):
    """MM-IMDB, 25,959 films on their official sides: 15,552 for training, 2,608 for validation, 7,799 for test.

    A sample has "image", the poster, uint8 of shape (3, *image_size), and "text", the plot: token ids of shape
    (text_length,), or with ``text="vectors"`` the 300-d mean word2vec of the HDF5 file. Labels are multi-label, 0 and
    1 for each genre; genres that are not asked for are ignored.

    `root` holds the raw release (`split.json`, and `dataset/` with `{id}.json` and `{id}.jpeg`; some mirrors have
    `labels/{id}.json` and `images/{id}.jpeg`), or `multimodal_imdb.hdf5`. Of several plots of a film the longest is
    taken.

    Source: J. Arevalo et al., "Gated Multimodal Units for Information Fusion", ICLR workshop 2017, arXiv:1702.01992.
    Licence: for research; posters and plots remain the property of their owners.

    Args:
        root: The folder.
        source: "raw" or "hdf5"; None: raw where `split.json` and its folder lie in `root`.
        image_size: (h, w) of the posters in pixels; (256, 160) in GMU and BM-NAS.
        bgr: Whether the posters of the HDF5 file are stored as B, G, R.
        text: "tokens" or "vectors" (HDF5 only).
        text_length: Tokens of a plot; longer ones are cut off.
        vocabulary_size: Greatest number of ids of a learnt tokenizer.
        tokenizer: See `TextTokenizer`; None: learnt from the training plots.
        plot: Which of several plots: "longest" or "first".
        genres: Names of the genres; None: MM-IMDB's 23.
        preload: Whether posters are decoded once and kept in memory: 3 h w bytes each.
        check: What is read of every poster when a split is built: "files" (that it is there) or "content" (all of it;
            always so with `preload`). Plots are always read.
        on_error: Films with damaged or missing files: "raise" names them, "skip" leaves them out with a warning.
        modalities: See `MultimodalDataModule`, as for all that follow.
        batch_size: Samples per batch.
        num_workers: Worker processes per loader.
        architecture_fraction: Share of the training data for the architecture step.
        architecture_split: "val": the architecture step reads the validation split.
        labels: Whether samples carry `"label"`, the genres.
        labels_per_class: Label budget; None: all.
        label_seed: Which draw of the label budget.
        seed: Seed of the shuffling and of the architecture split.

    Examples:
        >>> data = MMIMDBDataModule("data/mmimdb")
        >>> data.modalities["image"].shape, data.modalities["text"].shape, data.num_classes
        ((3, 256, 160), (128,), 23)
    """

    def __init__(
        self,
        root: str = "data/mmimdb",
        source: Literal["raw", "hdf5"] | None = None,
        image_size: tuple[int, int] = (256, 160),
        bgr: bool = False,
        text: Literal["tokens", "vectors"] = "tokens",
        text_length: int = 128,
        vocabulary_size: int = 8192,
        tokenizer: str | None = None,
        plot: PlotChoice = "longest",
        genres: Sequence[str] | None = None,
        preload: bool = False,
        check: Literal["files", "content"] = "files",
        on_error: OnError = "raise",
        modalities: Sequence[str] | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        architecture_fraction: float | None = None,
        architecture_split: Literal["val"] | None = None,
        labels: bool = True,
        labels_per_class: int | None = None,
        label_seed: int = 0,
        seed: int = 0,
    ) -> None:
        if min(image_size) < 1 or text_length < 1:
            raise ConfigError(
                f"image_size and text_length must be positive, got {tuple(image_size)} and {text_length}; "
                "check data.init_args"
            )
        self._genres = list(GENRES if genres is None else genres)
        if not self._genres or len(set(self._genres)) < len(self._genres):
            raise ConfigError(f"genres must be different names, got {self._genres}; check data.init_args.genres")
        if source == "raw" and text == "vectors":
            raise ConfigError("text='vectors' needs source='hdf5'; check data.init_args.text")
        self.root = Path(root)
        self._source = "hdf5" if text == "vectors" else source
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.bgr = bgr
        self.text = text
        self.text_length = text_length
        self.tokenizer = TextTokenizer(tokenizer, vocabulary_size)
        self.plot_choice: PlotChoice = plot
        self.preload = preload
        self.check = check
        self.on_error: OnError = on_error
        super().__init__(
            modalities=modalities,
            batch_size=batch_size,
            num_workers=num_workers,
            architecture_fraction=architecture_fraction,
            architecture_split=architecture_split,
            labels=labels,
            labels_per_class=labels_per_class,
            label_seed=label_seed,
            seed=seed,
        )

    @property
    def available_modalities(self) -> dict[str, ModalitySpec]:
        """Image (3, h, w), and text: ids (t,) or vectors (300,)."""
        text = (
            ModalitySpec("features", (_VECTOR,))
            if self.text == "vectors"
            else ModalitySpec("text", (self.text_length,), torch.long, self.tokenizer.vocabulary)
        )
        return {"image": ModalitySpec("image", (3, *self.image_size), torch.uint8), "text": text}

    @property
    def class_names(self) -> list[str]:
        """The genres."""
        return list(self._genres)

    @property
    def task(self) -> Task:
        """A film has several genres."""
        return "multilabel"

    def words(self, modality: str, ids: Tensor) -> str | None:
        """Returns the words of a plot."""
        return self.tokenizer.decode(ids)

    def _samples(self, split: Split) -> ColumnSamples:
        if self._source is None:
            self._source = "raw" if (self.root / "split.json").is_file() and self._folders() is not None else "hdf5"
        return self._raw(split) if self._source == "raw" else self._hdf5(split)

    def _raw(self, split: Split) -> ColumnSamples:
        folders = self._folders()
        split_file = self.root / "split.json"
        if folders is None or not split_file.is_file():
            raise self._not_found()
        label_folder, image_folder = folders
        ids = read_split(split_file)
        if "text" in self.modalities:
            # Without the training plots no word has an id.
            self.tokenizer.fit(lambda: [film.plot for film in self._films(label_folder, ids["train"])])
        read = films(label_folder, ids[split], self.plot_choice)
        files = image_column([image_folder / f"{imdb_id}.jpeg" for imdb_id in ids[split]], self.image_size)
        posters: Column = KeptColumn(files) if self.preload else files
        checked: dict[str, Column] = {"film": _FilmColumn(read)}
        if "image" in self.modalities:
            checked["image"] = posters if self.check == "content" or self.preload else PresenceColumn(files)
        rows: list[int] = usable_rows(checked, self.on_error, split).tolist()
        kept = [film for film in (read[row] for row in rows) if isinstance(film, Film)]
        columns: dict[str, Column] = {}
        for name in self.modalities:
            if name == "image":
                columns[name] = SelectedColumn(posters, rows)
            else:
                plots, sources = [film.plot for film in kept], [str(film.source) for film in kept]
                columns[name] = TextColumn(plots, self.tokenizer, self.text_length, str(label_folder), sources)
        labels = torch.tensor([[int(genre in film.genres) for genre in self._genres] for film in kept])
        return ColumnSamples(columns, labels.view(len(kept), len(self._genres)))

    def _films(self, folder: Path, ids: Sequence[str]) -> list[Film]:
        return [film for film in films(folder, ids, self.plot_choice) if isinstance(film, Film)]

    def _hdf5(self, split: Split) -> ColumnSamples:
        path = self.root / _HDF5
        if not path.is_file():
            raise self._not_found()
        if self.text == "tokens" and "text" in self.modalities:
            raise ConfigError(
                f"{path} holds no raw plots: set data.init_args.text=vectors, or put the raw release into {self.root}"
            )
        file = HDF5File(path)
        rows = file.rows(split, self.root / "split.json")
        stored = HDF5Posters(file, rows, self.image_size, self.bgr)
        posters: Column = KeptColumn(stored) if self.preload else stored
        checked: dict[str, Column] = {}
        if "image" in self.modalities and (self.check == "content" or self.preload):
            checked["image"] = posters
        if "text" in self.modalities:
            vectors = file.vectors(rows)
            if vectors.shape[1] != _VECTOR:
                raise DataError(f"{path}: its text vectors are of size {vectors.shape[1]}, not {_VECTOR}")
            checked["text"] = TensorColumn(vectors, f"{path}, features")
        good = usable_rows(checked, self.on_error, split).tolist() if checked else list(range(len(rows)))
        columns: dict[str, Column] = {}
        for name in self.modalities:
            if name == "image":
                columns[name] = SelectedColumn(posters, good)
            else:
                columns[name] = TensorColumn(vectors[good], f"{path}, features")
        return ColumnSamples(columns, self._of_hdf5(file, [rows[i] for i in good]))

    def _of_hdf5(self, file: HDF5File, rows: Sequence[int]) -> Tensor:
        """Labels in the order of our genres."""
        names = file.genre_names() or list(GENRES)
        stored = file.genres(rows)
        if unknown := [genre for genre in self._genres if genre not in names[: stored.shape[1]]]:
            raise DataError(f"{file.path} has no genres {unknown}, but {names}; check data.init_args.genres")
        return stored[:, [names.index(genre) for genre in self._genres]]

    def _folders(self) -> tuple[Path, Path] | None:
        """Folders of the JSON files and of the posters."""
        for labels, images in (("dataset", "dataset"), ("labels", "images")):
            if (self.root / labels).is_dir() and (self.root / images).is_dir():
                return self.root / labels, self.root / images
        return None

    def _not_found(self) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"{self.root} holds neither split.json with dataset/{{id}}.json and dataset/{{id}}.jpeg, nor {_HDF5}. "
            "Download mmimdb.tar.gz (raw release) or multimodal_imdb.hdf5 from the page of its authors, "
            "http://lisi1.unal.edu.co/mmimdb/ (Arevalo et al. 2017; for research, posters and plots remain the "
            f"property of their owners), unpack it into {self.root}, or set data.init_args.root"
        )


class _FilmColumn(Column):
    """The films of a split, where only their damage matters."""

    def __init__(self, films: Sequence[Film | DamagedFilesError]) -> None:
        self.films = films

    def __len__(self) -> int:
        return len(self.films)

    def read(self, index: int) -> Tensor:
        film = self.films[index]
        if isinstance(film, DamagedFilesError):
            raise film
        return torch.empty(0)

    def source(self, index: int) -> str:
        film = self.films[index]
        return film.files[0][0] if isinstance(film, DamagedFilesError) else str(film.source)

    def fingerprint(self, index: int) -> str:
        return self.source(index)
