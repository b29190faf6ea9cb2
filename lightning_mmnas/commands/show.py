"""`mmnas show`: the architecture that a run found, or any genotype, as a tree or as a picture."""

from pathlib import Path

from lightning_mmnas.commands.parser import Parser, path_hint
from lightning_mmnas.errors import ConfigError


def command(args: list[str]) -> None:
    """Runs `mmnas show`.

    Raises:
        ConfigError: There is no such file or run, or it cannot be drawn in that format.
        GenotypeError: The file is not a genotype.
    """
    parser = Parser(
        prog="mmnas show",
        description="Shows the architecture that a run found, or any genotype, as a tree in the terminal.",
        allow_abbrev=False,
    )
    parser.add_argument("genotype", metavar="RUN", help="the folder of a run, or a genotype.json")
    parser.add_argument("--output", help="also draw it into this file (png, pdf, svg)")
    options = parser.parse_args(args)
    found = genotype_file(Path(options.genotype))

    from rich.console import Console

    from lightning_mmnas.report.architecture import plot_genotype, render_tree
    from lightning_mmnas.space.genotype import Genotype

    genotype = Genotype.load(found)
    Console().print(render_tree(genotype))
    if options.output is not None:
        import matplotlib

        from lightning_mmnas.files import replacing

        matplotlib.use("Agg")
        figure = plot_genotype(genotype)
        formats = figure.canvas.get_supported_filetypes()
        if Path(options.output).suffix.removeprefix(".").lower() not in formats:
            raise ConfigError(f"cannot draw {options.output}; the suffixes are {sorted(formats)}")
        with replacing(Path(options.output)) as path:
            figure.savefig(path, bbox_inches="tight")
        print(f"wrote {options.output}")


def genotype_file(path: Path) -> Path:
    """The genotype itself, or that of a run.

    Raises:
        ConfigError: There is no such path, or it is a folder without a genotype.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"there is no file or run {path}{path_hint(path)}")
    genotype = path / "genotype.json"
    if genotype.is_file():
        return genotype
    if (path / "manifest.json").is_file():
        raise ConfigError(f"the run {path} has no genotype yet: its search has not ended; continue mmnas run")
    if (path.parent / "genotype.json").is_file():
        raise ConfigError(f"{path} is a folder within a run; did you mean {path.parent}?")
    raise ConfigError(f"{path} is no run of mmnas: it holds no genotype.json and no manifest.json")
