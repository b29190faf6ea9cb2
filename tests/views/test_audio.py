"""Audio views against slow references: the same random numbers, one sample at a time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_mmnas import ModalitySpec
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.views import DEFAULT_AUGMENTATIONS, AudioViews, TwoViews
from lightning_mmnas.views.audio import add_noise, mask_band, mask_stretches, shift

WAVEFORMS = torch.randn(5, 1, 40, generator=torch.Generator().manual_seed(1))
SPECTROGRAMS = 3 + torch.randn(5, 1, 12, 20, generator=torch.Generator().manual_seed(2))
BOTH = pytest.mark.parametrize("x", [WAVEFORMS, SPECTROGRAMS], ids=["waveform", "spectrogram"])


def seeded(view: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return view(x)


@BOTH
def test_shift_against_a_loop(x: Tensor) -> None:
    found = seeded(lambda x: shift(x, 0.3, x.new_full((), -7)), x)
    torch.manual_seed(0)
    t = x.shape[-1]
    steps = (0.3 * t * (2 * torch.rand(5, 1) - 1)).round().long().flatten().tolist()
    assert len(set(steps)) > 1
    for i, step in enumerate(steps):
        assert abs(step) <= 0.3 * t
        for j in range(t):
            wanted = x[i, ..., j - step] if 0 <= j - step < t else torch.full_like(x[i, ..., 0], -7)
            assert torch.equal(found[i, ..., j], wanted)


@BOTH
def test_noise_has_a_strength_per_sample(x: Tensor) -> None:
    found = seeded(lambda x: add_noise(x, 0.5), x)
    torch.manual_seed(0)
    strengths, noise = torch.rand(5), None
    noise = torch.randn_like(x)
    for i in range(5):
        wanted = x[i] + 0.5 * strengths[i] * x[i].std(correction=0) * noise[i]
        assert torch.allclose(found[i], wanted, atol=1e-6)


@pytest.mark.parametrize("axis", [-1, -2])
def test_masks_against_a_loop(axis: int) -> None:
    x, size, fill = SPECTROGRAMS, SPECTROGRAMS.shape[axis], SPECTROGRAMS.mean((1, 2, 3), keepdim=True)
    found = seeded(lambda x: mask_stretches(x, 0.4, 2, axis, fill), x)
    torch.manual_seed(0)
    lengths, places = torch.rand(5, 2, 1), torch.rand(5, 2, 1)
    for i in range(5):
        wanted = x[i].clone()
        for m in range(2):
            length = int((0.4 * size * lengths[i, m]).round())
            start = int(((size - length + 1) * places[i, m]).floor())
            assert 0 <= start <= size - length
            assert length <= 0.4 * size
            wanted.narrow(axis, start, length).fill_(fill[i].item())
        assert torch.equal(found[i], wanted)


def test_bands_against_a_loop() -> None:
    x = WAVEFORMS
    found = seeded(lambda x: mask_band(x, 0.5, 1), x)
    torch.manual_seed(0)
    lengths, places = torch.rand(5, 1, 1), torch.rand(5, 1, 1)
    for i in range(5):
        length = int((0.5 * 21 * lengths[i]).round())
        start = int(((21 - length + 1) * places[i]).floor())
        spectrum = torch.fft.rfft(x[i, 0])
        spectrum[start : start + length] = 0
        assert torch.allclose(found[i, 0], torch.fft.irfft(spectrum, n=40), atol=1e-6)
    assert torch.allclose(mask_band(x, 0.0, 1), x, atol=1e-6)
    assert torch.allclose(mask_band(x[..., :39], 0.0, 1), x[..., :39], atol=1e-6)  # odd lengths


def test_gain_is_a_factor_for_waveforms_and_a_shift_for_logarithms() -> None:
    view = AudioViews(shift=0, gain=0.5, noise=0, time_mask=0, frequency_mask=0)
    torch.manual_seed(0)
    u = 0.5 * (2 * torch.rand(5) - 1)
    found = seeded(view, WAVEFORMS)
    assert torch.allclose(found, WAVEFORMS * u.exp().view(5, 1, 1))
    found = seeded(view, SPECTROGRAMS)
    std = SPECTROGRAMS.flatten(1).std(1, correction=0)
    assert torch.allclose(found, SPECTROGRAMS + (u * std).view(5, 1, 1, 1))


def test_masked_places_of_a_spectrogram_take_its_mean() -> None:
    found = seeded(AudioViews(shift=0, gain=0, noise=0, time_mask=0.5, frequency_mask=0.5), SPECTROGRAMS)
    for view, x in zip(found, SPECTROGRAMS, strict=True):
        changed = view[view != x]
        assert torch.allclose(changed, x.mean().expand_as(changed))
    assert (found != SPECTROGRAMS).any()


@BOTH
def test_everything_off_changes_nothing(x: Tensor) -> None:
    off = AudioViews(shift=0, gain=0, noise=0, time_mask=0, frequency_mask=0)
    assert torch.equal(off(x), x)


@BOTH
def test_views_are_two_different_draws_of_the_same_shape(x: Tensor) -> None:
    spec = ModalitySpec("audio", tuple(x.shape[1:]))
    first, second = TwoViews({"sound": spec}, {"audio": DEFAULT_AUGMENTATIONS["audio"]()})({"sound": x.double()})
    for views in (first, second):
        assert views["sound"].shape == x.shape
        assert views["sound"].dtype == torch.float32
        assert torch.isfinite(views["sound"]).all()
    assert not torch.equal(first["sound"], second["sound"])


def test_silent_samples_stay_finite() -> None:
    assert torch.equal(AudioViews()(torch.zeros(3, 1, 4, 8)), torch.zeros(3, 1, 4, 8))


def test_bad_arguments_are_refused() -> None:
    for name in ("shift", "time_mask", "frequency_mask"):
        with pytest.raises(ConfigError, match=rf"{name} must be in \[0, 1\], got 2"):
            AudioViews(**{name: 2})
    for name in ("gain", "noise", "masks"):
        with pytest.raises(ConfigError, match=f"{name} must be at least 0, got -1"):
            AudioViews(**{name: -1})
    with pytest.raises(DataError, match=r"expected waveforms .* got shape \(2, 3\)"):
        AudioViews()(torch.zeros(2, 3))
