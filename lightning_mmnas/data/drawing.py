"""One modality of one sample as a small picture."""

import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.spec import ModalitySpec, to_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOMENTS = 4
"""Frames of a video, or poses of a skeleton, that are shown side by side."""
_WORDS = 40
"""Tokens of a text that are shown."""
_LINE = 40
"""Characters of a line; half as many where some are twice as wide, as Chinese ones are."""
_CAPTION = 60
"""Characters of the names of classes that are shown."""


def draw(axes: "Axes", values: Tensor, spec: ModalitySpec, text: str | None = None) -> None:
    """Draws one modality: lines, a picture, a strip of frames, poses, bars, or words.

    Args:
        axes: Where to draw.
        values: The modality of one sample, in the shape of `spec`.
        spec: What it is.
        text: The words of a text, where they are known; otherwise its ids are shown.
    """
    values = values.detach().float().cpu() if spec.kind not in ("image", "video") else values.detach().cpu()
    if spec.kind == "image":
        _picture(axes, to_unit(values))
    elif spec.kind == "video":
        _picture(axes, torch.cat([to_unit(values)[:, i] for i in _moments(values.shape[1])], dim=-1))
    elif spec.kind == "audio" and values.ndim == 3:
        axes.imshow(values.mean(0).numpy(), aspect="auto", origin="lower", cmap="magma")
        axes.set(xlabel="t", ylabel="mel")
    elif spec.kind == "skeleton":
        _poses(axes, values)
    elif spec.kind == "features":
        # One outline, and not a bar for each of thousands of numbers.
        axes.stairs(values.flatten().numpy(), np.arange(values.numel() + 1) - 0.5, fill=True, baseline=0.0)
    elif spec.kind == "text":
        _words(axes, values, spec, text)
    else:
        axes.plot(values.reshape(-1, values.shape[-1]).T.numpy(), linewidth=0.8)


def caption(text: str) -> str:
    """A name as it is shown in a picture: shortened, and no formula where it has a dollar sign."""
    return (text if len(text) <= _CAPTION else f"{text[: _CAPTION - 2]} …").replace("$", r"\$")


def _moments(t: int) -> list[int]:
    return torch.linspace(0, t - 1, min(t, _MOMENTS)).round().int().tolist()


def _picture(axes: "Axes", pixels: Tensor) -> None:
    """Pixels in [0, 1], shape (channels, h, w)."""
    axes.imshow(pixels.float().clamp(0, 1).permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()


def _poses(axes: "Axes", joints: Tensor) -> None:
    """Joints (3, t, joints, bodies), x to the right and y upwards; later poses stand further to the right."""
    width = float(joints[0].max() - joints[0].min()) or 1.0
    for place, moment in enumerate(_moments(joints.shape[1])):
        x, y = joints[0, moment].flatten(), joints[1, moment].flatten()
        axes.scatter((x + place * width).numpy(), y.numpy(), s=4)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _words(axes: "Axes", ids: Tensor, spec: ModalitySpec, text: str | None) -> None:
    import textwrap

    if text is None:
        assert spec.vocabulary is not None
        kept = [str(int(i)) for i in ids.tolist() if int(i) != spec.vocabulary.pad]
        text = " ".join(kept[:_WORDS]) + (" …" if len(kept) > _WORDS else "")
    # "$" would start a formula.
    wide = any(unicodedata.east_asian_width(character) in "WF" for character in text)
    shown = textwrap.fill(textwrap.shorten(text, 240, placeholder=" …"), _LINE // 2 if wide else _LINE)
    shown = shown.replace("$", r"\$")
    axes.text(0, 1, shown or "(empty)", va="top", fontsize=7, transform=axes.transAxes)
    axes.set_axis_off()
