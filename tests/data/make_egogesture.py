"""A tiny EgoGesture: a recording of each split, with gestures of two classes."""

import json
from pathlib import Path
from typing import Any

from lightning_mmnas.data.egogesture import ANNOTATION
from tests.data.columns.make_videos import moving_square, write_frames

RECORDINGS = {
    "training": "Subject03/Scene1/Color/rgb1",
    "validation": "Subject01/Scene2/Color/rgb2",
    "testing": "Subject02/Scene1/Color/rgb1",
}
LABELS = ("Scroll_hand_towards_right", "Wave_hand")


def make_egogesture(root: Path, clips: int = 4, frames: int = 5, recordings: int = 2) -> Path:
    """Writes `clips` gestures of `frames` frames in each recording, `recordings` of them for training."""
    database: dict[str, Any] = {}
    for subset, first in RECORDINGS.items():
        for recording in range(recordings if subset == "training" else 1):
            folder = first if recording == 0 else first[:-1] + str(1 + recording)
            for depth in (False, True):
                path = folder.replace("Color/rgb", "Depth/depth") if depth else folder
                video = moving_square(clips * frames, seed=recording)
                write_frames(root / path, video, first=1, grey=depth)
            for clip in range(clips):
                database[folder if clip == 0 else f"{folder}_{clip}"] = {
                    "subset": subset,
                    "annotations": {
                        "label": LABELS[clip % 2],
                        "start_frame": f"{clip * frames + 1}.0",
                        "end_frame": f"{(clip + 1) * frames}.0",
                    },
                }
    (root / ANNOTATION).write_text(json.dumps({"labels": list(LABELS), "database": database}))
    return root
