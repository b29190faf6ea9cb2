"""Exported files say what the model says, without the package, for any number of samples."""

import errno
import functools
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lightning_mmnas
from lightning_mmnas import (
    DeliveredModel,
    Encoder,
    FeatureEncoder,
    FineTuning,
    FramewiseEncoder,
    FusionSpace,
    HCNEncoder,
    ImageEncoder,
    MaxoutEncoder,
    MotionEncoder,
    TensorDataModule,
    save,
)
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.delivery.export import SUFFIXES, description_of, export
from lightning_mmnas.errors import ConfigError, ModelError, RunDirectoryError
from lightning_mmnas.fusion import input_nodes
from tests.delivery.tiny import deliver, write_birds

_WITHOUT = """
import sys
sys.modules["lightning_mmnas"] = None  # an import of it would fail
import numpy as np
given = dict(np.load({inputs!r}))
if {path!r}.endswith(".onnx"):
    import onnxruntime
    found = onnxruntime.InferenceSession({path!r}).run(None, given)[0]
else:
    import torch
    program = torch.export.load({path!r}).module()
    found = program(*(torch.from_numpy(value) for value in given.values())).detach().numpy()
np.save({output!r}, found)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("run")
    table = write_birds(folder / "data", 30)
    return deliver(folder, table)[2], table


def without_the_package(path: Path, given: dict[str, np.ndarray[Any, Any]], folder: Path) -> Any:
    inputs, output = folder / "inputs.npz", folder / "output.npy"
    np.savez(inputs, allow_pickle=False, **given)
    code = _WITHOUT.format(inputs=str(inputs), path=str(path), output=str(output))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(output)


@pytest.mark.slow
def test_onnx_without_the_package(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "birds.onnx"
    # texts have nodes of the name "embedding", which the output has too
    assert main(["export", str(run[0]), "--format", "onnx", "--what", "embedding", "--output", str(path)]) == 0
    assert "input   photo: uint8 ['batch', 3, 8, 8]" in capsys.readouterr().out
    model = lightning_mmnas.load(run[0])
    assert json.loads(path.with_name("birds.onnx.json").read_text())["class_names"] == model.class_names
    batch = next(iter(model.chunks(run[1], lambda batch: batch)[1]))[1]
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert {value.shape[0] for value in [*session.get_inputs(), *session.get_outputs()]} == {"batch"}
    found = without_the_package(path, {name: value.numpy() for name, value in batch.items()}, tmp_path)
    np.testing.assert_allclose(found, model.embed(run[1]), rtol=1e-4, atol=1e-5)


def test_what_is_wrong_is_told_before_the_work(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mmnas.delivery.export._export", lambda *_: pytest.fail("it has begun"))
    model = lightning_mmnas.load(run[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=r"cannot write .*file/m.onnx: .*; choose another folder"):
        export(model, tmp_path / "file" / "m.onnx")
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(RunDirectoryError, match=r"^cannot write \S*m.onnx: it is a folder; choose"):
        export(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"weights are torch.bfloat16"):
        export(model.bfloat16(), tmp_path / "other.onnx")


@pytest.mark.parametrize("format", ["torch_export", "onnx"])
def test_a_full_disk(run: Any, tmp_path: Path, format: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.onnx.export", full)  # it takes long
    path, limits = tmp_path / f"m{SUFFIXES[format]}", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with pytest.raises(RunDirectoryError, match=r"^cannot write \S*m\.\w+: (File too large|No space left)"):
            export(lightning_mmnas.load(run[0]), path, format, inputs="features")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_torch_export_of_features_without_the_package(run: Any, tmp_path: Path) -> None:
    model = lightning_mmnas.load(run[0])
    path = tmp_path / "vectors.pt2"
    written = export(model, path, "torch_export", "embedding", "features")
    features = model.features(run[1])
    given = {name: features[entry["name"]].numpy() for name, entry in written["inputs"].items()}
    found = without_the_package(path, given, tmp_path)
    np.testing.assert_allclose(found, model.embed(run[1]), atol=1e-5)


def model_of(folder: Path, encoders: dict[str, Any], split: dict[str, Tensor], kinds: dict[str, Any]) -> DeliveredModel:
    """An untrained classifier on tensors, with batch norms that do something."""
    split = {**split, "label": torch.arange(len(next(iter(split.values())))) % 2}
    data = TensorDataModule(split, split, split, kinds=kinds, batch_size=2)
    torch.manual_seed(0)
    shapes = {
        f"{name}/{i}": shape
        for name, spec in data.modalities.items()
        for i, shape in enumerate(encoders[name](spec).feature_shapes)
    }
    genotype = FusionSpace(inputs=tuple(shapes), cells=2, steps=1, channels=8, length=4).sample(
        torch.Generator().manual_seed(0)
    )
    module = FineTuning(data.modalities, encoders, 2, "multiclass", genotype=genotype, mode="full").eval()
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.running_var is not None:
            part.running_var.uniform_(0.5, 2)
    data.setup("fit")
    save(module, data, folder / "model")
    return lightning_mmnas.load(folder)


@pytest.mark.slow
def test_other_kinds_of_encoders(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    encoders = {
        "motion": functools.partial(MotionEncoder, channels=(4,)),
        "skeleton": HCNEncoder,
        "video": functools.partial(FramewiseEncoder, encoder=functools.partial(ImageEncoder, channels=(4,))),
        "numbers": functools.partial(MaxoutEncoder, widths=(4,)),
    }
    split = {
        "motion": torch.randn(4, 3, 37),
        "skeleton": torch.randn(4, 3, 16, 25, 2),
        "video": torch.randint(0, 256, (4, 3, 3, 9, 11), dtype=torch.uint8),
        "numbers": torch.randn(4, 5),
    }
    kinds = {"motion": "motion", "skeleton": "skeleton", "video": "video", "numbers": "features"}
    model = model_of(tmp_path, encoders, split, kinds)
    assert model.predict(split) == model.predict([{n: v[i] for n, v in split.items()} for i in range(4)])
    assert export(model, tmp_path / "x.onnx", "onnx")["difference"] < 1e-5


class Sorting(Encoder):
    """Looks at its values, which cannot be traced."""

    def __init__(self, spec: Any) -> None:
        super().__init__()

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        return [(5,)]

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x if float(x.sum()) > 0 else -x]


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    split = {"a": torch.randn(4, 5), "b": torch.randn(4, 5)}
    small = functools.partial(FeatureEncoder, widths=(4,))
    data: dict[str, Any] = {
        "encoders": {"a": Sorting, "b": small},
        "split": split,
        "kinds": {"a": "features", "b": "features"},
    }
    with pytest.raises(ModelError, match="allow"):
        model_of(tmp_path, **data)
    model = lightning_mmnas.load(tmp_path, allow=[__name__])
    (tmp_path / "x.pt2").write_text("as before")
    with pytest.raises(ModelError, match="the encoder of 'a', Sorting, cannot be exported"):
        export(model, tmp_path / "x.pt2", "torch_export")
    assert (tmp_path / "x.pt2").read_text() == "as before"
    assert description_of(tmp_path / "model" / "model.onnx").name != "model.json"  # that is the model's own
    with pytest.raises(ConfigError, match=r"the suffix of format 'onnx' is .onnx"):
        export(model, tmp_path / "x.pt2", "onnx")
    with pytest.raises(ConfigError, match="format 'x' is not in"):
        export(model, tmp_path / "x.pt2", "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_pooling_that_exports_is_adaptive_pooling(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = input_nodes.adaptive_pool(planes, (3, 2), pool)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(input_nodes.adaptive_pool(planes, (3, 2), pool), wanted)
