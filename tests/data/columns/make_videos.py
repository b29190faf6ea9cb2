"""Small videos and folders of frames, made in code."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def moving_square(frames: int, size: int = 32, seed: int = 0) -> Tensor:
    """A bright square that moves over a ground whose brightness rises with time, uint8 (t, h, w, 3)."""
    generator = np.random.default_rng(seed)
    colour = generator.integers(120, 255, 3)
    row = int(generator.integers(0, size // 2))
    clip = np.zeros((frames, size, size, 3), dtype=np.uint8)
    for t in range(frames):
        clip[t] = 4 * t % 100
        left = (t + row) % (size // 2)
        clip[t, row : row + size // 3, left : left + size // 3] = colour
    return torch.from_numpy(clip)


def write_video(path: Path, clip: Tensor, codec: str = "mpeg4", rate: int = 30) -> None:
    """Writes pixels (t, h, w, 3)."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        stream.codec_context.thread_count = 1
        for frame in clip.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_frames(folder: Path, clip: Tensor, first: int, grey: bool = False) -> None:
    """Writes pixels (t, h, w, 3) as `{number:06d}.jpg`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(clip.numpy(), first):
        picture = Image.fromarray(frame)
        (picture.convert("L") if grey else picture).save(folder / f"{number:06d}.jpg", quality=95)
