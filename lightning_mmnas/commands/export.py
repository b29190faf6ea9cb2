"""`mmnas export`: a delivered model as a file for torch.export or ONNX."""

from __future__ import annotations

from pathlib import Path

from lightning_mmnas.commands.parser import Parser, check_run


def command(args: list[str]) -> None:
    """Runs `mmnas export`."""
    parser = Parser(
        prog="mmnas export",
        description="Writes the model of a run as one file that runs without lightning_mmnas, for any number of "
        "samples at once, and a .json file beside it that names inputs and classes. The file is compared with the "
        "model before it is kept.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder that `mmnas run` made, or its folder model")
    parser.add_argument("--format", required=True, choices=["torch_export", "onnx"], help="format of the file")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="a .pt2 or .onnx file (default: model.pt2 or model.onnx, here)"
    )
    parser.add_argument(
        "--what",
        choices=["classifier", "embedding"],
        default="classifier",
        help="what comes out: probabilities (default), or the fusion network's vector",
    )
    parser.add_argument(
        "--input",
        choices=["samples", "features"],
        default="samples",
        help="what goes in: samples, the encoders are in the file (default); or the encoders' features",
    )
    parser.add_argument("--allow", action="append", default=[], metavar="CLASS_PATH", help="see mmnas predict --help")
    options = parser.parse_args(args)
    check_run(options.run)
    from lightning_mmnas.report.progress import activity

    with activity("exporting the model and comparing the file with it"):
        from lightning_mmnas.delivery.export import SUFFIXES, description_of, export
        from lightning_mmnas.delivery.loading import load

        path = options.output or Path(f"model{SUFFIXES[options.format]}")
        model = load(options.run, allow=options.allow)
        written = export(model, path, options.format, options.what, options.input)
    for name, entry in written["inputs"].items():
        print(f"input   {name}: {entry['dtype']} {entry['shape']}")
    print(f"output  {written['output']}, differs from the model by {written['difference']:.1g} at most")
    print(f"written to {path}, described in {description_of(path)}")
