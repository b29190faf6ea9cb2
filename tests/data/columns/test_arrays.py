"""Rows of `.npy` files: values, pickling without the map, damage by name."""

import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_mmnas.commands.init.media import media_of
from lightning_mmnas.data.columns.arrays import ArrayColumn, array_in, is_array, open_array
from lightning_mmnas.data.table.columns import ColumnSpec, read_cell
from lightning_mmnas.data.table.embedded import Content
from lightning_mmnas.errors import DamagedFilesError


def test_rows_are_read_scaled_and_reshaped(tmp_path: Path) -> None:
    path, values = tmp_path / "a.npy", np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.save(path, values)
    column = ArrayColumn(path, [3, 1], (1, 2, 3), 1 / 2)
    assert len(column) == 2
    assert column.read(0).dtype == torch.float32
    assert column.read(0).tolist() == [[[9.0, 9.5, 10.0], [10.5, 11.0, 11.5]]]
    assert column.source(1) == f"{path}, row 1"
    before = column.fingerprint(0)
    np.save(path, np.zeros((5, 6), np.uint8))
    assert column.fingerprint(0) != before


def test_a_pickled_column_holds_no_values(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((1000, 8), np.float32))
    content = pickle.dumps(ArrayColumn(path, range(4), (8,)))
    assert len(content) < 1000
    assert pickle.loads(content).read(3).tolist() == [1.0] * 8


def test_arrays_by_their_content_or_their_suffix(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "two.npz", np.ones(3), np.ones(4))
    for name in ("one.npy", "two.npz"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / "bare").write_bytes(content)
        assert is_array(tmp_path / name)
        assert is_array(tmp_path / "bare")
        assert is_array(content)
        assert media_of(tmp_path / "bare") == media_of(content) == "array"
    picture = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    np.savez(tmp_path / "picture.npz", picture)
    bare = (tmp_path / "picture.npz").rename(tmp_path / "picture")
    spec = ColumnSpec("image", ["a"], size=(8, 8), channels=1)
    for media in (bare, Content(bare.read_bytes())):
        assert read_cell(media, spec)[0].tolist() == picture.tolist()
    with zipfile.ZipFile(tmp_path / "book", "w") as archive:
        archive.writestr("words.xml", "no array")
    for no_array in (tmp_path / "book", tmp_path, b"PK\3\4 cut off", b"", b"plain"):
        assert not is_array(no_array)
    assert media_of(tmp_path / "book") is None
    (tmp_path / "words").write_bytes("A text".encode("utf-16"))
    assert media_of(tmp_path / "words") is None
    with pytest.raises(DamagedFilesError, match="gone: there is no such file"):
        is_array(tmp_path / "gone")


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(DamagedFilesError, match=r"a\.npy: there is no such file"):
        open_array(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DamagedFilesError, match=r"a\.npy: it holds Python objects"):
        open_array(path)
    np.save(path, np.array(["x"]))
    with pytest.raises(DamagedFilesError, match=r"a\.npy: it holds no numbers but <U1"):
        open_array(path)
    np.save(path, np.zeros((3, 5)))
    with pytest.raises(DamagedFilesError, match=r"a\.npy: rows of shape \(5,\) instead of \(2, 3\)"):
        ArrayColumn(path, [0], (2, 3))
    np.save(path, np.array([[0.0, np.nan], [1.0, np.inf], [2.0, 3.0]]))
    column = ArrayColumn(path, [2, 0, 1], (2,))
    assert column.read(0).tolist() == [2, 3]
    for index, row in ((1, 0), (2, 1)):
        with pytest.raises(DamagedFilesError, match=rf"a\.npy, row {row}: it holds NaN"):
            column.read(index)


def test_archives_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    accelerometer, gyroscope = np.arange(6.0).reshape(3, 2), np.ones((3, 2))
    np.savez_compressed(path, accelerometer)
    assert np.array_equal(open_array(path), accelerometer)
    np.savez(path, accelerometer=accelerometer, gyroscope=gyroscope)
    assert np.array_equal(open_array(path, "gyroscope"), gyroscope)
    assert np.array_equal(array_in(path.read_bytes(), "accelerometer"), accelerometer)
    with pytest.raises(DamagedFilesError, match=r"a\.npz: it holds the arrays .*'gyroscope'.*; set key to one of them"):
        open_array(path)
    with pytest.raises(DamagedFilesError, match=r"an array: it holds the arrays .*none is the key 'x'"):
        array_in(path.read_bytes(), "x")
    np.savez(path, np.array([{"a": 1}], dtype=object))
    with pytest.raises(DamagedFilesError, match=r"a\.npz: it holds Python objects, which are not read"):
        open_array(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DamagedFilesError, match=r"a\.npz: "):
        open_array(path)


def test_random_damage_is_reported_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32))
    content, draw, reported = path.read_bytes(), random.Random(0), 0
    for _ in range(100):
        damaged = bytearray(content)
        if draw.random() < 0.4:
            del damaged[draw.randrange(len(damaged)) :]
        else:
            for _ in range(draw.randrange(1, 20)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            values = ArrayColumn(path, [4], (6,)).read(0)
        except DamagedFilesError as error:
            reported += str(path) in str(error)
        else:
            assert values.shape == (6,)
            assert torch.isfinite(values).all()
            reported += 1000
    assert reported % 1000 > 20
    assert reported % 1000 + reported // 1000 == 100
