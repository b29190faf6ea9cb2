"""Turns the collected MNIST and FSDD (two .npz files, see their README) into what `mmnas prepare avmnist` reads.

    python benchmarks/avmnist_fsdd.py avmnist_fsdd raw
    mmnas prepare avmnist --mnist raw/mnist --fsdd raw/fsdd --snr -5 --pairs 10000 --output data/avmnist

The splits are kept: the validation pictures become the last of MNIST's training file, where the command takes them
from, and the splits of the recordings are by take in both.
"""

import argparse
import gzip
import struct
import wave
from pathlib import Path

import numpy as np


def write_idx(path: Path, values: np.ndarray) -> None:
    head = struct.pack(f">{values.ndim + 1}I", 0x0800 + values.ndim, *values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(head + values.tobytes(), compresslevel=1))


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes(samples.astype("<i2").tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with avmnist_images.npz and avmnist_audio.npz")
    parser.add_argument("output", type=Path, help="folder to be written")
    options = parser.parse_args()
    with np.load(options.source / "avmnist_images.npz", allow_pickle=False) as images:
        pictures, labels, split = images["images"], images["labels"], images["image_split"]
    for part, rows in (
        ("train", np.concatenate([np.flatnonzero(split == 0), np.flatnonzero(split == 1)])),
        ("t10k", np.flatnonzero(split == 2)),
    ):
        write_idx(options.output / "mnist" / f"{part}-images-idx3-ubyte.gz", pictures[rows])
        write_idx(options.output / "mnist" / f"{part}-labels-idx1-ubyte.gz", labels[rows])
    with np.load(options.source / "avmnist_audio.npz", allow_pickle=False) as audio:
        arrays = {name: audio[name] for name in audio.files}
    rate, offsets = int(arrays["sample_rate"]), arrays["offsets"]
    for i, (digit, speaker, take) in enumerate(zip(arrays["digit"], arrays["speaker"], arrays["take"], strict=True)):
        name = f"{digit}_{arrays['speaker_names'][speaker]}_{take}.wav"
        write_wav(options.output / "fsdd" / name, arrays["waveforms"][offsets[i] : offsets[i + 1]], rate)


if __name__ == "__main__":
    main()
