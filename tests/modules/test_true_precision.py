"""The stages in true precisions: what is narrow, and what stays in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import seed_everything

from lightning_mmnas import (
    ArchitectureAlternation,
    AudioEncoder,
    EncoderPretraining,
    FusionSearch,
    ImageEncoder,
    TensorDataModule,
    VideoEncoder,
)
from tests.modules.test_stages import SMALL
from tests.modules.tiny import ENCODERS, data_of, modalities, trainer_of


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("pairing", ["independent", "tied"])
def test_logits_of_a_search_are_never_in_half_precision(precision: Any, pairing: Any, tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    search = FusionSearch(modalities(), ENCODERS, pairing=pairing, steps=2, lr=1e-4, **SMALL)
    trainer = trainer_of(tmp_path, callbacks=[ArchitectureAlternation(lr=1e-2)], precision=precision)
    trainer.fit(search, data_of(architecture_fraction=0.5))
    wanted = torch.float64 if precision == "64-true" else torch.float32
    for logit in search.architecture_parameters():
        assert logit.dtype == wanted
        assert logit.isfinite().all()
    assert any(logit.any() for logit in search.architecture_parameters())
    narrow = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}[precision]
    assert {p.dtype for p in search.parameters() if p.requires_grad} == {narrow}


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_pixels_and_sounds_in_true_precision(precision: Any, tmp_path: Path) -> None:
    """Views and spectrograms are computed in float32, what the encoders take is of the precision's type."""
    generator = torch.Generator().manual_seed(0)
    split = {
        "picture": torch.randint(0, 256, (8, 3, 8, 8), generator=generator, dtype=torch.uint8),
        "clip": torch.randint(0, 256, (8, 3, 4, 8, 8), generator=generator, dtype=torch.uint8),
        "sound": torch.randn(8, 1, 1600, generator=generator),
    }
    kinds: dict[str, Any] = {"picture": "image", "clip": "video", "sound": "audio"}
    data = TensorDataModule(split, split, kinds=kinds, batch_size=8, labels=False)
    encoders: dict[str, Any] = {
        "image": lambda spec: ImageEncoder(spec, channels=(4, 6)),
        "video": lambda spec: VideoEncoder(spec, channels=(4, 6)),
        "audio": lambda spec: AudioEncoder(spec, channels=(4, 6), rate=8000),
    }
    stage = EncoderPretraining(data.modalities, encoders)
    trainer_of(tmp_path, precision=precision).fit(stage, data)
    wanted = torch.float64 if precision == "64-true" else torch.bfloat16
    assert {value.dtype for value in stage.parameters()} == {wanted}
    assert torch.get_default_dtype() == torch.float32
