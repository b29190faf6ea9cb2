"""`mmnas prepare`: builds a data set from files that the user has."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.errors import ConfigError


def command(args: list[str]) -> None:
    """Runs `mmnas prepare DATASET [options]`."""
    datasets: dict[str, Callable[[list[str]], None]] = {"avmnist": _avmnist}
    if args and args[0] in datasets:
        datasets[args[0]](args[1:])
        return
    parser = Parser(
        prog="mmnas prepare",
        description="Builds a data set from files that you have.",
        epilog="mmnas prepare DATASET --help says more.",
        allow_abbrev=False,
    )
    parser.add_argument("dataset", choices=sorted(datasets), help="which data set")
    parser.parse_args(args[:1] or ["--help"])


def _avmnist(args: list[str]) -> None:
    parser = Parser(
        prog="mmnas prepare avmnist",
        description="Builds AV-MNIST from MNIST and the Free Spoken Digit Dataset (FSDD): pictures lose most of their "
        "PCA energy, recordings get noise and become spectrograms of 112 x 112; no picture and no recording is in two "
        "splits.",
        epilog="MNIST: CC BY-SA 3.0; FSDD: CC BY-SA 4.0; so is what is built from them.",
        allow_abbrev=False,
    )
    parser.add_argument("--mnist", required=True, metavar="DIR", help="the idx files of MNIST, or torchvision's folder")
    parser.add_argument("--download", action="store_true", help="download MNIST into --mnist with torchvision")
    parser.add_argument("--fsdd", required=True, metavar="DIR", help="the recordings {digit}_{speaker}_{take}.wav")
    parser.add_argument("--output", default="data/avmnist", metavar="DIR", help="new folder (default: data/avmnist)")
    parser.add_argument("--snr", type=float, default=-5.0, metavar="DB", help="inf: no noise (default: -5)")
    parser.add_argument("--noise", metavar="DIR", help="audio files as noise, such as ESC-50 (default: white noise)")
    parser.add_argument("--energy", type=float, default=0.75, help="share of PCA energy to remove (default: 0.75)")
    parser.add_argument("--pairs", type=int, help="pairs in all, 70/10/20 %% of them per split (default: all pictures)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default: 0)")
    options = parser.parse_args(args)
    if options.download and not Path(options.mnist).parent.is_dir():
        raise ConfigError(f"there is no folder {Path(options.mnist).parent} to download MNIST into; check --mnist")

    import json

    from lightning_mmnas.data.avmnist.data_module import MANIFEST
    from lightning_mmnas.data.avmnist.prepare import left_behind, prepare_avmnist

    for path in left_behind(Path(options.output)):
        what = f"{path} is of a writing of {options.output} that was killed, or still runs"
        print(f"note: {what}; if none runs, delete it")

    text = shlex.join(["mmnas", "prepare", "avmnist", *args])
    output = prepare_avmnist(**vars(options), command=text, progress=True)
    counts = json.loads((output / MANIFEST).read_text(encoding="utf-8"))["samples"]
    print(f"wrote {output}: " + ", ".join(f"{size:,} {split}" for split, size in counts.items()))
