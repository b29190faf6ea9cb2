"""What a delivered model may be given: classes beside samples, rows, loaders; and the type of its weights."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset, default_collate

import lightning_mmnas
from lightning_mmnas import DeliveredModel
from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.delivery.transforms import Statistics, Transforms
from lightning_mmnas.errors import DataError, ModelError
from tests.delivery.tiny import sample


def test_whatever_is_evaluated_may_have_its_classes(delivered: Any, model: DeliveredModel) -> None:
    pd = pytest.importorskip("pandas")
    table = delivered[3]
    frame = pd.read_csv(table)
    frame["photo"], frame["song"] = (str(table.parent) + "/" + frame[name] for name in ("photo", "song"))
    wanted = model.evaluate(table)
    samples = [{**sample(table, i), "label": frame["label"][i]} for i in range(len(frame))]
    together = {name: [one[name] for one in samples] for name in samples[0]}
    renamed = {("truth" if name == "label" else name): value for name, value in together.items()}
    for data, label in (
        (frame, None),
        (frame.to_dict("records"), None),
        (frame.to_dict("list"), None),
        (samples, None),
        (together, None),
        (renamed, "truth"),
        ([{name: value[i] for name, value in renamed.items()} for i in range(len(frame))], "truth"),
    ):
        assert model.evaluate(data, label=label) == wanted
    for row in (frame.iloc[1], frame.to_dict("records")[1], samples[1]):
        assert model.evaluate(row)["samples"] == 1
        assert model.predict(row) == model.predict(samples[1])
    assert model.evaluate([{**samples[0], "label": None}, *samples[1:3]])["skipped"] == 1
    with pytest.raises(DataError, match="'label' is not of 45 samples"):
        model.evaluate({**together, "label": ["heron"]})
    with pytest.raises(DataError, match=r"several columns have the names \['id', "):
        model.predict(pd.concat([frame, frame], axis=1))
    swapped = {**together, "numbers": frame[["wing", "mass"]]}
    assert torch.equal(model.predict_proba(swapped), model.predict_proba(together))


def test_dicts_of_columns_hold_arrays_and_tensors(delivered: Any, model: DeliveredModel) -> None:
    table = delivered[3]
    rows = [sample(table, i) for i in range(5)]
    wanted = model.predict_proba(rows)
    songs, notes = [row["song"] for row in rows], [row["note"] for row in rows]
    pictures = []
    for row in rows:
        with Image.open(row["photo"]) as opened:
            pictures.append(np.asarray(opened.convert("RGB").resize((8, 8))))
    photos = model.predict_proba([{**row, "photo": picture} for row, picture in zip(rows, pictures, strict=True)])
    for kind in (np.array, torch.tensor, tuple, list):
        numbers = {"mass": kind([row["numbers"][0] for row in rows]), "wing": kind([row["numbers"][1] for row in rows])}
        given = {"photo": [row["photo"] for row in rows], "song": songs, "note": notes, **numbers}
        torch.testing.assert_close(model.predict_proba(given), wanted)
        torch.testing.assert_close(model.predict_proba({**given, "photo": np.stack(pictures)}), photos)
    for scalar in (float, torch.tensor, np.array):
        mass, wing = map(scalar, rows[0]["numbers"])
        one = {"photo": pictures[0], "song": songs[0], "note": notes[0], "mass": mass, "wing": wing}
        torch.testing.assert_close(model.predict_proba(one), photos[0])
    opaque = np.concatenate([pictures[0], np.full((8, 8, 1), 255, np.uint8)], axis=2)
    torch.testing.assert_close(model.predict_proba({**rows[0], "photo": opaque}), photos[0])


def test_labels_of_a_loader_are_checked(delivered: Any, model: DeliveredModel) -> None:
    one = model.transforms(sample(delivered[3], 0))
    for label, message in (
        (3, "whole numbers from 0 to 2, or -1, but has 3"),
        (1.0, "whole numbers from 0 to 2, or -1, but has 1.0"),
        ("heron", "'label' must hold numbers, not str"),
        (torch.eye(3)[0], r"has the shape \(2, 3\) instead of \(2,\)"),
    ):
        with pytest.raises(DataError, match=message):
            model.evaluate(DataLoader([{**one, "label": label}] * 2, batch_size=2))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"a batch is a list, not a dict with the modalities \['photo'"):
        model.predict(DataLoader(TensorDataset(torch.zeros(2, 3))))
    with pytest.raises(DataError, match="split 'all' is not in"):
        model.data("all")  # type: ignore[arg-type]


def test_pixels_of_a_loader_are_checked(delivered: Any, model: DeliveredModel) -> None:
    one = model.transforms(sample(delivered[3], 0))
    grey = one["photo"].float()
    for photo, message in (
        (grey, "modality 'photo' of a batch holds pixels from .*; pixels are uint8"),
        ((grey / 255 - 0.5) / 0.1, "leave standardising to the encoder"),
        (grey.int(), "holds pixels of type torch.int32"),
    ):
        with pytest.raises(DataError, match=message):
            model.predict(DataLoader([{**one, "photo": photo}] * 2, batch_size=2))  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match=r"modality 'numbers' of the batch is torch.int64, and the kind 'features' has am"
    ):
        model.predict(DataLoader([{**one, "numbers": one["numbers"].long()}] * 2, batch_size=2))  # type: ignore[arg-type]
    plain, floats = (
        model.predict_proba(DataLoader([{**one, "photo": photo}] * 2, batch_size=2))  # type: ignore[arg-type]
        for photo in (one["photo"], grey / 255)
    )
    torch.testing.assert_close(plain, floats)


def test_what_is_given_to_the_wrong_place_is_told(delivered: Any, model: DeliveredModel) -> None:
    samples = [sample(delivered[3], i) for i in range(2)]
    for given in (samples, None):
        with pytest.raises(DataError, match="transforms take one sample, a dict of values by modality"):
            model.transforms(given)  # type: ignore[arg-type]
    batch = default_collate([model.transforms(one) for one in samples])
    with pytest.raises(DataError, match=r"'song' is not in the batch, which has \['photo', 'note', 'numbers'\]"):
        model({name: value for name, value in batch.items() if name != "song"})
    with pytest.raises(DataError, match=r"'photo' of the batch is PosixPath, not a tensor .*; a delivered model's"):
        model(samples[0])
    specs = {name: ModalitySpec("features", (2,)) for name in ("v", "w")}
    raw, fill = torch.tensor([12.0, 130.0]), torch.zeros(2)
    plain = Transforms(specs, {}, {}, dict.fromkeys(specs, Statistics(fill=fill)))
    assert plain({"v": raw})["w"].tolist() == [0, 0]
    for value in (raw, fill):  # what was given, and what stands for a missing value, are as they were
        assert plain.is_single("v", value)
    one, several = model.transforms(samples[0]), [model.transforms(sample) for sample in samples]
    for prepared in (one, several):  # they would be standardised twice
        with pytest.raises(DataError, match=r"is what transforms made of a sample, not raw values"):
            model.predict(prepared)
    with pytest.raises(DataError, match="there are no samples in the list"):
        model.predict([])
    with pytest.raises(DataError, match="a list of samples holds dicts; number 1, counted from 0, is NoneType"):
        model.predict([samples[0], None])


def test_a_model_is_found_by_its_files(delivered: Any, model: DeliveredModel) -> None:
    folder = delivered[2] / "model"
    for name in ("model.json", "model.safetensors"):
        assert lightning_mmnas.load(folder / name).card == model.card
    with pytest.raises(ModelError, match=r"table.csv is a file; give the folder of the run"):
        lightning_mmnas.load(delivered[3])


def test_a_metric_may_be_undefined(delivered: Any, tmp_path: Path) -> None:
    lightning_mmnas.save(delivered[0], delivered[1], tmp_path / "model", metrics={"test/r2": math.nan, "test/mae": 1.0})
    assert lightning_mmnas.load(tmp_path).card.metrics == {"test/r2": None, "test/mae": 1.0}


def test_saving_replaces_models_only(delivered: Any, tmp_path: Path) -> None:
    module, data = delivered[:2]
    (tmp_path / "thesis.tex").write_text("years of work")
    for folder in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(ModelError, match="is no model that could be replaced; give a folder of its own"):
            lightning_mmnas.save(module, data, folder)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        lightning_mmnas.save(module, data, tmp_path / "empty")
    assert lightning_mmnas.load(tmp_path / "empty").class_names == list(data.class_names)
    wrong: list[tuple[Any, Any]] = [(data, module), (module, None)]
    for given in wrong:
        with pytest.raises(ModelError, match="save takes a trained FineTuning or FusionPretraining and its data"):
            lightning_mmnas.save(*given, tmp_path / "x")


def test_a_table_in_the_home_folder(delivered: Any, model: DeliveredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    table = delivered[3]
    monkeypatch.setenv("HOME", str(table.parent))
    assert model.predict(f"~/{table.name}") == model.predict(table)


def test_modes_of_parts_are_kept(delivered: Any, model: DeliveredModel) -> None:
    other = copy.deepcopy(model).train()
    other.network.eval()
    modes = [module.training for module in other.modules()]
    assert other.predict(sample(delivered[3], 0)) == model.predict(sample(delivered[3], 0))
    assert [module.training for module in other.modules()] == modes


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_in_another_precision(dtype: torch.dtype, delivered: Any, model: DeliveredModel) -> None:
    other = copy.deepcopy(model).to(dtype)
    torch.testing.assert_close(other.predict_proba(delivered[3]), model.predict_proba(delivered[3]), atol=0.02, rtol=0)
    assert other.embed(delivered[3]).dtype == dtype
    assert other.evaluate(delivered[3])["samples"] == 45
