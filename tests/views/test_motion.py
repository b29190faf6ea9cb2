import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_mmnas.data import ModalitySpec
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.views import ModalityDropout, MotionViews, TwoViews
from lightning_mmnas.views import motion as views

EVERYTHING = MotionViews(warp=0.3, channel_mask=0.3, segment_mask=0.3)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_rotations_are_rotations_within_the_angle() -> None:
    r = views.random_rotations(2000, 30.0)
    torch.testing.assert_close(r @ r.mT, torch.eye(3).expand_as(r), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(r), torch.ones(2000), atol=1e-5, rtol=0)
    trace = r.diagonal(dim1=1, dim2=2).sum(1)
    angle = torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos())
    assert angle.max() <= 30.01
    assert abs(angle.mean() - 15) < 0.7  # uniform in 0 to 30; standard error .19
    # The axis is uniform: 2 sin(a) axis = (R32 - R23, ...) has mean zero in every direction.
    axis = torch.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]])
    axis = nn.functional.normalize(axis, dim=0)
    assert axis.mean(1).abs().max() < 0.07  # standard error .013
    torch.testing.assert_close((axis**2).mean(1), torch.full((3,), 1 / 3), atol=0.04, rtol=0)


def test_rotate_keeps_norms_and_turns_all_triads_together() -> None:
    x = torch.randn(5, 3, 20)
    y = views.rotate(torch.cat([x, 2 * x], dim=1), 90.0)
    torch.testing.assert_close(y[:, :3].norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(y[:, 3:], 2 * y[:, :3])
    assert (y[:, :3] - x).abs().amax((1, 2)).min() > 0.01
    torch.testing.assert_close(views.rotate(x, 0.0), x)


def test_rotate_needs_triads() -> None:
    with pytest.raises(DataError, match="got 4 channels; set rotation to 0"):
        views.rotate(torch.zeros(1, 4, 8), 30.0)


def test_resample_interpolates_linearly() -> None:
    ramp = torch.arange(10.0).view(1, 1, 10).repeat(2, 3, 1)
    ramp[1] *= 2
    positions = torch.tensor([[0.0, 0.25, 8.5, 9.0], [9.0, 3.5, 1.0, 20.0]])
    result = views.resample(ramp, positions)
    torch.testing.assert_close(result[0, 1], positions[0])
    torch.testing.assert_close(result[1, 2], 2 * positions[1].clamp(max=9))


def test_crop_of_everything_is_the_identity() -> None:
    x = torch.randn(4, 3, 128)
    assert torch.equal(views.crop_resize(x, 1.0), x)


def test_crop_keeps_a_stretch_of_the_right_length() -> None:
    ramp = torch.linspace(0, 1, 100).expand(3000, 1, 100)
    y = views.crop_resize(ramp, 0.6, 0.9)[:, 0]
    share, start = y[:, -1] - y[:, 0], y[:, 0]
    assert share.min() >= 0.6 - 1e-5
    assert share.max() <= 0.9 + 1e-5
    assert abs(share.mean() - 0.75) < 0.01  # standard error .0016
    assert start.min() >= 0
    assert y.max() <= 1 + 1e-6
    assert abs((start / (1 - share)).mean() - 0.5) < 0.03  # standard error .005
    # A stretch of a ramp, stretched again, is a ramp.
    steps = y.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-4, rtol=0)


def test_time_warp_is_smooth_and_monotone_with_fixed_ends() -> None:
    ramp = torch.linspace(0, 1, 200).expand(500, 1, 200)
    y = views.time_warp(ramp, 0.5)[:, 0]
    speed = y.diff(dim=1) * 199
    assert speed.min() > 0.5 - 1e-3
    assert speed.max() < 1.5 + 1e-3
    torch.testing.assert_close(y[:, [0, -1]], torch.tensor([0.0, 1.0]).expand(500, 2))
    assert (y - ramp[:, 0]).abs().amax(1).min() > 1e-4
    assert speed.diff(dim=1).abs().max() < 0.1
    torch.testing.assert_close(views.time_warp(ramp, 0.0), ramp)


def test_scaling_and_jitter_statistics() -> None:
    factors = views.scaling(torch.ones(4000, 3, 5), 0.2)
    assert torch.equal(factors[..., 0], factors[..., 4])  # one factor per channel
    assert abs(factors[..., 0].mean() - 1) < 0.01  # standard error .002
    assert abs(factors[..., 0].std() - 0.2) < 0.01
    noise = views.jitter(torch.full((100, 3, 100), 5.0), 0.1)
    assert abs(noise.mean() - 5) < 0.005
    assert abs(noise.std() - 0.1) < 0.005


def test_masked_channels_are_zero_and_never_all() -> None:
    masked = views.mask_channels(torch.ones(4000, 3, 4), 0.3) == 0
    assert torch.equal(masked.any(2), masked.all(2))
    assert not masked.all(1).any()
    # Three channels of probability .3, less the .3³ that would have lost the third one.
    assert abs(masked[..., 0].sum(1).float().mean() - (0.9 - 0.027)) < 0.05
    assert (views.mask_channels(torch.ones(50, 3, 4), 1.0)[..., 0].sum(1) == 1).all()
    assert views.mask_channels(torch.ones(50, 3, 4), 0.0).all()


def test_masked_segment_is_one_stretch_of_all_channels() -> None:
    masked = views.mask_segment(torch.ones(2000, 2, 100), 0.4) == 0
    assert torch.equal(masked[:, 0], masked[:, 1])
    length = masked[:, 0].sum(1)
    assert length.max() <= 40
    assert abs(length.float().mean() - 20) < 1.2  # standard error .26
    edges = masked[:, 0].int().diff(dim=1).abs().sum(1)
    assert edges.max() <= 2
    assert masked[:, 0, 0].any()
    assert masked[:, 0, -1].any()


@pytest.mark.parametrize("augmentation", [MotionViews(), EVERYTHING], ids=["default", "all"])
def test_views_follow_the_seed_and_differ_by_sample(augmentation: MotionViews) -> None:
    x = torch.randn(1, 3, 64).repeat(16, 1, 1)
    torch.manual_seed(5)
    first = augmentation(x)
    torch.manual_seed(5)
    assert torch.equal(augmentation(x), first)
    assert not torch.equal(augmentation(x), first)
    distances = torch.cdist(first.flatten(1), first.flatten(1)) + 100 * torch.eye(16)
    assert distances.min() > 1e-2
    assert torch.equal(x, x[:1].expand_as(x))  # the input is left alone


def test_views_switched_off_are_the_identity() -> None:
    x = torch.randn(2, 4, 16)  # not in triads: rotation is off
    off = MotionViews(crop=1, rotation=0, scale=0, jitter=0)
    assert torch.equal(off(x), x)
    assert "crop=1, rotation=0" in repr(off)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_views_keep_shape_and_type(dtype: torch.dtype) -> None:
    y = EVERYTHING(torch.randn(4, 6, 50, dtype=dtype))
    assert y.dtype == dtype
    assert y.shape == (4, 6, 50)
    assert y.isfinite().all()


def test_views_are_not_rounded_by_autocast() -> None:
    x = torch.randn(8, 3, 64)
    torch.manual_seed(1)
    expected = EVERYTHING(x)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(EVERYTHING(x), expected)


def test_everything_is_made_on_the_device_of_the_batch() -> None:
    # Mixing the meta device with the CPU is an error, as mixing a GPU with it would be.
    specs = {name: ModalitySpec("motion", (3, 32)) for name in "ab"}
    two = TwoViews(specs, {"motion": EVERYTHING}, modality_dropout=0.5).to("meta")
    for view in two({name: torch.empty(4, 3, 32, device="meta") for name in specs}):
        assert {tensor.device.type for tensor in view.values()} == {"meta"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": 0}, r"crop must be in \(0, 1\], got 0"),
        ({"crop": 1.1}, "crop must be in"),
        ({"rotation": 200}, "rotation must be in"),
        ({"scale": -1}, "scale must be at least 0, got -1"),
        ({"jitter": -1}, "jitter must be at least 0"),
        ({"warp": 1}, r"warp must be in \[0, 1\), got 1"),
        ({"channel_mask": 2}, "channel_mask must be in"),
        ({"segment_mask": math.nan}, "segment_mask must be in"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MotionViews(**arguments)


def batch_of_three(b: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    shapes = {"a": (3, 8), "b": (2,), "c": (1, 4, 4)}
    batch = {name: torch.randn(b, *shape) for name, shape in shapes.items()}
    means = {name: torch.full(shape, 7.0) for name, shape in shapes.items()}
    return batch, means


def test_dropout_replaces_one_modality_by_its_mean_with_probability_p() -> None:
    batch, means = batch_of_three(6000)
    out = ModalityDropout(0.4)(batch, means)
    replaced = torch.stack([(out[k].flatten(1) == 7).all(1) for k in batch])
    kept = torch.stack([(out[k] == batch[k]).flatten(1).all(1) for k in batch])
    assert torch.equal(replaced, ~kept)
    assert replaced.sum(0).max() == 1
    assert abs(replaced.any(0).float().mean() - 0.4) < 0.03  # standard error .006
    assert (replaced.float().mean(1) - 0.4 / 3).abs().max() < 0.02


def test_dropout_at_the_ends() -> None:
    batch, means = batch_of_three(50)
    always = ModalityDropout(1.0)(batch, means)
    replaced = torch.stack([(always[k].flatten(1) == 7).all(1) for k in batch])
    assert (replaced.sum(0) == 1).all()
    never = ModalityDropout(0.0)(batch, means)
    assert all(torch.equal(never[k], batch[k]) for k in batch)
    alone = ModalityDropout(1.0)({"a": batch["a"]}, means)
    assert torch.equal(alone["a"], batch["a"])
    with pytest.raises(ConfigError, match=r"modality_dropout must be in \[0, 1\], got 1.5"):
        ModalityDropout(1.5)


SPECS = {
    "accelerometer": ModalitySpec("motion", (3, 32)),
    "gyroscope": ModalitySpec("motion", (3, 32)),
    "age": ModalitySpec("features", (1,)),
}


def test_two_views_are_independent_and_carry_no_label() -> None:
    x = torch.randn(8, 3, 32)
    batch = {"accelerometer": x, "gyroscope": x, "age": torch.ones(8, 1), "label": torch.ones(8)}
    first, second = TwoViews(SPECS, {"motion": MotionViews(), "age": nn.Identity()})(batch)
    assert list(first) == list(second) == list(SPECS)
    assert not torch.equal(first["accelerometer"], second["accelerometer"])
    assert not torch.equal(first["accelerometer"], first["gyroscope"])
    assert torch.equal(first["age"], batch["age"])


def test_name_goes_before_kind() -> None:
    two = TwoViews(SPECS, {"motion": MotionViews(), "gyroscope": nn.Identity(), "features": nn.Identity()})
    batch = {name: torch.randn(4, *spec.shape) for name, spec in SPECS.items()}
    first, _ = two(batch)
    assert torch.equal(first["gyroscope"], batch["gyroscope"])
    assert not torch.equal(first["accelerometer"], batch["accelerometer"])


def test_two_views_drop_modalities_towards_their_means() -> None:
    batch = {name: torch.randn(40, *spec.shape) for name, spec in SPECS.items()}
    means = {name: torch.full(spec.shape, 7.0) for name, spec in SPECS.items()}
    still = {"motion": nn.Identity(), "features": nn.Identity()}
    first, second = TwoViews(SPECS, still, modality_dropout=0.5, means=means).eval()(batch)
    lost = [(view["gyroscope"] == 7).all(2).all(1) for view in (first, second)]
    assert lost[0].any()
    assert not torch.equal(*lost)
    zero, _ = TwoViews(SPECS, still, modality_dropout=1.0)(batch)
    assert (zero["age"] == 0).any()
    assert not TwoViews(SPECS, still).state_dict()


def test_two_views_refuse() -> None:
    with pytest.raises(ConfigError, match="'age' has no augmentation; give augmentations an entry"):
        TwoViews(SPECS, {"motion": MotionViews()})
    with pytest.raises(ConfigError, match="has 'movement', which is neither a modality nor a kind"):
        TwoViews(SPECS, {"movement": MotionViews()})
    two = TwoViews({"gyroscope": SPECS["gyroscope"]}, {"motion": MotionViews()})
    with pytest.raises(DataError, match="a batch is a dict of tensors by modality, got a list"):
        two([torch.zeros(2, 3)])
    with pytest.raises(DataError, match=r"'gyroscope' is not in the batch, which has \['age'\]"):
        two({"age": torch.zeros(1, 1)})
