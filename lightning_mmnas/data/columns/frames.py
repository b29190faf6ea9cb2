"""Arrays of pixels as pictures and clips of one size."""

import torch
from torch import Tensor

from lightning_mmnas.data.columns.arrays import Array, finite
from lightning_mmnas.data.columns.axes import arrange, way_out
from lightning_mmnas.data.columns.column import damaged
from lightning_mmnas.data.columns.pixels import numbers_to_pixels
from lightning_mmnas.data.columns.video import clip_positions

_WHITE = {"u1": 255.0, "u2": 65535.0, "b1": 1.0}
"""Largest value by type; that of floats is 1."""


def read_frames(
    array: Array,
    size: tuple[int, int],
    channels: int,
    frames: int | None = None,
    maximum: float | None = None,
    clip: bool = False,
    axes: str | None = None,
    source: str = "an array",
) -> Tensor:
    """An array of pixels as a picture or a clip.

    Args:
        array: As the file has it, grey, of 3 colours, or of 3 and opacity. What is transparent shows white, or black
            where the rest of the first frame is nearly white itself; opacity that is the same everywhere is dropped.
        size: (h, w) of the result.
        channels: 1 or 3; grey is copied, of colours see `grey_of`.
        frames: Frames of a clip, one from the middle of each of as many segments; None: it is a picture.
        maximum: Value that becomes white; None: 255 for uint8, 65535 for uint16, 1 for floats.
        clip: Whether greater values than `maximum` become white too; otherwise they are an error.
        axes: See `arrange`; None: (h, w) or (h, w, colours), (t, h, w) or (t, h, w, colours).
        source: What to call it in messages.

    Returns:
        Pixels in [0, 255], uint8, shape (channels, h, w), or (channels, frames, h, w).

    Raises:
        DamagedFilesError: It has another shape, a value out of range, or holds NaN or infinity.
    """
    kind = "image" if frames is None else "video"
    values = arrange(array, kind, axes, source)
    values = values[None] if frames is None else values[clip_positions(len(values), frames, "uniform")]
    values = values[..., None] if values.ndim == 3 else values  # (t, h, w, c)
    if values.shape[3] not in (1, 3, 4):
        found = f"an array of shape {array.shape} has {values.shape[3]} colours instead of 1, 3 or 4"
        raise damaged(source, found + way_out(array, kind, axes))
    white = maximum or (1.0 if values.dtype.kind == "f" else _WHITE.get(f"{values.dtype.kind}{values.dtype.itemsize}"))
    if white is None:
        raise damaged(source, f"numbers of type {values.dtype} have no known white; set maximum")
    numbers = torch.from_numpy(finite(values, source)).permute(0, 3, 1, 2)
    try:
        pixels = numbers_to_pixels(numbers, white, size, channels, maximum is not None, clip)
    except ValueError as error:
        raise damaged(source, str(error)) from None
    pixels = pixels.transpose(0, 1).contiguous()
    return pixels[:, 0] if frames is None else pixels
