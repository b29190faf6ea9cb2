"""`mmnas show`: a genotype as a tree, or as a picture."""

from pathlib import Path

from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.errors import ConfigError


def command(args: list[str]) -> None:
    """Runs `mmnas show`.

    Raises:
        ConfigError: There is no such file, or it cannot be drawn in that format.
        GenotypeError: The file is not a genotype.
    """
    parser = Parser(
        prog="mmnas show",
        description="Shows a genotype as a tree in the terminal.",
        allow_abbrev=False,
    )
    parser.add_argument("genotype", help="a genotype.json")
    parser.add_argument("--output", help="also draw it into this file (png, pdf, svg)")
    options = parser.parse_args(args)
    if not Path(options.genotype).is_file():
        raise ConfigError(f"there is no file {options.genotype}")

    from rich.console import Console

    from lightning_mmnas.report.architecture import plot_genotype, render_tree
    from lightning_mmnas.space.genotype import Genotype

    genotype = Genotype.load(options.genotype)
    Console().print(render_tree(genotype))
    if options.output is not None:
        import matplotlib

        from lightning_mmnas.files import replacing

        matplotlib.use("Agg")
        figure = plot_genotype(genotype)
        formats = figure.canvas.get_supported_filetypes()
        if Path(options.output).suffix.removeprefix(".") not in formats:
            raise ConfigError(f"cannot draw {options.output}; the suffixes are {sorted(formats)}")
        with replacing(Path(options.output)) as path:
            figure.savefig(path, bbox_inches="tight")
        print(f"wrote {options.output}")
