"""Every kind of modality can be drawn, and shows what is in it."""

import warnings
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from torch import Tensor

from lightning_mmnas.data.drawing import caption, draw
from lightning_mmnas.data.spec import Kind, ModalitySpec, Vocabulary
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.report.data_summary import plot_views
from lightning_mmnas.views import FeatureViews, TwoViews


def axes_of(values: Tensor, kind: Kind, text: str | None = None) -> tuple[Figure, object]:
    figure = Figure()
    vocabulary = Vocabulary(100) if kind == "text" else None
    draw(figure.subplots(), values, ModalitySpec(kind, tuple(values.shape), values.dtype, vocabulary), text)
    figure.canvas.draw()  # what cannot be rendered fails here
    return figure, figure.axes[0]


def test_pixels_are_shown_in_their_unit() -> None:
    pixels = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    for values in (pixels, pixels.float() / 255):
        figure, _ = axes_of(values, "image")
        shown = figure.axes[0].images[0].get_array()
        assert shown is not None
        assert shown.flatten().tolist() == [0.0, 1.0]


def test_a_video_becomes_a_strip_of_four_frames() -> None:
    video = torch.zeros(3, 9, 4, 5, dtype=torch.uint8)
    video[:, 8] = 255
    figure, _ = axes_of(video, "video")
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    assert shown.shape == (4, 20, 3)
    assert shown[:, :15].max() == 0.0
    assert shown[:, 15:].min() == 1.0


def test_waveforms_are_lines_and_spectrograms_pictures() -> None:
    figure, _ = axes_of(torch.randn(2, 50), "audio")
    assert len(figure.axes[0].lines) == 2
    figure, _ = axes_of(torch.randn(1, 8, 12), "audio")
    assert len(figure.axes[0].images) == 1


def test_a_skeleton_is_shown_at_four_moments() -> None:
    figure, _ = axes_of(torch.randn(3, 10, 25, 2), "skeleton")
    assert len(figure.axes[0].collections) == 4


def test_features_are_bars() -> None:
    figure, _ = axes_of(torch.tensor([1.0, -2.0, 3.0]), "features")
    (bars,) = figure.axes[0].patches
    assert isinstance(bars, StepPatch)
    values, edges, baseline = bars.get_data()
    assert (values.tolist(), edges.tolist(), baseline) == ([1.0, -2.0, 3.0], [-0.5, 0.5, 1.5, 2.5], 0.0)


@pytest.mark.parametrize(
    ("text", "shown"), [("costs 5 $ or 6 $", r"costs 5 \$ or 6 \$"), (None, "7 9"), ("", "(empty)")]
)
def test_a_text_shows_its_words_or_its_ids(text: str | None, shown: str) -> None:
    figure, _ = axes_of(torch.tensor([7, 9, 0, 0]), "text", text)
    assert figure.axes[0].texts[0].get_text() == shown


def test_lines_of_wide_characters_are_shorter() -> None:
    figure, _ = axes_of(torch.tensor([7]), "text", " ".join("猫犬魚鳥" * 10))
    assert max(map(len, figure.axes[0].texts[0].get_text().splitlines())) <= 20


def test_captions_are_no_formulas_and_leave_room() -> None:
    assert caption("a$^$b") == r"a\$^\$b"
    assert caption("x" * 60) == "x" * 60
    assert caption("x" * 61) == "x" * 58 + " …"


def test_views_of_samples_whose_classes_have_odd_names(tmp_path: Path) -> None:
    names = ["$^$", "long " * 40]
    rows = "\n".join(f"{i % 7},{i % 5},{names[i % 2]}" for i in range(40))
    (tmp_path / "t.csv").write_text(f"a,b,label\n{rows}\n", encoding="utf-8")
    columns = {"a": ColumnSpec("features", ["a"]), "b": ColumnSpec("features", ["b"])}
    data = TableDataModule(str(tmp_path / "t.csv"), columns, label="label", batch_size=4)
    data.setup("fit")
    figure = plot_views(data, TwoViews(data.modalities, {"features": FeatureViews()}), "train", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that does not fit is warned of
        figure.canvas.draw()
    widths = [axes.get_position().width for axes in figure.axes]
    assert min(widths) > 0.6 * max(widths)
    data.plot(data.source("train")[0]).canvas.draw()
