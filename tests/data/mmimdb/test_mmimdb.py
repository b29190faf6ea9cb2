"""MM-IMDB in its published forms, and what is said of damaged ones."""

import json
import random
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import pytest
import torch

from lightning_mmnas.data.mmimdb.data_module import GENRES, MMIMDBDataModule
from lightning_mmnas.data.mmimdb.files import read_film, read_split
from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, DatasetNotFoundError
from tests.data.mmimdb.make_mmimdb import make_mmimdb, make_mmimdb_hdf5

LAYOUT = Path(__file__).parents[4] / "shared" / "data" / "official_layouts" / "mmimdb"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_mmimdb(tmp_path / "mmimdb")


def test_answers_before_setup() -> None:
    data = MMIMDBDataModule("nowhere")
    assert data.num_classes == 23
    assert data.class_names == list(GENRES)
    assert data.task == "multilabel"
    assert data.modalities["image"] == ModalitySpec("image", (3, 256, 160), torch.uint8)
    assert data.modalities["text"].shape == (128,)
    assert MMIMDBDataModule("nowhere", text="vectors").modalities["text"] == ModalitySpec("features", (300,))


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("mirror", [False, True])
def test_raw_release(tmp_path: Path, mirror: bool, preload: bool) -> None:
    root = make_mmimdb(tmp_path / "mmimdb", mirror=mirror)
    data = MMIMDBDataModule(str(root), image_size=(24, 16), text_length=12, vocabulary_size=64, preload=preload)
    data.setup("fit")
    train = data.tensors("train")
    assert train["image"].shape == (24, 3, 24, 16)
    assert train["image"].dtype == torch.uint8
    strongest = train["image"].float().mean((2, 3)).argmax(1)
    assert torch.equal(strongest, torch.arange(24) % 3)
    film = json.loads((root / ("labels" if mirror else "dataset") / "0000005.json").read_text())
    assert data.words("text", train["text"][5]) == " ".join(film["plot"][1].split()[:12])  # the longest plot
    assert train["label"].shape == (24, 23)
    assert train["label"][4].nonzero().flatten().tolist() == [GENRES.index("Comedy"), GENRES.index("Western")]
    assert data.label_counts("train")["Drama"] == 10


def test_validation_ids_are_those_of_the_training_words(raw: Path) -> None:
    first, second = (MMIMDBDataModule(str(raw), text_length=12) for _ in range(2))
    first.setup("fit")
    second.setup("validate")  # never reads the training split itself
    assert torch.equal(first.tensors("val")["text"], second.tensors("val")["text"])


def test_fewer_genres_and_one_modality(raw: Path) -> None:
    data = MMIMDBDataModule(str(raw), genres=["Western", "Opera"], modalities=["text"], text_length=5)
    data.setup("test")
    batch = data.tensors("test")
    assert set(batch) == {"text", "label"}
    assert batch["label"][:, 1].sum() == 0
    assert batch["label"][:, 0].sum() > 0


@pytest.mark.parametrize("fuel", [False, True])
def test_hdf5(tmp_path: Path, fuel: bool) -> None:
    root = make_mmimdb_hdf5(tmp_path / "h5", fuel=fuel)
    genres = ["Western", "Drama"]
    data = MMIMDBDataModule(str(root), text="vectors", image_size=(32, 20), genres=genres, num_workers=1, batch_size=4)
    data.setup("fit")
    data.setup("test")
    assert [len(data.source(split)) for split in ("train", "val", "test")] == [24, 8, 8]
    with h5py.File(root / "multimodal_imdb.hdf5") as file:
        val = data.tensors("val")
        assert torch.equal(val["image"], torch.from_numpy(file["images"][24:32]).byte())
        assert torch.equal(val["text"], torch.from_numpy(file["features"][24:32]))
        assert val["label"].tolist() == file["genres"][24:32][:, [GENRES.index("Western"), 0]].tolist()
    batches = list(data.val_dataloader())  # in a worker, which opens the file anew
    assert torch.equal(torch.cat([b["image"] for b in batches]), val["image"])
    flipped = MMIMDBDataModule(str(root), text="vectors", image_size=(32, 20), genres=genres, bgr=True)
    flipped.setup("validate")
    assert torch.equal(flipped.tensors("val")["image"], val["image"].flip(1))
    smaller = MMIMDBDataModule(str(root), text="vectors", image_size=(16, 10), genres=genres, preload=True)
    smaller.setup("validate")
    assert smaller.tensors("val")["image"].shape == (8, 3, 16, 10)


def test_nothing_there_says_what_to_do(tmp_path: Path) -> None:
    sources: list[Literal["raw", "hdf5"] | None] = [None, "raw", "hdf5"]
    for source in sources:
        with pytest.raises(DatasetNotFoundError, match=r"mmimdb\.tar\.gz.*Arevalo et al\. 2017; for research"):
            MMIMDBDataModule(str(tmp_path), source=source).setup("fit")


def test_hdf5_that_cannot_serve(tmp_path: Path) -> None:
    root = make_mmimdb_hdf5(tmp_path / "h5")
    with pytest.raises(ConfigError, match="holds no raw plots"):
        MMIMDBDataModule(str(root), source="hdf5").setup("fit")
    with pytest.raises(DataError, match=r"has no genres \['Opera'\]"):
        MMIMDBDataModule(str(root), text="vectors", genres=["Opera", "Drama"]).setup("fit")
    (root / "split.json").unlink()
    with pytest.raises(DataError, match="does not say which rows are of which split"):
        MMIMDBDataModule(str(root), text="vectors", genres=["Drama", "Western"]).setup("fit")
    path = root / "multimodal_imdb.hdf5"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"multimodal_imdb\.hdf5 cannot be read as HDF5"):
        MMIMDBDataModule(str(root), text="vectors").setup("fit")


def test_damaged_rows_of_the_hdf5(tmp_path: Path) -> None:
    root = make_mmimdb_hdf5(tmp_path / "h5")
    with h5py.File(root / "multimodal_imdb.hdf5", "r+") as file:
        file["features"][2, 7] = np.nan
        file["images"][5, 0, 0, 0] = 300
    arguments = {"text": "vectors", "genres": ["Drama", "Western"], "check": "content"}
    with pytest.raises(DamagedFilesError) as caught:
        MMIMDBDataModule(str(root), **arguments).setup("fit")  # type: ignore[arg-type]
    assert "features, row 2: it holds NaN" in str(caught.value)
    assert "images, row 5: it is no RGB picture" in str(caught.value)
    data = MMIMDBDataModule(str(root), on_error="skip", **arguments)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="2 damaged samples of the train split are left out"):
        data.setup("fit")
    assert len(data.source("train")) == 22


def test_damage_is_named_or_skipped(raw: Path) -> None:
    folder = raw / "dataset"
    (folder / "0000001.json").write_text('{"genres": ["Drama"]}')
    (folder / "0000002.json").write_bytes(b'{"plot": ["caf\xe9"], "genres": []}')
    (folder / "0000003.jpeg").unlink()
    (folder / "0000004.jpeg").write_bytes(b"")
    (folder / "0000005.jpeg").write_bytes((folder / "0000005.jpeg").read_bytes()[:-400])
    with pytest.raises(DamagedFilesError) as caught:
        MMIMDBDataModule(str(raw), check="content").setup("fit")
    message = str(caught.value)
    assert message.startswith("5 damaged or missing file(s)")
    assert "0000001.json: its 'plot' is not a list of texts" in message
    assert "0000002.json: is not JSON in UTF-8" in message
    assert "0000003.jpeg: there is no such file" in message
    assert "0000004.jpeg: it is empty" in message
    assert "0000005.jpeg" in message
    data = MMIMDBDataModule(str(raw), check="content", on_error="skip")
    with pytest.warns(UserWarning, match="5 damaged samples of the train split"):
        data.setup("fit")
    assert len(data.source("train")) == 19


def test_a_plot_that_is_not_unicode(raw: Path) -> None:
    (raw / "dataset" / "0000001.json").write_text('{"plot": ["half a pair \\ud800"], "genres": ["Drama"]}')
    with pytest.raises(DamagedFilesError, match=r"0000001\.json: it holds half a surrogate pair at character 12"):
        MMIMDBDataModule(str(raw)).setup("fit")
    data = MMIMDBDataModule(str(raw), on_error="skip")
    with pytest.warns(UserWarning, match="1 damaged samples of the train split"):
        data.setup("fit")
    assert len(data.source("train")) == 23


def test_two_hundred_damaged_json_files(raw: Path) -> None:
    path = raw / "dataset" / "0000000.json"
    whole = path.read_bytes()
    generator = random.Random(0)
    refused = accepted = 0
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(generator.randrange(1, 5)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(bytes(content[: generator.randrange(len(content) + 1)]))
        try:
            assert isinstance(read_film(path, "longest").plot, str)
        except DamagedFilesError as error:
            refused += str(path) in str(error)
        else:
            accepted += 1
    assert refused > 100
    assert refused + accepted == 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "has no list of ids named 'train'"),
        ('{"train": ["1"], "dev": ["2"]}', "has no list of ids named 'test'"),
        ('{"train": ["1"], "dev": ["2"], "test": ["1"]}', r"names ids more than once: \['1'\]"),
        ('{"train": [1, 2.5], "dev": [], "test": []}', "its list 'train' holds 2.5; ids are texts or whole numbers"),
        ("{", "is not JSON in UTF-8"),
    ],
)
def test_wrong_split_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "split.json")


def test_arguments_that_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="needs source='hdf5'"):
        MMIMDBDataModule(source="raw", text="vectors")
    with pytest.raises(ConfigError, match="genres must be different names"):
        MMIMDBDataModule(genres=["Drama", "Drama"])
    with pytest.raises(ConfigError, match="must be positive"):
        MMIMDBDataModule(image_size=(0, 5))


@pytest.mark.skipif(not LAYOUT.is_dir(), reason=f"no published files in {LAYOUT}")
@pytest.mark.slow
def test_the_published_layout() -> None:
    sizes = {split: len(ids) for split, ids in read_split(LAYOUT / "split.json").items()}
    assert sizes == {"train": 15552, "val": 2608, "test": 7799}
    data = MMIMDBDataModule(str(LAYOUT), on_error="skip", image_size=(64, 40))
    with pytest.warns(UserWarning, match="15522 damaged samples of the train split"):
        data.build("train")
    assert len(data.source("train")) == 30
    assert data.tensors("train")["label"].sum(1).min() > 0


def test_ids_may_be_numbers(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text('{"train": [23, 1234567], "dev": ["0000042"], "test": [7]}')
    assert read_split(tmp_path / "split.json") == {
        "train": ["0000023", "1234567"],
        "val": ["0000042"],
        "test": ["0000007"],
    }
