import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_mmnas.data import ModalitySpec
from lightning_mmnas.encoders import Encoder, HCNEncoder
from lightning_mmnas.encoders.skeleton import motion
from lightning_mmnas.errors import CheckpointError, ConfigError, DataError

SPEC = ModalitySpec("skeleton", (3, 32, 25, 2))


@pytest.mark.parametrize(("t", "joints", "bodies"), [(32, 25, 2), (16, 17, 1), (50, 20, 3), (64, 1, 2)])
def test_features_have_the_announced_shapes(t: int, joints: int, bodies: int) -> None:
    encoder = HCNEncoder(ModalitySpec("skeleton", (3, t, joints, bodies)))
    assert isinstance(encoder, Encoder)
    features = encoder(torch.randn(2, 3, t, joints, bodies))
    assert [tuple(feature.shape[1:]) for feature in features] == encoder.feature_shapes


def test_published_size() -> None:
    encoder = HCNEncoder(SPEC, channels=(64, 32, 32, 64, 128, 256), dropout=0.5)
    assert encoder.feature_shapes == [(64, 16, 16), (128, 8, 8), (128, 4, 4), (256, 2, 2)]
    # conv1 to conv6 of the paper without biases: two branches, then the joined part.
    branch = 3 * 64 + 64 * 32 * 3 + 25 * 32 * 9 + 32 * 64 * 9
    convolutions = [m.weight.numel() for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert sum(convolutions) == 2 * branch + 128 * 128 * 9 + 128 * 256 * 9


def test_motion_is_the_change_from_frame_to_frame() -> None:
    x = torch.arange(16.0).pow(2).view(1, 1, 16, 1).expand(2, 3, 16, 5)
    differences = motion(x)
    assert differences.shape == x.shape
    reference = nn.functional.interpolate((x[0, 0, 1:, 0] - x[0, 0, :-1, 0]).view(1, 1, -1), 16, mode="linear")
    torch.testing.assert_close(differences[0, 0, :, 0], reference.flatten())
    assert motion(torch.ones(1, 3, 16, 4)).abs().max() == 0


def test_bodies_are_merged_by_their_maximum_in_any_order() -> None:
    encoder = HCNEncoder(SPEC).eval()
    x = torch.randn(2, 3, 32, 25, 2)
    both, swapped = encoder(x), encoder(x.flip(-1))
    single = [encoder(x[..., i : i + 1]) for i in range(2)]
    for feature, other, first, second in zip(both, swapped, *single, strict=True):
        torch.testing.assert_close(feature, other)
        torch.testing.assert_close(feature, torch.maximum(first, second))


def test_trains_alone_and_under_autocast() -> None:
    encoder = HCNEncoder(SPEC, dropout=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder(torch.randn(4, 3, 32, 25, 2))
    sum(feature.float().mean() for feature in features).backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    frozen = HCNEncoder(SPEC).eval().requires_grad_(False)
    assert not frozen(torch.zeros(1, 3, 32, 25, 2))[-1].requires_grad


def test_local_weights(tmp_path: object) -> None:
    path = f"{tmp_path}/hcn.safetensors"
    first = HCNEncoder(SPEC)
    save_file(first.state_dict(), path)
    second = HCNEncoder(SPEC, weights=path)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="another architecture"):
        HCNEncoder(SPEC, channels=(8, 16, 8, 8, 8, 8), weights=path)


def test_refusals() -> None:
    with pytest.raises(DataError, match="got kind 'motion'"):
        HCNEncoder(ModalitySpec("motion", (75, 32)))
    with pytest.raises(DataError, match=r"t >= 16.*\(3, 15, 25, 2\)"):
        HCNEncoder(ModalitySpec("skeleton", (3, 15, 25, 2)))
    with pytest.raises(ConfigError, match="six positive numbers"):
        HCNEncoder(SPEC, channels=(8, 8))
    with pytest.raises(ConfigError, match="dropout"):
        HCNEncoder(SPEC, dropout=1.0)
    with pytest.raises(DataError, match="expected skeletons of shape"):
        HCNEncoder(SPEC)(torch.zeros(1, 3, 32, 20, 2))
