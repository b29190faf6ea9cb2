"""A small table of photos, sounds and numbers, in which every modality tells something of the class."""

import csv
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.data.columns.test_audio import write_wav

CLASSES = ("blackbird", "cuckoo", "heron")


def make_table(root: Path, rows: int = 60, name: str = "table.csv", noise: float = 1.0) -> Path:
    """Writes `table.csv` with the columns id, photo, song, mass, wing, site and label, and its files.

    Args:
        root: Folder of the table.
        rows: Number of rows; the class goes round.
        name: Name of the table.
        noise: Strength of the noise in every modality.
    """
    random = np.random.default_rng(0)
    for folder in ("photos", "songs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    time = torch.arange(2000) / 8000
    lines = []
    for i in range(rows):
        kind = i % len(CLASSES)
        pixels = random.normal(100, 30 * noise, (20, 24, 3))
        pixels[4 + 4 * kind : 10 + 4 * kind, 6:18, kind] += 90
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "photos" / f"{i:03}.png")
        tone = 0.3 * torch.sin(2 * math.pi * (500 + 500 * kind + random.normal(0, 30)) * time)
        hiss = torch.from_numpy(random.normal(0, 0.1 * noise, len(time))).float()
        write_wav(root / "songs" / f"{i:03}.wav", (tone + hiss).clamp(-1, 1).unsqueeze(0))
        mass, wing = random.normal(100 + 30 * kind, 20 * noise), random.normal(20 - 3 * kind, 2 * noise)
        lines.append([i, f"photos/{i:03}.png", f"songs/{i:03}.wav", f"{mass:.2f}", f"{wing:.2f}", f"site{i // 3 % 10}"])
        lines[-1].append(CLASSES[kind])
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "photo", "song", "mass", "wing", "site", "label"])
        writer.writerows(lines)
    return root / name
