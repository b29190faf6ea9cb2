"""The log-mel front end against its formulas, and the shapes, precision and refusals of the encoder."""

import cmath
import io
import math

import pytest
import torch
from torch import Tensor

from lightning_mmnas import AudioEncoder, ModalitySpec
from lightning_mmnas.data.mel import mel_filters
from lightning_mmnas.encoders.audio import LogMel
from lightning_mmnas.errors import ConfigError, DataError

WAVEFORM = ModalitySpec("audio", (1, 4000))
SPECTROGRAM = ModalitySpec("audio", (1, 40, 61))


def test_mel_filters_against_the_formula() -> None:
    mels, bins, rate = 10, 65, 8000
    filters = mel_filters(mels, bins, rate)
    assert filters.shape == (mels, bins)
    top = 2595 * math.log10(1 + 4000 / 700)
    corners = [700 * (10 ** (top * i / (mels + 1) / 2595) - 1) for i in range(mels + 2)]
    for i in range(mels):
        left, peak, right = corners[i : i + 3]
        for k in range(bins):
            f = k * 4000 / (bins - 1)
            wanted = (f - left) / (peak - left) if f <= peak else (right - f) / (right - peak)
            assert filters[i, k].item() == pytest.approx(max(0.0, wanted), abs=1e-5)


def test_the_scale_is_that_of_htk() -> None:
    # 1000 Hz is 1000 mel up to rounding of the constants: the middle of a filter from 0 to 2000 mel peaks there.
    high = 700 * (10 ** (2000 / 2595) - 1)
    filter_ = mel_filters(1, 8001, 16_000, high=high)[0]
    assert filter_.argmax().item() == pytest.approx(1000, abs=1)
    assert filter_.max().item() == pytest.approx(1, abs=1e-3)


def test_neighbouring_filters_sum_to_one_between_their_peaks() -> None:
    total = mel_filters(20, 257, 16_000).sum(0)
    assert torch.allclose(total[8:180], torch.ones(172), atol=1e-5)


def test_log_mel_against_a_direct_transform() -> None:
    front = LogMel(rate=800, mels=6, window=0.04, hop=0.02)
    x = torch.randn(1, 1, 100, generator=torch.Generator().manual_seed(0))
    found = front(x)
    assert found.shape == (1, 1, 6, 1 + 100 // 16)
    filters = mel_filters(6, 17, 800)
    for frame in range(found.shape[3]):
        power = []
        for k in range(17):
            total = 0j
            for n in range(32):
                i = frame * 16 + n - 16
                if 0 <= i < 100:
                    hann = 0.5 - 0.5 * math.cos(2 * math.pi * n / 32)
                    total += x[0, 0, i].item() * hann * cmath.exp(-2j * math.pi * k * n / 32)
            power.append(abs(total) ** 2)
        wanted = [math.log(sum(w * p for w, p in zip(row.tolist(), power, strict=True)) + 1e-6) for row in filters]
        assert found[0, 0, :, frame].tolist() == pytest.approx(wanted, abs=1e-3)


def test_the_power_of_a_tone_is_in_its_filter() -> None:
    t = torch.arange(8000) / 8000
    mels = LogMel(8000, 40, 0.032, 0.01)(torch.sin(2 * math.pi * 1000 * t).view(1, 1, -1))[0, 0, :, 50]
    # A full-scale sine on a bin has the power (sum of the window / 2)^2; the Hann window of 256 sums to 128.
    filters = mel_filters(40, 129, 8000)
    assert mels.argmax() == filters[:, 32].argmax()
    weight = filters[:, 31:34] @ torch.tensor([0.25, 1.0, 0.25])  # the window spreads it over three bins
    assert mels.exp().max().item() == pytest.approx(64**2 * weight.max().item(), rel=1e-3)


@pytest.mark.parametrize("spec", [WAVEFORM, SPECTROGRAM], ids=["waveform", "spectrogram"])
@pytest.mark.parametrize("channels", [(4,), (4, 6, 8), (2, 3, 4, 5)])
def test_features_have_the_promised_shapes(spec: ModalitySpec, channels: tuple[int, ...]) -> None:
    encoder = AudioEncoder(spec, channels=channels, rate=8000)
    features = encoder(torch.randn(3, *spec.shape))
    assert [tuple(f.shape[1:]) for f in features] == encoder.feature_shapes
    assert [f.shape[1] for f in features] == list(channels)
    gradients = torch.autograd.grad(torch.stack([f.mean() for f in features]).sum(), list(encoder.parameters()))
    assert all(torch.isfinite(g).all() for g in gradients)


def test_pooling_averages_squares_first() -> None:
    encoder = AudioEncoder(SPECTROGRAM, pool=2, channels=(3,)).eval()
    assert encoder.feature_shapes == [(3, 10, 15)]
    x = torch.randn(2, *SPECTROGRAM.shape)
    norm = encoder.norm
    means = norm(x)[..., :40, :60].unflatten(3, (30, 2)).unflatten(2, (20, 2)).mean((3, 5))
    assert torch.allclose(encoder(x)[0], encoder.blocks[0](means), atol=1e-5)
    with pytest.raises(ConfigError, match="pool must be at least 1, got 0"):
        AudioEncoder(SPECTROGRAM, pool=0)


def test_spectrograms_pass_by_the_front_end() -> None:
    encoder = AudioEncoder(SPECTROGRAM).eval()
    x = torch.randn(2, *SPECTROGRAM.shape)
    norm = encoder.norm
    wanted = encoder.blocks[0](norm(x))
    assert torch.equal(encoder(x)[0], wanted)
    assert set(AudioEncoder(WAVEFORM).state_dict()) == set(encoder.state_dict())  # filters are not weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_precision_keeps_the_front_end_in_float32(dtype: torch.dtype) -> None:
    encoder = AudioEncoder(WAVEFORM, rate=8000).eval()
    x = 0.1 * torch.randn(2, *WAVEFORM.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        exact = encoder(x.float())
        spectrogram: Tensor = encoder.front(x.float())
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(encoder.front(x), spectrogram)
            mixed = encoder(x)
    for a, b in zip(mixed, exact, strict=True):
        assert torch.isfinite(a).all()
        assert (a.float() - b).abs().max() < 0.05 * b.abs().max()


def test_silence_is_finite() -> None:
    assert all(torch.isfinite(f).all() for f in AudioEncoder(WAVEFORM)(torch.zeros(2, *WAVEFORM.shape)))


def test_weights_survive_a_file() -> None:
    encoder, other = (AudioEncoder(WAVEFORM, rate=8000).eval() for _ in range(2))
    file = io.BytesIO()
    torch.save(encoder.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, *WAVEFORM.shape)
    assert torch.equal(other(x)[2], encoder(x)[2])


@pytest.mark.parametrize("spec", [ModalitySpec("motion", (3, 64)), ModalitySpec("audio", (2, 4000))])
def test_other_modalities_are_refused(spec: ModalitySpec) -> None:
    with pytest.raises(DataError, match=r"AudioEncoder takes audio of shape \(1, t\) or \(1, mel, t\), got kind"):
        AudioEncoder(spec)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"channels must be positive numbers, got \[\]"):
        AudioEncoder(WAVEFORM, channels=())
    with pytest.raises(ConfigError, match="kernel_size must be odd"):
        AudioEncoder(WAVEFORM, kernel_size=4)
    with pytest.raises(ConfigError, match="rate=0"):
        AudioEncoder(WAVEFORM, rate=0)
    with pytest.raises(ConfigError, match="128 mel filters are too many for 129 frequencies"):
        AudioEncoder(WAVEFORM, rate=8000, mels=128)
    with pytest.raises(DataError, match="at least 8 frequencies and points in time"):
        AudioEncoder(ModalitySpec("audio", (1, 500)), rate=16_000)
    with pytest.raises(DataError, match=r"expected audio of shape \(b, 1, 4000\), got \(2, 1, 3999\)"):
        AudioEncoder(WAVEFORM)(torch.zeros(2, 1, 3999))
