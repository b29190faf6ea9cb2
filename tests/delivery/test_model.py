"""A delivered model: what it says is what training said, wherever it lies and whatever it is given."""

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import lightning_mmnas
from lightning_mmnas import DeliveredModel, TableDataModule
from lightning_mmnas.errors import DataError, ModelError, RunDirectoryError
from tests.delivery.tiny import NOTES, deliver, sample, write_birds


def picture(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        copied: Image.Image = opened.copy()
    return copied


@pytest.mark.parametrize("mode", ["mixture", "full", "linear_probe"])
def test_it_says_what_the_stage_says(tmp_path: Path, mode: Any) -> None:
    module, data, run = deliver(tmp_path, write_birds(tmp_path / "data", 30), mode=mode)
    batch = data.tensors("test")
    with torch.no_grad():
        torch.testing.assert_close(lightning_mmnas.load(run)(batch), module(batch), rtol=1e-5, atol=1e-5)


def test_a_moved_folder_says_the_same(delivered: Any, model: DeliveredModel, tmp_path: Path) -> None:
    shutil.copytree(delivered[2] / "model", tmp_path / "elsewhere")
    moved = lightning_mmnas.load(tmp_path / "elsewhere")
    assert torch.equal(moved.predict_proba(delivered[3]), model.predict_proba(delivered[3]))
    assert moved.card.labels.samples == len(delivered[1].part("train"))
    assert moved.card.made_by["versions"]["lightning_mmnas"] == lightning_mmnas.__version__


def test_tables_frames_dicts_and_loaders_agree(delivered: Any, model: DeliveredModel, tmp_path: Path) -> None:
    module, data, _, table = delivered
    rows = data.rows["test"]
    wanted = module(data.tensors("test")).softmax(-1).detach()
    torch.testing.assert_close(model.predict_proba(table)[rows], wanted)
    loader = data.plain_loader("test")
    torch.testing.assert_close(model.predict_proba(loader), wanted)
    one = sample(table, rows[0])
    assert model.predict_proba(one).shape == (3,)
    torch.testing.assert_close(model.predict_proba(one), wanted[0])
    assert model.predict(one) == data.class_names[int(wanted[0].argmax())]
    several = [sample(table, row) for row in rows]
    torch.testing.assert_close(model.predict_proba(several), wanted)
    columns = {name: [one[name] for one in several] for name in several[0]}
    torch.testing.assert_close(model.predict_proba(columns), wanted)
    # as arrays: pixels (h, w, 3) or (3, h, w), a waveform at its rate, numbers
    pictures = [picture(one["photo"]) for one in several]
    arrays = [np.asarray(opened) for opened in pictures]
    pixels = torch.from_numpy(np.stack(arrays))
    in_memory = {
        "photo": pixels,
        "song": columns["song"],
        "note": np.array(columns["note"]),
        "numbers": np.array(columns["numbers"]),
    }
    first = model.predict_proba(in_memory)
    torch.testing.assert_close(first, wanted, atol=0.02, rtol=0)  # torch resizes pictures as Pillow nearly does
    assert torch.equal(model.predict_proba({**in_memory, "photo": pixels.movedim(-1, 1)}), first)
    torch.testing.assert_close(model.predict_proba({**in_memory, "photo": pictures}), wanted)
    pd = pytest.importorskip("pandas")
    frame = pd.read_csv(table)
    frame["photo"], frame["song"] = (str(table.parent) + "/" + frame[name] for name in ("photo", "song"))
    assert model.predict(frame) == model.predict(table)


def test_a_folder_of_files_by_modality(delivered: Any, model: DeliveredModel, tmp_path: Path) -> None:
    table = delivered[3]
    for name in ("photo", "song", "note", "numbers"):
        (tmp_path / name).mkdir()
    for i in range(3):
        one = sample(table, i)
        shutil.copy(one["photo"], tmp_path / "photo" / f"{i}.png")
        shutil.copy(one["song"], tmp_path / "song" / f"{i}.wav")
        (tmp_path / "note" / f"{i}.txt").write_text(one["note"])
        np.save(tmp_path / "numbers" / f"{i}.npy", np.array(one["numbers"]))
    torch.testing.assert_close(model.predict_proba(tmp_path), model.predict_proba(table)[:3])
    torch.testing.assert_close(model.predict_proba(table.parent), model.predict_proba(table))


def test_other_sizes_and_rates_are_converted(delivered: Any, model: DeliveredModel) -> None:
    one = sample(delivered[3], 1)
    time = torch.arange(4000) / 16000
    low = 0.3 * torch.sin(2 * math.pi * 1000 * time)
    told, plain = (model.transforms({**one, "song": song})["song"] for song in ((low, 16000), low[::2]))
    assert told.shape == plain.shape
    torch.testing.assert_close(told[..., 50:-50], plain[..., 50:-50], atol=0.001, rtol=0)  # but for the edges
    large = {**one, "photo": picture(one["photo"]).resize((240, 200))}
    seen, known = (model.transforms(given)["photo"].float() for given in (large, one))
    torch.testing.assert_close(seen, known, atol=2, rtol=0)  # of 255
    assert model.predict_proba({**large, "song": (low, 16000)}).shape == (3,)


def test_embeddings_and_features(delivered: Any, model: DeliveredModel) -> None:
    module, data, _, table = delivered
    batch = data.tensors("test")
    rows = data.rows["test"]
    found = model.features(table)
    wanted = module.encoders(batch)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name][rows], value)
    with torch.no_grad():
        torch.testing.assert_close(model.embed(table)[rows], model.network(wanted))
    assert list(model.embed(sample(table, 0)).shape) == [model.network.out_features]
    assert model.genotype is not None


def test_scores(delivered: Any, model: DeliveredModel, tmp_path: Path) -> None:
    _, data, _, table = delivered
    scores = model.evaluate(table)
    wanted = [line.split(",")[6] for line in table.read_text().splitlines()[1:]]
    hits = [a == b for a, b in zip(model.predict(table), wanted, strict=True)]
    assert scores["metrics"]["accuracy"] == pytest.approx(sum(hits) / len(hits))
    assert sum(map(sum, scores["confusion"])) == scores["samples"] == len(hits)
    assert model.evaluate(data.plain_loader("test"))["samples"] == len(data.rows["test"])
    other = tmp_path / "table.csv"
    lines = table.read_text().splitlines()
    for folder in ("photos", "songs"):
        (tmp_path / folder).symlink_to(table.parent / folder)
    other.write_text("\n".join([lines[0], lines[1], lines[2].replace("cuckoo", "")]))
    assert (found := model.evaluate(other))["samples"] == 1
    assert found["skipped"] == 1
    other.write_text("\n".join([lines[0], lines[1].replace("blackbird", "penguin")]))
    with pytest.raises(DataError, match=r"line 2, column 'label': the model does not know the class 'penguin'"):
        model.evaluate(other)
    unlabelled = [line.rpartition(",")[0].rpartition(",")[0] + "," + line.rpartition(",")[2] for line in lines]
    other.write_text("\n".join(unlabelled))
    assert model.predict(other) == model.predict(table)  # rows without labels are welcome
    with pytest.raises(DataError, match="there is no column 'label'"):
        model.evaluate(other)


def test_what_is_missing_is_what_it_was_in_training(delivered: Any, model: DeliveredModel, tmp_path: Path) -> None:
    table = write_birds(tmp_path / "data", holes=True)
    with pytest.raises(DataError, match="line 2: modality 'numbers' is missing, and the model was trained without"):
        model.predict(table)
    skipped = model.predict(table, on_error="skip")
    assert skipped[0] is None
    assert skipped[1] is not None
    assert bool(model.predict_proba(table, on_error="skip")[0].isnan().all())
    module, data, run = deliver(tmp_path, table, missing="mask")
    masked = lightning_mmnas.load(run)
    rows = data.rows["train"]
    wanted = module(data.tensors("train")).softmax(-1).detach()
    torch.testing.assert_close(masked.predict_proba(table)[rows], wanted)
    one = sample(table, 1)
    assert masked.predict({"photo": one["photo"], "note": one["note"]}) in data.class_names
    with pytest.raises(DataError, match="it has none of the modalities"):
        masked.predict({"photo": None})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "none of the modalities"),
        ({"picture": "x.png"}, "'picture' is none of the modalities"),
        ({"photo": "nowhere.png", "song": "x", "note": "y", "numbers": [1, 2]}, "nowhere.png: there is no such file"),
        ({"numbers": [1, "x"]}, "modality 'photo' is missing"),
        ("nothing.csv", "there is no table nothing.csv$"),
        ("pyproject.toml", "the suffix '.toml' is not in"),
        (3, "int cannot be read as samples"),
        ([], "there are no samples in the list"),
    ],
)
def test_wrong_data(model: DeliveredModel, data: Any, message: str) -> None:
    with pytest.raises((DataError, lightning_mmnas.errors.MMNASError), match=message):
        model.predict(data)


def test_wrong_values(delivered: Any, model: DeliveredModel, tmp_path: Path) -> None:
    one = sample(delivered[3], 0)
    for name, value, message in (
        ("numbers", [1.0], r"1 numbers instead of 2 \(mass, wing\)"),
        ("numbers", [1.0, math.inf], "inf is not a usable number"),
        ("numbers", [1.0, math.nan], "modality 'numbers' is missing"),
        ("note", np.array([1.5] * 6), "a text, or ids from 0 to 63"),
        ("photo", torch.full((3, 8, 8), -1.0), "pixels from -1"),
        ("song", torch.zeros(5, dtype=torch.int16), "a waveform is floats"),
        ("song", torch.zeros(0), "it is empty"),
    ):
        with pytest.raises(DataError, match=message):
            model.predict({**one, name: value})
    assert model.predict({**one, "note": 5}) == model.predict({**one, "note": "5"})
    for options in ({"batch_size": 2.5}, {"batch_size": 0}, {"columns": "note=words"}):
        with pytest.raises(DataError, match=f"{next(iter(options))} must be a"):
            model.predict(one, **options)
    unreadable = model.features({**one, "numbers": ["x", 1]}, on_error="skip")
    assert {name: value.shape for name, value in unreadable.items()} == {
        name: value.shape for name, value in model.features(one).items()
    }
    assert all(bool(value.isnan().all()) for value in unreadable.values())
    with pytest.raises(DataError, match=r"have one sample, the others several: \['numbers'\]"):
        model.predict({**one, "numbers": [[1.0, 2.0], [1.0, 2.0]]})
    empty = tmp_path / "empty.csv"
    empty.write_text(delivered[3].read_text().splitlines()[0])
    with pytest.raises(DataError, match="there are no samples"):
        model.predict(empty)
    empty.write_text("photo,song,note,mass\n")
    with pytest.raises(
        DataError, match=r"no column 'wing' for the modality 'numbers'.*--modality numbers=COLUMN,COLUMN"
    ):
        model.predict(empty)


def test_other_names_of_columns(delivered: Any, model: DeliveredModel, tmp_path: Path) -> None:
    table = delivered[3]
    other = table.with_name("renamed.csv")
    lines = table.read_text().splitlines()
    other.write_text("\n".join([lines[0].replace("note", "words").replace("mass", "kg"), *lines[1:]]))
    columns: dict[str, Any] = {"note": "words", "numbers": ["kg", "wing"]}
    assert torch.equal(model.predict_proba(other, columns=columns), model.predict_proba(table))
    with pytest.raises(DataError, match="lies in 2 column"):
        model.predict(other, columns={"numbers": "kg"})


def test_labels_by_thresholds(tmp_path: Path) -> None:
    table = write_birds(tmp_path / "data", 36)
    lines = table.read_text().splitlines()
    several = [lines[0], *(line.replace("heron", "heron|cuckoo") for line in lines[1:])]
    table.write_text("\n".join(several))
    module, data, run = deliver(tmp_path, table, label_separator="|")
    model = lightning_mmnas.load(run)
    assert model.task == "multilabel"
    probabilities = model.predict_proba(table)
    chosen = probabilities > module.get_buffer("thresholds")
    assert model.predict(table) == [
        [name for name, here in zip(data.class_names, row, strict=True) if here] for row in chosen.tolist()
    ]
    scores = model.evaluate(table)
    assert set(scores["per_label"]) == set(data.class_names)
    assert 0 < scores["metrics"]["f1_weighted_tuned"] <= 1


def test_it_trains_on_in_another_module(delivered: Any) -> None:
    _, data, run, _ = delivered
    model = lightning_mmnas.load(run)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    batch = data.tensors("train")
    loss = torch.nn.functional.cross_entropy(model.train()(batch), batch["label"])
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert any(name.startswith("classifier.network.") for name in moved)
    assert any(name.startswith("classifier.classifier.") for name in moved)
    assert not any(name.startswith("classifier.encoders.") for name in moved)
    assert copy.deepcopy(model).training
    model.predict(batch_of(data))
    assert model.training  # predicting leaves the mode alone


def batch_of(data: TableDataModule) -> Any:
    return data.plain_loader("test")


def test_damaged_folders(delivered: Any, tmp_path: Path) -> None:
    def changed(**changes: Any) -> Path:
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(delivered[2] / "model", folder)
        card = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps({**card, "digest": None} | changes))
        return folder

    card = json.loads((delivered[2] / "model" / "model.json").read_text())
    assert len(card["digest"]) == 32
    lightning_mmnas.load(changed(digest=card["digest"]))  # another layout
    lightning_mmnas.load(changed(made_by={}))
    flipped = {**card["labels"], "samples": card["labels"]["samples"] + 1}
    with pytest.raises(ModelError, match=r"model\.json is damaged: it is not what was delivered.*remove its digest"):
        lightning_mmnas.load(changed(labels=flipped, digest=card["digest"]))

    with pytest.raises(ModelError, match="has format 99"):
        lightning_mmnas.load(changed(format=99))
    with pytest.raises(ModelError, match=r"model.json is damaged: task"):
        lightning_mmnas.load(changed(task="x"))
    for name, value in (("task", None), ("task", "regression"), ("class_names", [])):
        with pytest.raises(ModelError, match=r"is damaged: .*do not belong together"):
            lightning_mmnas.load(changed(**{name: value}))
    encoders = json.loads((delivered[2] / "model" / "model.json").read_text())["encoders"]
    own = {**encoders, "photo": {**encoders["photo"], "class_path": "os.system", "arguments": {}}}
    with pytest.raises(ModelError, match=r"needs the class os.system.*allow"):
        lightning_mmnas.load(changed(encoders=own))
    outside = {**encoders, "photo": {**encoders["photo"], "files": {"weights": "../../x"}}}
    with pytest.raises(ModelError, match="lies outside"):
        lightning_mmnas.load(changed(encoders=outside))
    with pytest.raises(ModelError, match="tensors differ"):
        lightning_mmnas.load(changed(class_names=["a", "b"]))
    folder = changed()
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"model.safetensors is damaged"):
        lightning_mmnas.load(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        lightning_mmnas.load(folder)
    with pytest.raises(ModelError, match="there is no run"):
        lightning_mmnas.load(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("{}")
    (folder / "model.json").unlink()
    with pytest.raises(ModelError, match="is not finished; the command of the run, given again"):
        lightning_mmnas.load(tmp_path)


def test_a_failed_delivery_leaves_the_old_model(
    delivered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, data, run, table = delivered
    shutil.copytree(run / "model", tmp_path / "model")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_mmnas.delivery.writing.save_file", full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        lightning_mmnas.save(module, data, tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert lightning_mmnas.load(tmp_path).predict(table)


class OwnEncoder(lightning_mmnas.Encoder):
    """An encoder that is not part of the package."""

    def __init__(self, spec: Any, width: int = 3, scale: Any = None) -> None:
        super().__init__()
        self.width = width
        self.linear = torch.nn.Linear(spec.shape[0], width)

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        return [(self.width,)]

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.linear(x)]


def test_own_encoders_by_class_path(delivered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.delivery import tiny

    monkeypatch.setitem(tiny.ENCODERS, "numbers", lambda spec: OwnEncoder(spec, width=4))
    _, _, run = deliver(tmp_path, delivered[3])
    with pytest.raises(ModelError, match=f"needs the class {__name__}.OwnEncoder.*allow it"):
        lightning_mmnas.load(run)
    for allow in (__name__, f"{__name__}.OwnEncoder"):
        assert len(lightning_mmnas.load(run, allow=[allow]).predict(delivered[3])) == 45
    assert lightning_mmnas.load(run, allow=__name__).allow == (__name__,)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lightning_mmnas.load("~/run", allow=__name__).class_names == delivered[1].class_names
    monkeypatch.setitem(tiny.ENCODERS, "numbers", lambda spec: OwnEncoder(spec, width=4, scale=lambda x: x))
    with pytest.raises(ModelError, match=r"argument scale.*is no plain value"):
        deliver(tmp_path / "second", delivered[3])


def test_notes_are_told_apart(model: DeliveredModel, delivered: Any) -> None:
    ids = model.transforms({**sample(delivered[3], 0), "note": NOTES[1]})["note"]
    assert ids.dtype == torch.int64
    assert int((ids != 0).sum()) == 4
