"""A tiny NTU RGB+D in the layout of BM-NAS: six subjects, two actions, three cameras."""

from pathlib import Path

from lightning_mmnas.data.ntu import Name
from tests.data.columns.make_skeletons import moving_body, write_skeleton
from tests.data.columns.make_videos import moving_square, write_video

SUBJECTS = (1, 4, 2, 5, 3, 6)
"""Two of each split."""


def make_ntu(root: Path, repetitions: int = 1, videos: bool = True) -> Path:
    """Writes `repetitions` performances of actions 1 and 60 by every subject, each seen by three cameras."""
    names = [
        Name(1, camera, subject, repetition + 1, action)
        for subject in SUBJECTS
        for repetition in range(repetitions)
        for action in (1, 60)
        for camera in (1, 2, 3)
    ]
    for number, name in enumerate(names):
        frames = 6 + number % 5
        # Action 60 is that of two persons.
        bodies = {7 + i: moving_body(frames, number + 99 * i, name.action / 100) for i in range(1 + (name.action > 49))}
        write_skeleton(root / "nturgb+d_skeletons" / f"{name}.skeleton", bodies, frames, {})
        if videos:
            write_video(root / "nturgb+d_rgb_256x256_30" / f"{name}_rgb.avi", moving_square(frames, seed=number))
    return root
