"""Augmentations of vectors."""

import pytest
import torch

from lightning_mmnas.errors import ConfigError
from lightning_mmnas.views import FeatureViews
from lightning_mmnas.views.features import mask_features


def test_masks_are_as_likely_as_asked_for_and_leave_something() -> None:
    torch.manual_seed(0)
    masked = mask_features(torch.ones(4000, 5), 0.4) == 0
    assert masked.float().mean() == pytest.approx(0.4 - 0.4**5 / 5, abs=0.01)  # one number of each sample is spared
    assert not masked.all(1).any()
    assert mask_features(torch.ones(3, 1), 1.0).eq(1).all()


def test_scaling_is_common_to_a_sample_and_noise_is_not() -> None:
    torch.manual_seed(0)
    factors = FeatureViews(scale=0.1, jitter=0, mask=0)(torch.ones(4000, 3))
    assert torch.equal(factors[:, 0], factors[:, 2])
    assert factors[:, 0].std() == pytest.approx(0.1, abs=0.01)
    noise = FeatureViews(scale=0, jitter=0.5, mask=0)(torch.zeros(4000, 3))
    assert noise.std() == pytest.approx(0.5, abs=0.02)
    assert torch.corrcoef(noise.T)[0, 1].abs() < 0.05


def test_arguments_out_of_range() -> None:
    for argument in ("scale", "jitter", "mask"):
        with pytest.raises(ConfigError, match=f"{argument} must be"):
            FeatureViews(**{argument: -0.1})
