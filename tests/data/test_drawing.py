"""Every kind of modality can be drawn, and shows what is in it."""

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_mmnas.data.drawing import draw
from lightning_mmnas.data.spec import Kind, ModalitySpec, Vocabulary


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
    figure, _ = axes_of(torch.arange(5.0), "features")
    assert len(figure.axes[0].patches) == 5


@pytest.mark.parametrize(
    ("text", "shown"), [("costs 5 $ or 6 $", r"costs 5 \$ or 6 \$"), (None, "7 9"), ("", "(empty)")]
)
def test_a_text_shows_its_words_or_its_ids(text: str | None, shown: str) -> None:
    figure, _ = axes_of(torch.tensor([7, 9, 0, 0]), "text", text)
    assert figure.axes[0].texts[0].get_text() == shown
