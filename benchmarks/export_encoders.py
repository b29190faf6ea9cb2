"""Exports a classifier of every kind of encoder and says how far the file is from the model.

    OMP_NUM_THREADS=1 python benchmarks/export_encoders.py

Each model has one encoder with random weights beside a small one of numbers, and a fusion network of two cells.
Differences are the largest ones of probabilities with one and with five random samples; seconds are those of exporting
and checking.
"""

import argparse
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lightning_mmnas
from lightning_mmnas import (
    AudioEncoder,
    FeatureEncoder,
    FineTuning,
    FramewiseEncoder,
    FusionSpace,
    HCNEncoder,
    ImageEncoder,
    MaxoutEncoder,
    ModalitySpec,
    MotionEncoder,
    TensorDataModule,
    TextEncoder,
    TimmEncoder,
    TorchvisionEncoder,
    TorchvisionVideoEncoder,
    TransformersEncoder,
    VideoEncoder,
    Vocabulary,
)
from lightning_mmnas.delivery.export import SUFFIXES, export, random_sample
from lightning_mmnas.errors import ModelError

IMAGE, CLIP, WORDS = (3, 64, 64), (3, 8, 64, 64), Vocabulary(64)
BERT = (
    '{"model_type": "bert", "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, '
    '"intermediate_size": 16, "max_position_embeddings": 16}'
)


def cases(folder: Path) -> dict[str, tuple[ModalitySpec, Any]]:
    """An encoder of every class, and a modality for it."""
    bert = folder / "config.json"
    bert.write_text(BERT)
    small = functools.partial(ImageEncoder, channels=(4, 6))
    image, video = ModalitySpec("image", IMAGE, torch.uint8), ModalitySpec("video", CLIP, torch.uint8)
    numbers, text = ModalitySpec("features", (5,)), ModalitySpec("text", (11,), torch.int64, WORDS)
    return {
        "AudioEncoder": (ModalitySpec("audio", (1, 4000)), functools.partial(AudioEncoder, rate=8000)),
        "FeatureEncoder": (numbers, FeatureEncoder),
        "MaxoutEncoder": (numbers, functools.partial(MaxoutEncoder, widths=(4, 4))),
        "ImageEncoder": (image, ImageEncoder),
        "TimmEncoder, tf_efficientnet_lite0": (image, functools.partial(TimmEncoder, name="tf_efficientnet_lite0")),
        "TimmEncoder, vit_tiny_patch16_224": (
            ModalitySpec("image", (3, 224, 224), torch.uint8),
            functools.partial(TimmEncoder, name="vit_tiny_patch16_224"),
        ),
        "TorchvisionEncoder, resnet18": (image, functools.partial(TorchvisionEncoder, name="resnet18", weights=None)),
        "MotionEncoder": (ModalitySpec("motion", (3, 37)), MotionEncoder),
        "HCNEncoder": (ModalitySpec("skeleton", (3, 16, 25, 2)), HCNEncoder),
        "TextEncoder": (text, TextEncoder),
        "TransformersEncoder, BERT": (
            text,
            functools.partial(TransformersEncoder, name=str(bert), layers=(1, 2), sentence=True),
        ),
        "VideoEncoder": (video, VideoEncoder),
        "FramewiseEncoder": (video, functools.partial(FramewiseEncoder, encoder=small)),
        "TorchvisionVideoEncoder, r3d_18": (
            video,
            functools.partial(TorchvisionVideoEncoder, name="r3d_18", weights=None),
        ),
    }


def model_of(spec: ModalitySpec, encoder: Any, folder: Path) -> lightning_mmnas.DeliveredModel:
    """A delivered classifier with random weights."""
    torch.manual_seed(0)
    split = {
        "a": random_sample(spec, 8, torch.Generator().manual_seed(0)),
        "b": torch.randn(8, 6),
        "label": torch.arange(8) % 2,
    }
    words = {} if spec.vocabulary is None else {"a": spec.vocabulary}
    data = TensorDataModule(split, split, split, kinds={"a": spec.kind, "b": "features"}, vocabularies=words)
    encoders = {"a": encoder, "b": functools.partial(FeatureEncoder, widths=(4,))}
    shapes = {f"a/{i}": shape for i, shape in enumerate(encoder(spec).feature_shapes)}
    space = FusionSpace(inputs=(*shapes, "b/0"), cells=2, steps=1, channels=8, length=4)
    genotype = space.sample(torch.Generator().manual_seed(1))
    stage = FineTuning(data.modalities, encoders, 2, "multiclass", genotype=genotype, mode="full").eval()
    for module in stage.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_var.uniform_(0.5, 2)
    data.setup("fit")
    lightning_mmnas.save(stage, data, folder / "model")
    return lightning_mmnas.load(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print("| encoder | torch.export | s | ONNX | s |\n|-|-|-|-|-|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, (spec, encoder) in cases(folder).items():
            model = model_of(spec, encoder, folder)
            cells = []
            for format, suffix in SUFFIXES.items():
                begin = time.monotonic()
                try:
                    found = f"{export(model, folder / f'x{suffix}', format)['difference']:.0e}"  # type: ignore[arg-type]
                except ModelError as error:
                    found = str(error)
                cells += [found, f"{time.monotonic() - begin:.0f}"]
            print(f"| {title} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
