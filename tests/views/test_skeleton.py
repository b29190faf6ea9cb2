import pytest
import torch
from torch import Tensor

from lightning_mmnas.data import ModalitySpec
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.views import SkeletonViews, TwoViews
from lightning_mmnas.views.pair import DEFAULT_AUGMENTATIONS
from lightning_mmnas.views.skeleton import as_motion, as_skeleton, mask_joints, present

OFF = {"crop": 1.0, "rotation": 0.0, "scale": 0.0, "jitter": 0.0, "joint_mask": 0.0}


def skeletons(b: int = 4) -> Tensor:
    return torch.randn(b, 3, 16, 25, 2, generator=torch.Generator().manual_seed(0))


def test_nothing_but_what_is_asked_for() -> None:
    assert torch.equal(SkeletonViews(**OFF)(skeletons()), skeletons())


def test_signals_and_back() -> None:
    x = skeletons()
    signals = as_motion(x)
    assert signals.shape == (4, 150, 16)
    assert torch.equal(signals[:, :3], x[:, :, :, 0, 0])  # the first triad is the first joint's x, y, z
    assert torch.equal(as_skeleton(signals, 25, 2), x)


def test_rotation_keeps_all_distances() -> None:
    x = skeletons()
    view = SkeletonViews(**(OFF | {"rotation": 90.0}))(x)
    assert not torch.allclose(view, x, atol=0.1)

    def distances(values: Tensor) -> Tensor:
        points = values.permute(0, 2, 3, 4, 1).flatten(1, 3)
        return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")

    torch.testing.assert_close(distances(view), distances(x), atol=1e-4, rtol=1e-4)


def test_scale_is_one_factor_per_sample() -> None:
    x = skeletons(50)
    factors = SkeletonViews(**(OFF | {"scale": 0.1}))(x) / x
    torch.testing.assert_close(factors.flatten(1), factors[:, 0, 0, 0, :1].expand(50, 3 * 16 * 25 * 2))
    assert 0.05 < float(factors[:, 0, 0, 0, 0].std()) < 0.2


def test_jitter_is_noise() -> None:
    difference = SkeletonViews(**(OFF | {"jitter": 0.05}))(skeletons(32)) - skeletons(32)
    assert abs(float(difference.std()) - 0.05) < 1e-3


def test_joints_are_masked_in_all_frames() -> None:
    kept = mask_joints(torch.ones(200, 3, 4, 25, 2), 0.3)
    assert set(kept.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(kept, kept[:, :1, :1, :, :1].expand_as(kept))
    assert abs(float(kept.mean()) - 0.7) < 0.03
    assert mask_joints(torch.ones(50, 3, 4, 25, 2), 1.0)[:, 0, 0, :, 0].sum(1).tolist() == [1.0] * 50


def test_who_is_not_there_does_not_appear() -> None:
    x = skeletons()
    x[1:, ..., 1] = 0
    view = SkeletonViews()(x)
    assert view[0, ..., 1].abs().sum() > 0
    assert view[1:, ..., 1].abs().sum() == 0
    assert present(x).flatten(1).tolist() == [[True, True]] + [[True, False]] * 3


def test_crop_is_a_stretch_of_time() -> None:
    x = torch.linspace(0, 1, 16).view(1, 1, 16, 1, 1).expand(64, 3, 16, 25, 2) + 1
    view = SkeletonViews(**(OFF | {"crop": 0.5}))(x)
    steps = view[:, 0, 1:, 0, 0] - view[:, 0, :-1, 0, 0]
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-5, rtol=0)
    shares = steps[:, 0] * 15
    assert 0.5 - 1e-4 <= float(shares.min()) < 0.6
    assert 0.9 < float(shares.max()) <= 1 + 1e-4


def test_default_for_its_kind_and_follows_the_seed() -> None:
    assert DEFAULT_AUGMENTATIONS["skeleton"] is SkeletonViews
    views = TwoViews({"s": ModalitySpec("skeleton", (3, 16, 25, 2))}, {"skeleton": SkeletonViews()})
    torch.manual_seed(3)
    first, second = views({"s": skeletons()})
    torch.manual_seed(3)
    again, _ = views({"s": skeletons()})
    assert torch.equal(first["s"], again["s"])
    assert not torch.equal(first["s"], second["s"])


@pytest.mark.parametrize(
    ("name", "value"), [("crop", 0.0), ("rotation", 181.0), ("scale", -1.0), ("jitter", -1.0), ("joint_mask", 1.1)]
)
def test_ranges(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        SkeletonViews(**{name: value})
