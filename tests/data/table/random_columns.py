"""Columns of random tables: what is written into the cells and files, and what a reader should find."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]

RATE = 8000
"""Of all sounds, in Hz."""
_WORDS = [
    "owl",
    "heron",
    "cuckoo",
    "sings",
    "at",
    "dawn",
    "near",
    "the",
    "café",
    "über",
    "naïve",
    "river",
    "Ωmega",
    "old",
]


@dataclass
class Truth:
    """What a column holds.

    Attributes:
        name: The column.
        kind: The modality's kind; "label" and "id" too.
        cells: As they are written; None: empty.
        values: What a reader should find, one for each row.
    """

    name: str
    kind: str
    cells: list[Any]
    values: list[Any]


def numbers(name: str, folder: Path, rows: int, random: np.random.Generator) -> list[Truth]:
    scale = float(10.0 ** random.integers(-6, 9))
    offset = float(random.choice([0.0, 1.0, 1000.0])) * scale
    style = str(random.choice(["plain", "exponent", "fixed"]))
    texts = []
    for value in offset + scale * random.normal(size=rows):
        texts.append(
            f"{value:.6e}" if style == "exponent" else f"{value:.8f}" if style == "fixed" else repr(float(value))
        )
    return [Truth(name, "number", texts, [float(text) for text in texts])]


def texts(name: str, folder: Path, rows: int, random: np.random.Generator) -> list[Truth]:
    cells, values = [], []
    for _ in range(rows):
        words = list(random.choice(_WORDS, size=int(random.integers(4, 12))))
        cells.append(" ".join(words).replace(" at ", "\nat ", int(random.random() < 0.1)))
        values.append([_plain(word) for word in words])
    return [Truth(name, "text", cells, values)]


def _plain(word: str) -> str:
    parts = unicodedata.normalize("NFD", word.lower())
    return "".join(character for character in parts if unicodedata.category(character) != "Mn")


def pictures(name: str, folder: Path, rows: int, random: np.random.Generator) -> list[Truth]:
    kind = str(random.choice(["rgb", "grey", "rgba", "deep", "jpeg", "palette"]))
    cells, values = [], []
    (folder / "pictures").mkdir()
    suffix = ".jpg" if kind == "jpeg" else str(random.choice([".png", ".PNG", ".bmp"] if kind == "rgb" else [".png"]))
    for i in range(rows):
        path = folder / "pictures" / f"p {i}{suffix}"
        if kind == "deep":
            array = random.integers(0, 4096, (64, 64)).astype(np.uint16)
            Image.fromarray(array).save(path)
            value: Array = array[..., None].astype(np.float64)
        else:
            array = random.integers(0, 256, (64, 64, 4), dtype=np.uint8)
            mode = {"rgb": "RGB", "grey": "L", "rgba": "RGBA", "jpeg": "RGB", "palette": "P"}[kind]
            picture = Image.fromarray(array).convert(mode) if mode != "RGBA" else Image.fromarray(array)
            picture.save(path)
            with Image.open(path) as again:
                value = np.asarray(again.convert("RGBA"), np.float64)
            alpha = value[..., 3:] / 255
            value = value[..., :3] * alpha + 255 * (1 - alpha)
        cells.append(f"pictures/{path.name}")
        values.append(value)
    return [Truth(name, "image", cells, values)]


def sounds(name: str, folder: Path, rows: int, random: np.random.Generator) -> list[Truth]:
    soundfile = pytest.importorskip("soundfile")
    suffix, subtype = [("wav", "PCM_16"), ("wav", "FLOAT"), ("wav", "PCM_24"), ("flac", "PCM_16"), ("aiff", "PCM_16")][
        int(random.integers(0, 5))
    ]
    channels = int(random.integers(1, 3))
    (folder / "sounds").mkdir()
    cells, values = [], []
    for i in range(rows):
        signal = random.uniform(-0.9, 0.9, (int(random.integers(2000, 6000)), channels))
        path = folder / "sounds" / f"{i}.{suffix}"
        soundfile.write(path, signal, RATE, subtype=subtype)
        cells.append(f"sounds/{path.name}")
        values.append(soundfile.read(path, always_2d=True)[0].mean(1))
    return [Truth(name, "audio", cells, values)]


def vectors(name: str, folder: Path, rows: int, random: np.random.Generator) -> list[Truth]:
    (folder / "vectors").mkdir()
    kind = random.choice(["<f4", "<f8", "<i4", ">f4"])
    cells, values = [], []
    for i in range(rows):
        array = (random.normal(size=12) * 1000).astype(kind)
        np.save(folder / "vectors" / f"{i}.npy", array)
        cells.append(f"./vectors/{i}.npy")
        values.append(array.astype(np.float64))
    return [Truth(name, "vector", cells, values)]


def motions(name: str, folder: Path, rows: int, random: np.random.Generator) -> list[Truth]:
    (folder / "motions").mkdir()
    cells, values = [], []
    for i in range(rows):
        array = random.normal(5, 2, size=(100, 6)).astype(np.float32)
        np.save(folder / "motions" / f"{i}.npy", array)
        cells.append(f"motions/{i}.npy")
        values.append(array.T.astype(np.float64))
    return [Truth(name, "motion", cells, values)]


def lists(name: str, folder: Path, rows: int, random: np.random.Generator) -> list[Truth]:
    """Lists of numbers in the cells, or texts that spell them."""
    style = str(random.choice(["list", "json", "numpy", "bare"]))
    cells: list[Any] = []
    values = []
    for _ in range(rows):
        vector = [float(f"{number:.5g}") for number in random.normal(size=7) * 100]
        spelt = [repr(number) for number in vector]
        written = {"json": f"[{', '.join(spelt)}]", "numpy": f"[{' '.join(spelt)}]", "bare": " ".join(spelt)}
        cells.append(vector if style == "list" else written[style])
        values.append(np.array(vector))
    return [Truth(name, "list", cells, values)]
