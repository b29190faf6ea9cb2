import pytest
import torch
from torch import Tensor

from lightning_mmnas.errors import ConfigError
from lightning_mmnas.views import VideoViews
from lightning_mmnas.views.pair import DEFAULT_AUGMENTATIONS
from lightning_mmnas.views.video import crop_time

OFF = {"time_crop": 1.0, "crop": 1.0, "flip": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "gray": 0.0}


def clips(b: int = 4, c: int = 3, t: int = 6) -> Tensor:
    return torch.randint(256, (b, c, t, 12, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_nothing_but_what_is_asked_for() -> None:
    assert torch.equal(VideoViews(**OFF)(clips()), clips() / 255)
    assert DEFAULT_AUGMENTATIONS["video"] is VideoViews


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_is_pixels_in_unit_range(channels: int) -> None:
    view = VideoViews()(clips(c=channels))
    assert (view.dtype, view.shape) == (torch.float32, clips(c=channels).shape)
    assert float(view.min()) >= 0
    assert float(view.max()) <= 1


def test_all_frames_are_augmented_alike() -> None:
    still = clips(t=1).expand(-1, -1, 6, -1, -1)
    view = VideoViews()(still)
    torch.testing.assert_close(view, view[:, :, :1].expand_as(view))
    assert not torch.allclose(view, still / 255, atol=0.1)
    same = clips(b=1).expand(4, -1, -1, -1, -1)
    first, *others = VideoViews()(same)
    assert not any(torch.equal(first, other) for other in others)  # samples are not


def test_flip() -> None:
    view = VideoViews(**(OFF | {"flip": 1.0}))(clips())
    torch.testing.assert_close(view, clips().flip(-1) / 255, atol=1e-5, rtol=0)


def test_grey() -> None:
    view = VideoViews(**(OFF | {"gray": 1.0}))(clips())
    luma = (clips() / 255 * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(view, luma.expand_as(view))


def test_time_crops_are_stretches_of_frames_in_order() -> None:
    x = torch.arange(20.0).view(1, 1, 20, 1, 1).expand(300, 1, 20, 1, 1)
    frames = crop_time(x, 0.5).flatten(1)
    steps = frames[:, 1:] - frames[:, :-1]
    assert set(steps.flatten().tolist()) == {0.0, 1.0}
    lengths = frames[:, -1] - frames[:, 0]
    assert 9 <= float(lengths.min()) <= 10
    assert float(lengths.max()) == 19
    assert frames.min() == 0
    assert frames.max() == 19
    assert torch.equal(crop_time(x, 1.0), x)


def test_follows_the_seed_and_the_device() -> None:
    torch.manual_seed(1)
    first = VideoViews()(clips())
    torch.manual_seed(1)
    assert torch.equal(VideoViews()(clips()), first)
    assert VideoViews()(clips().to("meta")).device.type == "meta"


@pytest.mark.parametrize(
    ("name", "value"), [("time_crop", 0.0), ("crop", 1.1), ("ratio", 0.5), ("flip", 2.0), ("gray", -0.1)]
)
def test_ranges(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        VideoViews(**{name: value})
