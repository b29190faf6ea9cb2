"""What the look at decoded samples says, and that it says nothing of data that are whole."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from lightning_mmnas.data.digits import DigitsDataModule
from lightning_mmnas.data.guard import look, look_at_data
from lightning_mmnas.data.samples import TensorSamples
from lightning_mmnas.data.spec import Kind, ModalitySpec, Vocabulary
from lightning_mmnas.data.summary import summarise
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.data.watch import WatchDataModule
from lightning_mmnas.report.data_summary import render_summary


def said(kind: Kind, values: Tensor) -> list[str]:
    vocabulary = Vocabulary(64) if kind == "text" else None
    spec = ModalitySpec(kind, tuple(values.shape[1:]), values.dtype, vocabulary)
    return look([TensorSamples({"x": values})], {"x": spec})


def drawn(*shape: int, high: int = 256) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


CASES: dict[str, tuple[Kind, Callable[[], Tensor], str]] = {
    "five levels": ("image", lambda: drawn(100, 1, 8, 8, high=5), "64 of 64 samples lie within 16 of 256 grey levels"),
    "one colour": ("image", lambda: drawn(100, 1, 1, 1).expand(-1, 3, 8, 8), "64 of 64 samples are of one colour"),
    "a black clip": ("video", lambda: drawn(9, 3, 2, 8, 8) * 0, "9 of 9 samples are of one colour"),
    "saturated": ("image", lambda: drawn(9, 1, 8, 8).clamp(max=150) + 105, "9 of 9 .* white in more than 25%"),
    "silence": ("audio", lambda: 0 * noise(9, 1, 50), "9 of 9 samples are silent"),
    "clipped": ("audio", lambda: (5 * noise(9, 1, 50)).clamp(-1, 1), "at the end of the range"),
    "a dead channel": ("motion", lambda: noise(9, 3, 50) * torch.tensor([[1], [0], [1]]), "channel 1 of 3 is zero in"),
    "a frozen skeleton": ("skeleton", lambda: noise(9, 3, 1, 5, 1).expand(-1, -1, 8, -1, -1), "9 of 9 .* never change"),
    "still motion": ("motion", lambda: noise(9, 3, 1).expand(-1, -1, 8), "9 of 9 samples never change in time"),
    "unknown words": ("text", lambda: torch.ones(9, 5, dtype=torch.long), "more words that are unknown"),
    "no words": ("text", lambda: torch.zeros(9, 5, dtype=torch.long), "9 of 9 samples are empty"),
    "the same": (
        "image",
        lambda: drawn(1, 1, 8, 8).repeat(9, 1, 1, 1),
        "9 of 9 .* not the only ones .*, 9 have the same",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_looks_wrong_is_said(name: str) -> None:
    kind, make, line = CASES[name]
    found = said(kind, make())
    assert any(re.search(line, one) for one in found), found


def test_nothing_is_said_of_what_is_whole() -> None:
    assert said("image", drawn(100, 3, 8, 8)) == []
    assert said("image", (drawn(100, 1, 8, 8) > 220).byte() * 255) == []  # drawings in black and white
    assert said("audio", 0.1 * noise(100, 1, 50)) == []
    assert said("motion", noise(100, 3, 20)) == []
    assert said("features", noise(100, 3)) == []
    assert said("skeleton", noise(20, 3, 8, 5, 1)) == []


def test_a_few_extreme_pixels_hide_no_lost_levels() -> None:
    values = drawn(20, 1, 16, 16, high=9)
    values[:, 0, 0, 0] = 255  # a sensor's broken pixel
    values[:, 0, 5, 5] = 200
    assert said("image", values)[0].startswith("x: 20 of 20 samples lie within 16 of 256 grey levels")
    assert said("image", values.float() / 255)[0].startswith("x: 20 of 20 samples lie within 16")


def test_lost_levels_of_few_pixels_are_seen() -> None:
    values = torch.zeros(20, 1, 32, 32, dtype=torch.uint8)
    values[:, 0, 3, 3] = 9  # of something near before a ground without depth
    assert said("image", values)[0].startswith("x: 20 of 20 samples lie within 16 of 256 grey levels")


def test_small_shapes_on_an_even_ground_are_whole() -> None:
    values = drawn(20, 1, 1, 1).expand(-1, -1, 32, 32).clone()
    values[:, 0, 4:6, 4:6] = 255 - values[:, 0, :2, :2]
    assert said("image", values) == []


def test_samples_are_spread_over_the_whole() -> None:
    values = drawn(1000, 1, 8, 8)
    values[800:] = 7
    assert said("image", values)[0].startswith("x: 12 of 64 samples are of one colour")


@pytest.mark.parametrize("kind", [DigitsDataModule, WatchDataModule])
def test_shipped_data_raise_no_alarm(kind: type[DigitsDataModule] | type[WatchDataModule]) -> None:
    data = kind()
    for split in ("train", "val"):
        data.build(split)
    assert look_at_data(data, ("train", "val")) == []


def test_the_summary_says_what_looks_wrong(tmp_path: Path) -> None:
    for i in range(12):
        depth = np.random.default_rng(i).integers(0, 4096, (8, 8)).astype(np.uint16)
        np.save(tmp_path / f"{i}.npy", depth)
    table = tmp_path / "t.csv"
    table.write_text("p,n\n" + "".join(f"{i}.npy,{i * i}\n" for i in range(12)))
    number = ColumnSpec("features", ["n"])
    ruined = ColumnSpec("image", ["p"], size=(8, 8), channels=1)  # 12 bits as if they were 16
    found = summarise(TableDataModule(str(table), {"p": ruined, "n": number}, batch_size=2, labels=False))
    line = "p: 12 of 12 samples lie within 16 of 256 grey levels; if their files hold more, set maximum"
    assert found.looks == [line]
    console = Console(file=io.StringIO(), width=200)
    console.print(render_summary(found))
    assert isinstance(console.file, io.StringIO)
    assert f"look at {found.looks[0]}" in console.file.getvalue()
    whole = ColumnSpec("image", ["p"], size=(8, 8), channels=1, maximum=4095)
    assert summarise(TableDataModule(str(table), {"p": whole, "n": number}, batch_size=2, labels=False)).looks == []
