"""`mmnas data`: what is in the data set of a configuration, before anything is trained on it."""

from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.errors import ConfigError


def command(args: list[str]) -> None:
    """Runs the command.

    Raises:
        ConfigError: The configuration is wrong, or its data module is not a `MultimodalDataModule`.
        DamagedFilesError: Files are damaged or missing; everything else has been printed and written before.
        DataError: A split cannot be read; likewise.
    """
    parser = Parser(
        prog="mmnas data",
        description="Prints sizes, splits, shapes, label counts, damaged files and what splits share, and writes a "
        "picture of a few samples beside their two views. Reads every file once, the test split's too.",
        epilog="Further options override the configuration: --data.init_args.root /data/mmimdb",
        allow_abbrev=False,
    )
    parser.add_argument("config", help="a stage's configuration, a folder of them, or a shipped one: watch")
    parser.add_argument("--output", metavar="DIR", help="folder of data.json and samples.png (default: RUN_DIR-data)")
    parser.add_argument("--samples", type=int, default=4, help="samples in the picture (default: 4)")
    options, overrides = parser.parse_known_args(args)
    if options.samples < 1:
        raise ConfigError(f"--samples must be at least 1, got {options.samples}")
    from lightning_mmnas.commands.data_summary import summarise_data

    summarise_data(options.config, options.output, options.samples, overrides)
