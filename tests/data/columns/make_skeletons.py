"""Skeleton text files in the format of NTU RGB+D, made in code."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def moving_body(frames: int, seed: int = 0, motion: float = 0.3) -> Tensor:
    """A body of 25 joints 3 m away that sways and waves, shape (frames, 25, 3), in metres."""
    generator = torch.Generator().manual_seed(seed)
    pose = torch.rand(25, 3, generator=generator) - torch.tensor([0.5, 0.5, -3.0])
    phase = torch.rand(25, 3, generator=generator) * 6
    time = torch.arange(frames).view(-1, 1, 1) / 5
    return pose + motion * torch.sin(time + phase)


def write_skeleton(path: Path, bodies: Mapping[int, Tensor], frames: int, seen: Mapping[int, range]) -> None:
    """Writes bodies (frames, 25, 3) by id; each is in the frames of `seen`, or else in all."""
    lines = [str(frames)]
    for frame in range(frames):
        present = [body for body in bodies if frame in seen.get(body, range(frames))]
        lines.append(str(len(present)))
        for body in present:
            lines += [f"{body} 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
            for x, y, z in np.round(bodies[body][frame].double().numpy(), 6).tolist():
                lines.append(f"{x} {y} {z} 277.419 191.8218 1036.233 519.1677 -0.2059419 0.05 0.9692109 -0.12 2")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
