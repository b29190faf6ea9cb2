"""What a feature cache refuses: stale, damaged and unfinished features, full disks, what cannot be stored."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning import LightningModule
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_mmnas import (
    EncoderPretraining,
    FeatureCaching,
    FusionPretraining,
    FusionSearch,
)
from lightning_mmnas.errors import CacheError
from tests.callbacks.test_caching import (
    Levels,
    build,
    data_of,
    parts,
    search_of,
    stored,
)
from tests.modules.tiny import trainer_of

Usage = namedtuple("Usage", "total used free")


def other_weights() -> FusionSearch:
    module = search_of(0.1)
    next(module.encoders.parameters()).data += 1
    return module


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"seed": 5}, "other data"),
    "weights": ({"module": other_weights}, "encoder weights"),
    "augmentation": ({"module": lambda: search_of(0.2)}, "augmentations"),
    "length": ({"module": lambda: search_of(0.1, length=9)}, "pooling.*length 4.*now length 9"),
    "pool": ({"module": lambda: search_of(0.1, pool="avg")}, "pooling"),
    "grid": ({"module": lambda: search_of(0.1, grid="line")}, "grid auto, now length 4, pool max, grid line"),
    "views": ({"views": 4}, r"views per sample \(3, now 4\)"),
    "type": ({"dtype": "float16"}, r"stored type \(float32, now float16\)"),
    "view seed": ({"view_seed": 1}, "seed of the views"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_stale_features_are_refused_or_rebuilt(name: str, tmp_path: Path) -> None:
    changes, message = CHANGES[name]
    options = {key: value for key, value in changes.items() if key in ("views", "dtype", "seed")}
    options["module"] = changes["module"]() if "module" in changes else search_of(0.1)
    build(tmp_path / "f")
    before = stored(tmp_path / "f")
    if "view_seed" in changes:
        options["on_change"], data = "refuse", data_of()
        data.setup("fit")
        callback = FeatureCaching(str(tmp_path / "f"), views=3, dtype="float32", seed=1)
        with pytest.raises(CacheError, match=message):
            callback.prepare(search_of(0.1), data, ["train"])
        assert stored(tmp_path / "f") == before
        return
    with pytest.raises(CacheError, match=message):
        build(tmp_path / "f", **options)
    assert stored(tmp_path / "f") == before
    build(tmp_path / "f", on_change="rebuild", **options)
    build(tmp_path / "fresh", **options)
    assert stored(tmp_path / "f") == stored(tmp_path / "fresh") != before


def test_other_code_and_versions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "f")
    with monkeypatch.context() as patch:
        patch.setattr("lightning_mmnas.callbacks.caching.version", lambda name: "9.9")
        with pytest.raises(CacheError, match=r"versions .*now lightning-mmnas 9\.9"):
            build(tmp_path / "f")
    monkeypatch.setattr("inspect.getsource", lambda module: "other")
    with pytest.raises(CacheError, match="encoder architecture"):
        build(tmp_path / "f")


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "f")
    path = tmp_path / "f" / "train" / "views" / "manifest.json"
    for text in ("", "{}", "[1]", '{"facts": 3}', json.dumps({"facts": {}}), '{"facts": {"data": 3, "seed": [1]}}'):
        path.write_text(text)
        with pytest.raises(CacheError, match="were made from other"):
            build(tmp_path / "f")
    path.unlink()
    with pytest.raises(CacheError, match="no manifest"):
        build(tmp_path / "f")


def test_features_that_have_changed_on_the_disk_are_made_again(tmp_path: Path) -> None:
    """A bit that has flipped, numbers of somebody else, and more than there should be: of the right size or not."""
    build(tmp_path / "f")
    whole, path = stored(tmp_path / "f"), tmp_path / "f" / "train" / "views" / "shard-00000.npy"
    content, values = path.read_bytes(), np.load(path)
    np.save(tmp_path / "other.npy", np.full_like(values, np.nan))
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 64
    other = (tmp_path / "other.npy").read_bytes()
    for damaged in (bytes(flipped), other, other + content[-4:], content[:-4], content + b"\0", content[:-1] + b"x"):
        path.write_bytes(damaged)
        build(tmp_path / "f")
        assert stored(tmp_path / "f") == whole


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mmnas.data.cache._SHARD_BYTES", 1)  # shards of one batch
    build(tmp_path / "whole", batch_size=8)
    module, calls = search_of(0.1), 0
    original = module.encoders.forward

    def forward(batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 17:
            raise KeyboardInterrupt
        return original(batch)

    monkeypatch.setattr(module.encoders, "forward", forward)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "f", module, batch_size=8)
    done = {name: value for name, value in stored(tmp_path / "f").items() if name.endswith(".npy")}
    assert len(done) == 6 + 3  # plain; of 6 shards of 3 views the fourth was interrupted
    damaged = tmp_path / "f" / "train" / "plain" / "shard-00001.npy"
    damaged.write_bytes(damaged.read_bytes()[:200])
    times = {name: (tmp_path / "f" / name).stat().st_mtime_ns for name in done}
    calls = 100
    build(tmp_path / "f", module, batch_size=8)
    assert calls == 100 + 3 * 3 + 1 + 1  # views, the damaged shard, the means
    assert stored(tmp_path / "f") == stored(tmp_path / "whole")
    kept = [name for name, time in times.items() if (tmp_path / "f" / name).stat().st_mtime_ns == time]
    assert len(kept) == 8


def test_a_full_disk_is_refused_before_anything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 9, 1000))
    with pytest.raises(CacheError, match=r"needs 0\.\d MB more, but its disk has 0\.0 MB left; store fewer views"):
        build(tmp_path / "f")
    assert not list((tmp_path / "f").rglob("*.npy"))
    assert "MB to be written (193 encodings, float32)" in capsys.readouterr().err


def test_the_bytes_are_those_that_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = []
    monkeypatch.setattr("lightning_mmnas.callbacks.caching.require_space", lambda folder, count: needed.append(count))
    build(tmp_path / "f")
    assert needed == [sum(path.stat().st_size for path in (tmp_path / "f").rglob("*.npy"))]


def test_features_that_cannot_be_stored(tmp_path: Path) -> None:
    module = search_of(0.1)
    assert isinstance(module.encoders.encoders["left"], Levels)
    bias = module.encoders.encoders["left"].norm.bias
    bias.data += 1e6
    with pytest.raises(CacheError, match="too large for float16; use float32"):
        build(tmp_path / "f", module, dtype="float16")
    bias.data *= np.nan
    with pytest.raises(CacheError, match="not finite; check the encoders"):
        build(tmp_path / "g", module)


@pytest.mark.filterwarnings("ignore:No ArchitectureAlternation")
def test_other_encoders_in_a_checkpoint_are_refused(tmp_path: Path) -> None:
    module = other_weights()
    trainer = trainer_of(tmp_path, limit_val_batches=0)
    trainer.fit(module, datamodule=data_of(), **{})
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    callback = FeatureCaching(str(tmp_path / "f"))
    resumed = trainer_of(tmp_path, callbacks=[callback], limit_val_batches=0, max_epochs=2)
    with pytest.raises(CacheError, match="not those of the encoders in the checkpoint"):
        resumed.fit(search_of(0.1), datamodule=data_of(), ckpt_path=tmp_path / "other.ckpt", weights_only=True)


class Fusion(nn.Module):
    out_features = 3


def test_what_cannot_be_cached_is_refused(tmp_path: Path) -> None:
    encoders: dict[str, Any] = {"motion": Levels, "features": Levels}
    modalities = data_of().modalities
    fusion = FusionPretraining(
        modalities, encoders, fusion=lambda shapes: Fusion(), augmentations=parts()["augmentations"]
    )
    cases: list[tuple[LightningModule, str]] = [
        (EncoderPretraining(modalities, **parts()), "stage with frozen encoders .* not EncoderPretraining"),
        (fusion, "Fusion may need more"),
        (search_of(cross_modal_weight=0.5), "cross_modal_weight to 0"),
    ]
    for module, message in cases:
        with pytest.raises(MisconfigurationException, match=message):
            build(tmp_path / "f", module)
    with pytest.raises(MisconfigurationException, match="views must be at least 2"):
        FeatureCaching("f", views=1)
    with pytest.raises(MisconfigurationException, match="on_change 'never'"):
        FeatureCaching("f", on_change="never")  # type: ignore[arg-type]
