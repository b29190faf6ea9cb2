"""A few made-up films in the layouts of MM-IMDB."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_mmnas.data.mmimdb.data_module import GENRES

WORDS = {
    "Drama": "tears family loss letter",
    "Comedy": "laugh party joke wedding",
    "Western": "sheriff horse duel gold",
}


def make_mmimdb(root: Path, sizes: tuple[int, int, int] = (24, 8, 8), mirror: bool = False) -> Path:
    """Writes the raw release; a film's colours and words follow its genres."""
    generator = np.random.default_rng(0)
    labels, images = (root / "labels", root / "images") if mirror else (root / "dataset",) * 2
    labels.mkdir(parents=True)
    images.mkdir(exist_ok=True)
    split: dict[str, list[str]] = {}
    number = 0
    for name, size in zip(("train", "dev", "test"), sizes, strict=True):
        split[name] = []
        for _ in range(size):
            imdb_id = f"{number:07d}"
            film, poster = _film(generator, number)
            (labels / f"{imdb_id}.json").write_text(json.dumps(film))
            (images / f"{imdb_id}.jpeg").write_bytes(poster)
            split[name].append(imdb_id)
            number += 1
    (root / "split.json").write_text(json.dumps(split))
    return root


def make_mmimdb_hdf5(root: Path, sizes: tuple[int, int, int] = (24, 8, 8), fuel: bool = False) -> Path:
    """Writes `multimodal_imdb.hdf5`, with Fuel's attribute `split` or with `split.json` beside it."""
    import h5py

    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    n = sum(sizes)
    genres = np.stack([[int(genre in _genres(i)) for genre in GENRES] for i in range(n)]).astype(np.int32)
    with h5py.File(root / "multimodal_imdb.hdf5", "w") as file:
        file["images"] = generator.integers(0, 256, (n, 3, 32, 20)).astype(np.int32)
        file["features"] = generator.normal(size=(n, 300)).astype(np.float32)
        file["genres"] = genres
        file["genres"].attrs["target_names"] = json.dumps(GENRES)
        file["imdb_ids"] = np.array([f"{i:07d}".encode() for i in range(n)], dtype="S7")
        bounds = np.cumsum([0, *sizes])
        if fuel:
            rows = [
                (name.encode(), source.encode(), bounds[k], bounds[k + 1])
                for k, name in enumerate(("train", "dev", "test"))
                for source in ("images", "features")
            ]
            kinds = [("split", "S5"), ("source", "S8"), ("start", np.int64), ("stop", np.int64)]
            file.attrs["split"] = np.array(rows, dtype=kinds)
    if not fuel:
        split = {
            name: [f"{i:07d}" for i in range(bounds[k], bounds[k + 1])]
            for k, name in enumerate(("train", "dev", "test"))
        }
        (root / "split.json").write_text(json.dumps(split))
    return root


def make_both(root: Path) -> None:
    """Writes the raw release and the HDF5 file of as many films; enough of them for a label budget of 2 per genre."""
    sizes = (48, 8, 8)
    make_mmimdb(root, sizes)
    make_mmimdb_hdf5(root, sizes)


def _genres(number: int) -> list[str]:
    names = list(WORDS)
    return [names[number % 3]] + ([names[(number + 1) % 3]] if number % 4 == 0 else [])


def _film(generator: np.random.Generator, number: int) -> tuple[dict[str, Any], bytes]:
    genres = _genres(number)
    words = " ".join(WORDS[genre] for genre in genres).split()
    plot = " ".join(generator.choice([*words, "the", "a", "of", "one"], 20))
    pixels = generator.integers(0, 80, (30, 20, 3))
    pixels[..., number % 3] += 120
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG")
    return {"title": f"Film {number}", "genres": genres, "plot": ["Short.", plot], "year": 1999}, stream.getvalue()
